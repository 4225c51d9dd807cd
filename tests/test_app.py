"""Whole runs, from the API over HTTP to store and receiver."""

from __future__ import annotations

import gzip
import json
import shutil
from datetime import timedelta
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from audit import app
from audit.archive import TREND_RUNS, Archive
from audit.compose import open_archive, perform
from audit.errors import StoreError
from audit.options import RunOptions
from audit.rehearse import preview
from audit.settings import RULES_BESIDE_HANDLER, Surroundings, load_settings
from audit.store import LocalStore
from audit.verify import Verifier
from tests.emulator import Body, Forbidden, Unauthorized
from tests.emulator.connection import DOMAIN_ID
from tests.world import STRANGER


def test_a_page_that_cannot_be_written_costs_no_evidence(world, monkeypatch):
    """The run is recorded and told without it, and says so; the chain is sound, and the next run has its page."""
    world.estate.add_gateway("shop").add_connection(domain_id=STRANGER)

    def stumble(*_known):
        yield b"<!doctype html>"
        raise ValueError("what a template stumbles over")

    with monkeypatch.context() as broken:
        broken.setattr(app, "render_report", stumble)
        summary = world.run().summary
    (problem,) = summary.problems
    assert problem.startswith("report.html was not written: internal error (ValueError in ")
    assert (summary.exit_code, summary.report) == (1, None)
    assert list(world.statuses().values()) == ["new"]
    assert not list(world.store.rglob("report.html"))
    (delivery,) = world.receiver.deliveries
    assert delivery.json()["data"]["report"] == ""
    assert delivery.json()["data"]["problems"] == [problem]
    assert Verifier(LocalStore(world.store)).verify("", everything=True).problems == []
    assert '"report": ""' in preview(open_archive(world.store), "", "generic", 0.0)
    later = world.run().summary
    assert (world.store / str(later.report)).is_file()
    assert later.problems == []


def test_the_life_of_findings_over_runs(world):
    """New, ongoing, fixed, deleted, reopened; the receiver hears of every change once."""
    shop = world.estate.add_gateway("shop")
    waiting = shop.add_connection(status="pendingAcceptance", age=timedelta(hours=49))
    stranger = shop.add_connection(domain_id=STRANGER)
    pending, strange = ("pending-too-long", waiting.id), ("only-approved-domains-accepted", stranger.id)

    first = world.run()
    assert (first.summary.exit_code, world.statuses()) == (1, {pending: "new", strange: "new"})
    assert world.findings()[pending]["message"] == "pending for 49 h; at most 24 h allowed"

    assert world.run().summary.deliveries[0].outcome == "nothing to tell"
    assert world.statuses() == {pending: "ongoing", strange: "ongoing"}
    assert world.findings()[pending]["occurrences"] == 2

    shop.change(waiting.id, status="accepted")
    shop.remove(stranger.id)
    assert world.run().summary.exit_code == 0
    found = world.findings()
    assert (found[pending]["status"], found[pending]["resolution"]) == ("resolved", "fixed")
    assert (found[strange]["status"], found[strange]["resolution"]) == ("resolved", "resource_deleted")

    shop.change(waiting.id, status="pendingAcceptance")
    world.run()
    assert world.statuses() == {pending: "resolved", strange: "resolved"}, "its wait began anew with the change"
    shop.change(waiting.id, status="accepted", domain_id=STRANGER)
    world.run()
    assert world.statuses()["only-approved-domains-accepted", waiting.id] == "new"

    headlines = [delivery.json()["data"]["headline"] for delivery in world.receiver.deliveries]
    assert headlines == ["2 new; 2 open (1 high, 1 medium)", "2 resolved; clean", "1 new; 1 open (1 high)"]
    assert all(delivery.verified for delivery in world.receiver.deliveries)


def test_a_resolved_finding_that_comes_back_is_reopened(world):
    """With its old first date."""
    shop = world.estate.add_gateway("shop")
    wobbly = shop.add_connection(status="failed")
    key = ("no-failed-connections", wobbly.id)
    seen = []
    for status in ("failed", "accepted", "failed", "failed"):
        shop.change(wobbly.id, status=status)
        world.run()
        seen.append(world.findings()[key])
    assert [finding["status"] for finding in seen] == ["new", "resolved", "reopened", "ongoing"]
    assert {finding["first_seen"] for finding in seen} == {seen[0]["first_seen"]}
    assert {finding["uid"] for finding in seen} == {seen[0]["uid"]}


def test_an_outage_loses_nothing_and_resolves_nothing(world):
    """Findings become unverified, readings are carried over, clocks go on; then all is as before."""
    shop = world.estate.add_gateway("shop")
    other = world.estate.add_gateway("other")
    other.add_connection()
    waiting = shop.add_connection(status="pendingAcceptance", age=timedelta(hours=30))
    key = ("pending-too-long", waiting.id)
    world.run()
    before = world.findings()[key]

    outage = world.estate.fail(Forbidden(), gateway=shop, times=None)
    assert world.run().summary.exit_code == 3
    assert world.findings()[key] == {**before, "status": "unverified"}
    carried = {line["id"]: line["read_in"] for line in world.lines("connections.ndjson.gz")}
    assert carried[waiting.id] == before["run_id"]
    assert {line["state"] for line in world.manifest()["coverage"]} == {"complete", "not_covered"}

    assert outage.hits > 0
    world.estate.heal()
    assert world.run().summary.exit_code == 1
    after = world.findings()[key]
    assert (after["status"], after["first_seen"], after["occurrences"]) == ("ongoing", before["first_seen"], 2)
    gaps = [len(d.json()["data"]["not_covered"]) for d in world.receiver.deliveries]
    assert gaps == [0, 1, 0], "coverage lost and regained are told, once each"


def test_a_connection_that_only_seems_gone_makes_its_gateway_partial(world):
    """It still answers by its id: the reading missed it, and nothing is resolved."""
    shop = world.estate.add_gateway("shop")
    hidden = shop.add_connection(status="failed")
    fine = shop.add_connection(status="failed")
    world.run()
    shop.change(fine.id, status="accepted")

    def hide(call) -> None:
        if call.kind == "connections":
            listed = "id" not in call.query
            there = any(c.id == hidden.id for c in shop.connections)
            if listed and there:
                shop.remove(hidden.id)
            elif not listed and not there:
                shop.insert(0, connection_id=hidden.id, status="failed")

    world.estate.before_request(hide)
    assert world.run().summary.exit_code == 3
    (entry,) = world.manifest()["coverage"]
    assert entry["state"] == "partial"
    assert "still answers by its id" in entry["reason"]
    assert set(world.statuses().values()) == {"unverified"}


def test_a_deleted_gateway_takes_its_findings_along(world):
    """Proved by the API's own 404; it is then no longer part of the coverage."""
    shop = world.estate.add_gateway("shop")
    shop.add_connection(status="failed")
    world.estate.add_gateway("stays").add_connection()
    world.run()
    world.estate.remove_gateway(shop.id)
    assert world.run().summary.exit_code == 0
    (finding,) = world.findings().values()
    assert (finding["status"], finding["resolution"]) == ("resolved", "resource_deleted")
    assert [entry["name"] for entry in world.manifest()["coverage"]] == ["stays"]
    assert len(world.lines("connections.ndjson.gz")) == 1
    world.run()
    assert list(world.statuses().values()) == ["resolved"], "remembered, though nobody knows the gateway any more"


def test_a_run_limited_in_scope_leaves_the_rest_as_it_was(world):
    """By gateway and by rule; what is carried over counts for no exit code."""
    one, two = (world.estate.add_gateway(name, gateway_id=name) for name in ("one", "two"))
    for shop in (one, two):
        shop.add_connection(status="failed")
        shop.add_connection(domain_id=STRANGER)
    world.run()
    before = {key: finding for key, finding in world.findings().items() if finding["gateway"]["id"] == "two"}
    one.remove(one.connections[0].id)
    one.change(one.connections[0].id, domain_id=DOMAIN_ID)
    limited = world.run(gateways=("one",))
    assert (limited.summary.exit_code, limited.summary.counts.carried) == (0, 2)
    after = world.findings()
    assert {key: finding for key, finding in after.items() if finding["gateway"]["id"] == "two"} == before
    assert [f["status"] for f in after.values() if f["gateway"]["id"] == "one"] == ["resolved"] * 2
    assert len([line for line in world.lines("connections.ndjson.gz") if line["gateway_id"] == "two"]) == 2
    assert world.manifest()["scope"] == {"gateways": ["one"], "rules": [], "targets": []}
    assert not any(entry["state"] == "not_covered" for entry in world.manifest()["coverage"])

    two.change(two.connections[0].id, status="accepted")
    two.change(two.connections[1].id, domain_id=DOMAIN_ID)
    world.run(rules=("no-failed-connections",))
    statuses = {rule: status for (rule, _), status in world.statuses().items() if (rule, _) in before}
    assert statuses == {"no-failed-connections": "resolved", "only-approved-domains-accepted": "new"}


def test_what_is_written_is_sorted_and_hashed(world):
    """Gateways, then connections, then findings in one order; the manifest names every object and its hash."""
    for number in range(7):
        world.estate.add_gateway(f"g{number}").add_connections(40, status="failed")
    world.estate.gateways[3].raw_records.append({"id": None, "status": "failed"})
    world.run()
    keys = [(line["region"], line["project_id"], line["gateway_id"]) for line in world.lines("connections.ndjson.gz")]
    assert keys == sorted(keys)
    names = [(line["gateway_id"], line["id"] or "sha256:") for line in world.lines("connections.ndjson.gz")]
    assert names == sorted(names)
    assert len(names) == 281
    order = [(f["gateway"]["id"], f["rule_id"], f["connection"]) for f in world.lines("findings.ndjson.gz")]
    assert order == sorted(order)
    assert [item["key"].split("/")[-1] for item in world.manifest()["objects"]] == [
        "gateways.ndjson.gz", "connections.ndjson.gz", "findings.ndjson.gz", "findings.ocsf.ndjson.gz", "findings.csv",
        "report.html",
    ]  # fmt: skip
    assert sorted(line["connections"] for line in world.lines("gateways.ndjson.gz")) == [40] * 6 + [41]


def test_a_malformed_record_is_a_finding_and_not_a_gap(world):
    """What cannot be read fails closed; the gateway is covered."""
    shop = world.estate.add_gateway("shop")
    shop.raw_records.append({"id": "m1", "marker_id": "7", "status": "accepted", "created_at": "yesterday"})
    outcome = world.run()
    assert outcome.summary.coverage[0].state == "complete"
    assert set(world.statuses()) == {("malformed-record", "m1"), ("only-approved-domains-accepted", "m1")}
    message = world.findings()["malformed-record", "m1"]["message"]
    for field in ("marker_id", "created_at", "updated_at", "domain_id"):
        assert field in message
    assert "status" not in message


def test_an_empty_list_means_not_configured(world):
    """The rule neither passes nor accuses anyone, and everything says so."""
    world.policy.write_text(json.dumps({"lists": {"approved-domains": []}}))
    world.estate.add_gateway("shop").add_connection(domain_id=STRANGER)
    outcome = world.run()
    assert (outcome.summary.exit_code, outcome.reason) == (0, "nothing found in what could be judged")
    (problem,) = outcome.summary.problems
    assert "only-approved-domains-accepted was not evaluated" in problem
    used = {rule["id"]: rule["not_evaluated"] for rule in world.manifest()["rules"]}
    assert "approved-domains" in used["only-approved-domains-accepted"]
    (delivery,) = world.receiver.deliveries
    assert "clean" not in delivery.json()["data"]["headline"]
    assert delivery.json()["data"]["problems"] == [problem]


def test_a_project_without_gateways_is_said_out_loud(world):
    """Exit code 0, and not the word clean."""
    outcome = world.run()
    assert (outcome.summary.exit_code, outcome.reason) == (0, "there is no gateway to judge")


def test_refused_credentials_are_a_recorded_run(world):
    """That it failed then, and why, is evidence; findings stay, unverified."""
    world.estate.add_gateway("shop").add_connection(status="failed")
    world.run()
    world.estate.fail(Unauthorized("APIC.7102"), times=None)
    outcome = world.run()
    assert (outcome.summary.exit_code, outcome.reason) == (4, "nothing was covered")
    assert list(world.statuses().values()) == ["unverified"]
    assert {entry["gateway_id"] is None for entry in world.manifest()["coverage"]} == {True, False}
    assert world.manifest()["parent"] is not None
    assert "not fully covered" in world.receiver.deliveries[-1].json()["data"]["headline"]


def test_a_dry_run_judges_and_leaves_no_trace(world):
    """Nothing is written, nobody is told; the exit code is the same."""
    world.estate.add_gateway("shop").add_connection(status="failed")
    outcome = world.run(dry_run=True)
    assert (outcome.summary.exit_code, outcome.summary.manifest) == (1, None)
    assert outcome.summary.deliveries[0].outcome == "not sent"
    assert outcome.messages[0].headline == "1 new; 1 open (1 low)"
    assert (world.store.exists(), world.receiver.deliveries) == (False, [])


def test_an_unreadable_past_stops_the_run_and_is_told(world):
    """Never taken for a first run: silence would look like health."""
    world.estate.add_gateway("shop").add_connection(status="failed")
    world.run()
    findings = next(world.store.glob("runs/*/*/*/*/findings.ndjson.gz"))
    findings.write_bytes(gzip.compress(b""))
    pointer = (world.store / "latest.json").read_bytes()
    outcome = world.run()
    assert (outcome.summary.exit_code, outcome.summary.manifest) == (4, None)
    assert str(findings) in outcome.summary.problems[0]
    assert (world.store / "latest.json").read_bytes() == pointer
    assert (
        world.receiver.deliveries[-1].json()["data"]["headline"].startswith("audit failed: what the previous run left")
    )


@pytest.mark.parametrize("times", [1, 3])
def test_a_run_that_others_overtake_follows_them(world, monkeypatch, times):
    """What it read is judged again beside what they left; nothing is read twice, and the chain is whole."""
    shop = world.estate.add_gateway("shop")
    old, gone = shop.add_connections(2, status="failed")
    world.run()
    shop.change(old.id, status="accepted")
    shop.remove(gone.id)
    requests: list[int] = []
    commit = Archive.commit

    def overtaken(archive: Archive, *manifest_and_parent: Any) -> str:
        if len(requests) < times:
            requests.append(len(world.estate.requests))
            before = len(world.estate.requests)
            monkeypatch.setattr(Archive, "commit", commit)
            shop.add_connection(status="failed")
            world.run()
            monkeypatch.setattr(Archive, "commit", overtaken)
            del world.estate.requests[before:]
        return commit(archive, *manifest_and_parent)

    monkeypatch.setattr(Archive, "commit", overtaken)
    outcome = world.run()
    monkeypatch.undo()
    new_questions = [requests[0] + number for number in range(times)]
    assert requests == new_questions, "nothing is read twice; what only the others saw is asked for by its id"
    assert len(outcome.summary.problems) == 1
    assert outcome.summary.problems[0].endswith(" was recorded while this one was read")
    statuses = sorted((f["status"], f["resolution"]) for f in world.findings().values())
    assert statuses.count(("resolved", "fixed")) == 1
    assert statuses.count(("resolved", "resource_deleted")) == 1
    assert next(run.manifest.run_id for run in open_archive(world.store).chain()) == outcome.summary.run_id
    assert len(list(open_archive(world.store).chain())) == 2 + times
    assert world.manifest()["run_id"] == outcome.summary.run_id
    assert {f["run_id"] for f in world.findings().values() if f["status"] == "ongoing"} <= {outcome.summary.run_id}


def test_a_run_that_is_overtaken_for_ever_gives_up(world, monkeypatch):
    """It is not recorded, and says so."""
    world.estate.add_gateway("shop").add_connection(status="failed")
    world.run()
    monkeypatch.setattr(LocalStore, "swap", lambda *_: False)
    outcome = world.run()
    assert outcome.summary.exit_code == 4
    assert "another run was recorded while this one was read" in "".join(outcome.summary.problems)
    assert outcome.summary.deliveries == []


def test_the_summary_has_the_documented_fields(world):
    """The shape that scripts rely on."""
    world.estate.add_gateway("shop").add_connection()
    summary = msgspec.to_builtins(world.run().summary)
    assert set(summary) == {
        "run_id", "exit_code", "counts", "coverage", "manifest", "report", "deliveries", "problems",
    }  # fmt: skip
    assert set(summary["coverage"][0]) == {
        "region", "project_id", "gateway_id", "name", "state", "reason", "connections", "request_id",
        "complete_in", "not_evaluated",
    }  # fmt: skip
    assert set(summary["manifest"]) == {"key", "sha256"}
    assert summary["report"] == summary["manifest"]["key"].replace("manifest.json", "report.html")
    manifest = world.manifest()
    assert set(manifest) == {
        "run_id", "mode", "started_at", "finished_at", "now", "version", "scope", "rules", "policy_sha256", "coverage",
        "counts", "trend", "objects", "parent", "shards",
    }  # fmt: skip
    line = world.lines("connections.ndjson.gz")[0]
    assert set(line) == {
        "region", "project_id", "gateway_id", "id", "marker_id", "created_at", "updated_at", "domain_id", "status",
        "status_since", "read_in",
    }  # fmt: skip


def test_the_trend_keeps_the_last_ninety_runs(world, monkeypatch):
    """Each manifest carries the history that a reader needs, and no more."""
    monkeypatch.setattr("audit.app.TREND_RUNS", 2)
    world.estate.add_gateway("shop").add_connection(status="failed")
    for _ in range(3):
        world.run()
    trend = world.manifest()["trend"]
    assert [(point["by_status"]["new"], point["gateways"], point["covered"]) for point in trend] == [(0, 1, 1)] * 2
    assert trend[-1]["run_id"] == world.manifest()["run_id"]
    assert TREND_RUNS == 90


def test_rules_about_gateways_and_their_permissions(world):
    """One more request for each gateway; refused permissions make it partial, and rules that need them keep silent."""
    for rule_id in ("no-open-door", "accepted-outside-gateway-permissions"):
        shutil.copy(RULES_BESIDE_HANDLER / f"{rule_id}.json", world.rules_dir)
    shop = world.estate.add_gateway("shop", gateway_id="shop", permissions=["*"])
    shut = world.estate.add_gateway("shut", gateway_id="shut", permissions=[f"iam:domain::{STRANGER}"])
    world.estate.add_gateway("bare", gateway_id="bare", endpoint_service=False)
    intruder = shut.add_connection()
    door, outside = ("no-open-door", None), ("accepted-outside-gateway-permissions", intruder.id)
    world.run()
    assert world.statuses() == {door: "new", outside: "new"}
    assert world.findings()[door]["gateway"]["id"] == "shop"
    assert world.findings()[door]["message"] == 'permissions is "*"; must not hold "*"'
    assert world.findings()[outside]["message"] == (
        f'domain_id is "{DOMAIN_ID}"; must be in gateway.permissions ("{STRANGER}")'
    )
    world.estate.fail(Forbidden(), kind="permissions", times=None)
    failed = shut.add_connection(status="failed")
    gone = shut.add_connection(status="failed")
    assert world.run().summary.exit_code == 3
    states = {entry["gateway_id"]: entry["state"] for entry in world.manifest()["coverage"]}
    assert states == {"shop": "partial", "shut": "partial", "bare": "complete"}
    assert "listVpcEndpointPermission" in world.manifest()["coverage"][-1]["reason"]
    statuses = world.statuses()
    assert (statuses[door], statuses[outside]) == ("unverified", "unverified")
    assert statuses["no-failed-connections", failed.id] == "new", "what does not need the permissions is judged"
    shut.change(failed.id, status="accepted")
    shut.remove(gone.id)
    world.run()
    resolved = {f["resolution"] for f in world.findings().values() if f["rule_id"] == "no-failed-connections"}
    assert resolved == {"fixed", "resource_deleted"}, "and resolved: the connections were read completely"
    assert len(world.lines("connections.ndjson.gz")) == 2
    world.estate.heal()
    shop.permissions = [f"iam:domain::{DOMAIN_ID}"]
    world.run()
    statuses = world.statuses()
    assert (statuses[door], statuses[outside]) == ("resolved", "ongoing")
    assert world.findings()[door]["resolution"] == "fixed"


def test_permissions_are_asked_for_only_where_a_rule_reads_them(world):
    """They cost one more request for each gateway."""
    world.estate.add_gateway("shop")
    world.run()
    assert not any(request.path.endswith("/permissions") for request in world.estate.requests)


@pytest.mark.parametrize("escaped", [False, True])
def test_a_secret_in_the_data_itself_reaches_nothing(world, escaped):
    """A gateway named after the key, a domain that is the secret, perhaps behind escapes: neither store nor message."""
    key, secret = world.estate.access_key, world.estate.secret_key
    world.estate.add_gateway(f"gw {key}").add_connection(domain_id=secret)
    if escaped:
        hidden = f"\\u{ord(secret[0]):04x}{secret[1:]}"
        records = f'[{{"id": "c1", "status": "accepted", "domain_id": "{hidden}"}}]'
        body = f'{{"total": 1, "size": 1, "connections": {records}}}'
        world.estate.fail(Body(200, body.encode(), "application/json"), kind="connections", times=None)
    outcome = world.run()
    assert outcome.summary.exit_code == 1
    texts = [gzip.decompress(path.read_bytes()) for path in world.store.rglob("*.gz")]
    texts += [path.read_bytes() for kind in ("*.json", "*.csv") for path in world.store.rglob(kind)]
    texts += [world.receiver.deliveries[0].body, msgspec.json.encode(outcome.summary)]
    assert len(texts) == 10
    for text in texts:
        assert key.encode() not in text
        assert secret.encode() not in text


def test_a_gateway_deleted_while_a_run_is_limited_by_rule_is_not_stranded(world):
    """The other rules' findings are kept as they were, and the next full run resolves them."""
    shop = world.estate.add_gateway("shop")
    shop.add_connection(status="failed")
    shop.add_connection(domain_id=STRANGER)
    world.run()
    world.estate.remove_gateway(shop.id)
    world.run(rules=("no-failed-connections",))
    assert sorted(world.statuses().values()) == ["new", "resolved"]
    assert [entry["state"] for entry in world.manifest()["coverage"]] == ["out_of_scope"]
    assert world.run().summary.exit_code == 0
    assert set(world.statuses().values()) == {"resolved"}
    assert world.manifest()["coverage"] == []


def test_a_gateway_that_is_named_and_deleted_is_missing_and_its_findings_are_resolved(world):
    """Exit code 4 or 3 as long as it is named; nothing of it stays open."""
    world.estate.add_gateway("stays", gateway_id="stays").add_connection()
    shop = world.estate.add_gateway("shop", gateway_id="shop")
    shop.add_connection(status="failed")
    world.run(gateways=("shop", "stays"))
    world.estate.remove_gateway("shop")
    assert world.run(gateways=("shop", "stays")).summary.exit_code == 3
    assert list(world.statuses().values()) == ["resolved"]
    assert world.run(gateways=("shop",)).summary.exit_code == 4
    assert world.run().summary.exit_code == 0


def test_a_rule_that_is_no_longer_evaluated_is_told(world):
    """A list that was emptied by mistake must not look like health."""
    world.estate.add_gateway("shop").add_connection()
    world.run()
    world.policy.write_text(json.dumps({"lists": {"approved-domains": []}}))
    world.run()
    world.run()
    assert [delivery.json()["data"]["headline"] for delivery in world.receiver.deliveries] == [
        "clean", "nothing found in what could be judged; 1 rule not evaluated",
    ]  # fmt: skip


def test_a_text_of_any_length_is_read_back(world):
    """What was recorded must not stop the runs that follow."""
    world.estate.add_gateway("n" * 1_200_000).add_connection(status="failed")
    world.estate.gateways[0].raw_records.append({"id": "x", "status": "s" * 1_100_000})
    assert world.run().summary.exit_code == 1
    assert world.run().summary.exit_code == 1
    assert world.statuses()["malformed-record", "x"] == "ongoing"


def test_trouble_is_told_and_so_is_its_end(world):
    """The receiver must not go on believing what is over."""
    world.estate.add_gateway("shop").add_connection()
    world.run()
    pointer = world.store / "latest.json"
    good = pointer.read_bytes()
    for broken in (b"{", b'{"run_id":"x","manifest":"a\\u0000b","sha256":"y"}', good.replace(b"runs/", b"../../")):
        pointer.write_bytes(broken)
        outcome = world.run()
        assert (outcome.summary.exit_code, outcome.reason) == (4, "what the previous run left is unreadable")
        assert str(pointer) in outcome.summary.problems[0]
    pointer.write_bytes(good)
    world.run()
    headlines = [delivery.json()["data"]["headline"] for delivery in world.receiver.deliveries]
    assert headlines[0] == "clean"
    assert all(headline.startswith("audit failed: what the previous run left") for headline in headlines[1:-1])
    assert headlines[-1] == "working again; clean"


def test_a_defect_of_ours_is_told_before_it_ends_the_run(world, monkeypatch):
    """Silence would look like health; the text of the error is not shown."""
    world.estate.add_gateway("shop").add_connection()
    monkeypatch.setattr("audit.line.reconcile", lambda *_: dict[str, str]()["secret"])
    with pytest.raises(KeyError):
        world.run()
    (delivery,) = world.receiver.deliveries
    assert "internal error (KeyError" in delivery.json()["data"]["headline"]
    assert "secret" not in delivery.body.decode()
    assert not (world.store / "latest.json").exists()


def test_gateways_of_another_project_are_carried_and_clean_is_not_said_of_them(world):
    """The same store, another project: what is known of the first stays as it was."""
    world.estate.add_gateway("shop").add_connection(status="failed")
    world.run()
    before = world.findings()
    other = {**world.environment, "AUDIT_PROJECT_ID": "another"}
    world.estate.remove_gateway("shop")
    world.estate.project_id = "another"
    settings = load_settings(other, Surroundings(), {})
    outcome = perform(settings, RunOptions(), mode="manual")
    assert (outcome.summary.exit_code, outcome.summary.counts.carried) == (0, 1)
    assert outcome.reason == "there is no gateway to judge"
    assert world.findings() == before
    assert len(world.lines("connections.ndjson.gz")) == 1


def test_many_vanished_connections_are_asked_for_together(world):
    """A bulk clean-up must not cost the gateways that are still to be read their time."""
    shop = world.estate.add_gateway("shop")
    shop.add_connections(60, status="failed")
    world.run()
    for connection in shop.connections:
        shop.remove(connection.id)
    world.estate.latency = 0.02
    world.estate.peak_in_flight = 0
    assert world.run().summary.exit_code == 0
    assert world.estate.peak_in_flight > 4
    assert {f["resolution"] for f in world.findings().values()} == {"resource_deleted"}


def test_findings_of_a_gateway_that_nobody_knows_are_kept_wherever_it_sorts(world):
    """Before, between and after the known ones, for as long as they are remembered."""
    for name in ("a", "c", "e"):
        world.estate.add_gateway(name, gateway_id=name).add_connection(status="failed")
    for name in ("b", "d"):
        world.estate.add_gateway(name, gateway_id=name).add_connection()
    world.run()
    for name in ("a", "c", "e"):
        world.estate.remove_gateway(name)
    for _ in range(3):
        world.run()
        kept = [(f["gateway"]["id"], f["status"]) for f in world.lines("findings.ndjson.gz")]
        assert kept == [(name, "resolved") for name in ("a", "c", "e")]


def test_readings_that_are_carried_over_stay_sorted(world):
    """The next run merges by their order."""
    shop = world.estate.add_gateway("shop")
    for number in (5, 1, 3):
        shop.add_connection(connection_id=f"c{number}")
    world.run()
    world.estate.page_cap = 2
    world.estate.before_request(
        lambda call: call.kind == "connections" and shop.insert(0, connection_id=f"b{len(shop.connections)}")
    )
    world.run()
    names = [line["id"] for line in world.lines("connections.ndjson.gz")]
    assert names == sorted(names)
    assert {"c1", "c3", "c5"} <= set(names)


def test_the_manifest_tells_when_the_run_began_and_ended(world):
    """`now` is the instant that ages were judged by."""
    world.estate.add_gateway("shop").add_connection()
    world.estate.latency = 0.5
    world.run()
    manifest = world.manifest()
    assert manifest["now"] == manifest["started_at"] < manifest["finished_at"]


def test_clocks_that_disagree_are_a_problem_that_is_said(world):
    """Ages are judged by our clock: the API's by minutes away, or our own set back since the last run."""
    world.estate.add_gateway("shop").add_connection()
    world.estate.clock_skew = timedelta(minutes=5)
    (problem,) = world.run().summary.problems
    assert "clock is 300 s behind the API's" in problem or "clock is 299 s behind the API's" in problem
    world.estate.clock_skew = timedelta()
    latest = json.loads((world.store / "latest.json").read_text())
    path = world.store / latest["manifest"]
    text = path.read_text().replace(world.manifest()["now"], "2999-01-01T00:00:00Z")
    path.write_text(text)
    (world.store / "latest.json").write_text(json.dumps({**latest, "sha256": sha256(text.encode()).hexdigest()}))
    (problem,) = world.run().summary.problems
    assert "clock was set back" in problem


def test_time_is_kept_for_telling(world, monkeypatch):
    """Reading stops early enough to record what was read and to say so."""
    for number in range(6):
        world.estate.add_gateway(f"g{number}").add_connection()
    world.estate.latency = 0.5
    environment = {**world.environment, "AUDIT_TIME_LIMIT": "2", "AUDIT_CONCURRENCY": "1"}
    outcome = perform(load_settings(environment, Surroundings(), {}), RunOptions(), mode="manual")
    states = [entry.state for entry in outcome.summary.coverage]
    assert (states[0], states[-1], outcome.summary.exit_code) == ("complete", "not_covered", 3)
    assert outcome.summary.manifest is not None
    assert outcome.summary.deliveries[0].outcome == "delivered"


def test_what_could_not_be_confirmed_is_said_and_costs_no_other_gateway(world):
    """A gateway whose API ignores the filter by id: its own finding stays unverified, the others go on."""
    odd, fine = (world.estate.add_gateway(name, gateway_id=name) for name in ("a-odd", "b-fine"))
    odd.add_connections(2, status="failed")
    fine.add_connections(2, status="failed")
    world.run()
    kept, lost = odd.connections[0], odd.connections[1].id
    odd.remove(lost)
    record = json.dumps(kept.record)
    body = f'{{"total": 1, "size": 1, "connections": [{record}]}}'.encode()
    world.estate.fail(Body(200, body, "application/json"), gateway=odd, kind="connections", times=None)
    fine.remove(fine.connections[0].id)
    outcome = world.run()
    by_status = sorted((f["gateway"]["id"], f["status"]) for f in world.findings().values())
    assert by_status == [("a-odd", "ongoing"), ("a-odd", "unverified"), ("b-fine", "ongoing"), ("b-fine", "resolved")]
    (problem,) = outcome.summary.problems
    assert problem == f"gateway a-odd: whether connection {lost} was deleted could not be told"


def test_the_same_trouble_with_the_store_is_told_once(world, monkeypatch):
    """Though every run has a folder of its own to fail with."""
    world.estate.add_gateway("shop").add_connection()
    world.run()
    put = LocalStore.put

    def full(self: LocalStore, key: str, content: Any) -> None:
        if key.startswith("runs/"):
            raise StoreError(f"{self.locate(key)}: cannot be written: No space left on device")
        put(self, key, content)

    monkeypatch.setattr(LocalStore, "put", full)
    for _ in range(3):
        assert world.run().summary.exit_code == 4
    monkeypatch.undo()
    world.run()
    headlines = [delivery.json()["data"]["headline"] for delivery in world.receiver.deliveries]
    assert len(headlines) == 3
    assert "No space left on device" in headlines[1]
    assert headlines[2] == "working again; clean"
