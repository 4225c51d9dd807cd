"""One invocation starts a shard for each target; what is lost, late, doubled or killed on the way changes no result."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from contextlib import ExitStack
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

import handler
from audit.settings import RULES_BESIDE_HANDLER
from tests.emulator import Throttled, broken, receive, scripted, seeded, serve
from tests.emulator.functions import Run
from tests.emulator.samples import RETAIL, build_landscape
from tests.emulator_client import invoke
from tests.lands import LASTING
from tests.world import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.emulator import Function


SPANNING = {
    "id": "few-per-account",
    "title": "No account has many connections, wherever they are",
    "severity": "low",
    "each": {"group": ["domain_id"]},
    "require": {"count": {"maximum": 20}},
    "tests": [
        {"name": "one", "given": [{}], "expect": "pass"},
        {"name": "many", "given": [{}] * 21, "expect": "finding"},
    ],
}


class Cloud:
    """An estate of many projects in several accounts, and the function that audits them with agencies of theirs."""

    def __init__(self, directory: Path, stack: ExitStack, projects: int, gateways: int) -> None:
        self.directory = directory
        self.receiver = stack.enter_context(receive())
        (directory / "policy.json").write_text(json.dumps({"lists": {"approved-domains": [RETAIL]}}))
        (directory / "rules").mkdir()
        for rule_id in (*RULES, "unique-marker-id"):
            shutil.copy(RULES_BESIDE_HANDLER / f"{rule_id}.json", directory / "rules")
        (directory / "rules/few-per-account.json").write_text(json.dumps(SPANNING))
        born = datetime.now(timezone.utc).replace(microsecond=0)
        self.estate = build_landscape(born, 0, projects, gateways)
        self.server = stack.enter_context(serve(self.estate))

    def deploy(self, store: str, code: Any = handler.handler, **more: str) -> Function:
        function = self.estate.functions.add(store, code, timeout=120)
        function.user_data |= {
            "AUDIT_TARGETS": json.dumps(self.estate.targets(self.server.url)),
            "AUDIT_IAM_ENDPOINT": self.server.url,
            "AUDIT_FUNCTION_URN": function.urn,
            "AUDIT_FUNCTION_ENDPOINT": self.server.url,
            "AUDIT_STORE": str(self.directory / store),
            "AUDIT_POLICY": str(self.directory / "policy.json"),
            "AUDIT_RULES_DIR": str(self.directory / "rules"),
            "AUDIT_WEBHOOK_URL": self.receiver.url,
            "AUDIT_WEBHOOK_KIND": "generic",
            "AUDIT_WEBHOOK_SECRET": str(self.receiver.secret),
            "AUDIT_LOG_LEVEL": "ERROR",
            **more,
        }
        return function

    def call(self, function: Function, mode: str) -> dict[str, Any]:
        answer = invoke(self.server, function, {"mode": mode} if mode else {}, wait=True)
        assert answer.status_code == 200, answer.text
        summary: dict[str, Any] = answer.json()
        assert "failed" not in {delivery["outcome"] for delivery in summary["deliveries"]}
        return summary

    def fan_out(self, function: Function) -> dict[str, Any]:
        summary = self.call(function, "fan-out")
        self.estate.functions.drain(120)
        return summary

    def found(self, store: str) -> list[dict[str, Any]]:
        root = self.directory / store
        latest = json.loads((root / "latest.json").read_text())
        lines = gzip.decompress((root / latest["manifest"]).with_name("findings.ndjson.gz").read_bytes())
        findings = [json.loads(line) for line in lines.splitlines()]
        return [{name: finding[name] for name in LASTING} for finding in findings]

    def told(self) -> dict[str, Any]:
        """What the last message said, as far as it depends neither on the run nor on the store."""
        data = self.receiver.deliveries[-1].json()["data"]
        names = ("headline", "changes", "open_by_severity", "gateways", "not_covered", "problems", "findings_left_out")
        return {name: data[name] for name in names}


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with ExitStack() as stack:
        yield Cloud(tmp_path, stack, 10, 3)


def missing(summary: dict[str, Any]) -> set[str]:
    return {entry["project_id"] for entry in summary["coverage"] if entry["gateway_id"] is None}


def test_fifty_targets_with_lost_doubled_late_and_dying_shards_say_what_one_run_says(tmp_path: Path) -> None:
    """Each shard is a process of its own; one in three is killed by one of its first requests and delivered again."""
    with ExitStack() as stack:
        cloud = Cloud(tmp_path, stack, 50, 20)
        single = cloud.call(cloud.deploy("single"), "")
        assert (single["exit_code"], len(single["coverage"])) == (1, 1000)
        told = cloud.told()

        function = cloud.deploy("fanned", "handler:handler")
        function.plan = seeded(3, duplicates=0.3, drops=0.2, deaths=0.3, delay=1.0)
        assert cloud.fan_out(function)["exit_code"] == 0
        outcomes = Counter(invocation.outcome for invocation in function.invocations)
        assert outcomes["dropped"] > 3
        assert outcomes["killed"] > 5
        function.plan = seeded(5, duplicates=0.2, deaths=0.2, delay=0.5)
        cloud.fan_out(function)
        assert not [i.error for i in function.invocations if i.outcome == "failed"]
        summary = cloud.call(function, "summarize")
        assert cloud.found("fanned") == cloud.found("single")
        assert cloud.told() == told
        assert summary["counts"] == single["counts"]
        assert len(cloud.receiver.deliveries) == 2


def test_what_is_lost_is_named_and_the_next_round_repairs_it(cloud: Cloud) -> None:
    """Also a shard that is killed in the middle, by its third request."""
    single = cloud.call(cloud.deploy("single"), "")
    function = cloud.deploy("fanned", "handler:handler")
    function.plan = scripted([], [Run(dies_at_request=3)], [Run(), Run()])
    cloud.fan_out(function)
    lost = {i.event["target"] for i in function.invocations if i.outcome in {"dropped", "killed"}}
    summary = cloud.call(function, "summarize")
    projects = {project.id: project.name for project in cloud.estate.projects}
    assert len(lost) == 2
    assert {projects[project] for project in missing(summary)} == lost
    assert summary["exit_code"] == 3
    assert "2 gateways" not in cloud.told()["headline"]
    assert "list of gateways not fully read" in cloud.told()["headline"]
    cloud.fan_out(function)
    repaired = cloud.call(function, "summarize")
    assert repaired["exit_code"] == single["exit_code"] == 1
    assert {line["uid"] for line in cloud.found("fanned")} == {line["uid"] for line in cloud.found("single")}
    assert cloud.told()["changes"]["gaps closed"] == 2


def test_a_refused_agency_a_region_that_is_down_and_a_throttled_project_cost_their_own_coverage(cloud: Cloud) -> None:
    with broken("resets") as url:
        down = cloud.estate.projects[1]
        cloud.estate.elsewhere[down.region] = url
        refused = cloud.estate.projects[7]
        targets = cloud.estate.targets(cloud.server.url)
        targets[7]["credentials"]["agency"] = "nobody"
        gone = {project.id for project in cloud.estate.projects if project.region == down.region} | {refused.id}
        throttled = next(project for project in cloud.estate.projects if project.id not in gone)
        cloud.estate.fail(Throttled("3600"), project=throttled, times=None)
        gone |= {throttled.id}
        summary = cloud.call(cloud.deploy("single", AUDIT_TARGETS=json.dumps(targets)), "")
    assert missing(summary) == gone
    assert summary["exit_code"] == 3
    reasons = {entry["project_id"]: entry["reason"] for entry in summary["coverage"] if entry["gateway_id"] is None}
    assert 'the agency "nobody" of account "account-01" could not be assumed' in reasons[refused.id]
    assert reasons[throttled.id].startswith("HTTP 429 APIG.0308")
    assert len([entry for entry in summary["coverage"] if entry["state"] == "complete"]) == 3 * (10 - len(gone))


def test_a_shard_that_could_not_be_started_is_named(cloud: Cloud) -> None:
    function = cloud.deploy("fanned")
    function.user_data["AUDIT_FUNCTION_URN"] = function.urn.replace(":fanned:", ":elsewhere:")
    answer = invoke(cloud.server, function, {"mode": "fan-out"}, wait=True)
    assert "0 of 10 shards were started" in answer.json()["errorMessage"]
    assert "FSS.1051" in answer.json()["errorMessage"]


def test_keys_that_an_agency_issued_appear_nowhere(cloud: Cloud) -> None:
    cloud.call(cloud.deploy("single"), "")
    issued = {request.key.access for request in cloud.estate.requests if request.key and request.key.agency}
    everything = b"".join(path.read_bytes() for path in (cloud.directory / "single").rglob("*.*") if path.is_file())
    assert len(issued) > 1
    assert not [key for key in issued if key.encode() in everything]
