"""Random histories of many targets: what shards read and a summary judges is what one run over all finds, every time.

Both chains meet the same estate at the same moment. All is drawn from a seed: a failure names the seed and the round.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from audit.settings import RULES_BESIDE_HANDLER
from tests.emulator import Forbidden
from tests.emulator.connection import DOMAIN_ID
from tests.lands import Lands
from tests.world import STRANGER

if TYPE_CHECKING:
    from pathlib import Path

    from audit.outcome import Outcome
    from tests.emulator import Estate

SEEDS, ROUNDS, TARGETS = range(3), 6, 3
STATUSES = ("accepted", "pendingAcceptance", "rejected", "failed", "unheard-of")
SPANNING = {
    "id": "few-per-account",
    "title": "No account has many connections, wherever they are",
    "severity": "low",
    "each": {"group": ["domain_id"]},
    "require": {"count": {"maximum": 6}},
    "tests": [
        {"name": "one", "given": [{}], "expect": "pass"},
        {"name": "many", "given": [{}] * 7, "expect": "finding"},
    ],
}
# Ids of requests and runs: no two are alike.
IDS = re.compile(r'(?<=request id )\w+|(?<="request_id": )("\w+"|null)|\d{8}T\d{6}Z-\w{6}')
POLICY = {
    "lists": {"approved-domains": [DOMAIN_ID]},
    "params": {"accepted-per-gateway": {"quota": 3}, "connections-per-domain": {"quota": 2}},
    "overrides": [{"match": {"gateway.name": "g0"}, "disable": ["no-rejected-backlog"]}],
    "waivers": [
        {
            "id": "known",
            "rule": "no-failed-connections",
            "match": {"domain_id": STRANGER},
            "reason": "known",
            "approved_by": "j.doe",
            "expires": "2999-12-31T00:00:00Z",
        }
    ],
}


def change(chance: random.Random, estate: Estate) -> None:
    """Let something happen in a project: connections and gateways come, change and go."""
    for _ in range(chance.randrange(4)):
        gateway = chance.choice(estate.gateways) if estate.gateways else estate.add_gateway("only")
        some = chance.choice(gateway.connections).id if gateway.connections else None
        what = chance.choice(("add", "add", "add", "status", "domain", "remove", "gateway", "gone", "door", "garbage"))
        if what == "add" or (some is None and what in {"status", "domain", "remove"}):
            age = timedelta(hours=chance.randrange(99), minutes=30)
            gateway.add_connection(chance.choice(STATUSES), chance.choice((DOMAIN_ID, STRANGER)), age)
        elif what == "status":
            gateway.change(str(some), status=chance.choice(STATUSES))
        elif what == "domain":
            gateway.change(str(some), domain_id=chance.choice((DOMAIN_ID, STRANGER)))
        elif what == "remove":
            gateway.remove(str(some))
        elif what == "gateway":
            estate.add_gateway(f"g{chance.randrange(99)}", permissions=[f"iam:domain::{DOMAIN_ID}"])
        elif what == "gone":
            estate.remove_gateway(gateway.id)
        elif what == "door":
            gateway.permissions = chance.choice(([], ["*"], [f"iam:domain::{STRANGER}"]))
        else:
            gateway.raw_records = chance.choice(([], [{"marker_id": "x"}], [{"id": "odd", "status": 7}]))


def trouble(chance: random.Random, estate: Estate) -> None:
    """Let nothing, or something, of a project be unreadable."""
    estate.heal()
    what = chance.choice(("", "", "", "instances", "connections", "permissions", "some", "some permissions"))
    if what in {"instances", "connections", "permissions"}:
        estate.fail(Forbidden(), kind=what, times=None)  # type: ignore[arg-type]
    elif what and estate.gateways:
        kind: Any = "permissions" if what == "some permissions" else "connections"
        estate.fail(Forbidden(), kind=kind, gateway=chance.choice(estate.gateways), times=None)


def came_to(lands: Lands, outcome: Outcome, store: str, heard: int) -> dict[str, Any]:
    """What a run found, covered and told, but for what names the run."""
    manifest = lands.manifest(store)
    messages = [delivery.json()["data"] for delivery in lands.receiver.deliveries[heard:]]
    said = ("headline", "changes", "open_by_severity", "gateways", "not_covered", "rules_not_evaluated", "problems")
    found = {
        "findings": lands.findings(store),
        "coverage": [{**entry, "complete_in": bool(entry["complete_in"])} for entry in manifest["coverage"]],
        "messages": [{name: message[name] for name in said} for message in messages],
        "outcome": (outcome.summary.exit_code, outcome.reason, sorted(outcome.summary.problems)),
        **{name: manifest[name] for name in ("counts", "rules", "scope", "policy_sha256")},
    }
    alike: dict[str, Any] = json.loads(IDS.sub("0", json.dumps(found)))
    return alike


@pytest.mark.parametrize("seed", SEEDS)
def test_a_summary_and_one_run_over_all_agree_for_ever(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with ExitStack() as stack:
        lands = Lands(tmp_path, stack, TARGETS, gateways=2)
        for path in RULES_BESIDE_HANDLER.glob("*.json"):
            if path.name != "policy.json":
                shutil.copy(path, lands.rules_dir)
        (lands.rules_dir / "few-per-account.json").write_text(json.dumps(SPANNING))
        lands.policy.write_text(json.dumps(POLICY))
        for number in range(ROUNDS):
            for estate in lands.estates:
                change(chance, estate)
                trouble(chance, estate)
            heard = len(lands.receiver.deliveries)
            single = came_to(lands, lands.run("single"), "single", heard)
            lands.run_shards(store="fanned")
            lands.run("fanned", mode="shard", target=f"t{chance.randrange(TARGETS)}")  # delivered twice
            heard = len(lands.receiver.deliveries)
            summary = came_to(lands, lands.run("fanned", mode="summarize"), "fanned", heard)
            for name, value in single.items():
                assert summary[name] == value, f"seed {seed}, round {number}: {name}"
