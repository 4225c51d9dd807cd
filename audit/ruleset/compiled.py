"""Turns a set of rules into one Python function, so that evaluating costs little more than looking at each field.

What a person wrote never becomes code: the source is put together from our own templates, names of fields come from
our own table, every value is an object that the function is given under a name of ours, and it has no builtins.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping  # noqa: TC003  (a field)
from datetime import datetime  # noqa: TC003  (a field)
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from audit.ruleset.language import KEYWORDS, All, Not, Predicate, Ref, Test
from audit.times import format_time, parse_distance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from audit.model import Gateway
    from audit.ruleset.language import Scalar

# Takes subjects and their gateway; returns each one for which a condition holds, with the number of that condition.
Find: TypeAlias = "Callable[[Iterable[Any], Gateway | None], list[tuple[Any, int]]]"


class Bindings(msgspec.Struct, frozen=True):
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


def compile_conditions(conditions: Iterable[tuple[Predicate, Bindings]], *, groups: bool = False) -> Find:
    """Fuse conditions on one kind of subject into one function, which finds the subjects for which they hold.

    Fields are attributes of a subject; `groups` are mappings, which have their gateway's fields themselves.
    """
    writer = _Writer(groups)
    lines = [
        f"if {writer.condition(predicate, bindings)}: hit((subject, {number}))"
        for number, (predicate, bindings) in enumerate(conditions)
    ]
    source = "\n".join(
        [
            # Constants as defaults are locals: quicker than globals.
            f"def find(subjects, gateway, {', '.join(f'{name}={name}' for name in writer.constants)}):",
            *(f"    {line}" for line in writer.before_loop),
            "    hits = []",
            "    hit = hits.append",
            "    for subject in subjects:",
            *(f"        {line}" for line in [*writer.in_loop, *lines, "pass"]),
            "    return hits",
        ]
    )
    scope: dict[str, Any] = {"__builtins__": {}, **writer.constants}
    exec(source, scope)  # noqa: S102  (see the module's docstring)
    find: Find = scope["find"]
    return find


class _Writer:
    """Writes conditions as Python, and collects the constants and the fields that they need."""

    def __init__(self, groups: bool) -> None:
        self._groups = groups
        self.constants: dict[str, Any] = {}
        # Statements that load fields into locals, each once.
        self.before_loop: dict[str, None] = {}
        self.in_loop: dict[str, None] = {}

    def condition(self, predicate: Predicate, bindings: Bindings) -> str:
        if isinstance(predicate, Test):
            return f"({self._test(predicate, bindings)})"
        if isinstance(predicate, Not):
            return f"(not {self.condition(predicate.term, bindings)})"
        every = isinstance(predicate, All)
        terms = [self.condition(term, bindings) for term in predicate.terms]
        return f"({(' and ' if every else ' or ').join(terms) or every})"

    def _test(self, test: Test, bindings: Bindings) -> str:
        keyword, wanted = KEYWORDS[test.keyword], bindings.constant(test)
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
        name = field.replace(".", "_")
        if self._groups:
            self.in_loop[f"{name} = subject[{field!r}]"] = None
        elif field.startswith("gateway."):
            self.before_loop[f"{name} = {field}"] = None
        else:
            name = f"subject_{name}"
            self.in_loop[f"{name} = subject.{field}"] = None
        return name
