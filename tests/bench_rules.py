"""What evaluating rules costs beside a loop written by hand and beside `jsonschema`, in one process on this machine.

Run by `python -m tests.bench_rules`. CPU seconds, the least of a few runs: noise only ever adds.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audit.model import Connection, Gateway
from audit.ruleset.compiled import Bindings
from audit.ruleset.language import CONNECTION_STATUSES
from audit.ruleset.load import RuleSet, load_rule_set
from audit.ruleset.program import BoundRule
from tests.builders import compile_rules
from tests.test_rules_oracle import DIALECT, Values, desugar

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECTIONS = 100_000
SAMPLE = 500
NOW = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)
GATEWAY = Gateway("cn-north-4", "p1", "g1", "prod-billing", "Running")
APPROVED = frozenset(f"{number:032x}" for number in range(50))
# Five rules: (when, require).
PREDICATES: list[tuple[Any, Any]] = [
    ({"status": "pendingAcceptance"}, {"status_since": {"maxAge": "PT1H"}}),
    ({"status": "accepted"}, {"domain_id": {"enum": {"list": "approved"}}}),
    (True, {"status": {"not": "failed"}}),
    (True, {"id": {"not": None}, "marker_id": {"not": None}, "created_at": {"not": None}}),
    ({"status": ["creating", "deleting"]}, {"status_since": {"maxAge": "P1D"}}),
]
VALUES = Values({}, {"approved": tuple(sorted(APPROVED))})


def ago(**distance: float) -> str:
    return (NOW - timedelta(**distance)).strftime("%Y-%m-%dT%H:%M:%SZ")


def connection(number: int) -> Connection:
    """Nine in ten are accepted; about one in thirty breaks a rule."""
    status = CONNECTION_STATUSES[number // 10 % 6] if number % 10 == 0 else "accepted"
    since, domain = ago(minutes=number % 90), f"{number % 51:032x}"
    return Connection(*GATEWAY.key, f"c{number}", number, since, since, domain, status, since, "r")


def by_hand(connections: list[Connection], hour: str, day: str) -> list[tuple[Connection, int]]:
    """The same five checks as anybody would write them."""
    hits = []
    for c in connections:
        if c.status == "pendingAcceptance" and (c.status_since is None or c.status_since < hour):
            hits.append((c, 0))
        if c.status == "accepted" and c.domain_id not in APPROVED:
            hits.append((c, 1))
        if c.status == "failed":
            hits.append((c, 2))
        if c.id is None or c.marker_id is None or c.created_at is None:
            hits.append((c, 3))
        if c.status in {"creating", "deleting"} and (c.status_since is None or c.status_since < day):
            hits.append((c, 4))
    return hits


def by_jsonschema(validators: list[tuple[Any, Any]], records: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [
        (record["id"], number)
        for record in records
        for number, (when, require) in enumerate(validators)
        if when.is_valid(record) and not require.is_valid(record)
    ]


def write_rules(directory: Path, count: int) -> None:
    """Write files of rules: the five again and again, each under a name of its own."""
    tests: list[Any] = [{"name": expect, "given": {}, "expect": expect} for expect in ("finding", "pass")]
    for number in range(count):
        when, require = PREDICATES[number % len(PREDICATES)]
        rule = {"id": f"rule-{number:03}", "title": "t", "severity": "low", "when": when, "require": require}
        (directory / f"rule-{number:03}.json").write_text(json.dumps({**rule, "tests": tests}))
    (directory / "policy.json").write_text(json.dumps({"lists": VALUES.lists}))


def bind(rules: RuleSet) -> list[BoundRule]:
    return [BoundRule(rule, Bindings(rule.params, rules.policy.lists, NOW)) for rule in rules.rules]


def least(work: Callable[[], object], runs: int = 7) -> float:
    """CPU seconds of the quickest run."""
    costs = []
    for _ in range(runs):
        begin = time.process_time()
        work()
        costs.append(time.process_time() - begin)
    return min(costs)


def report(name: str, cost: float, floor: float) -> None:
    print(f"  {name:34} {cost * 1000:9.1f} ms CPU {cost / floor:8.2f} x as many checks by hand")


def main() -> None:
    """Measure, having made sure that all three say the same."""
    rows = [connection(number) for number in range(CONNECTIONS)]
    hour, day = ago(hours=1), ago(days=1)
    print(f"{CONNECTIONS:,} connections, 5 rules")
    floor = least(lambda: by_hand(rows, hour, day))
    report("by hand", floor, floor)
    validators = [(DIALECT(desugar(when, VALUES)), DIALECT(desugar(must, VALUES))) for when, must in PREDICATES]
    records = [{name: getattr(row, name) for name in row.__struct_fields__} for row in rows[:SAMPLE]]
    expected = by_hand(rows, hour, day)
    for count in (5, 20, 50):
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            write_rules(directory, count)
            find = compile_rules(bind(load_rule_set(directory, None)))
            if count == len(PREDICATES):
                assert find(rows, GATEWAY) == expected
            # The loop by hand is one of five checks: of more rules, as many such loops are the like.
            report(f"compiled, {count} rules", least(lambda: find(rows, GATEWAY)), floor * count / len(PREDICATES))  # noqa: B023
            loading = least(lambda: load_rule_set(directory, None))  # noqa: B023
            both = least(lambda: compile_rules(bind(load_rule_set(directory, None))))  # noqa: B023
            print(f"    from files: {loading * 1000:.1f} ms to load and check, {both * 1000:.1f} ms with compiling")
    assert by_jsonschema(validators, records) == [(row.id, number) for row, number in by_hand(rows[:SAMPLE], hour, day)]
    scaled = least(lambda: by_jsonschema(validators, records), runs=3) * CONNECTIONS / SAMPLE
    report(f"jsonschema, 5 rules ({SAMPLE} scaled)", scaled, floor)
    print(f"Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
