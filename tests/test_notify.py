"""What a receiver is told, and when nothing is said."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from audit.extent import Extent
from audit.model import Coverage
from audit.notify import (
    MOST_FINDINGS,
    Event,
    Message,
    Standing,
    Told,
    Wishes,
    begin,
    build_payload,
    decide,
    trouble_message,
)
from tests.builders import NOW_TEXT, RUN_ID, finding


def covered(gateway_id: str | None = "g1", state="complete") -> Coverage:
    return Coverage("cn-north-4", "p1", gateway_id, "billing", state, "", 3, None)


STANDING = Standing(
    store="file:///x", run_id=RUN_ID, now=NOW_TEXT, open={"u1": "high", "u2": "low"}, waived={}, events={},
    reopened=frozenset(), worst=[finding()], past_events=[],
    extent=Extent([covered()]), problems=[], manifest_location="/x/manifest.json", manifest_sha256="ab" * 32,
)  # fmt: skip
FIRST = Told("default")


def told(standing: Standing, before: Told = FIRST, **wishes: Any) -> Told:
    return decide(before, standing, Wishes(**wishes))[1]


def message(standing: Standing, before: Told = FIRST, **wishes: Any) -> Message:
    due = due_message(before, standing, **wishes)
    assert due is not None
    return due


def due_message(before: Told, standing: Standing, **wishes: Any) -> Message | None:
    return decide(before, standing, Wishes(**wishes))[0]


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
    assert due_message(KNOWN, replace(STANDING, run_id="another", now="2026-11-23T00:00:00Z")) is None


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
    assert due_message(told(now, KNOWN), now) is None, "once told, it is silence"


@pytest.mark.parametrize(
    ("extent", "headline"),
    [
        (Extent([]), "there is no gateway to judge"),
        (Extent([covered("g2", "out_of_scope")]), "there is no gateway to judge"),
        (
            Extent([covered(), covered("g2", "out_of_scope")], limited=("gateways",)),
            "clean in what was in scope; limited to some gateways",
        ),
        (
            Extent([covered()], untouched=frozenset({"r2"}), limited=("gateways", "rules")),
            "clean in what was in scope; limited to some gateways and rules",
        ),
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
    assert due_message(KNOWN, replace(STANDING, open={"u1": "medium", "u2": "low"})) is None


def test_what_becomes_less_severe_than_a_receiver_hears_of_is_not_called_resolved():
    """It is still open, and clean is not said of it."""
    lowered = replace(STANDING, open={"u1": "high", "u2": "info"})
    assert due_message(KNOWN, lowered) is None
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
    assert due_message(lost, limited) is None


def test_what_is_out_of_scope_is_neither_lost_nor_regained():
    """A run limited to other gateways or rules says nothing about these."""
    lost = told(LOST, KNOWN)
    elsewhere = replace(STANDING, extent=Extent([covered(state="out_of_scope")]))
    assert due_message(lost, elsewhere) is None
    assert due_message(KNOWN, elsewhere) is None
    idle = told(IDLE, KNOWN)
    assert due_message(idle, replace(CLEAN, extent=Extent([covered()], untouched=frozenset({"r1"})))) is None


def test_severities_below_the_receivers_own_are_not_told():
    """But coverage always is."""
    high = told(STANDING, min_severity="high")
    assert high.findings == {"u1": "high"}
    assert due_message(high, replace(STANDING, open={"u1": "high", "u9": "medium"}), min_severity="high") is None
    assert due_message(high, LOST, min_severity="high") is not None


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


ANOTHER_DAY = replace(STANDING, now="2026-11-23T08:15:00Z", run_id="20261123T081500Z-000001")


def test_a_reminder_comes_when_it_was_asked_for_and_something_is_open():
    """After so long without a message; its delivery id is one of its own, and a retry's is the same."""
    wishes = {"repeat_interval": timedelta(days=1)}
    assert due_message(KNOWN, replace(ANOTHER_DAY, now="2026-11-23T08:14:59Z"), **wishes) is None
    reminder = message(ANOTHER_DAY, KNOWN, **wishes)
    assert reminder.headline == "reminder: 2 open (1 high, 1 low)"
    assert reminder.delivery_id == message(replace(ANOTHER_DAY, run_id="x"), KNOWN, **wishes).delivery_id
    assert reminder.delivery_id != KNOWN.delivery_id
    assert due_message(told(ANOTHER_DAY, KNOWN, **wishes), ANOTHER_DAY, **wishes) is None
    clean = told(CLEAN)
    assert due_message(clean, replace(CLEAN, now="2027-01-01T00:00:00Z"), **wishes) is None


def test_a_heartbeat_says_that_all_is_well():
    """Where it was asked for, and nothing is open."""
    wishes = {"heartbeat": timedelta(days=7)}
    clean, later = told(CLEAN), replace(CLEAN, now="2026-11-29T08:15:00Z")
    assert message(later, clean, **wishes).headline == "still at work: clean"
    assert due_message(clean, replace(later, now="2026-11-29T08:14:59Z"), **wishes) is None
    assert due_message(KNOWN, replace(ANOTHER_DAY, now="2027-01-01T00:00:00Z"), **wishes) is None


def test_who_does_not_want_to_hear_of_the_end_hears_of_the_next_beginning():
    """What was resolved without a word is new again when it comes back."""
    less = replace(STANDING, open={"u2": "low"})
    decided, record = decide(KNOWN, less, Wishes(send_resolved=False))
    assert decided is None
    assert (record.findings, record.told_at, record.delivery_id) == ({"u2": "low"}, KNOWN.told_at, KNOWN.delivery_id)
    back = replace(STANDING, reopened=frozenset({"u1"}))
    assert message(back, record, send_resolved=False).headline == "1 reopened; 2 open (1 high, 1 low)"


def test_what_is_waived_is_told_at_both_ends():
    """As such, not as resolved and new."""
    waived = replace(STANDING, open={"u2": "low"}, waived={"u1": "high"})
    assert message(waived, KNOWN).headline == "1 waived; 1 open (1 low)"
    assert due_message(told(waived, KNOWN), waived) is None
    assert message(STANDING, told(waived, KNOWN)).headline == "1 waiver ended; 2 open (1 high, 1 low)"
    assert due_message(told(waived, KNOWN), replace(waived, waived={})) is None, "it was not open"
    assert message(replace(waived, waived={"u1": "info", "u3": "high"}), KNOWN).changes["waived"] == 1


def test_a_change_is_told_once_whenever_it_was_first_taken():
    """By what marks it; below the severity that a receiver hears of it is silence."""
    seen = replace(CLEAN, events={"e1": Event("medium", "2026-11-22T08:15:00Z 1", is_open=True, is_recent=True)})
    clean = told(CLEAN)
    assert message(seen, clean).headline == "1 change; nothing else open"
    over = replace(seen, events={"e1": Event("medium", "2026-11-22T08:15:00Z 1", is_open=False, is_recent=False)})
    assert due_message(told(seen, clean), over) is None
    assert message(over, clean).changes["changes"] == 1, "nobody took it when it was seen"
    again = replace(seen, events={"e1": Event("medium", "2026-11-23T08:15:00Z 2", is_open=True, is_recent=True)})
    assert message(again, told(seen, clean)).changes["changes"] == 1
    assert due_message(clean, seen, min_severity="high") is None
    assert begin(FIRST, over).events == {"e1": "2026-11-22T08:15:00Z 1"}, "what is over is no news for a new receiver"
    assert begin(FIRST, seen).events == {}
    just_over = replace(seen, events={"e1": over.events["e1"]._replace(is_recent=True)})
    assert begin(FIRST, just_over).events == {}, "the run that saw it may have ended before it could tell"


def test_what_was_not_taken_stays_owed_whatever_becomes_of_it():
    """A change that is waived, milder or forgotten by now was still not told."""
    owing = msgspec.structs.replace(told(CLEAN), owed=["e1"])
    due = message(CLEAN, owing)
    assert (due.changes["changes"], due.told_changes) == (1, ["e1"])
    assert told(CLEAN, owing).owed == []
