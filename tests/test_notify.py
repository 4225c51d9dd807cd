"""What a receiver is told, and when nothing is said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from audit.model import Coverage
from audit.notify import MOST_FINDINGS, Standing, Told, build_payload, decide, plain_message
from tests.builders import NOW_TEXT, RUN_ID, finding


def covered(gateway_id="g1", state="complete") -> Coverage:
    return Coverage("cn-north-4", "p1", gateway_id, "billing", state, "", 3, None)


STANDING = Standing(
    run_id=RUN_ID, now=NOW_TEXT, open={"u1": "high", "u2": "low"}, worst=[finding()], coverage=[covered()],
    rules_idle=0, problems=[], manifest_location="file:///x/manifest.json", manifest_sha256="ab" * 32,
)  # fmt: skip
FIRST = Told("default")


def told(standing: Standing, before: Told = FIRST, **keywords) -> Told:
    decided = decide(before, standing, **keywords)
    assert decided is not None
    return decided[1]


def message(standing: Standing, before: Told = FIRST, **keywords):
    decided = decide(before, standing, **keywords)
    assert decided is not None
    return decided[0]


KNOWN = told(STANDING)
CLEAN = replace(STANDING, open={}, worst=[])
LOST = replace(STANDING, coverage=[covered(state="not_covered")])


def test_the_first_message_is_always_sent():
    """Even when all is clean: it proves the wire."""
    assert message(CLEAN).headline == "clean"
    assert message(STANDING).headline == "2 new; 2 open (1 high, 1 low)"


def test_nothing_is_said_twice():
    """The same truth in a later run is silence."""
    assert decide(KNOWN, replace(STANDING, run_id="another", now="2026-11-23T00:00:00Z")) is None


@pytest.mark.parametrize(
    ("now", "headline"),
    [
        (replace(STANDING, open={**STANDING.open, "u3": "medium"}), "1 new; 3 open (1 high, 1 medium, 1 low)"),
        (replace(STANDING, open={"u1": "high"}), "1 resolved; 1 open (1 high)"),
        (CLEAN, "2 resolved; clean"),
        (replace(STANDING, open={"u1": "critical", "u2": "low"}), "1 more severe; 2 open (1 critical, 1 low)"),
        (LOST, "2 open (1 high, 1 low); 1 gateway not fully covered"),
        (replace(STANDING, coverage=[covered(state="partial")]), "2 open (1 high, 1 low); 1 gateway not fully covered"),
        (replace(LOST, open={}), "2 resolved; nothing open in what could be judged; 1 gateway not fully covered"),
        (replace(CLEAN, rules_idle=1), "2 resolved; nothing open in what could be judged; 1 rule not evaluated"),
    ],
)
def test_every_change_is_told_in_one_message(now, headline):
    """New, resolved, more severe, coverage lost: and "clean" is only said of what was read and judged."""
    assert message(now, KNOWN).headline == headline
    assert decide(told(now, KNOWN), now) is None, "once told, it is silence"


def test_a_lower_severity_is_no_news():
    """Only what gets worse is worth a message."""
    assert decide(KNOWN, replace(STANDING, open={"u1": "medium", "u2": "low"})) is None


def test_regained_coverage_is_told():
    """Silence after a gap would leave the receiver in doubt."""
    lost = told(LOST, KNOWN)
    assert message(STANDING, lost).changes["gateways regained"] == 1


def test_what_is_out_of_scope_is_neither_lost_nor_regained():
    """A run limited to other gateways says nothing about this one."""
    lost = told(LOST, KNOWN)
    elsewhere = replace(STANDING, coverage=[covered(state="out_of_scope")])
    assert decide(lost, elsewhere) is None
    assert decide(KNOWN, elsewhere) is None


def test_severities_below_the_receivers_own_are_not_told():
    """But coverage always is."""
    high = told(STANDING, min_severity="high")
    assert high.findings == {"u1": "high"}
    assert decide(high, replace(STANDING, open={"u1": "high", "u9": "medium"}), min_severity="high") is None
    assert decide(high, LOST, min_severity="high") is not None


def test_the_delivery_id_names_what_is_told_not_when():
    """A retry or a rerun repeats it; what is told later never does, even where the truth is the same again."""
    assert message(STANDING).delivery_id == message(replace(STANDING, run_id="another", now="later")).delivery_id
    clean = told(CLEAN, KNOWN)
    again = message(STANDING, clean)
    assert again.delivery_id not in {KNOWN.delivery_id, clean.delivery_id}
    assert message(STANDING, Told("other")).delivery_id != KNOWN.delivery_id
    assert message(LOST).delivery_id != KNOWN.delivery_id


def test_a_message_names_the_worst_and_counts_the_rest():
    """Never dropped in silence; some of those resolved are named too."""
    worst = [finding(connection_id=f"c{n}") for n in range(40)]
    resolved = [
        finding(connection_id=f"r{n}", status="resolved", resolution="fixed", resolved_at=NOW_TEXT) for n in range(9)
    ]
    many = replace(STANDING, open={f"u{n}": "medium" for n in range(100)}, worst=[*worst, *resolved])
    due = message(many)
    assert len(due.findings) == MOST_FINDINGS
    assert sum(1 for f in due.findings if not f.is_open) == 5
    assert due.left_out == 100 - (MOST_FINDINGS - 5)
    assert build_payload(due, 2)["findings_left_out"] == 98


def test_a_message_carries_the_anchors_of_the_evidence():
    """Run id, manifest hash and place, coverage, problems."""
    due = message(replace(LOST, problems=["something"]))
    payload = build_payload(due)
    assert payload["run_id"] == RUN_ID
    assert payload["manifest"] == {"location": "file:///x/manifest.json", "sha256": "ab" * 32}
    assert [entry["gateway_id"] for entry in payload["not_covered"]] == ["g1"]
    assert payload["problems"] == ["something"]


def test_a_run_that_could_not_work_is_told_plainly():
    """The same trouble keeps the same id, so that receivers can tell a repetition."""
    first = plain_message("default", "r1", NOW_TEXT, "the store is gone")
    assert first.headline == "audit failed: the store is gone"
    assert first.delivery_id == plain_message("default", "r2", "later", "the store is gone").delivery_id
    assert first.delivery_id != plain_message("default", "r1", NOW_TEXT, "another trouble").delivery_id
