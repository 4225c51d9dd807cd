"""Runs over many projects and regions: what one of them suffers costs no other one anything."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

import audit.huawei.clients
from audit.cli import main
from audit.render import console
from tests.emulator import Forbidden, Reset, ServerError, Slow, Throttled, Unauthorized
from tests.lands import Lands

if TYPE_CHECKING:
    from pathlib import Path

    from audit.outcome import Outcome


def states(outcome: Outcome) -> Counter[tuple[str, str]]:
    """How many gateways, or lists of them, of each target are in which state."""
    return Counter((entry.project_id[-2:].lstrip("0") or "0", entry.state) for entry in outcome.summary.coverage)


def test_all_targets_are_read_in_one_order(lands: Lands) -> None:
    outcome = lands.run()
    assert outcome.summary.exit_code == 1
    assert states(outcome) == {(str(number), "complete"): 3 for number in range(4)}
    keys = [(e.region, e.project_id, e.gateway_id) for e in outcome.summary.coverage]
    assert keys == sorted(keys)
    assert {line["rule_id"] for line in lands.findings()} == {"only-approved-domains-accepted", "pending-too-long"}
    again = lands.run()
    assert {line["status"] for line in lands.findings()} == {"ongoing"}
    assert [delivery.outcome for delivery in again.summary.deliveries] == ["nothing to tell"]


@pytest.mark.parametrize("fault", [Unauthorized(), Forbidden(), ServerError(), Reset(), Throttled("3600")])
@pytest.mark.parametrize("kind", ["instances", "connections"])
def test_one_targets_trouble_is_its_own(lands: Lands, fault: Any, kind: Any) -> None:
    lands.run()
    before = lands.findings()
    lands.estates[1].fail(fault, kind=kind, times=None)
    outcome = lands.run(settings=lands.settings(AUDIT_TIME_LIMIT="12"))
    assert outcome.summary.exit_code == 3
    found = states(outcome)
    assert {key: count for key, count in found.items() if key[0] != "1"} == {(n, "complete"): 3 for n in "023"}
    assert found["1", "complete"] == 0
    assert found["1", "not_covered"] == (4 if kind == "instances" else 3)
    project = lands.estates[1].project_id
    after = {line["uid"]: line["status"] for line in lands.findings()}
    hers = {uid for uid, line in zip(after, lands.findings(), strict=True) if line["status"] == "unverified"}
    assert after.keys() == {line["uid"] for line in before}
    assert hers
    assert all(after[uid] == "ongoing" for uid in after.keys() - hers)
    message = lands.receiver.deliveries[-1].json()["data"]
    assert {gap["project_id"] for gap in message["not_covered"]} == {project}
    lands.estates[1].heal()
    assert lands.run().summary.exit_code == 1
    assert {line["status"] for line in lands.findings()} == {"ongoing"}


def test_a_wrong_key_is_tried_three_times_however_many_targets_there_are(tmp_path: Path) -> None:
    """More than five wrong signatures lock it."""
    with ExitStack() as stack:
        lands = Lands(tmp_path, stack, 12, gateways=1)
        outcome = lands.run(settings=lands.settings(HUAWEICLOUD_SDK_SK="wrong"))
        assert outcome.summary.exit_code == 4
        assert sum(estate.failed_signatures for estate in lands.estates) == 3
        assert all(
            (entry.reason and "refused" in entry.reason) or "401" in entry.reason for entry in outcome.summary.coverage
        )


def test_a_target_may_have_keys_of_its_own(lands: Lands) -> None:
    lands.estates[2].access_key, lands.estates[2].secret_key = "OTHERKEY", "other-secret"
    targets = lands.targets()
    targets[2]["credentials"] = {"ak": "env:TWO_AK", "sk": "env:TWO_SK"}
    more = {"AUDIT_TARGETS": json.dumps(targets), "TWO_AK": "OTHERKEY", "TWO_SK": "other-secret"}
    outcome = lands.run(settings=lands.settings(**more))
    assert states(outcome) == {(str(number), "complete"): 3 for number in range(4)}


def test_a_gateway_that_the_options_name_may_be_in_any_target(lands: Lands) -> None:
    there = lands.estates[2].gateways[1].id
    outcome = lands.run(gateways=[there, "nowhere"])
    read = [entry for entry in outcome.summary.coverage if entry.state != "out_of_scope"]
    assert [(entry.gateway_id, entry.state) for entry in read] == [("nowhere", "not_covered"), (there, "complete")]
    assert read[0].reason == "no such gateway in any target"
    assert outcome.summary.exit_code == 3


def test_a_gateway_that_was_found_nowhere_is_forgotten_after_the_run_that_named_it(lands: Lands) -> None:
    lands.run(gateways=["nowhere"])
    assert "nowhere" not in {entry.gateway_id for entry in lands.run().summary.coverage}


def test_a_wrong_clock_is_one_problem_not_one_for_each_target(lands: Lands) -> None:
    for estate in lands.estates:
        estate.clock_skew = timedelta(minutes=5)
    (problem,) = lands.run().summary.problems
    assert problem.startswith("t2 and 3 more: this machine's clock is ")


def test_where_a_list_could_not_be_read_no_gateway_is_said_to_be_nowhere(lands: Lands) -> None:
    lands.estates[3].fail(Forbidden(), kind="instances", times=None)
    outcome = lands.run(gateways=["nowhere"])
    (entry,) = [entry for entry in outcome.summary.coverage if entry.gateway_id == "nowhere"]
    assert entry.reason == "not in the lists of gateways that could be read"


def test_a_target_that_gives_nothing_usable_is_given_up(lands: Lands, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its many gateways, each asked five times, would use up the time of the others."""
    monkeypatch.setattr(audit.huawei.clients, "_PATIENCE", 0.5)
    slow = lands.estates[0]
    for number in range(30):
        slow.add_gateway(f"more{number}")
    slow.fail(Throttled(), kind="connections", times=None)
    outcome = lands.run(settings=lands.settings(AUDIT_TIME_LIMIT="100", AUDIT_CONCURRENCY="2"))
    assert len(slow.requests) < 30
    assert {key: n for key, n in states(outcome).items() if key[0] != "0"} == {(n, "complete"): 3 for n in "123"}
    assert any("not asked any more" in entry.reason for entry in outcome.summary.coverage)


def test_people_are_told_in_which_target_a_gateway_is(lands: Lands, capsys: pytest.CaptureFixture[str]) -> None:
    """Every project may have a gateway of the same name; what is stored keeps the names as they are."""
    lands.estates[3].fail(Forbidden(), kind="instances", times=None)
    outcome = lands.run()
    store = str(lands.directory / "store")
    shown = console.render_outcome(outcome, "", [], table=False)
    assert main(["findings", "--store", store]) == 0
    listed = capsys.readouterr()
    assert main(["notify", "--preview", "slack", "--store", store]) == 0
    card = capsys.readouterr().out
    (page,) = (lands.directory / "store").rglob("report.html")
    for text in (shown, listed.out + listed.err, card, page.read_text()):
        assert "t1/g1" in text
        assert "list of gateways of t3" in text
    assert {line["gateway"]["name"] for line in lands.lines()} <= {"g0", "g1", "g2"}
    assert lands.manifest()["scope"]["targets"][0] == {
        "name": "t2",
        "region": "ap-southeast-1",
        "project_id": f"{2:032x}",
    }


def test_a_target_that_is_slow_but_alive_does_not_use_up_the_time_of_the_others(tmp_path: Path) -> None:
    """The first one in order allows two requests a second; the others have more than may be read ahead."""
    with ExitStack() as stack:
        lands = Lands(tmp_path, stack, 3, gateways=40)
        lands.estates[2].rate_limit = (1, 0.5)
        outcome = lands.run(settings=lands.settings(AUDIT_TIME_LIMIT="10", AUDIT_CONCURRENCY="4"))
        found = states(outcome)
        assert (found["0", "complete"], found["1", "complete"]) == (40, 40)
        assert found["2", "complete"] > 0
        reasons = {entry.reason for entry in outcome.summary.coverage if entry.state == "not_covered"}
        assert "not asked any more: it took so long that others could not have been read" in reasons


def test_a_list_that_hangs_costs_the_others_a_part_of_the_time_only(lands: Lands) -> None:
    lands.estates[2].fail(Slow(20), kind="instances", times=None)
    outcome = lands.run(settings=lands.settings(AUDIT_TIME_LIMIT="8"))
    assert {key: n for key, n in states(outcome).items() if key[0] != "2"} == {(n, "complete"): 3 for n in "013"}


def test_a_list_that_breaks_off_half_way_costs_its_own_target(lands: Lands) -> None:
    """What the first pages listed is not taken for all there is."""
    lands.run()
    broken_off = lands.estates[1]
    broken_off.page_cap = 1
    broken_off.fail(Forbidden(), kind="instances", times=None, after=1)
    outcome = lands.run()
    assert outcome.summary.exit_code == 3
    assert states(outcome) == {**{(n, "complete"): 3 for n in "023"}, ("1", "not_covered"): 4}
    assert {line["status"] for line in lands.lines() if line["gateway"]["project_id"][-1] == "1"} == {"unverified"}
    broken_off.heal()
    assert lands.run().summary.exit_code == 1
    assert {line["status"] for line in lands.findings()} == {"ongoing"}
