"""Real processes, killed with SIGKILL or overtaken at every single effect of a run; then the run is started again.

The moments are counted first, in a run that nothing disturbs, and then all of them are gone through: before and after
each fetch, post and write, and between the steps of each write. As clock and run ids are given, what a disturbed
history leaves must be, byte for byte, what an undisturbed one leaves.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
import traceback
import warnings
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any, NamedTuple, NoReturn

import pytest

import audit.compose
import audit.store
from audit.archive import folder_of
from audit.compose import open_archive
from audit.exchange import HttpClient
from audit.store import LocalStore
from audit.verify import Verifier
from tests.emulator import Forbidden
from tests.test_policy_runs import ACCOUNTS, NEWLY_ACCEPTED, QUOTA, add_rule, set_policy, waiver
from tests.world import STRANGER, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked, which is fast")

# An effect, or a step of one, that the interpreter tells of just before it happens.
STEPS = {"os.mkdir", "tempfile.mkstemp", "os.chmod", "os.rename", "os.remove", "fcntl.flock"}
EFFECTS: list[tuple[Any, str]] = [(LocalStore, "put"), (LocalStore, "swap"), (HttpClient, "exchange")]
FIRST, KILLED, NEXT, LAST = "000001", "dead00", "000002", "000003"


class Moments:
    """Counts, in a process of its own, the moments at which it could end; does at one of them what `act` says."""

    def __init__(self, store: Path, at: int, act: Callable[[], object]) -> None:
        self.names: list[str] = []
        self._store, self._at, self._act = f"{store}{os.sep}", at, act
        for owner, name in EFFECTS:
            self._surround(owner, name)
        vars(audit.store)["_chunks"] = self._halve(audit.store._chunks)
        sys.addaudithook(self._hear)

    def _pass(self, name: str) -> None:
        self.names.append(name)
        if len(self.names) == self._at:
            self._act()

    def _surround(self, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def surrounded(*arguments: Any, **keywords: Any) -> Any:
            self._pass(f"before {name}")
            result = real(*arguments, **keywords)
            self._pass(f"after {name}")
            return result

        setattr(owner, name, surrounded)

    def _halve(self, real: Callable[[IO[bytes]], Iterator[bytes]]) -> Callable[[IO[bytes]], Iterator[bytes]]:
        def halves(content: IO[bytes]) -> Iterator[bytes]:
            for chunk in real(content):
                yield chunk[: len(chunk) // 2]
                self._pass("half written")
                yield chunk[len(chunk) // 2 :]

        return halves

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in STEPS and (event == "fcntl.flock" or f"{arguments[0]}/".startswith(self._store)):
            self._pass(event)


class Left(NamedTuple):
    """What a history left: the store without what nothing points to, the receiver's record, what it heard by id."""

    chain: list[str]
    files: dict[str, bytes]
    record: dict[str, Any]
    heard: dict[str, Any]


class Deployment:
    """A world whose runs are forked processes with a clock and run ids that are given; its store can be set back."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.kept = world.store.with_name("kept")
        self.began = datetime.now(timezone.utc).replace(microsecond=0)
        # One request at a time, so that the moments have an order; ids of requests stand in the coverage.
        self.environment = {**world.environment, "AUDIT_CONCURRENCY": "1"}
        monkeypatch.setattr(type(world), "environment", property(lambda _: self.environment))
        monkeypatch.setattr(world.estate, "next_request_id", lambda: "r")

    def start(self, token: str, hour: int = 1, at: int = 0, act: Callable[[], object] = lambda: None) -> Process:
        """Start a run at an hour, with an id that ends in `token`; at one of its moments it does `act`."""

        def perform(tell: Callable[[list[str]], object]) -> None:
            moments = Moments(self.world.store, at, act)
            now = self.began + timedelta(hours=hour)
            tokens = iter([token, *(f"{token[:4]}{number:02x}" for number in range(0xA0, 0xA9))])
            # A process of its own: what is replaced here is replaced nowhere else. Nobody cuts the power.
            vars(audit.compose)["datetime"] = SimpleNamespace(now=lambda _: now)
            vars(audit.compose)["secrets"] = SimpleNamespace(token_hex=lambda _: next(tokens))
            vars(os)["fsync"] = lambda _: None
            self.world.run()
            tell(moments.names)

        return Process(perform)

    def run(self, token: str, hour: int = 1) -> list[str]:
        """Run undisturbed; returns the names of all moments."""
        return self.start(token, hour).finish()

    def keep(self) -> None:
        """Remember what the store holds, or that there is none."""
        if self.world.store.exists():
            shutil.copytree(self.world.store, self.kept)

    def set_back(self) -> None:
        """Make the store what it was, and let the receiver forget."""
        shutil.rmtree(self.world.store, ignore_errors=True)
        if self.kept.exists():
            shutil.copytree(self.kept, self.world.store)
        self.world.receiver.deliveries.clear()

    def chain(self) -> list[str]:
        """Ids of the recorded runs, oldest first."""
        return [run.manifest.run_id for run in open_archive(self.world.store).chain()][::-1]

    def look(self) -> Left:
        store, chain = self.world.store, self.chain()
        files = {path.relative_to(store).as_posix(): path for path in store.rglob("*") if path.is_file()}
        ours = ("latest.json", *map(folder_of, chain))
        record = json.loads((store / "receivers/default.json").read_text())
        # Which of two runs that found the same told it depends on where the first one ended.
        del record["run_id"], record["told_at"], record["manifest_sha256"]
        heard: dict[str, Any] = {}
        for delivery in self.world.receiver.deliveries:
            assert delivery.verified
            said = {name: delivery.json()["data"][name] for name in ("changes", "open_by_severity", "not_covered")}
            assert heard.setdefault(delivery.headers["webhook-id"], said) == said
        stored = {n: path.read_bytes() for n, path in files.items() if n.startswith(ours) and path.name[0] != "."}
        return Left(chain, stored, record, heard)


class Process:
    """A forked process; it ends by itself if it hangs."""

    def __init__(self, task: Callable[[Callable[[list[str]], object]], object]) -> None:
        self._read, write = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads: the servers', which wait for requests
            self.pid = os.fork()
        if not self.pid:
            self._live(task, write)
        os.close(write)

    def _live(self, task: Callable[[Callable[[list[str]], object]], object], write: int) -> NoReturn:
        try:
            signal.alarm(20)
            task(lambda names: os.write(write, json.dumps(names).encode()))
            os._exit(0)
        except BaseException:  # noqa: BLE001  (nothing may get into the tests' own process twice)
            traceback.print_exc()
        finally:
            os._exit(70)

    def finish(self) -> list[str]:
        """Wait for a run that nothing disturbs; returns the names of its moments."""
        status = os.waitpid(self.pid, 0)[1]
        assert os.waitstatus_to_exitcode(status) == 0
        with os.fdopen(self._read, "rb") as names:
            return json.loads(names.read())  # type: ignore[no-any-return]

    def is_over(self) -> bool:
        """Whether it ended; it can then be finished."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def end(self) -> int:
        """Wait for its end; returns the signal that was it."""
        os.close(self._read)
        return os.WTERMSIG(os.waitpid(self.pid, 0)[1])

    def wait_until_stopped(self) -> None:
        assert os.WIFSTOPPED(os.waitpid(self.pid, os.WUNTRACED)[1])

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


@pytest.fixture
def world() -> Iterator[World]:
    """A world in memory where there is room for that: some thousand files are written."""
    memory = Path("/dev/shm")  # noqa: S108
    with ExitStack() as stack:
        directory = stack.enter_context(TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None))
        yield World(Path(directory), stack)


@pytest.fixture
def deployment(world: World, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """One run is recorded; then everything that can happen to an estate happens, all before the next run."""
    for rule_id, rule in (("accounts", ACCOUNTS), ("quota", QUOTA), ("newly-accepted", NEWLY_ACCEPTED)):
        add_rule(world, rule_id, rule)
    shop, locked, left = (world.estate.add_gateway(name, gateway_id=name) for name in ("shop", "locked", "left"))
    fixed, gone, waived, waits = shop.add_connections(4, status="failed")
    set_policy(world, waivers=[waiver(match={"id": waived.id})])
    shop.change(waits.id, status="pendingAcceptance")
    locked.add_connection(status="failed")
    left.add_connection(status="failed")
    deployment = Deployment(world, monkeypatch)
    world.run(dry_run=True)  # imports here what would be imported in each process
    deployment.run(FIRST, 0)
    deployment.keep()
    shop.change(fixed.id, status="accepted")
    shop.change(waits.id, status="accepted")
    shop.remove(gone.id)
    shop.add_connection(domain_id=STRANGER)
    world.estate.remove_gateway("left")
    world.estate.fail(Forbidden(), gateway=locked, times=None)
    deployment.set_back()
    return deployment


def undisturbed(deployment: Deployment, *runs: tuple[str, int]) -> tuple[Left, list[list[str]]]:
    """What the runs leave, and the moments of each."""
    deployment.set_back()
    moments = [deployment.run(token, hour) for token, hour in runs]
    return deployment.look(), moments


def test_the_history_that_is_disturbed_is_rich_enough(deployment):
    """Every kind of finding and of effect is in it, or the tests below would show little."""
    left, (moments, _) = undisturbed(deployment, (NEXT, 1), (LAST, 2))
    found = {(f["rule_id"], f["status"], f["resolution"]) for f in deployment.world.lines("findings.ndjson.gz")}
    assert found >= {
        ("no-failed-connections", "resolved", "fixed"),
        ("no-failed-connections", "resolved", "resource_deleted"),
        ("no-failed-connections", "unverified", None),
        ("no-failed-connections", "waived", None),
        ("only-approved-domains-accepted", "ongoing", None),
        ("newly-accepted", "resolved", "event_over"),
        ("accounts", "ongoing", None),
        ("quota", "ongoing", None),
    }
    (said,) = left.heard.values()
    assert {what for what, number in said["changes"].items() if number} == {"new", "resolved", "changes", "gaps opened"}
    assert len(left.chain) == 3
    fetches = len([m for m in moments if m == "before exchange"]) - 1
    assert fetches == 5, "gateways, two lists of connections, one that vanished, a gateway that did"
    puts = len(deployment.world.manifest()["objects"]) + 3  # manifest, pointer, receiver's record
    assert [moments.count(f"after {name}") for name in ("put", "swap")] == [puts, 1]
    assert moments[-1] == "after put"
    assert [moments.count(name) for name in ("half written", "os.rename", "fcntl.flock")] == [puts, puts, 1]


class Killed(NamedTuple):
    """What was found after a run was killed: the chain, and the run's folder where it holds objects and is no run."""

    moment: str
    chain: list[str]
    abandoned: list[str]


def kill_everywhere(deployment: Deployment, moments: list[str]) -> Iterator[Killed]:
    """Start a run once for each moment, and have it killed there."""
    for at, name in enumerate(moments, 1):
        deployment.set_back()
        assert deployment.start(KILLED, at=at, act=die).end() == signal.SIGKILL, (at, name)
        chain = deployment.chain()
        folders = [folder for folder in deployment.world.store.glob(f"runs/*/*/*/*-{KILLED}") if any(visible(folder))]
        yield Killed(f"{at}: {name}", chain, [folder.name for folder in folders if folder.name not in chain])


def visible(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if not path.name.startswith(".")]


def verify(deployment: Deployment) -> tuple[list[str], list[str], list[str]]:
    """What is broken, the chain, and what was abandoned."""
    found = Verifier(LocalStore(deployment.world.store)).verify(everything=True)
    return found.problems, list(found.runs)[::-1], found.abandoned


def test_a_run_killed_at_any_moment_and_started_again_leaves_what_an_undisturbed_one_leaves(deployment):
    """Findings, chain, the receiver's record and what it heard; the store is always sound and names what is left."""
    expected, (moments,) = undisturbed(deployment, (NEXT, 1))
    committed, _ = undisturbed(deployment, (KILLED, 1), (LAST, 2))
    assert committed.heard == expected.heard
    seen = set()
    for killed in kill_everywhere(deployment, moments):
        assert verify(deployment) == ([], killed.chain, killed.abandoned), killed
        deployment.run(*[(NEXT, 1), (LAST, 2)][len(killed.chain) - 1])
        left = deployment.look()
        assert left == [expected, committed][len(killed.chain) - 1], killed
        assert verify(deployment) == ([], left.chain, killed.abandoned), killed
        seen.add((len(killed.chain), len(killed.abandoned), len(deployment.world.receiver.deliveries)))
    # Killed before it wrote, before the commit, before it told, and after it told but before that was noted.
    assert seen == {(1, 0, 1), (1, 1, 1), (2, 0, 1), (2, 0, 2)}


def test_the_very_first_run_killed_at_any_moment_is_as_if_it_had_not_been(deployment):
    """There is no earlier one to go back to, and the store may not even exist."""
    shutil.rmtree(deployment.kept)
    expected, (moments,) = undisturbed(deployment, (NEXT, 1))
    committed, _ = undisturbed(deployment, (KILLED, 1), (LAST, 2))
    for killed in kill_everywhere(deployment, moments):
        deployment.run(*[(NEXT, 1), (LAST, 2)][len(killed.chain)])
        left = deployment.look()
        assert left == [expected, committed][len(killed.chain)], killed
        assert verify(deployment) == ([], left.chain, killed.abandoned), killed


def test_a_store_whose_very_first_run_was_killed_is_sound(deployment):
    """Nothing is missing: nothing was recorded yet."""
    shutil.rmtree(deployment.kept)
    _, (moments,) = undisturbed(deployment, (NEXT, 1))
    for killed in kill_everywhere(deployment, moments):
        assert verify(deployment) == ([], killed.chain, killed.abandoned), killed


def test_a_run_that_stands_still_at_any_moment_while_another_one_runs_leaves_the_same(deployment):
    """Started twice at once: whoever comes second follows the first, and the receiver hears it once."""
    _, (moments,) = undisturbed(deployment, (NEXT, 1))
    locked = range(moments.index("fcntl.flock") + 2, moments.index("after swap") + 1)
    expected: dict[tuple[str, ...], Left] = {}
    lefts = []
    for at, moment in enumerate(moments, 1):
        deployment.set_back()
        slow = deployment.start("aaaa00", at=at, act=stop)
        slow.wait_until_stopped()
        fast = deployment.start("bbbb00")
        # The lock makes the other one wait; nothing else may.
        limit = time.monotonic() + (0.1 if at in locked else 10)
        while not fast.is_over() and time.monotonic() < limit:
            time.sleep(0.002)
        assert at in locked or fast.is_over(), (at, moment)
        slow.go_on()
        slow.finish()
        fast.finish()
        lefts.append((at, moment, deployment.look(), verify(deployment)))
    for at, moment, left, (problems, chain, abandoned) in lefts:
        tokens = tuple(run_id[-6:] for run_id in chain[1:])
        if tokens not in expected:
            expected[tokens] = undisturbed(deployment, *((token, 1) for token in tokens))[0]
        assert left == expected[tokens], (at, moment)
        assert (problems, len(chain), len(abandoned)) == ([], 3, int(tokens[1].endswith("a0"))), (at, moment)
    assert set(expected) >= {("aaaa00", "bbbb00"), ("bbbb00", "aaaaa0")}


def test_a_run_that_is_slow_to_tell_takes_nothing_back_that_a_later_one_told(deployment):
    """What it would say is out of date: the later run, which follows it, said all."""
    _, (moments,) = undisturbed(deployment, (NEXT, 1))
    deployment.set_back()
    slow = deployment.start("aaaa00", at=moments.index("after swap") + 1, act=stop)
    slow.wait_until_stopped()
    deployment.world.estate.gateway("shop").add_connection(domain_id=STRANGER)
    deployment.run("bbbb00", 2)
    told = deployment.look()
    slow.go_on()
    slow.finish()
    assert deployment.look() == told
    deployment.run("cccc00", 3)
    assert deployment.look().heard == told.heard


@pytest.mark.parametrize("delay", [0.0, 0.004, 0.008, 0.012, 0.016, 0.02])
def test_three_runs_at_once_all_are_recorded(deployment, delay):
    """Nothing holds them; whatever comes of it, each follows another, and the receiver hears one thing."""
    once, _ = undisturbed(deployment, (NEXT, 1))
    deployment.set_back()
    runs = []
    for token in ("aaaa00", "bbbb00", "cccc00"):
        runs.append(deployment.start(token))
        time.sleep(delay)
    for run in runs:
        run.finish()
    problems, chain, _ = verify(deployment)
    assert (problems, sorted(run_id[-6:-2] for run_id in chain)) == ([], ["0000", "aaaa", "bbbb", "cccc"])
    assert deployment.look().heard == once.heard
