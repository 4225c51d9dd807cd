"""A whole deployment for tests: an estate behind HTTP, a receiver, and a store on disk."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema

import audit.model
from audit.compose import perform
from audit.options import RunOptions
from audit.settings import RULES_BESIDE_HANDLER, Surroundings, load_settings
from tests.emulator import Estate, receive, serve
from tests.emulator.connection import DOMAIN_ID

if TYPE_CHECKING:
    from contextlib import ExitStack

    from audit.outcome import Outcome

REGION = "cn-north-4"
STRANGER = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
SCHEMA = json.loads((Path(audit.model.__file__).parent / "finding.schema.json").read_text())
# Enough for the stories told here, and no more: a library that grows must not change them.
RULES = ("malformed-record", "no-failed-connections", "only-approved-domains-accepted", "pending-too-long")
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
        self.rules_dir = directory / "rules"
        self.rules_dir.mkdir()
        for rule_id in RULES:
            shutil.copy(RULES_BESIDE_HANDLER / f"{rule_id}.json", self.rules_dir)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **self.server.environment(),
            "AUDIT_REGION": REGION,
            "AUDIT_STORE": str(self.store),
            "AUDIT_POLICY": str(self.policy),
            "AUDIT_RULES_DIR": str(self.rules_dir),
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
