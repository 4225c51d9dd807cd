"""Every receiver goes away at once, in every way that a network knows: nothing is lost, and the next run tells it."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import pytest
from urllib3.util import connection

from audit import exchange, webhook
from tests.chat_cases import SECRETS
from tests.emulator import Answer
from tests.emulator.chat import CHAT_KINDS, chat

WAYS = {"refused": None, "reset": Answer(0, broken="reset"), "hang": Answer(200, delay=30), "503": Answer(503)}
WORDS = {
    "refused": "the connection was refused after 3 tries",
    "reset": "the connection was broken off after 3 tries",
    "hang": "no answer in time after 3 tries",
    "503": "HTTP 503 after 3 tries",
}


@pytest.mark.parametrize("way", WAYS)
def test_receivers_that_go_away_are_told_by_the_next_run(way, world, monkeypatch):
    """Exit code, summary and record are what they would be, but for the deliveries."""
    monkeypatch.setattr(exchange, "READ_SECONDS", 0.1 if way == "hang" else 15.0)
    monkeypatch.setattr(webhook, "_LONGEST_BACKOFF", 0.001)
    monkeypatch.setattr(webhook, "_SHORTEST_BACKOFF", 0.001)
    world.estate.add_gateway("shop").add_connection(status="failed")
    with ExitStack() as stack:
        chats = [stack.enter_context(chat(kind, SECRETS.get(kind))) for kind in CHAT_KINDS]
        listed = [{"name": c.kind, "kind": c.kind, "url": c.url, "secret": c.secret} for c in chats]
        monkeypatch.setattr(type(world), "environment", world.environment | {"AUDIT_RECEIVERS": json.dumps(listed)})
        receivers = [world.receiver, *chats]
        with monkeypatch.context() as outage:
            if answer := WAYS[way]:
                for receiver in receivers:
                    receiver.answers.extend([answer] * 3)
            else:
                outage.setattr(connection, "create_connection", _refuse([r.url for r in receivers]))
            first = world.run()
        assert first.summary.exit_code == 1
        assert first.summary.manifest.key.split("/")[-2] == world.manifest()["run_id"]
        assert {(told.outcome, told.detail) for told in first.summary.deliveries} == {("failed", WORDS[way])}
        monkeypatch.setattr(exchange, "READ_SECONDS", 15.0)
        second = world.run()
        told = {told.receiver: told.outcome for told in second.summary.deliveries}
        assert told == dict.fromkeys(["default", *CHAT_KINDS], "delivered")
        assert all("1 new" in receiver.deliveries[-1].body.decode() for receiver in receivers)
        assert {told.outcome for told in world.run().summary.deliveries} == {"nothing to tell"}


def _refuse(urls: list[str]) -> Any:
    ports, connect = {int(url.split("/")[2].rpartition(":")[2]) for url in urls}, connection.create_connection

    def create_connection(address: tuple[str, int], *rest: Any, **more: Any) -> Any:
        if address[1] in ports:
            raise ConnectionRefusedError
        return connect(address, *rest, **more)

    return create_connection
