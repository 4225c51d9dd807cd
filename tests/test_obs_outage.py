"""OBS goes away at every single request of a run, in every way that a network knows, and comes back for the next."""

from __future__ import annotations

import json
import socket
import time
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from audit import exchange
from audit.compose import open_archive
from audit.errors import StoreError, Unsure
from audit.huawei import obs_client
from audit.verify import Verifier
from tests.emulator.wire import Answer, Request
from tests.seaweed import Obs, refusal
from tests.test_obs import Deployment

if TYPE_CHECKING:
    from collections.abc import Callable

BROKEN = Answer(200, {}, b"", broken="reset")
WAYS: dict[str, Callable[[Obs, Request], Answer | None]] = {
    "refused": lambda _obs, _request: None,
    "reset": lambda _obs, _request: BROKEN,
    "lost": lambda obs, request: BROKEN if obs._answer(request) else None,  # what was asked for is done all the same
    "hang": lambda _obs, _request: Answer(200, {}, b"", delay=60),
    "503": lambda _obs, _request: refusal(503, "SlowDown"),
}


class Outage:
    """Counts the connections to OBS; from number `at` on, `number` of them fail, and nobody waits long for them."""

    def __init__(self, obs: Obs, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at, self.number, self.seen = 0, 0, 0
        connect, port = socket.create_connection, int(obs.origin.rpartition(":")[2])
        with socket.create_server(("127.0.0.1", 0)) as closed:
            nobody = closed.getsockname()

        def counted(address: Any, *rest: Any, **more: Any) -> socket.socket:
            if address[1] == port:
                self.seen += 1
                if self.now:
                    exchange.READ_SECONDS = 0.1
                if way == "refused" and self.now:
                    return connect(nobody, *rest, **more)
            return connect(address, *rest, **more)

        monkeypatch.setattr(socket, "create_connection", counted)
        obs.faults = [lambda request: WAYS[way](obs, request) if self.now else None] * 10_000

    @property
    def now(self) -> bool:
        return 0 < self.at <= self.seen < self.at + self.number

    def plan(self, at: int, number: int) -> None:
        self.at, self.number, self.seen = at, number, 0

    def end(self) -> bool:
        """Whether there was one."""
        was, self.at = self.seen >= self.at, 0
        exchange.READ_SECONDS = 15.0
        return was


@pytest.fixture
def deployment(world, obs, tmp_path, monkeypatch):
    monkeypatch.setattr(obs_client, "_FIRST_BACKOFF", 0.001)
    monkeypatch.setattr(obs_client, "TRIES", 2)
    monkeypatch.setattr(exchange, "READ_SECONDS", exchange.READ_SECONDS)  # set back after the test
    deployment = Deployment(world, obs, tmp_path.name)
    world.estate.add_gateway("shop").add_connections(1, status="failed")
    deployment.run()
    return deployment


def recorded(deployment: Deployment) -> str:
    return str(json.loads(deployment.get("latest.json"))["run_id"])


@pytest.mark.parametrize("way", ["refused", "reset", "hang", "503"])
def test_obs_that_goes_away_at_any_request_costs_no_finding(deployment, way, monkeypatch):
    """The run says truthfully what became of it, and the next one makes up for it and tells."""
    (gateway,) = deployment.world.estate.gateways
    outage, seen = Outage(deployment.obs, way, monkeypatch), []
    for at in count(1):
        added, before = gateway.add_connection(status="failed").id, recorded(deployment)
        outage.plan(at, 10_000)
        began = time.monotonic()
        try:
            outcome = deployment.run()
        except StoreError as error:
            outcome, reason = None, error.short  # rules and policy are fetched before there is a run
        else:
            reason = outcome.reason
        assert time.monotonic() - began < 15
        if not outage.end():
            break
        after, in_doubt = recorded(deployment), reason == Unsure.short
        seen.append((after != before, in_doubt))
        if outcome is None or reason == StoreError.short:
            assert after == before
        elif not in_doubt:
            assert after == outcome.summary.run_id == outcome.summary.manifest.key.split("/")[-2]
        if outcome:
            assert outcome.summary.exit_code == (1 if after != before and not in_doubt else 4)
            assert any("/runs-of-mine/" in problem and "cannot be " in problem for problem in outcome.summary.problems)
        following = deployment.run()
        assert (following.summary.exit_code, following.summary.problems) == (1, [])
        assert [delivery.outcome for delivery in following.summary.deliveries] == ["delivered"]
        statuses = {finding["connection"]: finding["status"] for finding in deployment.findings()}
        assert len(statuses) == at + 1
        assert statuses[added] == ("new" if after == before else "ongoing")
        assert following.summary.deliveries[0].detail.startswith("1 new; ")
    # Of the write that commits, and of reading it back, nothing can be said.
    assert (at > 20, [in_doubt for _, in_doubt in seen].count(True)) == (True, 2)
    assert [there for there, _ in seen] == sorted(there for there, _ in seen)
    found = Verifier(open_archive(deployment.settings.store).store).verify(everything=True)
    assert (found.problems, len(found.runs)) == ([], at + 1 + [there for there, _ in seen].count(True))


def test_one_answer_that_is_lost_changes_nothing(deployment, monkeypatch):
    """What was asked for is done all the same, be it a read or a write; it is asked for again."""
    (gateway,) = deployment.world.estate.gateways
    outage = Outage(deployment.obs, "lost", monkeypatch)
    for at in count(1):
        added = gateway.add_connection(status="failed").id
        outage.plan(at, 1)
        outcome = deployment.run()
        if not outage.end():
            break
        assert (outcome.summary.exit_code, outcome.summary.problems) == (1, [])
        assert recorded(deployment) == outcome.summary.run_id
        assert added in json.dumps(deployment.world.receiver.deliveries[-1].json())
    assert at > 20
    found = Verifier(open_archive(deployment.settings.store).store).verify(everything=True)
    assert (found.problems, len(found.runs)) == ([], at + 1)
