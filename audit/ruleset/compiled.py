"""Turns a set of rules into one Python function, so that evaluating costs little more than looking at each field.

What a person wrote never becomes code: the source is put together from our own templates, names of fields come from
our own table, every value is an object that the function is given under a name of ours, and it has no builtins.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence  # noqa: TC003  (dataclass fields)
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003  (a dataclass field)
from functools import cached_property
from typing import TYPE_CHECKING, Any

from audit.ruleset.language import KEYWORDS, All, Not, Predicate, Ref, Test
from audit.times import format_time, parse_distance

if TYPE_CHECKING:
    from audit.model import Connection, Gateway
    from audit.ruleset.language import Scalar
    from audit.ruleset.parse import Rule

    Subject = Connection | Gateway
    Hits = list[tuple[Any, int]]


@dataclass(frozen=True)
class Bindings:
    """What the names in a rule stand for in this run."""

    params: Mapping[str, Scalar]
    lists: Mapping[str, tuple[str, ...]]
    now: datetime

    def written(self, value: object) -> Any:  # noqa: ANN401  (a JSON value)
        """The value as a person would write it: parameters replaced; lists and fields stay as they are named."""
        return self.params[value.name] if isinstance(value, Ref) and value.kind == "param" else value

    def constant(self, test: Test) -> Any:  # noqa: ANN401  (whatever the keyword's test compares with)
        """The object that `k` is in a keyword's test; where it is another field, the name of that."""
        value, takes = self.written(test.value), KEYWORDS[test.keyword].takes
        if takes == "duration":
            return format_time(self.now - parse_distance(value))
        if takes == "glob":
            # fnmatch's patterns never try the same text twice; [ is no special sign in our language.
            return re.compile(fnmatch.translate(value.replace("[", "[[]"))).match
        if takes == "values" and not (isinstance(value, Ref) and value.kind == "field"):
            return frozenset(self.lists[value.name] if isinstance(value, Ref) else value)
        return value


@dataclass(frozen=True)
class BoundRule:
    """A rule with the values that are in force for it."""

    rule: Rule
    bindings: Bindings

    @cached_property
    def constants(self) -> Mapping[Test, Any]:
        """What its conditions compare with."""
        return {test: self.bindings.constant(test) for test in self.rule.tests}

    @cached_property
    def expected(self) -> Any:  # noqa: ANN401  (any JSON)
        """The requirement as it stands in the rule, with the parameters filled in."""
        return self._fill(self.rule.require_json)

    def _fill(self, value: object) -> object:
        if isinstance(value, dict):
            if value.keys() == {"param"}:
                return self.bindings.params[value["param"]]
            return {key: self._fill(inner) for key, inner in value.items()}
        return [self._fill(inner) for inner in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Compiled:
    """`find(subjects, gateway)` returns each subject that breaks a rule with the number of that rule."""

    rules: tuple[BoundRule, ...]
    source: str
    find: Callable[[Sequence[Subject], Gateway], Hits]


def compile_rules(rules: Sequence[BoundRule]) -> Compiled:
    """Fuse rules about one kind of subject into one function."""
    writer = _Writer()
    checks = [
        f"if {writer.condition(bound.rule.when, bound)} and not {writer.condition(bound.rule.require, bound)}:"
        f" hit((subject, {number}))"
        for number, bound in enumerate(rules)
    ]
    own = [line for field, line in writer.loads.items() if "." not in field]
    source = "\n".join(
        [
            # Constants as defaults are locals: quicker than globals.
            f"def find(subjects, gateway, {', '.join(f'{name}={name}' for name in writer.constants)}):",
            *(f"    {line}" for field, line in writer.loads.items() if "." in field),
            "    hits = []",
            "    hit = hits.append",
            "    for subject in subjects:",
            *(f"        {line}" for line in [*own, *checks, "pass"]),
            "    return hits",
        ]
    )
    scope: dict[str, Any] = {"__builtins__": {}, **writer.constants}
    exec(source, scope)  # noqa: S102  (see the module's docstring)
    return Compiled(tuple(rules), source, scope["find"])


class _Writer:
    """Writes conditions as Python, and collects the constants and the fields that they need."""

    def __init__(self) -> None:
        self.constants: dict[str, Any] = {}
        self.loads: dict[str, str] = {}

    def condition(self, predicate: Predicate, bound: BoundRule) -> str:
        if isinstance(predicate, Test):
            return f"({self._test(predicate, bound)})"
        if isinstance(predicate, Not):
            return f"(not {self.condition(predicate.term, bound)})"
        every = isinstance(predicate, All)
        terms = [self.condition(term, bound) for term in predicate.terms]
        return f"({(' and ' if every else ' or ').join(terms) or every})"

    def _test(self, test: Test, bound: BoundRule) -> str:
        keyword, wanted = KEYWORDS[test.keyword], bound.constants[test]
        x = self._local(test.field)
        if wanted is None:
            return f"{x} is None"
        guarded = [x] if keyword.needs_value else []
        if isinstance(wanted, Ref):
            k = self._local(wanted.name)
            guarded += [k] if keyword.needs_value or keyword.takes == "values" else []
        else:
            k = f"k{len(self.constants)}"
            self.constants[k] = wanted
        guards = [f"{name} is not None" for name in guarded]
        return " and ".join([*guards, keyword.test.format(x=x, k=k)])

    def _local(self, field: str) -> str:
        """Name the local variable that holds a field."""
        owner, _, attribute = field.rpartition(".")
        owner = owner or "subject"
        name = f"{owner}_{attribute}"
        self.loads[field] = f"{name} = {owner}.{attribute}"
        return name
