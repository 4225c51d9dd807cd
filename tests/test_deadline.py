"""However little time there is, what was read is published whole, and what was not is said."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec.structs import replace

from audit.compose import open_archive, perform
from audit.options import RunOptions
from audit.settings import Surroundings, load_settings
from audit.verify import Verifier
from tests.emulator import broken

if TYPE_CHECKING:
    from audit.outcome import Outcome
    from tests.world import World

GATEWAYS, EACH = 24, 3
# Seconds; the least of it is over before the first answer.
BUDGETS = (20.0, 2.0, 1.0, 0.5, 0.25, 0.05)


def run_within(world: World, seconds: float) -> Outcome:
    settings = load_settings({**world.environment, "AUDIT_CONCURRENCY": "2"}, Surroundings(), {})
    return perform(replace(settings, time_limit=seconds), RunOptions(), mode="manual")


def covered(outcome: Outcome) -> int:
    return sum(entry.state == "complete" for entry in outcome.summary.coverage)


def test_a_shrinking_budget_covers_less_and_never_lies(world: World) -> None:
    for number in range(GATEWAYS):
        gateway = world.estate.add_gateway(f"g{number:02}")
        gateway.add_connections(EACH, status="pendingAcceptance", age=timedelta(hours=49))
    first = world.run()
    assert covered(first) == GATEWAYS
    world.estate.latency = 0.05
    seen = []
    for budget in BUDGETS:
        outcome = run_within(world, budget)
        summary, verifier = outcome.summary, Verifier(open_archive(world.store).store)
        seen.append(covered(outcome))
        gaps = [entry for entry in summary.coverage if entry.state != "complete"]
        assert all("deadline: " in entry.reason for entry in gaps)
        assert summary.exit_code == (1 if not gaps else 3 if seen[-1] else 4)
        assert summary.manifest is not None
        assert verifier.verify().problems == []
        statuses = [finding["status"] for finding in world.lines("findings.ndjson.gz")]
        assert set(statuses) == ({"ongoing"} if seen[-1] else set()) | ({"unverified"} if gaps else set())
        assert statuses.count("ongoing") == seen[-1] * EACH
        # Readings of earlier runs are carried, so that nothing is forgotten.
        assert len(world.lines("connections.ndjson.gz")) == GATEWAYS * EACH
    assert seen[0] == GATEWAYS
    assert seen[-1] == 0
    assert len({*seen}) > 2
    world.estate.latency = 0.0
    assert {f["status"] for f in world.lines("findings.ndjson.gz")} == {"unverified"}
    world.run()
    assert {f["status"] for f in world.lines("findings.ndjson.gz")} == {"ongoing"}


def test_a_store_that_takes_all_the_time_leaves_some_to_say_so(world: World) -> None:
    """Silence would look like health."""
    with broken("hangs") as url:
        environment = {
            **world.environment,
            "AUDIT_STORE": "obs://evidence/apig",
            "AUDIT_OBS_ENDPOINT": url,
        }
        settings = load_settings(environment, Surroundings(), {})
        outcome = perform(replace(settings, time_limit=3.0), RunOptions(), mode="manual")
    assert outcome.summary.exit_code == 4
    (message,) = world.receiver.deliveries
    assert message.json()["data"]["headline"].startswith("audit failed: ")
