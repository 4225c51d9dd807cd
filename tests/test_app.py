"""Whole runs, from the API over HTTP to store and receiver."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import msgspec
import pytest

import audit.model
from audit.compose import open_archive, perform
from audit.settings import RunOptions, Surroundings, load_settings
from tests.emulator import Estate, Forbidden, Unauthorized, receive, serve
from tests.emulator.connection import DOMAIN_ID

if TYPE_CHECKING:
    from audit.outcome import Outcome

REGION = "cn-north-4"
STRANGER = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
SCHEMA = json.loads((Path(audit.model.__file__).parent / "finding.schema.json").read_text())
POLICY = {"lists": {"approved-domains": [DOMAIN_ID]}}


class World:
    """An estate behind HTTP, a receiver, and an empty store; `run` performs an audit of it with real adapters."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.estate = Estate()
        self.server = stack.enter_context(serve(self.estate))
        self.receiver = stack.enter_context(receive())
        self.store = directory / "store"
        self.policy = directory / "policy.json"
        self.policy.write_text(json.dumps(POLICY))
        self.rules_dir = ""

    @property
    def environment(self) -> dict[str, str]:
        return {
            **self.server.environment(),
            "AUDIT_REGION": REGION,
            "AUDIT_STORE": str(self.store),
            "AUDIT_POLICY": str(self.policy),
            "AUDIT_RULES_DIR": self.rules_dir,
            "AUDIT_WEBHOOK_URL": self.receiver.url,
            "AUDIT_WEBHOOK_KIND": "generic",
            "AUDIT_WEBHOOK_SECRET": str(self.receiver.secret),
            "AUDIT_LOG_LEVEL": "ERROR",
        }

    def run(self, **options: Any) -> Outcome:
        settings = load_settings(self.environment, Surroundings(), {})
        return perform(settings, RunOptions(**options), mode="manual")

    def lines(self, name: str) -> list[dict[str, Any]]:
        latest = json.loads((self.store / "latest.json").read_text())
        path = (self.store / latest["manifest"]).with_name(name)
        return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]

    def findings(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Findings of the latest run by rule and connection, each checked against the published schema."""
        found = self.lines("findings.ndjson.gz")
        for finding in found:
            jsonschema.validate(finding, SCHEMA)
        return {(finding["rule_id"], finding["connection"]): finding for finding in found}

    def statuses(self) -> dict[tuple[str, str], str]:
        return {key: finding["status"] for key, finding in self.findings().items()}

    def manifest(self) -> dict[str, Any]:
        latest = json.loads((self.store / "latest.json").read_text())
        manifest: dict[str, Any] = json.loads((self.store / latest["manifest"]).read_text())
        return manifest


@pytest.fixture
def world(tmp_path):
    with ExitStack() as stack:
        yield World(tmp_path, stack)


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
            shop.stated_total = None
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
    assert world.manifest()["scope"] == {"gateways": ["one"], "rules": []}
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
        "connections.ndjson.gz", "findings.ndjson.gz",
    ]  # fmt: skip


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
    assert (outcome.summary.exit_code, outcome.reason) == (0, "nothing found, but not every rule was evaluated")
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
    assert (outcome.summary.exit_code, outcome.reason) == (0, "there is no gateway in this project")


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


def test_two_runs_at_once_harm_nothing(world):
    """The one that comes second says so and stays unrecorded; the chain is whole."""
    world.estate.add_gateway("shop").add_connection(status="failed")
    world.run()
    overtaken: list[object] = []

    def overtake(call) -> None:
        if call.kind == "connections" and not overtaken:
            overtaken.append(True)
            inner = subprocess.run(
                [sys.executable, "-m", "audit", "run", "--format", "json"],
                env={**os.environ, **world.environment}, capture_output=True, text=True, check=False,
            )  # fmt: skip
            overtaken.append(json.loads(inner.stdout)["exit_code"])

    world.estate.before_request(overtake)
    # The callback runs under the estate's lock: let other requests in meanwhile.
    world.estate.lock = _NoLock()
    outcome = world.run()
    assert overtaken == [True, 1]
    assert outcome.summary.exit_code == 4
    assert "was recorded meanwhile" in outcome.summary.problems[0]
    archive = open_archive(world.store)
    latest = archive.latest()
    assert latest is not None
    assert [f.status for f in latest.findings()] == ["ongoing"]


class _NoLock:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


@pytest.mark.parametrize("after", [0.0, 0.25, 0.6])
def test_a_run_killed_at_any_moment_leaves_a_sound_store(world, after):
    """Whatever it had written, the next run goes on from the last commit."""
    shop = world.estate.add_gateway("shop")
    shop.add_connections(5, status="failed")
    world.run()
    world.estate.latency = 0.2
    process = subprocess.Popen(
        [sys.executable, "-m", "audit", "run"], env={**os.environ, **world.environment},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    requests = len(world.estate.requests)
    limit = time.monotonic() + 10
    while len(world.estate.requests) == requests and time.monotonic() < limit:
        time.sleep(0.01)
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.wait()
    world.estate.latency = 0
    world.run()
    assert set(world.statuses().values()) == {"ongoing"}
    link = world.manifest()["parent"]
    parent = next(world.store.glob(f"runs/*/*/*/{link['run_id']}/manifest.json"))
    assert sha256(parent.read_bytes()).hexdigest() == link["sha256"]


def test_the_summary_has_the_documented_fields(world):
    """The shape that scripts rely on."""
    world.estate.add_gateway("shop").add_connection()
    summary = msgspec.to_builtins(world.run().summary)
    assert set(summary) == {
        "run_id", "exit_code", "counts", "coverage", "manifest", "report", "deliveries", "problems",
    }  # fmt: skip
    assert set(summary["coverage"][0]) == {
        "region", "project_id", "gateway_id", "name", "state", "reason", "connections", "request_id",
    }  # fmt: skip
    assert set(summary["manifest"]) == {"key", "sha256"}
    manifest = world.manifest()
    assert set(manifest) == {
        "run_id", "mode", "started_at", "finished_at", "now", "version", "scope", "rules", "policy_sha256", "coverage",
        "counts", "trend", "objects", "parent",
    }  # fmt: skip
    line = world.lines("connections.ndjson.gz")[0]
    assert set(line) == {
        "region", "project_id", "gateway_id", "id", "marker_id", "created_at", "updated_at", "domain_id", "status",
        "status_since", "read_in",
    }  # fmt: skip


def test_the_trend_keeps_the_last_ninety_runs(world):
    """Each manifest carries the history that a reader needs."""
    world.estate.add_gateway("shop").add_connection(status="failed")
    for _ in range(3):
        world.run()
    trend = world.manifest()["trend"]
    assert [point["by_status"]["new"] for point in trend] == [1, 0, 0]
    assert trend[-1]["run_id"] == world.manifest()["run_id"]


def test_a_secret_in_the_data_itself_reaches_nothing(world):
    """A gateway named after the key, a connection from a domain that is the secret key: neither store nor message."""
    key, secret = world.estate.access_key, world.estate.secret_key
    world.estate.add_gateway(f"gw {key}").add_connection(domain_id=secret)
    outcome = world.run()
    assert outcome.summary.exit_code == 1
    texts = [gzip.decompress(path.read_bytes()) for path in world.store.rglob("*.gz")]
    texts += [path.read_bytes() for path in world.store.rglob("*.json")]
    texts += [world.receiver.deliveries[0].body, msgspec.json.encode(outcome.summary)]
    assert len(texts) == 7
    for text in texts:
        assert key.encode() not in text
        assert secret.encode() not in text
