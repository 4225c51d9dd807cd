"""Runs the tests that stand inside rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from audit.model import Connection, Gateway
from audit.ruleset.compiled import Bindings
from audit.ruleset.language import CASE_NOW, SUBJECTS
from audit.ruleset.program import BoundRule, Program
from audit.subjects import Scene, compare, count_groups

if TYPE_CHECKING:
    from audit.ruleset.parse import Case, Given, Rule
    from audit.subjects import Groups


def failing_cases(rule: Rule) -> list[str]:
    """Run a rule's own cases with its own parameters; one line for each that does not come out as it says."""
    lines = []
    for number, case in enumerate(rule.cases):
        came = "finding" if _finds(rule, case) else "pass"
        if came != case.expect:
            lines.append(f'case {number} "{case.name}": expected {case.expect}, came out as {came}')
    return lines


def _finds(rule: Rule, case: Case) -> bool:
    lists = {name: case.lists.get(name, ()) for name in rule.lists}
    bound = BoundRule(rule, Bindings({**rule.params, **case.params}, lists, CASE_NOW))
    program = Program([bound])
    if rule.each == "gateway":
        return bool(program.look(Scene(_build_gateway(case.given[0], ""))).breaches)
    given = [_build_connection(fields, number) for number, fields in enumerate(case.given)]
    if rule.each == "group":
        groups: Groups = {}
        for gateway, connection in given:
            for _bound, chosen in program.look(Scene(gateway, [connection])).members:
                count_groups(rule.keys, chosen, gateway, groups)
        return bool(bound.find_broken(groups.values()))
    if rule.each == "connection":
        return any(program.look(Scene(gateway, [connection])).breaches for gateway, connection in given)
    before = [_build_connection(case.before)] if case.before is not None else []
    gateway = (given or before)[0][0]
    past = {connection.key: connection for _, connection in before}
    changes = tuple(compare(past, [connection for _, connection in given], is_whole=True))
    return bool(program.look(Scene(gateway, changes=changes)).breaches)


# That each value has its field's type was checked when the case was read.


def _build_gateway(given: Given, prefix: str) -> Gateway:
    values = {name: given.get(prefix + name, field.example) for name, field in SUBJECTS["gateway"].items()}
    return Gateway(**values)  # type: ignore[arg-type]


def _build_connection(given: Given, number: int = 0) -> tuple[Gateway, Connection]:
    """Fill a connection with harmless values; of several, each has an id and a marker of its own."""
    gateway = _build_gateway(given, "gateway.")
    own: dict[str, Any] = {name: field.example for name, field in SUBJECTS["connection"].items() if "." not in name}
    own |= {"id": own["id"][:-3] + f"{number + 1:03}", "marker_id": own["marker_id"] + number}
    own |= {name: value for name, value in given.items() if "." not in name}
    return gateway, Connection(*gateway.key, **own, read_in="")
