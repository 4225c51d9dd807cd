"""What a receiver is told, and when nothing is said."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from audit.extent import Extent
from audit.model import Coverage
from audit.notify import MOST_FINDINGS, Message, Standing, Told, build_payload, decide, trouble_message
from tests.builders import NOW_TEXT, RUN_ID, finding


def covered(gateway_id: str | None = "g1", state="complete") -> Coverage:
    return Coverage("cn-north-4", "p1", gateway_id, "billing", state, "", 3, None)


STANDING = Standing(
    store="file:///x", run_id=RUN_ID, now=NOW_TEXT, open={"u1": "high", "u2": "low"}, waived={}, events={},
    worst=[finding()],
    extent=Extent([covered()]), problems=[], manifest_location="/x/manifest.json", manifest_sha256="ab" * 32,
)  # fmt: skip
FIRST = Told("default")


def told(standing: Standing, before: Told = FIRST, **keywords) -> Told:
    decided = decide(before, standing, **keywords)
    assert decided is not None
    return decided[1]


def message(standing: Standing, before: Told = FIRST, **keywords) -> Message:
    decided = decide(before, standing, **keywords)
    assert decided is not None
    return decided[0]


KNOWN = told(STANDING)
CLEAN = replace(STANDING, open={}, worst=[])
LOST = replace(STANDING, extent=Extent([covered(state="not_covered")]))
IDLE = replace(CLEAN, extent=Extent([covered()], idle=frozenset({"r1"})))


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
        (
            replace(STANDING, extent=Extent([covered(state="partial")])),
            "2 open (1 high, 1 low); 1 gateway not fully covered",
        ),
        (replace(LOST, open={}), "2 resolved; nothing found in what could be judged; 1 gateway not fully covered"),
        (IDLE, "2 resolved; nothing found in what could be judged; 1 rule not evaluated"),
    ],
)
def test_every_change_is_told_in_one_message(now, headline):
    """New, resolved, more severe, coverage lost, a rule no longer evaluated."""
    assert message(now, KNOWN).headline == headline
    assert decide(told(now, KNOWN), now) is None, "once told, it is silence"


@pytest.mark.parametrize(
    ("extent", "headline"),
    [
        (Extent([]), "there is no gateway to judge"),
        (Extent([covered("g2", "out_of_scope")]), "there is no gateway to judge"),
        (Extent([covered(), covered("g2", "out_of_scope")]), "clean in what was in scope"),
        (Extent([covered()], untouched=frozenset({"r2"})), "clean in what was in scope"),
        (
            Extent([covered(None, "partial"), covered()]),
            "nothing found in what could be judged; the list of gateways not fully read",
        ),
        (
            Extent([covered(state="partial"), covered("g2", "not_covered")], idle=frozenset({"r1", "r2"})),
            "nothing found in what could be judged; 2 gateways not fully covered; 2 rules not evaluated",
        ),
        (Extent([covered()]), "clean"),
    ],
)
def test_clean_is_said_only_of_what_was_read_and_judged(extent, headline):
    """Whatever was left out is said instead."""
    assert message(replace(CLEAN, extent=extent)).headline == headline


def test_a_lower_severity_is_no_news():
    """Only what gets worse is worth a message."""
    assert decide(KNOWN, replace(STANDING, open={"u1": "medium", "u2": "low"})) is None


def test_what_becomes_less_severe_than_a_receiver_hears_of_is_not_called_resolved():
    """It is still open, and clean is not said of it."""
    lowered = replace(STANDING, open={"u1": "high", "u2": "info"})
    assert decide(KNOWN, lowered) is None
    assert message(replace(STANDING, open={"u2": "info"}), KNOWN).headline == "1 resolved; nothing open at or above low"


def test_regained_coverage_is_told():
    """Silence after a gap would leave the receiver in doubt."""
    assert message(STANDING, told(LOST, KNOWN)).changes["gaps closed"] == 1
    assert message(CLEAN, told(IDLE, KNOWN)).changes["rules regained"] == 1


def test_a_gap_is_closed_however_it_ends():
    """Read again, deleted, no longer named, or the list of gateways itself: the next loss must be news again."""
    for gap in (covered(state="not_covered"), covered(None, "not_covered")):
        lost = told(replace(STANDING, extent=Extent([gap])), KNOWN)
        after = message(replace(STANDING, extent=Extent([covered("g2")])), lost)
        assert after.changes["gaps closed"] == 1
        assert "not fully" not in after.headline


def test_a_run_limited_by_rule_closes_no_gap():
    """It asks for less, and a message after every other run would be noise."""
    lost = told(LOST, KNOWN)
    limited = replace(STANDING, extent=Extent([covered()], untouched=frozenset({"r2"})))
    assert decide(lost, limited) is None


def test_what_is_out_of_scope_is_neither_lost_nor_regained():
    """A run limited to other gateways or rules says nothing about these."""
    lost = told(LOST, KNOWN)
    elsewhere = replace(STANDING, extent=Extent([covered(state="out_of_scope")]))
    assert decide(lost, elsewhere) is None
    assert decide(KNOWN, elsewhere) is None
    idle = told(IDLE, KNOWN)
    assert decide(idle, replace(CLEAN, extent=Extent([covered()], untouched=frozenset({"r1"})))) is None


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
    others = [message(STANDING, Told("other")), message(LOST), message(replace(STANDING, store="file:///y"))]
    assert KNOWN.delivery_id not in {other.delivery_id for other in others}


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
    assert due.left_out == build_payload(due)["findings_left_out"] == 100 - (MOST_FINDINGS - 5)


def test_a_message_carries_coverage_and_the_anchors_of_the_evidence():
    """Run id, manifest hash and place, gateways by state, what was not judged, problems."""
    extent = Extent([covered(), covered("g2", "partial"), covered("g3", "out_of_scope")], idle=frozenset({"r1"}))
    payload = build_payload(message(replace(STANDING, extent=extent, problems=["something"])))
    assert payload["run_id"] == RUN_ID
    assert payload["manifest"] == {"location": "/x/manifest.json", "sha256": "ab" * 32}
    assert payload["gateways"] == {"complete": 1, "partial": 1, "out_of_scope": 1}
    assert [entry["gateway_id"] for entry in payload["not_covered"]] == ["g2"]
    assert payload["rules_not_evaluated"] == ["r1"]
    assert payload["problems"] == ["something"]


def test_a_run_that_could_do_nothing_is_told_once_and_its_end_too():
    """The same trouble is not said again; after it, even an unchanged truth is worth a message."""

    def trouble(before: Told, kind: str = "unreadable") -> tuple[Message, Told] | None:
        return trouble_message("file:///x", before, RUN_ID, NOW_TEXT, kind, "the store is gone")

    due = trouble(KNOWN)
    assert due is not None
    said, record = due
    assert said.headline == "audit failed: the store is gone"
    assert build_payload(said)["manifest"] == {"location": "", "sha256": ""}
    assert trouble(record) is None
    assert trouble(record, "another trouble") is not None
    assert record.findings == KNOWN.findings, "what it was told before is not forgotten"
    after = message(STANDING, record)
    assert (after.headline, after.changes["working again"]) == ("working again; 2 open (1 high, 1 low)", 1)
    later = trouble(msgspec.structs.replace(record, trouble="", delivery_id=after.delivery_id))
    assert later is not None
    assert later[0].delivery_id != said.delivery_id, "another incident is another message"
