"""Holds what was read against the rules, one gateway at a time; only the groups that span gateways are remembered."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003  (a field)
from typing import TYPE_CHECKING, Any

import msgspec

from audit.model import ESTATE, FIRST_READING, NOT_ALL_READ, TURNED_OFF, Connection, GatewayRef, build_uid
from audit.ruleset.compiled import Bindings, compile_conditions
from audit.ruleset.explain import Explanation, explain
from audit.ruleset.language import COUNTS, Test
from audit.ruleset.parse import fields_in
from audit.ruleset.program import BoundRule, Program
from audit.subjects import Change, Scene, compare, count_groups, describe
from audit.text import describe_defect
from audit.times import format_time

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from audit.model import Gateway, Reading
    from audit.ruleset.parse import Rule
    from audit.ruleset.policy import Policy, Waiver
    from audit.ruleset.program import Subject
    from audit.subjects import Groups


class Hit(msgspec.Struct, frozen=True):
    """A rule that one subject breaks, as severe as it is there.

    `connection` is a connection's key, `group` the fields that make a group; `gateway` is None where it is about no
    single one. `waiver` is what excuses it; `matching` are the ids of all waivers that match, expired ones too.
    """

    uid: str
    rule: Rule
    gateway: GatewayRef | None
    connection: str | None
    group: dict[str, Any] | None
    explanation: Explanation
    waiver: Waiver | None = None
    matching: tuple[str, ...] = ()


class Verdict(msgspec.Struct, frozen=True):
    """What came of one gateway, or of what spans gateways.

    `hits` by finding uid. `evaluated` and `disabled` are ids of rules: those that could be evaluated, and those that
    the policy turns off here. By id, `unable`: why others could not be, `failed`: the defect by which some broke down.
    """

    hits: Mapping[str, Hit]
    evaluated: frozenset[str]
    unable: Mapping[str, str] = msgspec.field(default_factory=dict)
    disabled: frozenset[str] = frozenset()
    failed: Mapping[str, str] = msgspec.field(default_factory=dict)


def why_not(rule: Rule, reading: Reading, *, is_known: bool) -> str:
    """Say why a reading is not enough for a rule; "" where it is.

    Permissions may be unreadable where connections are not. Of a gateway that was read in part, a count says only that
    there are at least so many: enough for a maximum, for nothing else. `is_known`: there is an earlier reading to tell
    changes by.
    """
    if reading.state not in {"complete", "partial"} or reading.gone:
        return "the gateway was not read"
    if rule.each == "change" and not is_known:
        return FIRST_READING
    if reading.permissions is None and "gateway.permissions" in rule.fields:
        return "its permissions were not read"
    return "it was read in part, so that counts are too low" if not reading.is_whole and _needs_all(rule) else ""


def _needs_all(rule: Rule) -> bool:
    """Whether counts must be whole; not where one has only a maximum, which what was not seen cannot bring down."""
    only = rule.require
    is_maximum = isinstance(only, Test) and only.keyword == "maximum" and len(fields_in(only)) == 1
    return bool((rule.when_fields if is_maximum else rule.fields) & COUNTS)


class Judge:
    """Holds readings against rules, under a policy; each set of rules that is in force somewhere is compiled once."""

    def __init__(self, rules: Sequence[Rule], policy: Policy, now: datetime, idle: Collection[str] = ()) -> None:
        self._rules = rules
        # Ids of rules that cannot be evaluated at all; the policy may turn them off like others.
        self._idle = idle
        self._policy = policy
        self._now = now
        self.about_changes = frozenset(rule.id for rule in rules if rule.each == "change")
        self._in_force: dict[tuple[int, ...], tuple[BoundRule, ...]] = {}
        self._programs: dict[tuple[tuple[int, ...], frozenset[str]], Program] = {}
        bindings = Bindings({}, policy.lists, now)
        self._find_overrides = compile_conditions([(override.match, bindings) for override in policy.overrides])
        self._waivers = {rule.id: tuple(w for w in policy.waivers if w.rule == rule.id) for rule in rules}
        self._find_waivers = {
            rule.id: compile_conditions([(w.match, bindings) for w in waivers], groups=rule.each == "group")
            for rule in rules
            if (waivers := self._waivers[rule.id])
        }
        self._groups: dict[str, Groups] = {rule.id: {} for rule in rules if rule.spans_gateways and rule.id not in idle}
        # Fields that this reading does not tell: no waiver is granted on what was not read.
        self._unknown: frozenset[str] = frozenset()
        # Numbers of the overrides that match some gateway.
        self.overridden: set[int] = set()
        # Ids of the rules about such groups for which some gateway was not read, or not as far as they need.
        self._limited: set[str] = set()

    def judge(
        self, reading: Reading, connections: Sequence[Connection], earlier: Mapping[str, Connection] | None = None
    ) -> Verdict:
        """Evaluate every rule for which this reading is enough.

        `earlier`: the connections of the last complete reading by key, with what was seen since; None without one.
        """
        matching = tuple(number for _, number in self._find_overrides((None,), reading.gateway))
        in_force = self._bind(matching)
        unable = {b.rule.id: why for b in in_force if (why := why_not(b.rule, reading, is_known=earlier is not None))}
        able = [bound for bound in in_force if bound.rule.id not in unable and bound.rule.id not in self._idle]
        changes: Iterable[Change] = ()
        if self.about_changes and earlier is not None:
            changes = compare(earlier, connections, is_whole=reading.is_whole)
        self._unknown = frozenset() if reading.is_whole else COUNTS
        if reading.permissions is None:
            self._unknown |= {"gateway.permissions"}
        hits, failed = self._evaluate(matching, able, Scene(describe(reading), connections, tuple(changes)))
        evaluated = frozenset(bound.rule.id for bound in able) - failed.keys()
        if not reading.gone and reading.state != "out_of_scope":
            self._limited |= self._groups.keys() - (evaluated if reading.is_whole else set())
        disabled = frozenset(rule.id for rule in self._rules) - {bound.rule.id for bound in in_force}
        unable |= dict.fromkeys(failed, "it broke down") | dict.fromkeys(disabled, TURNED_OFF)
        self.overridden.update(matching)
        unable = {name: why for name, why in unable.items() if name not in self._idle}
        return Verdict(hits, evaluated, unable, disabled, failed)

    def judge_groups(self, *, is_whole: bool) -> Verdict:
        """Evaluate, after all gateways, the rules about groups that span them.

        Not `is_whole`: there may be gateways that nobody knows of. Where a gateway was not read completely, a group may
        exceed a maximum, and nothing can be said to hold.
        """
        limited = self._limited if is_whole else self._groups.keys()
        hits: dict[str, Hit] = {}
        failed: dict[str, str] = {}
        for bound in self._bind(()):
            rule = bound.rule
            if rule.id not in self._groups or (rule.id in limited and _needs_all(rule)):
                continue
            self._unknown = COUNTS if rule.id in limited else frozenset()
            try:
                groups = bound.find_broken(self._groups[rule.id].values())
                hits |= {hit.uid: hit for hit in (self._explain(bound, group, None) for group in groups)}
            except Exception as error:  # noqa: BLE001  (one rule must not cost the others)
                failed[rule.id] = describe_defect(error)
        evaluated = self._groups.keys() - limited - failed.keys()
        unable = dict.fromkeys(self._groups.keys() - evaluated, NOT_ALL_READ)
        return Verdict(hits, frozenset(evaluated), unable, failed=failed)

    def _bind(self, matching: tuple[int, ...]) -> tuple[BoundRule, ...]:
        """Bind the rules that apply where these overrides match to the values that are in force there."""
        if matching not in self._in_force:
            overrides = [self._policy.overrides[number] for number in matching]
            applied = filter(None, (self._policy.apply(rule, overrides) for rule in self._rules))
            lists, now = self._policy.lists, self._now
            self._in_force[matching] = tuple(BoundRule(rule, Bindings(params, lists, now)) for rule, params in applied)
        return self._in_force[matching]

    def _evaluate(
        self, matching: tuple[int, ...], able: Sequence[BoundRule], scene: Scene
    ) -> tuple[dict[str, Hit], dict[str, str]]:
        """Return hits by uid, and defects by rule; when a program breaks down, each of its rules is tried alone."""
        key = (matching, frozenset(bound.rule.id for bound in able))
        try:
            if key not in self._programs:
                self._programs[key] = Program(able)
            return self._find_hits(self._programs[key], scene), {}
        except Exception:  # noqa: BLE001  (which rule it was comes out below)
            return self._evaluate_alone(able, scene)

    def _evaluate_alone(self, rules: Iterable[BoundRule], scene: Scene) -> tuple[dict[str, Hit], dict[str, str]]:
        hits: dict[str, Hit] = {}
        failed: dict[str, str] = {}
        for bound in rules:
            try:
                hits |= self._find_hits(Program([bound]), scene)
            except Exception as error:  # noqa: BLE001  (one rule must not cost the others)
                failed[bound.rule.id] = describe_defect(error)
        return hits, failed

    def _find_hits(self, program: Program, scene: Scene) -> dict[str, Hit]:
        sighting = program.look(scene)
        breaches = list(sighting.breaches)
        for bound, members in sighting.members:
            if not bound.rule.spans_gateways:
                groups: Groups = {}
                count_groups(bound.rule.keys, members, scene.gateway, groups)
                breaches += [(bound, group) for group in bound.find_broken(groups.values())]
        hits = [self._explain(bound, subject, scene.gateway) for bound, subject in breaches]
        # Last, as nothing can fail any more that would count them twice.
        for bound, members in sighting.members:
            if bound.rule.spans_gateways:
                count_groups(bound.rule.keys, members, scene.gateway, self._groups[bound.rule.id])
        return {hit.uid: hit for hit in hits}

    def _explain(self, bound: BoundRule, subject: Subject, gateway: Gateway | None) -> Hit:
        rule = bound.rule
        group = {key: subject[key] for key in rule.keys} if isinstance(subject, dict) else None
        connection = subject.key if isinstance(subject, Connection | Change) else None
        about = connection or (gateway.id if gateway else "")
        if isinstance(subject, Change):
            about = f"{about}:{subject.change}"
        elif group is not None:
            about = msgspec.json.encode(list(group.items())).decode()
        waivers = self._waivers[rule.id]
        matching = (
            [waivers[number] for _, number in self._find_waivers[rule.id]((subject,), gateway)] if waivers else []
        )
        matching = [w for w in matching if not rule.full_names(fields_in(w.match)) & self._unknown]
        now = format_time(self._now)
        return Hit(
            uid=build_uid(rule.id, gateway.key if gateway else ESTATE, rule.each, about),
            rule=rule,
            gateway=GatewayRef(gateway.id, gateway.name, gateway.region, gateway.project_id) if gateway else None,
            connection=connection,
            group=group,
            explanation=explain(bound, subject, gateway),
            waiver=next((waiver for waiver in matching if waiver.expires > now), None),
            matching=tuple(waiver.id for waiver in matching),
        )
