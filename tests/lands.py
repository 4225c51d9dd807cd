"""Many targets for tests: an estate behind a port of its own for each, one store and one receiver."""

from __future__ import annotations

import gzip
import json
import shutil
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from audit.compose import perform
from audit.options import parse_options
from audit.settings import RULES_BESIDE_HANDLER, Settings, Surroundings, load_settings
from tests.emulator import Estate, receive, serve
from tests.world import POLICY, RULES, STRANGER

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from audit.outcome import Outcome

REGIONS = ("cn-north-4", "eu-west-101", "ap-southeast-1")
# Nothing here depends on the run that found it, nor on when.
LASTING = ("uid", "rule_id", "severity", "status", "resolution", "connection", "expected", "actual", "occurrences")


class Lands:
    """So many targets, each with gateways of which some have strangers and some have requests that hang."""

    def __init__(self, directory: Path, stack: ExitStack, targets: int, gateways: int = 3) -> None:
        self.directory = directory
        self.receiver = stack.enter_context(receive())
        self.policy = directory / "policy.json"
        self.policy.write_text(json.dumps(POLICY))
        self.rules_dir = directory / "rules"
        self.rules_dir.mkdir()
        for rule_id in RULES:
            shutil.copy(RULES_BESIDE_HANDLER / f"{rule_id}.json", self.rules_dir)
        self.estates = [Estate(f"{number:032x}", seed=str(number)) for number in range(targets)]
        self.servers = [stack.enter_context(serve(estate)) for estate in self.estates]
        for number, estate in enumerate(self.estates):
            for name in range(gateways):
                gateway = estate.add_gateway(f"g{name}")
                gateway.add_connection(status="accepted")
                if name % 2:
                    gateway.add_connection(status="accepted", domain_id=STRANGER)
                if (name + number) % 3 == 0:
                    gateway.add_connection(status="pendingAcceptance", age=timedelta(hours=49))

    def targets(self) -> list[dict[str, Any]]:
        return [
            {
                "region": REGIONS[number % len(REGIONS)],
                "project_id": estate.project_id,
                "endpoint": server.url,
                "name": f"t{number}",
            }
            for number, (estate, server) in enumerate(zip(self.estates, self.servers, strict=True))
        ]

    def environment(self, store: str = "store", **more: str) -> dict[str, str]:
        first = self.estates[0]
        return {
            "HUAWEICLOUD_SDK_AK": first.access_key,
            "HUAWEICLOUD_SDK_SK": first.secret_key,
            "AUDIT_TARGETS": json.dumps(self.targets()),
            "AUDIT_STORE": str(self.directory / store),
            "AUDIT_POLICY": str(self.policy),
            "AUDIT_RULES_DIR": str(self.rules_dir),
            "AUDIT_WEBHOOK_URL": self.receiver.url,
            "AUDIT_WEBHOOK_KIND": "generic",
            "AUDIT_WEBHOOK_SECRET": str(self.receiver.secret),
            "AUDIT_LOG_LEVEL": "ERROR",
            **more,
        }

    def settings(self, store: str = "store", **more: str) -> Settings:
        return load_settings(self.environment(store, **more), Surroundings(), {})

    def run(self, store: str = "store", *, settings: Settings | None = None, **options: Any) -> Outcome:
        return perform(settings or self.settings(store), parse_options(options), mode="manual")

    def run_shards(self, *without: str, store: str = "store") -> None:
        for target in self.targets():
            if target["name"] not in without:
                self.run(store, mode="shard", target=target["name"])

    def lines(self, store: str = "store") -> list[dict[str, Any]]:
        """The findings of the latest run."""
        root = self.directory / store
        latest = json.loads((root / "latest.json").read_text())
        text = gzip.decompress((root / latest["manifest"]).with_name("findings.ndjson.gz").read_bytes())
        return [json.loads(line) for line in text.splitlines()]

    def findings(self, store: str = "store") -> list[dict[str, Any]]:
        """What the latest run found, as far as it depends neither on the run nor on the time."""
        return [{name: finding[name] for name in LASTING} for finding in self.lines(store)]

    def manifest(self, store: str = "store") -> dict[str, Any]:
        root = self.directory / store
        latest = json.loads((root / "latest.json").read_text())
        manifest: dict[str, Any] = json.loads((root / latest["manifest"]).read_text())
        return manifest
