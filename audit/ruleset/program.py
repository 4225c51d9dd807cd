"""Rules bound to the values in force, and held against a gateway: which subjects break which rule."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003  (fields)
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from audit.ruleset.compiled import Bindings, Find, compile_conditions
from audit.ruleset.language import All, Not, Predicate, Test, tests_of
from audit.ruleset.parse import Rule  # noqa: TC001  (a field)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from audit.model import Connection, Gateway
    from audit.subjects import Change, Group, Scene

    Subject: TypeAlias = "Connection | Gateway | Change | Group"


class BoundRule(msgspec.Struct, frozen=True, dict=True):
    """A rule with the values that are in force for it."""

    rule: Rule
    bindings: Bindings

    @cached_property
    def expected(self) -> Any:  # noqa: ANN401  (any JSON)
        """The requirement as it stands in the rule, with the parameters filled in."""
        return self._fill(self.rule.require_json)

    @property
    def condition(self) -> tuple[Predicate, Bindings]:
        """What a subject that breaks it meets; of a rule about groups, what the connections meet that make them."""
        rule = self.rule
        return rule.when if rule.each == "group" else All((rule.when, Not(rule.require))), self.bindings

    def met_by(self, subject: Subject, gateway: Gateway | None) -> frozenset[Test]:
        """Tell which single conditions of the requirement hold for a subject."""
        tests, find = self._single
        return frozenset(tests[number] for _, number in find((subject,), gateway))

    @cached_property
    def _single(self) -> tuple[Sequence[Test], Find]:
        tests = tests_of(self.rule.require)
        return tests, compile_conditions([(test, self.bindings) for test in tests], groups=self.rule.each == "group")

    @cached_property
    def _of_groups(self) -> Find:
        return compile_conditions([(Not(self.rule.require), self.bindings)], groups=True)

    def find_broken(self, groups: Iterable[Group]) -> list[Group]:
        """Find the groups that break a rule about groups."""
        return [group for group, _number in self._of_groups(groups, None)]

    def _fill(self, value: object) -> object:
        if isinstance(value, dict):
            if value.keys() == {"param"}:
                return self.bindings.params[value["param"]]
            return {key: self._fill(inner) for key, inner in value.items()}
        return [self._fill(inner) for inner in value] if isinstance(value, list) else value


class Sighting(msgspec.Struct, frozen=True):
    """What a program saw in one gateway: subjects that break a rule, and the connections that rules make groups of."""

    breaches: Sequence[tuple[BoundRule, Subject]]
    members: Sequence[tuple[BoundRule, Sequence[Connection]]]


class Program:
    """Rules that are in force together, compiled: one function for each kind of subject."""

    def __init__(self, rules: Sequence[BoundRule]) -> None:
        def about(*subjects: str) -> tuple[list[BoundRule], Find]:
            chosen = [bound for bound in rules if bound.rule.each in subjects]
            return chosen, compile_conditions([bound.condition for bound in chosen])

        self._connections = about("connection", "group")
        self._gateways = about("gateway")
        self._changes = about("change")

    def look(self, scene: Scene) -> Sighting:
        """Hold one gateway against the rules."""
        breaches: list[tuple[BoundRule, Subject]] = []
        members: dict[int, list[Connection]] = {}
        rules, find = self._connections
        for connection, number in find(scene.connections, scene.gateway):
            if rules[number].rule.each == "group":
                members.setdefault(number, []).append(connection)
            else:
                breaches.append((rules[number], connection))
        for (others, find_other), subjects in ((self._gateways, [scene.gateway]), (self._changes, scene.changes)):
            breaches += [(others[number], subject) for subject, number in find_other(subjects, scene.gateway)]
        return Sighting(breaches, [(rules[number], chosen) for number, chosen in members.items()])
