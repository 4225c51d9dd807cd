"""What shards read, one summary judges and tells: as one run over all targets would."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import audit.compose
from audit.archive import Archive
from audit.compose import open_archive
from audit.errors import OptionsError, UsageError
from audit.settings import RULES_BESIDE_HANDLER
from audit.verify import Verifier
from tests.emulator import Forbidden
from tests.seaweed import BUCKET
from tests.world import STRANGER

if TYPE_CHECKING:
    from pathlib import Path

    from audit.outcome import Outcome
    from tests.lands import Lands
    from tests.seaweed import Obs


class Still(datetime):
    """A clock that stands still."""

    moment = datetime.now(timezone.utc)

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return cls.moment.astimezone(tz)


def summarize(lands: Lands) -> dict[str, Any]:
    lands.run(mode="summarize")
    return lands.manifest()


def gaps(outcome: Outcome) -> dict[str, str]:
    return {e.project_id: e.reason for e in outcome.summary.coverage if e.state != "complete" and e.gateway_id is None}


def test_a_summary_says_what_one_run_over_all_says(lands: Lands) -> None:
    single = lands.run("single")
    told = lands.receiver.deliveries[-1].json()["data"]
    lands.run_shards()
    assert len(lands.receiver.deliveries) == 1
    summary = lands.run(mode="summarize")
    assert lands.findings() == lands.findings("single")
    assert summary.summary.exit_code == single.summary.exit_code == 1
    assert summary.summary.counts == single.summary.counts
    same = ("headline", "changes", "open_by_severity", "gateways", "not_covered", "rules_not_evaluated", "problems")
    message = lands.receiver.deliveries[-1].json()["data"]
    assert {name: message[name] for name in same} == {name: told[name] for name in same}
    strip = {"complete_in", "request_id"}
    coverage = [{**entry, **dict.fromkeys(strip)} for entry in lands.manifest()["coverage"]]
    assert coverage == [{**entry, **dict.fromkeys(strip)} for entry in lands.manifest("single")["coverage"]]


def test_the_summary_names_the_hash_of_each_shards_manifest_and_verify_holds_it(lands: Lands, tmp_path: Path) -> None:
    lands.run_shards()
    lands.run(mode="summarize")
    shards = lands.manifest()["shards"]
    assert {shard["target"] for shard in shards} == {"t0", "t1", "t2", "t3"}
    (page,) = (tmp_path / "store" / "runs").rglob("report.html")
    assert all(shard["sha256"] in page.read_text() for shard in shards)
    store = open_archive(tmp_path / "store").store
    assert Verifier(store).verify().problems == []
    for shard in shards:
        assert Verifier(open_archive(tmp_path / "store" / "shards" / shard["target"]).store).verify().problems == []
    path = tmp_path / "store" / shards[1]["manifest"]
    path.write_bytes(path.read_bytes() + b" ")
    assert "was changed" in Verifier(store).verify().problems[0]
    path.unlink()
    assert "is missing" in Verifier(store).verify().problems[0]


def test_early_late_and_repeated_summaries_tell_nothing_twice(lands: Lands) -> None:
    lands.run_shards()
    lands.run(mode="summarize")
    lands.run(mode="summarize")
    lands.estates[0].gateways[0].add_connection(status="accepted", domain_id=STRANGER)
    lands.run(mode="summarize")
    assert len(lands.receiver.deliveries) == 1
    lands.run_shards()
    lands.run(mode="summarize")
    assert len(lands.receiver.deliveries) == 2
    assert lands.receiver.deliveries[-1].json()["data"]["changes"]["new"] == 1


def test_a_shard_that_left_nothing_is_named_and_its_findings_are_kept(lands: Lands) -> None:
    lands.run()
    lands.run_shards("t1")
    outcome = lands.run(mode="summarize")
    assert outcome.summary.exit_code == 3
    assert gaps(outcome) == {lands.estates[1].project_id: "shard t1 has left no run yet"}
    assert {line["status"] for line in lands.findings()} == {"ongoing", "unverified"}
    lands.run_shards()
    assert lands.run(mode="summarize").summary.exit_code == 1
    assert {line["status"] for line in lands.findings()} == {"ongoing"}


def test_a_shard_that_is_too_old_is_named(lands: Lands) -> None:
    lands.run_shards()
    time.sleep(2.1)
    outcome = lands.run(settings=lands.settings(AUDIT_SHARD_MAX_AGE="PT1S"), mode="summarize")
    assert outcome.summary.exit_code == 4
    assert all(" is stale: its last run that was recorded is of 20" in reason for reason in gaps(outcome).values())
    assert len(gaps(outcome)) == 4


@pytest.mark.parametrize("name", ["manifest.json", "connections.ndjson.gz", "gateways.ndjson.gz", "latest.json"])
def test_a_shard_that_was_changed_costs_its_target_only(lands: Lands, tmp_path: Path, name: str) -> None:
    lands.run_shards()
    (path,) = (tmp_path / "store/shards/t2").rglob(name)
    path.write_bytes(path.read_bytes()[:-9] + b"\0" * 9)
    outcome = lands.run(mode="summarize")
    assert outcome.summary.exit_code == 3
    assert gaps(outcome).keys() == {lands.estates[2].project_id}
    assert "unreadable" in gaps(outcome)[lands.estates[2].project_id]


def test_gaps_of_a_shard_are_gaps_of_the_summary(lands: Lands) -> None:
    lands.run()
    lands.estates[0].fail(Forbidden(), gateway=lands.estates[0].gateways[1].id, times=None)
    lands.estates[1].fail(Forbidden(), kind="instances", times=None)
    single = lands.run()
    found = lands.findings()
    lands.run("other")
    lands.run_shards()
    summary = lands.run(mode="summarize")
    assert summary.summary.exit_code == single.summary.exit_code == 3
    reasons = [{(e.gateway_id, e.state) for e in outcome.summary.coverage} for outcome in (single, summary)]
    assert reasons[0] == reasons[1]
    assert [line["status"] for line in lands.findings()] == [line["status"] for line in found]


def test_what_vanished_is_resolved_only_with_a_proof(lands: Lands) -> None:
    lands.run_shards()
    lands.run(mode="summarize")
    gone, lost = lands.estates[0], lands.estates[1]
    shop = next(gateway for gateway in gone.gateways if gateway.name == "g1")
    stranger = next(c for c in shop.connections if c.domain_id == STRANGER)
    shop.remove(stranger.id)
    removed = lost.gateways[1]
    lost.remove_gateway(removed.id)
    lands.run_shards()
    outcome = lands.run(mode="summarize")
    closed = {line["connection"]: line["resolution"] for line in lands.findings() if line["status"] == "resolved"}
    assert closed.pop(stranger.id) == "resource_deleted"
    assert set(closed.values()) == {"resource_deleted"}
    assert removed.id not in {entry.gateway_id for entry in outcome.summary.coverage}


def test_a_gateway_that_only_the_summary_knew_is_looked_for(lands: Lands) -> None:
    """Its chain began before the shards' ones did; that these never saw a gateway does not prove that it is gone."""
    lands.run()
    estate = lands.estates[3]
    lonely = estate.gateways[1]
    estate.gateways.remove(lonely)
    lands.run_shards()
    requests = len(estate.requests)
    lands.run(mode="summarize")
    assert lonely.id in " ".join(request.path for request in estate.requests[requests:])


def test_shards_that_share_a_run_id_are_kept_apart(lands: Lands, monkeypatch: pytest.MonkeyPatch) -> None:
    """An id is drawn anew in each shard, and many of them begin in the same second."""
    found = lands.run("single").summary.counts
    monkeypatch.setattr("secrets.token_hex", lambda _: "abcdef")
    monkeypatch.setattr(audit.compose, "datetime", Still)
    lands.run_shards()
    monkeypatch.undo()
    assert len({shard["run_id"] for shard in summarize(lands)["shards"]}) == 1
    assert lands.manifest()["counts"] == msgspec.to_builtins(found)


def test_a_gateway_that_is_in_scope_since_is_missed(lands: Lands) -> None:
    lands.run_shards()
    targets = lands.targets()
    targets[1]["gateways"] = [lands.estates[1].gateways[0].id, "later"]
    outcome = lands.run(settings=lands.settings(AUDIT_TARGETS=json.dumps(targets)), mode="summarize")
    missed = [(entry.gateway_id, entry.reason) for entry in outcome.summary.coverage if entry.state == "not_covered"]
    assert missed == [("later", "the last run of its shard did not look for it")]


def test_a_name_that_another_project_had_is_no_shard_of_this_one(lands: Lands) -> None:
    lands.run_shards()
    targets = lands.targets()
    targets[0]["name"], targets[1]["name"] = "t1", "t0"
    outcome = lands.run(settings=lands.settings(AUDIT_TARGETS=json.dumps(targets)), mode="summarize")
    assert gaps(outcome) == {
        lands.estates[0].project_id: "shard t1 read another project last",
        lands.estates[1].project_id: "shard t0 read another project last",
    }


def test_a_shard_that_its_successor_overtook_does_not_set_the_clock_back(lands: Lands) -> None:
    """It began earlier and was recorded later: what it read is older than what is known."""
    lands.run_shards()
    lands.run(mode="summarize")
    began, estate = datetime.now(timezone.utc), lands.estates[0]
    time.sleep(1.1)
    stranger = estate.gateways[0].add_connection(status="accepted", domain_id=STRANGER)
    lands.run_shards()
    lands.run(mode="summarize")
    newest = {shard["target"]: shard["run_id"] for shard in lands.manifest()["shards"]}
    estate.gateways[0].remove(stranger.id)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit.compose, "datetime", type("Then", (Still,), {"moment": began}))
        lands.run(mode="shard", target="t0")
    outcome = lands.run(mode="summarize")
    assert {shard["target"]: shard["run_id"] for shard in lands.manifest()["shards"]} == newest
    assert outcome.summary.counts.by_status["resolved"] == 0
    lands.run_shards()
    assert lands.run(mode="summarize").summary.counts.by_status["resolved"] == 1


def test_findings_live_on_whatever_way_they_are_read(lands: Lands) -> None:
    """From one target to many, to shards and back; without one of them, and with another name for it."""
    first = lands.targets()[0]
    names = {"AUDIT_REGION": "region", "AUDIT_PROJECT_ID": "project_id", "AUDIT_APIG_ENDPOINT": "endpoint"}
    alone = {name: first[key] for name, key in names.items()} | {"AUDIT_TARGETS": ""}
    found: dict[str, Any] = {}

    def go(**changes: Any) -> Counter[str]:
        options = {"mode": changes.pop("mode")} if "mode" in changes else {}
        lands.run(settings=lands.settings(**changes), **options)
        found.update({line["uid"]: line for line in lands.findings() if line["status"] == "new"})
        assert found.keys() == {line["uid"] for line in lands.findings()}
        return Counter(line["status"] for line in lands.findings())

    assert go(**alone) == {"new": 2}
    assert go() == {"ongoing": 2, "new": 6}
    assert go(**alone)["resolved"] == 0
    lands.run_shards()
    assert go(mode="summarize") == {"ongoing": 8}
    assert go(AUDIT_TARGETS=json.dumps(lands.targets()[1:])) == {"ongoing": 8}
    renamed = json.dumps([{**first, "name": "renamed"}, *lands.targets()[1:]])
    assert go(mode="summarize", AUDIT_TARGETS=renamed) == {"ongoing": 6, "unverified": 2}
    lands.run(settings=lands.settings(AUDIT_TARGETS=renamed), mode="shard", target="renamed")
    assert go(mode="summarize", AUDIT_TARGETS=renamed) == {"ongoing": 8}
    assert go() == {"ongoing": 8}


def test_shards_and_their_summary_live_in_obs_too(lands: Lands, obs: Obs, tmp_path: Path) -> None:
    obs.keys[lands.estates[0].access_key] = (lands.estates[0].secret_key, None)
    root = f"obs://{BUCKET}/{tmp_path.name}"
    settings = lands.settings(AUDIT_STORE=root, AUDIT_OBS_ENDPOINT=obs.origin)
    for target in lands.targets():
        lands.run(settings=settings, mode="shard", target=target["name"])
    summary = lands.run(settings=settings, mode="summarize").summary
    assert {entry.state for entry in summary.coverage} == {"complete"}
    told = lands.receiver.deliveries[-1].json()["data"]
    assert f"/{tmp_path.name}/{summary.report}?" in told["report"]
    archive = open_archive(settings.store)
    assert Verifier(archive.store).verify().problems == []
    (latest,) = archive.chain()
    assert [shard.manifest.split("/")[:2] for shard in latest.manifest.shards] == [
        ["shards", f"t{n}"] for n in (2, 0, 3, 1)
    ]
    shard = open_archive(settings.store / "shards/t2").latest()
    assert shard is not None
    assert shard.manifest.run_id == latest.manifest.shards[0].run_id


def test_what_rules_need_and_shards_did_not_read_is_a_gap(lands: Lands) -> None:
    """Rules may be deployed between a fan-out and its summary; "clean" is said of what was read only."""
    for gateway in (gateway for estate in lands.estates for gateway in estate.gateways):
        gateway.permissions = ["*"]
    lands.run_shards()
    shutil.copy(RULES_BESIDE_HANDLER / "no-open-door.json", lands.rules_dir)
    summary = lands.run(mode="summarize").summary
    why = "permissions: not read by its shard, whose rules did not ask for them"
    assert summary.exit_code == 3
    assert {(entry.state, entry.reason) for entry in summary.coverage} == {("partial", why)}
    assert summary.counts.by_status["new"] == 8
    lands.run_shards()
    summary = lands.run(mode="summarize").summary
    assert (summary.exit_code, summary.counts.by_status["new"], summary.counts.by_status["ongoing"]) == (1, 12, 8)


def test_a_shard_tells_no_one_and_keeps_a_chain_of_its_own(lands: Lands, tmp_path: Path) -> None:
    outcome = lands.run(mode="shard", target="t0")
    assert outcome.summary.deliveries == []
    assert lands.receiver.deliveries == []
    assert not (tmp_path / "store" / "latest.json").exists()
    latest = open_archive(tmp_path / "store" / "shards" / "t0").latest()
    assert latest is not None
    assert latest.manifest.mode == "shard"
    assert isinstance(Archive(latest.store), Archive)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"mode": "shard"},
            'run option "mode": a shard needs the option "target", the name of the target that it reads',
        ),
        ({"target": "t0"}, 'run option "target": cannot be given without the mode "shard"'),
        ({"mode": "fan-out", "dry_run": True}, 'run option "dry_run": cannot be given beside the mode "fan-out"'),
        (
            {"mode": "summarize", "gateways": ["g"]},
            'run option "gateways": cannot be given beside the mode "summarize"',
        ),
        ({"mode": "shard", "target": "t"}, 'unknown target "t"; did you mean "t3"?'),
        ({"mode": "shard", "target": "elsewhere"}, 'unknown target "elsewhere"; known: t2, t0, t3, t1'),
    ],
)
def test_options_that_do_not_go_together_are_named(lands: Lands, options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionsError) as caught:
        lands.run(**options)
    assert caught.value.problems == (said,)


def test_fanning_out_needs_to_know_the_function(lands: Lands) -> None:
    with pytest.raises(UsageError) as caught:
        lands.run(mode="fan-out")
    assert json.dumps(caught.value.problems).startswith('["AUDIT_FUNCTION_URN is missing')
