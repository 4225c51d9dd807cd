"""Runs with many findings: everything that a person or a machine gets of them is bounded, or says how many it holds."""

from __future__ import annotations

import csv
import json
import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from audit.render.report import MOST_SHOWN
from tests.chat_cases import SECRETS
from tests.emulator.chat import CHAT_KINDS, chat
from tests.emulator.services import texts_in

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import World


@pytest.fixture(params=[1_000, 50_000])
def told(
    world: World, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, Path, dict[str, Any]]:
    """How many findings there are, the run's folder, and what each receiver took."""
    for name in ("orders", "billing"):
        world.estate.add_gateway(name).add_connections(request.param // 2, status="failed")
    with ExitStack() as stack:
        chats = [stack.enter_context(chat(kind, SECRETS.get(kind))) for kind in CHAT_KINDS]
        receivers = [{"name": c.kind, "kind": c.kind, "url": c.url, "secret": c.secret} for c in chats]
        monkeypatch.setattr(type(world), "environment", {**world.environment, "AUDIT_RECEIVERS": json.dumps(receivers)})
        outcome = world.run()
    assert {delivery.outcome for delivery in outcome.summary.deliveries} == {"delivered"}
    assert outcome.summary.counts.by_status["new"] == request.param
    bodies = {c.kind: json.loads(c.deliveries[0].body) for c in chats}
    folder = (world.store / json.loads((world.store / "latest.json").read_text())["manifest"]).parent
    return request.param, folder, {**bodies, "generic": world.receiver.deliveries[0].json()}


def test_every_finding_is_there_shown_or_counted(told, world: World):
    """In the lists all of them, on the page the worst, in a message those that fit."""
    number, folder, bodies = told
    with (folder / "findings.csv").open(encoding="utf-8-sig", newline="") as rows:
        assert sum(1 for _ in csv.DictReader(rows)) == number
    assert len(world.lines("findings.ocsf.ndjson.gz")) == len(world.lines("findings.ndjson.gz")) == number
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<details><summary data-find>") == min(number, MOST_SHOWN)
    assert (f"The worst 2,000 of {number:,} findings are shown" in page) == (number > MOST_SHOWN)
    assert len(page) < 6_000_000
    for kind in CHAT_KINDS:
        text = "\n".join(texts_in(bodies[kind]))
        (more,) = re.findall(r"\+(\d+) more, see the report", text)
        assert text.count("status is") + int(more) == number, kind
    data = bodies["generic"]["data"]
    assert len(data["findings"]) + data["findings_left_out"] == number
