"""The life of findings: what was found, was known, or could not be looked at."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from audit.evaluate import Hit, Verdict
from audit.model import Finding, GatewayRef, Reading, build_uid
from audit.reconcile import Run, Slice, carry, keep, reconcile, resolve_in_gateway, vanished
from audit.ruleset.explain import Explanation
from audit.ruleset.language import TRUE
from audit.ruleset.parse import Rule
from tests.builders import GATEWAY, NOW_TEXT, RUN_ID, finding

RULE = Rule(
    id="r1", title="new title", severity="high", description="", remediation="new advice", controls={"F": ["1"]},
    params={}, each="connection",
    keys=(), when=TRUE, require=TRUE, require_json=True, cases=(),
)  # fmt: skip
RUN = Run(RUN_ID, NOW_TEXT, frozenset({"r1"}), frozenset({"r1"}), all_rules=True)
REF = GatewayRef(GATEWAY.id, GATEWAY.name, GATEWAY.region, GATEWAY.project_id)
COMPLETE = Reading(GATEWAY, "complete")
RESOLVED: dict[str, Any] = {"status": "resolved", "resolution": "fixed", "resolved_at": "2026-11-21T08:15:00Z"}


def hits(*connections: str, evaluated=("r1", "r2", "gone-rule")) -> Verdict:
    explanation = Explanation("why", {"expected": 1}, {"actual": 2})
    found = [
        Hit(build_uid("r1", GATEWAY.key, "connection", name), RULE, REF, name, None, explanation)
        for name in connections
    ]
    return Verdict({hit.uid: hit for hit in found}, frozenset(evaluated))


def merge(run: Run, reading: Reading, present: set[str], deleted: set[str], verdict: Verdict, previous: Any) -> Slice:
    """What became of a gateway's findings."""
    return reconcile(run, verdict.hits, previous, resolve_in_gateway(run, reading, present, deleted, verdict))


def one(run=RUN, reading=COMPLETE, *, present=("c1",), deleted=(), found=(), previous=()) -> Finding:
    findings = merge(run, reading, set(present), set(deleted), hits(*found), previous).findings
    assert len(findings) == 1
    return findings[0]


def test_what_was_never_seen_is_new():
    """A first sight dates the finding to this run."""
    seen = one(found=["c1"])
    assert (seen.status, seen.first_seen, seen.last_seen, seen.occurrences) == ("new", NOW_TEXT, NOW_TEXT, 1)
    assert (seen.message, seen.expected, seen.actual) == ("why", {"expected": 1}, {"actual": 2})
    assert (seen.title, seen.severity, seen.remediation, seen.controls) == (
        "new title",
        "high",
        "new advice",
        {"F": ["1"]},
    )
    assert seen.run_id == RUN_ID


@pytest.mark.parametrize("before", ["new", "ongoing", "reopened", "unverified", "waived"])
def test_what_was_open_is_ongoing_with_its_first_date_and_the_rules_present_words(before):
    """It keeps uid and first_seen; title, severity and message follow the rule as it is now."""
    known = finding(status=before)
    seen = one(found=["c1"], previous=[known])
    assert (seen.uid, seen.status, seen.first_seen) == (known.uid, "ongoing", known.first_seen)
    assert (seen.last_seen, seen.occurrences, seen.title, seen.severity) == (NOW_TEXT, 3, "new title", "high")


def test_what_was_resolved_and_comes_back_is_reopened():
    """It is the same finding: first_seen stays, the resolution goes."""
    seen = one(found=["c1"], previous=[finding(**RESOLVED)])
    assert (seen.status, seen.resolution, seen.resolved_at) == ("reopened", None, None)
    assert (seen.first_seen, seen.occurrences) == ("2026-11-20T08:15:00Z", 3)


def test_a_connection_that_is_still_there_and_breaks_no_rule_is_fixed():
    """Absence of a hit resolves where the gateway was read completely."""
    seen = one(previous=[finding()])
    assert (seen.status, seen.resolution, seen.resolved_at) == ("resolved", "fixed", NOW_TEXT)
    assert (seen.last_seen, seen.run_id) == ("2026-11-21T08:15:00Z", RUN_ID)


def test_a_vanished_connection_is_deleted_only_where_a_query_proved_it():
    """Without the proof it stays open, unverified."""
    assert one(present=[], deleted=["c1"], previous=[finding()]).resolution == "resource_deleted"
    assert one(present=[], previous=[finding()]).status == "unverified"


def test_a_connection_without_id_that_is_gone_is_fixed():
    """It cannot be asked for by id, and the record as it was is there no more."""
    assert one(present=[], previous=[finding(connection_id="sha256:ab")]).resolution == "fixed"


@pytest.mark.parametrize("state", ["partial", "not_covered"])
def test_a_gateway_that_was_not_read_completely_resolves_nothing(state):
    """Unverified changes the status and nothing else."""
    known = finding(status="ongoing")
    reading = replace(COMPLETE, state=state)
    for present, deleted in [(["c1"], []), ([], ["c1"]), ([], [])]:
        seen = one(reading=reading, present=present, deleted=deleted, previous=[known])
        assert seen == msgspec.structs.replace(known, status="unverified")


def test_a_partial_reading_still_finds():
    """What was seen is evaluated."""
    assert one(reading=replace(COMPLETE, state="partial"), found=["c1"]).status == "new"


def test_a_gateway_that_is_gone_takes_its_connections_along():
    """Proved by the API's own answer that the gateway does not exist."""
    assert one(reading=replace(COMPLETE, gone=True), present=[], previous=[finding()]).resolution == "resource_deleted"


def test_a_finding_out_of_scope_stays_to_the_letter():
    """Another gateway or another rule than this run's: carried over and counted as such."""
    known = [finding(status="ongoing"), finding("r2", status="new"), finding("r3", **RESOLVED)]
    slice_ = reconcile(RUN, {}, known, keep)
    assert sorted(slice_.findings, key=lambda f: f.rule_id) == known
    assert slice_.carried == {f.uid for f in known}

    limited = Run(RUN_ID, NOW_TEXT, frozenset({"r1"}), frozenset({"r1", "r2"}), all_rules=False)
    slice_ = merge(limited, COMPLETE, {"c1"}, set(), hits(), known)
    by_rule = {f.rule_id: f for f in slice_.findings}
    assert by_rule["r1"].status == "resolved"
    assert by_rule["r2"] == known[1]
    assert by_rule["r3"] == known[2], "a removed rule is in scope of full runs only"
    assert slice_.carried == {known[1].uid, known[2].uid}


def test_a_rule_that_is_gone_resolves_its_findings_in_a_full_run():
    """And only where the gateway was read: an unread gateway resolves nothing."""
    assert one(previous=[finding("gone-rule")]).resolution == "rule_removed"
    unread = replace(COMPLETE, state="not_covered")
    assert one(reading=unread, previous=[finding("gone-rule")]).status == "unverified"


def test_a_rule_that_is_not_configured_says_neither_yes_nor_no():
    """Its findings are unverified until it is evaluated again."""
    (seen,) = merge(RUN, COMPLETE, {"c1"}, set(), hits(evaluated=()), [finding()]).findings
    assert seen.status == "unverified"


def test_resolved_findings_are_remembered_for_ninety_days():
    """The line stays as it was, then goes; what comes back later is new."""
    kept = finding(**{**RESOLVED, "resolved_at": "2026-08-24T08:15:00Z"})
    assert one(previous=[kept]) == kept
    forgotten = finding(**{**RESOLVED, "resolved_at": "2026-08-24T08:14:59Z"})
    assert merge(RUN, COMPLETE, {"c1"}, set(), hits(), [forgotten]).findings == ()


def test_findings_come_out_in_one_order_whatever_the_order_they_went_in():
    """By rule, then connection: runs can be compared line by line."""
    previous = [finding("r2", "c2"), finding("r1", "c9"), finding("r2", "c1")]
    forwards = merge(RUN, COMPLETE, {"c1"}, set(), hits("c5", "c3"), previous).findings
    backwards = merge(RUN, COMPLETE, {"c1"}, set(), hits("c3", "c5"), previous[::-1]).findings
    assert forwards == backwards
    assert [(f.rule_id, f.connection) for f in forwards] == [
        ("r1", "c3"), ("r1", "c5"), ("r1", "c9"), ("r2", "c1"), ("r2", "c2"),
    ]  # fmt: skip


def test_vanished_names_open_connections_that_can_be_asked_for():
    """Not what is present, not what is resolved, not what has no id."""
    previous = [
        finding(connection_id="gone"), finding("r2", "gone"), finding(connection_id="here"),
        finding(connection_id="done", **RESOLVED), finding(connection_id="sha256:ab"),
    ]  # fmt: skip
    assert vanished(previous, {"here"}) == ["gone"]


def test_findings_of_a_gateway_that_nobody_knows_are_carried():
    """What is open there is unverified, never dropped."""
    known = [finding(), finding("r2", **RESOLVED)]
    assert carry(RUN, known).findings == (msgspec.structs.replace(known[0], status="unverified"), known[1])
