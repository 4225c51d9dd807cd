"""Turns a set of rules into one Python function, so that evaluating costs little more than looking at each field.

Text that a person wrote enters the function only as a bound object (a value of its globals), never as code: the tree
is built from our own templates, every name in it is ours, and builtins are out of its reach.
"""

from __future__ import annotations

import ast
import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence  # noqa: TC003  (dataclass fields)
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003  (a dataclass field)
from typing import TYPE_CHECKING, Any

from audit.ruleset.language import AGES, KEYWORDS, All, Not, Predicate, Ref, Test, tests_of
from audit.times import format_time, parse_duration

if TYPE_CHECKING:
    from audit.model import Connection, Gateway
    from audit.ruleset.language import Scalar
    from audit.ruleset.parse import Rule


@dataclass(frozen=True)
class Bindings:
    """What the names in a rule stand for in this run."""

    params: Mapping[str, Scalar]
    lists: Mapping[str, tuple[str, ...]]
    now: datetime

    def written(self, value: object) -> Any:  # noqa: ANN401  (a JSON value)
        """The value as a person would write it: parameters replaced; lists and fields stay as they are named."""
        if isinstance(value, Ref) and value.kind == "param":
            return self.params[value.name]
        return value

    def constant(self, test: Test) -> Any:  # noqa: ANN401  (whatever the keyword's test compares with)
        """The object that `k` is in the test of a keyword. Not for a value taken from another field."""
        value = self.written(test.value)
        if test.keyword in AGES:
            try:
                return format_time(self.now - parse_duration(value))
            except OverflowError:  # before year 1
                return ""
        if test.keyword == "like":
            # fnmatch's patterns never backtrack twice over the same text; [ is no special sign in our language.
            return re.compile(fnmatch.translate(value.replace("[", "[[]"))).match
        if test.keyword == "enum":
            return frozenset(self.lists[value.name] if isinstance(value, Ref) else value)
        return value


@dataclass(frozen=True)
class BoundRule:
    """A rule with the values that are in force for it."""

    rule: Rule
    bindings: Bindings


Hits = list[tuple["Connection", int]]


@dataclass(frozen=True)
class Compiled:
    """`find(connections, gateway)` returns each connection that breaks a rule with the number of that rule."""

    rules: tuple[BoundRule, ...]
    find: Callable[[Sequence[Connection], Gateway], Hits]


def compile_rules(rules: Sequence[BoundRule]) -> Compiled:
    """Fuse rules about connections into one function."""
    builder = _Builder()
    checks = [builder.check(number, bound) for number, bound in enumerate(rules)]
    module = ast.parse(
        "def find(connections, gateway):\n"
        "    hits = []\n"
        "    hit = hits.append\n"
        "    for connection in connections:\n"
        "        pass\n"
        "    return hits\n"
    )
    function = module.body[0]
    assert isinstance(function, ast.FunctionDef)  # noqa: S101  (our own template)
    loop = function.body[2]
    assert isinstance(loop, ast.For)  # noqa: S101
    function.body[2:2] = [statement for name, statement in builder.loads.items() if name.startswith("gateway.")]
    loop.body[:] = [statement for name, statement in builder.loads.items() if not name.startswith("gateway.")]
    loop.body += checks or [ast.Pass()]
    scope: dict[str, Any] = {"__builtins__": {}, **builder.constants}
    exec(compile(ast.fix_missing_locations(module), "<rules>", "exec"), scope)  # noqa: S102  (see the module's docstring)
    return Compiled(tuple(rules), scope["find"])


def test_function(keyword: str) -> Callable[[Any, Any], bool]:
    """The test of one keyword as a function of field and constant, for who has only a few subjects to look at."""
    return _FUNCTIONS[keyword]


_TEMPLATES = {name: ast.parse(keyword.test, mode="eval").body for name, keyword in KEYWORDS.items()}
_FUNCTIONS: dict[str, Callable[[Any, Any], bool]] = {
    name: eval(f"lambda x, k: {keyword.test}")  # noqa: S307  (our own table)
    for name, keyword in KEYWORDS.items()
}


class _Builder:
    """Collects the constants and field loads that the checks need."""

    def __init__(self) -> None:
        self.constants: dict[str, Any] = {}
        self.loads: dict[str, ast.stmt] = {}

    def check(self, number: int, bound: BoundRule) -> ast.stmt:
        """`if <when> and not <require>: hit((connection, number))`."""
        rule, bindings = bound.rule, bound.bindings
        statement = ast.parse(f"if 0: hit((connection, {number}))").body[0]
        assert isinstance(statement, ast.If)  # noqa: S101
        broken = ast.UnaryOp(ast.Not(), self._expression(rule.require, bindings))
        statement.test = ast.BoolOp(ast.And(), [self._expression(rule.when, bindings), broken])
        return statement

    def _expression(self, predicate: Predicate, bindings: Bindings) -> ast.expr:
        if isinstance(predicate, Test):
            return self._test(predicate, bindings)
        if isinstance(predicate, Not):
            return ast.UnaryOp(ast.Not(), self._expression(predicate.term, bindings))
        if not predicate.terms:
            return ast.Constant(isinstance(predicate, All))
        terms = [self._expression(term, bindings) for term in predicate.terms]
        if len(terms) == 1:
            return terms[0]
        return ast.BoolOp(ast.And() if isinstance(predicate, All) else ast.Or(), terms)

    def _test(self, test: Test, bindings: Bindings) -> ast.expr:
        keyword = KEYWORDS[test.keyword]
        field = self._load(test.field)
        if isinstance(test.value, Ref) and test.value.kind == "field":
            other = self._load(test.value.name)
            expression = _fill(_TEMPLATES[test.keyword], {"x": field, "k": other})
            if keyword.null_safe:
                return expression
            return ast.BoolOp(ast.And(), [_fill(_NOT_NULL, {"x": other}), expression])
        name = f"k{len(self.constants)}"
        self.constants[name] = bindings.constant(test)
        return _fill(_TEMPLATES[test.keyword], {"x": field, "k": name})

    def _load(self, field: str) -> str:
        """Name the local variable that holds a field; names of fields come from our own table."""
        owner, _, attribute = field.rpartition(".")
        name = f"{owner or 'connection'}_{attribute}"
        self.loads[field] = ast.parse(f"{name} = {owner or 'connection'}.{attribute}").body[0]
        return name


class _Fill(ast.NodeTransformer):
    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self._names[node.id], ast.Load())


def _fill(template: ast.expr, names: Mapping[str, str]) -> ast.expr:
    copy = ast.parse(ast.unparse(template), mode="eval").body
    filled = _Fill(names).visit(copy)
    assert isinstance(filled, ast.expr)  # noqa: S101
    return filled


_NOT_NULL = ast.parse("x is not None", mode="eval").body

__all__ = ["Bindings", "BoundRule", "Compiled", "compile_rules", "test_function", "tests_of"]
