"""Evidence that anyone can check: `verify`, its repair, `replay`, `report`, and `findings` of past runs.

The history is made once; every test damages a copy of it. The terminal is called as a person calls it.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from audit.archive import CONNECTIONS, EVENTS, FINDINGS, GATEWAYS, REPORT, SHEET, folder_of, manifest_of
from audit.cli import main
from audit.settings import RULES_BESIDE_HANDLER
from audit.store import LocalStore
from audit.verify import Verification, Verifier
from tests.emulator import Forbidden, Unauthorized
from tests.emulator.connection import DOMAIN_ID
from tests.test_policy_runs import ACCOUNTS, GONE, NEWLY_ACCEPTED, QUOTA, add_rule, set_policy, waiver
from tests.world import STRANGER, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OBJECTS = (GATEWAYS, CONNECTIONS, FINDINGS, EVENTS, SHEET, REPORT)
UNKNOWN, FUTURE = "20200101T000000Z-000000", "20991122T081500Z-7f3a9c"
BEGAN = datetime.now(timezone.utc).replace(hour=0, minute=30, second=0, microsecond=0)
HOURS = 6
LIMIT = "no-failed-connections"
AGE = timedelta(days=9)


class Clock:
    """Makes each run six hours later than the one before, so that ids sort and days differ."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.runs = -1
        patch.setattr("audit.compose.datetime", SimpleNamespace(now=self._now))
        patch.setattr("os.fsync", lambda _: None)  # nobody cuts the power here

    def _now(self, _zone: object) -> datetime:
        return BEGAN + timedelta(hours=self.runs * HOURS)

    def run(self, world: World, **options: Any) -> str:
        self.runs += 1
        return world.run(**options).summary.run_id


class History(NamedTuple):
    """A varied history: the ids of its runs by what was special about them, in their order."""

    store: Path
    rules_dir: Path
    policy: Path
    runs: dict[str, str]

    @property
    def ids(self) -> list[str]:
        return list(self.runs.values())


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        world, clock = World(tmp_path_factory.mktemp("history"), stack), Clock(patch)
        yield History(world.store, world.rules_dir, world.policy, dict(_live(world, clock)))


def _live(world: World, clock: Clock) -> Iterator[tuple[str, str]]:
    """Let everything happen to an estate that a run has to cope with, one thing a run."""
    estate = world.estate
    for rule_id in ("no-open-door", "accepted-outside-gateway-permissions"):
        shutil.copy(RULES_BESIDE_HANDLER / f"{rule_id}.json", world.rules_dir)
    few = {**ACCOUNTS, "require": {"count": {"minimum": 3}}}
    rules = {"accounts": ACCOUNTS, "few": few, "quota": QUOTA, "newly-accepted": NEWLY_ACCEPTED, "removed": GONE}
    for rule_id, rule in rules.items():
        add_rule(world, rule_id, rule)
    shop = estate.add_gateway("shop", gateway_id="shop", permissions=["*"])
    other = estate.add_gateway("other", gateway_id="other", permissions=[f"iam:domain::{STRANGER}"])
    estate.add_gateway("bare", gateway_id="bare", endpoint_service=False)
    gone, waived, _ = shop.add_connections(3, status="failed")
    waits = shop.add_connection(status="pendingAcceptance", age=AGE)
    late = other.add_connection(status="pendingAcceptance", age=AGE)
    other.add_connection()
    other.add_connection(domain_id=STRANGER)
    override = {"match": {"gateway.name": "other"}, "severity": {"pending-too-long": "critical"}, "disable": ["quota"]}
    set_policy(world, waivers=[waiver(match={"id": waived.id})], overrides=[override])
    yield "the first", clock.run(world)
    yield "nothing new", clock.run(world)
    shop.change(waits.id, status="accepted")
    shop.remove(gone.id)
    shop.add_connection(domain_id=STRANGER)
    shop.raw_records.append({"id": None, "status": "failed"})
    yield "changes", clock.run(world)
    estate.fail(Forbidden(), gateway=other, times=None)
    yield "a gateway not covered", clock.run(world)
    estate.heal()
    other.change(late.id, status="accepted")
    estate.add_gateway("young", gateway_id="young").add_connection()
    yield "covered again", clock.run(world)
    estate.fail(Forbidden(), kind="permissions", times=None)
    other.add_connection(status="failed")
    yield "permissions refused", clock.run(world)
    other.remove(late.id)
    yield "permissions refused again", clock.run(world)
    estate.heal()
    estate.page_cap = 2
    estate.before_request(
        lambda call: call.kind == "connections" and other.insert(0, connection_id=f"b{len(other.connections)}")
    )
    yield "a list that would not hold still", clock.run(world)
    estate.callbacks.clear()
    estate.page_cap = None
    yield "whole again", clock.run(world)
    estate.fail(Unauthorized(), times=None)
    yield "nothing covered", clock.run(world)
    estate.heal()
    estate.remove_gateway("other")
    yield "a gateway deleted", clock.run(world)
    shop.add_connection(domain_id=STRANGER)
    yield "limited to a gateway", clock.run(world, gateways=("shop",))
    yield "limited to a rule", clock.run(world, rules=(LIMIT,))
    shop.change(shop.connections[-1].id, domain_id=DOMAIN_ID)
    yield "the last", clock.run(world)


class Said(NamedTuple):
    """What the terminal said and the exit code."""

    code: int
    out: str
    err: str


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Call a verb; a traceback is never an answer, and `verify` ends with 0, 1 or 2."""
    for name in [name for name in os.environ if name.startswith("AUDIT_")]:
        monkeypatch.delenv(name)

    def say(*words: str | Path) -> Said:
        capsys.readouterr()
        said = Said(main([str(word) for word in words]), *capsys.readouterr())
        assert "Traceback" not in said.out + said.err
        assert "internal error" not in said.err
        assert words[0] != "verify" or said.code in {0, 1, 2}
        return said

    return say


@pytest.fixture
def copy(history: History, tmp_path: Path) -> History:
    """The history in a place where it may be damaged."""
    shutil.copytree(history.store, tmp_path / "copy")
    return history._replace(store=tmp_path / "copy")


def verify(store: Path, only: str = "", *, everything: bool = False) -> Verification:
    return Verifier(LocalStore(store)).verify(only, everything=everything)


def repair(store: Path) -> str:
    return Verifier(LocalStore(store)).repair()


def digest_of(store: Path, run_id: str) -> str:
    return sha256((store / manifest_of(run_id)).read_bytes()).hexdigest()


def point(store: Path, run_id: str) -> None:
    """Make a run the last one, as whoever can write to the store could."""
    pointer = {"run_id": run_id, "manifest": manifest_of(run_id), "sha256": digest_of(store, run_id)}
    (store / "latest.json").write_text(json.dumps(pointer))


def rewrite(store: Path, run_id: str, **members: Any) -> None:
    """Change a manifest; a parent that is an id gets its true hash."""
    path = store / manifest_of(run_id)
    if isinstance(parent := members.get("parent"), str):
        members["parent"] = {"run_id": parent, "sha256": digest_of(store, parent)}
    path.write_text(json.dumps({**json.loads(path.read_text()), **members}))


def abandon(store: Path, like: str, run_id: str) -> Path:
    """Leave a folder as a run leaves it that ended just before its commit."""
    folder = store / folder_of(run_id)
    shutil.copytree(store / folder_of(like), folder)
    text = (folder / "manifest.json").read_text().replace(folder_of(like), folder_of(run_id)).replace(like, run_id)
    (folder / "manifest.json").write_text(text)
    return folder


def untold(run_id: str) -> str:
    return f"receiver default was told of run {run_id}, which is not in the chain"


def forks(*run_ids: str) -> list[str]:
    return [f"run {run_id} is not in the chain, but another run follows it: a fork" for run_id in run_ids]


def contents(store: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}


# Sound, and damage everywhere


def test_a_history_that_nobody_touched_is_sound(history, say):
    """Every run is in the chain, newest first, with the hash of its manifest; nothing is written, also by a repair."""
    before = contents(history.store)
    text, data = (say("verify", "--store", history.store, "--format", kind) for kind in ("text", "json"))
    assert (text.code, text.err, data.code, data.err) == (0, "", 0, "")
    assert text.out.startswith(f"chain     14 runs, {history.ids[0]} to {history.ids[-1]}\n")
    assert text.out.endswith("and 4 older\nsound: every object and manifest is as its run left it\n")
    digests = {run_id: digest_of(history.store, run_id) for run_id in history.ids[::-1]}
    assert json.loads(data.out) == {"runs": digests, "problems": [], "abandoned": []}
    assert list(json.loads(data.out)["runs"]) == list(digests)
    assert f"{history.ids[-1]}  manifest sha256 {digests[history.ids[-1]]}" in text.out
    repaired = say("verify", "--store", history.store, "--repair", "--all")
    assert (repaired.code, repaired.err) == (0, "audit: there was nothing to repair\n")
    assert contents(history.store) == before


def damages(path: Path, good: bytes) -> dict[str, bytes]:
    found = {f"changed at {at}": good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in (len(good) // 2, 0, -1)}
    found["changed at -1"] = good[:-1] + bytes([good[-1] ^ 1])
    if path.suffix == ".gz":
        found["packed anew"] = gzip.compress(gzip.decompress(good), 9)
    return {**found, "cut short": good[:-1], "emptied": b"", "grown": good + b"\n"}


def test_any_damage_to_any_object_or_manifest_is_found_and_named_once(copy):
    """One byte of every file of every run; all kinds of damage for two runs. All others stay in the chain."""
    for at, run_id in enumerate(copy.ids):
        others = [other for other in copy.ids[::-1] if other != run_id]
        named_by = f"run {copy.ids[at + 1]}" if run_id != copy.ids[-1] else "latest.json"
        folder = copy.store / folder_of(run_id)
        assert {path.name for path in folder.iterdir()} == {*OBJECTS, "manifest.json"}
        for path in folder.iterdir():
            is_manifest, good = path.name == "manifest.json", path.read_bytes()
            more = [untold(run_id)] if is_manifest and run_id == copy.ids[-1] else []
            for damage, bad in list(damages(path, good).items())[: None if at in {7, 13} else 1]:
                path.write_bytes(bad)
                found = verify(copy.store)
                what = f"{path}: was changed: " + (f"its hash is not the one that {named_by} names" * is_manifest)
                assert found.problems[0].startswith(what), (path, damage)
                assert found.problems[1:] == more, (path, damage)
                assert list(found.runs) == (others if is_manifest else copy.ids[::-1]), (path, damage)
                assert found.abandoned == [], (path, damage)
            path.unlink()
            what = f"{path}: is missing" + (f"; {named_by} names it" if is_manifest else "")
            assert verify(copy.store, run_id if not is_manifest else "").problems == [what, *more]
            path.write_bytes(good)
    assert verify(copy.store).problems == []


@pytest.mark.parametrize("how", [shutil.rmtree, lambda folder: folder.rename(folder.parent.parent / folder.name)])
@pytest.mark.parametrize("at", [0, 7, 13], ids=["first", "middle", "last"])
def test_behind_a_run_that_is_removed_or_elsewhere_the_next_older_one_is_checked(copy, at, how, say):
    """Who named the missing one is said, and what is broken on the other side too."""
    how(copy.store / folder_of(copy.ids[at]))
    broken = copy.store / folder_of(copy.ids[1]) / FINDINGS
    broken.write_bytes(b"")
    found = verify(copy.store)
    assert list(found.runs) == copy.ids[:at:-1] + copy.ids[:at][::-1]
    named_by = "latest.json" if at == 13 else f"run {copy.ids[at + 1]}"
    first, second, *more = found.problems
    assert {first.partition(": was changed")[0], second.partition(": was changed")[0]} == {
        f"{copy.store / manifest_of(copy.ids[at])}: is missing; {named_by} names it", str(broken),
    }  # fmt: skip
    assert more == ([untold(copy.ids[-1])] if at == 13 else [])
    said = say("verify", "--store", copy.store)
    assert (said.code, said.err, said.out.splitlines()[-1]) == (1, "", "broken")
    assert [line[10:] for line in said.out.splitlines() if line.startswith("broken    ")] == found.problems


def test_runs_in_another_order_are_found(copy):
    """Folders that were swapped: each holds what is true of another run. A manifest that names another parent."""
    one, two, aside = (copy.store / name for name in (*map(folder_of, copy.ids[4:6]), "aside"))
    for source, target in ((one, aside), (two, one), (aside, two)):
        source.rename(target)
    named = f"was changed: its hash is not the one that run {copy.ids[6]} names"
    found = verify(copy.store)
    assert list(found.runs) == copy.ids[:5:-1] + copy.ids[3::-1]
    assert (found.problems, found.abandoned) == ([f"{two / 'manifest.json'}: {named}"], [copy.ids[4]])
    for source, target in ((one, aside), (two, one), (aside, two)):
        source.rename(target)
    rewrite(copy.store, copy.ids[5], parent=copy.ids[3])
    found = verify(copy.store)
    assert list(found.runs) == copy.ids[:5:-1] + copy.ids[4::-1]
    assert (found.problems, found.abandoned) == ([f"{two / 'manifest.json'}: {named}"], [])


def test_a_run_cut_out_of_a_rewritten_chain_stands_beside_it(copy):
    """Hashes cannot tell of a chain that was rewritten to its end; the folder and the receiver's record do."""
    rewrite(copy.store, copy.ids[-1], parent=copy.ids[-3])
    point(copy.store, copy.ids[-1])
    record = json.loads((copy.store / "receivers/default.json").read_text())
    (copy.store / "receivers/default.json").write_text(json.dumps({**record, "run_id": copy.ids[-2]}))
    found = verify(copy.store)
    assert (found.abandoned, list(found.runs)) == ([copy.ids[-2]], [copy.ids[-1], *copy.ids[-3::-1]])
    assert found.problems == [untold(copy.ids[-2])]


# The pointer


def test_any_changed_byte_of_the_pointer_is_found(copy):
    """All of them: it is small."""
    pointer = copy.store / "latest.json"
    good = pointer.read_bytes()
    for at in range(len(good)):
        pointer.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert verify(copy.store, copy.ids[0]).problems, at
    pointer.write_bytes(good)
    assert verify(copy.store, copy.ids[0]).problems == []


def _garble(text: bytes) -> Callable[[History], object]:
    return lambda history: (history.store / "latest.json").write_bytes(text)


def _point_at(**changes: str) -> Callable[[History], object]:
    pointer = {"run_id": UNKNOWN, "manifest": manifest_of(UNKNOWN), "sha256": "0" * 64}
    return _garble(json.dumps({**pointer, **changes}).encode())


NO_MANIFEST = "latest.json: does not point to the manifest of a run; `--repair` rebuilds it"
POINTERS: dict[str, tuple[Callable[[History], object], str]] = {
    "missing": (
        lambda history: (history.store / "latest.json").unlink(),
        "latest.json: is missing, though runs were recorded; `--repair` rebuilds it",
    ),
    "empty": (_garble(b""), "latest.json: is unreadable: "),
    "no text": (_garble(b"\xff\xfe"), "latest.json: is unreadable: "),
    "to no run": (_point_at(), f"{UNKNOWN}/manifest.json: is missing; latest.json names it"),
    "to another file": (_point_at(manifest="receivers/default.json"), NO_MANIFEST),
    "to outside": (_point_at(run_id="..", manifest="runs/.././/../manifest.json"), NO_MANIFEST),
    "to what is no id": (_point_at(run_id="x\0y", manifest=manifest_of("x\0y")), NO_MANIFEST),
    "to an older run": (lambda history: point(history.store, history.ids[4]), "is not in the chain"),
    "to the run before": (lambda history: point(history.store, history.ids[-2]), "is not in the chain"),
}


@pytest.mark.parametrize("damage", POINTERS)
def test_a_damaged_pointer_is_found_and_rebuilt(copy, damage, say):
    """The repair says what it did, changes nothing else, and says so where there is nothing to do any more."""
    break_it, expected = POINTERS[damage]
    before = contents(copy.store)
    break_it(copy)
    said = say("verify", "--store", copy.store)
    assert (said.code, said.err) == (1, "")
    assert expected in said.out
    data = json.loads(say("verify", "--store", copy.store, "--format", "json").out)
    assert [line[10:] for line in said.out.splitlines() if line.startswith("broken    ")] == data["problems"]
    repaired = say("verify", "--store", copy.store, "--repair")
    assert (repaired.code, repaired.err) == (0, f"audit: latest.json points to run {copy.ids[-1]} now\n")
    assert contents(copy.store) == before
    again = say("verify", "--store", copy.store, "--repair")
    assert (again.code, again.err, again.out) == (0, "audit: there was nothing to repair\n", repaired.out)


def test_a_pointer_that_is_set_back_is_told_by_the_receivers_record(copy):
    """The run that the receiver heard of last is not in the chain any more; older ones that are followed are a fork."""
    point(copy.store, copy.ids[-4])
    found = verify(copy.store)
    assert found.abandoned == [copy.ids[-1]]
    assert found.problems == [*forks(*copy.ids[-3:-1]), untold(copy.ids[-1])]


# Beside the chain


@pytest.mark.parametrize("left", [OBJECTS[:1], OBJECTS, (*OBJECTS, "manifest.json")])
def test_abandoned_folders_are_named_and_break_nothing(copy, left, say):
    """With and without a manifest, older and newer than the chain; only `--all` looks at what they hold."""
    folders = [abandon(copy.store, copy.ids[-1], run_id) for run_id in (UNKNOWN, FUTURE)]
    for path in [path for folder in folders for path in folder.iterdir() if path.name not in left]:
        path.unlink()
    for words in ((), ("--all",)):
        said = say("verify", "--store", copy.store, *words)
        assert (said.code, said.err) == (0, "")
        why = "not in the chain; it was never recorded, or left behind by a repair"
        assert f"\nabandoned run {UNKNOWN}: {why}\nabandoned run {FUTURE}: {why}\nsound: " in said.out
    path = folders[0] / left[0]
    path.write_bytes(b"broken")
    assert verify(copy.store).problems == []
    problems = verify(copy.store, everything=True).problems
    assert [problem.partition(": was changed: it has 6 bytes instead of ")[0] for problem in problems] == (
        [str(path)] if "manifest.json" in left else []
    )
    for run_id, folder in zip((UNKNOWN, FUTURE), folders, strict=True):
        for text in (b"", b"{", b"[]", (copy.store / manifest_of(copy.ids[2])).read_bytes()):
            (folder / "manifest.json").write_bytes(text)
            found = verify(copy.store, everything=run_id == FUTURE)
            assert (found.abandoned, repair(copy.store)) == ([UNKNOWN, FUTURE], "")
            assert found.problems == [] or folder == folders[0]


@pytest.mark.parametrize("parent", [-1, -2], ids=["killed before its commit", "overtaken, then killed"])
def test_a_repair_leaves_a_sound_chain_alone(copy, parent):
    """A run that never was recorded must not take the place of one that was."""
    abandon(copy.store, copy.ids[parent], FUTURE)
    rewrite(copy.store, FUTURE, parent=copy.ids[parent])
    before = contents(copy.store)
    assert (verify(copy.store).problems, repair(copy.store)) == ([], "")
    assert contents(copy.store) == before
    if parent == -2:  # nor where the pointer is lost: of its sibling the receiver was told
        (copy.store / "latest.json").unlink()
        assert repair(copy.store) == copy.ids[-1]


def test_a_fork_is_found(copy, say):
    """Two runs that follow the same one, each followed by another: one of them was hidden."""
    one, two = "20991122T081500Z-000001", "20991122T091500Z-000002"
    for run_id, parent in ((one, copy.ids[-3]), (two, one)):
        abandon(copy.store, copy.ids[-1], run_id)
        rewrite(copy.store, run_id, parent=parent)
    found = verify(copy.store)
    assert (found.problems, found.abandoned, len(found.runs)) == (forks(one), [two], len(copy.ids))
    assert say("verify", "--store", copy.store).code == 1


def test_hostile_names_in_the_store_are_shown_as_escapes_or_passed_over(copy, say):
    """Files of others, names that are no text, control characters in what a record says."""
    for name in (b"\xff\xfe", b"\x1b[2J\nsound:", b"-rf", "\u202e".encode()):
        for folder in ("runs", "receivers", "runs/2026"):
            directory = copy.store / folder / os.fsdecode(name)
            directory.mkdir(parents=True)
            for inner in (f"{directory.name}.json", "manifest.json", copy.ids[0]):
                (directory / inner).write_text("{}")
    (copy.store / f"runs/{copy.ids[0]}x").mkdir()
    for folder in ("runs", f"runs/{copy.ids[0]}x"):
        (copy.store / folder / "manifest.json").write_text("{}")
    for text in (b"", b"{", b"[]", b"\xff", b'{"receiver": 1}'):
        (copy.store / "receivers/default.json").write_bytes(text)  # a garbled record is no evidence
        found = verify(copy.store, everything=True)
        assert (found.problems, found.abandoned) == ([], [])
    record = {"receiver": "\x1b[2J\u202e", "run_id": "\x1b[3J\nsound: everything"}
    (copy.store / "receivers/evil.json").write_text(json.dumps(record))
    said = say("verify", "--store", copy.store)
    assert said.code == 1
    assert r"receiver \x1b[2J\u202e was told of run \x1b[3J\nsound: everything, which is not in" in said.out
    assert not {"\x1b", "\u202e"} & set(said.out)
    assert "\x1b" not in say("verify", "--store", copy.store, "--format", "json").out


@pytest.mark.parametrize("run_id", ["", "x", "a\0b", "../../x"])
def test_a_manifest_that_names_what_can_be_no_run_hides_nothing(copy, run_id):
    """The next older run is followed all the same."""
    rewrite(copy.store, copy.ids[-1], parent={"run_id": run_id, "sha256": "0" * 64})
    point(copy.store, copy.ids[-1])
    found = verify(copy.store)
    rewritten = f"receiver default was told another hash for the manifest of run {copy.ids[-1]}"
    assert (list(found.runs), found.problems[1:], found.abandoned) == (copy.ids[::-1], [rewritten], [])
    assert f'run {copy.ids[-1]} names "{run_id}", which is no id of a run' in found.problems[0]


def test_a_manifest_that_names_what_can_be_no_object_hides_nothing(copy):
    """Neither from the verification nor from the repair."""
    abandon(copy.store, copy.ids[-1], FUTURE)
    rewrite(copy.store, FUTURE, objects=[{"key": "a\0b", "bytes": 1, "sha256": "0"}], parent=copy.ids[-1])
    found = verify(copy.store, everything=True)
    assert (len(found.runs), found.abandoned, len(found.problems)) == (len(copy.ids), [FUTURE], 1)
    assert "zero byte" in found.problems[0]
    (copy.store / "latest.json").unlink()
    assert repair(copy.store) == copy.ids[-1]


@pytest.mark.parametrize("what", ["pointer", "record", FINDINGS, SHEET, "first", "middle", "last"])
def test_what_cannot_be_read_is_broken(copy, what, say):
    """It is named once, and all else is checked: also what another run left is found."""
    manifests = {"first": copy.ids[0], "middle": copy.ids[5], "last": copy.ids[-1]}
    others = {"pointer": "latest.json", "record": "receivers/other.json"}
    key = manifest_of(manifests[what]) if what in manifests else folder_of(copy.ids[2]) + what
    path = copy.store / others.get(what, key)
    path.unlink(missing_ok=True)
    path.symlink_to(path)  # to itself: nobody can read it, root neither
    (copy.store / folder_of(copy.ids[3]) / CONNECTIONS).write_bytes(b"")
    said = say("verify", "--store", copy.store)
    assert (said.code, said.err, said.out.count(": cannot be read: ")) == (1, "", 1)
    assert f"broken    {path}: cannot be read: " in said.out
    assert f"broken    {copy.store / folder_of(copy.ids[3]) / CONNECTIONS}: was changed" in said.out
    if what == "pointer":
        assert "`--repair` rebuilds it" not in said.out, "it does not"
        assert f"{path}: cannot be read: " in say("verify", "--store", copy.store, "--repair").err


@pytest.mark.parametrize("runs", [1, 2])
def test_runs_that_are_recorded_while_the_chain_is_read_break_nothing(live, runs, monkeypatch):
    """Reading a long chain takes its time, and a timer does not wait for it."""
    world, clock, ids = live
    check, more = Verifier._check_objects, []

    def slow(*arguments: Any) -> None:
        monkeypatch.setattr(Verifier, "_check_objects", check)
        for _ in range(runs):
            world.estate.gateway("shop").add_connection(status="failed")
            more.append(clock.run(world))
        check(*arguments)

    monkeypatch.setattr(Verifier, "_check_objects", slow)
    found = verify(world.store)
    assert (found.problems, found.abandoned, list(found.runs)) == ([], [], [*more[::-1], *ids[::-1]])


# One run only, and where there is nothing


def test_of_one_run_only_its_objects_are_hashed_but_every_manifest(copy, say):
    """So that looking at one day of many years is quick."""
    broken, fine = copy.ids[3], copy.ids[4]
    path = copy.store / folder_of(broken) / CONNECTIONS
    path.write_bytes(b"")
    sound, found = (say("verify", "--store", copy.store, "--run", run_id) for run_id in (fine, broken))
    assert (sound.code, found.code) == (0, 1)
    assert f"sound: every manifest, and every object of run {fine}, is as its run left it\n" in sound.out
    assert f"broken    {path}: was changed" in found.out
    manifest = copy.store / manifest_of(copy.ids[6])
    manifest.write_bytes(manifest.read_bytes() + b" ")
    assert say("verify", "--store", copy.store, "--run", copy.ids[-1]).code == 1, "a link between is broken"


@pytest.mark.parametrize(
    ("run_id", "code", "message"),
    [
        (UNKNOWN, 1, f"broken    run {UNKNOWN} is not in the chain"),
        (FUTURE, 1, f"broken    run {FUTURE} is not in the chain"),
        ("yesterday", 2, '--run "yesterday": no run id such as 2026'),
        ("../../../etc/passwd", 2, '--run "../../../etc/passwd": no run id such as 2026'),
        (f"{UNKNOWN}\n", 2, rf'--run "{UNKNOWN}\n": no run id such as 2026'),
        ("\u0662" * 8 + "T000000Z-000000", 2, ": no run id such as 2026"),
        ("", 2, '--run "": no run id such as 2026'),
    ],
)
def test_a_run_that_is_not_there_is_broken_and_what_is_no_run_id_is_a_mistake(copy, run_id, code, message, say):
    """The second one was abandoned."""
    abandon(copy.store, copy.ids[-1], FUTURE)
    said = say("verify", "--store", copy.store, "--run", run_id)
    assert (said.code, message in said.out + said.err) == (code, True)


@pytest.mark.parametrize("kind", ["absent", "empty", "another directory"])
def test_a_store_without_runs_is_a_mistake_that_names_it(tmp_path, kind, say):
    """Nothing there is not the same as sound; and nothing is made there."""
    store = tmp_path / "store"
    if kind != "absent":
        store.mkdir()
    if kind == "another directory":
        (store / "notes.txt").write_text("latest")
    verbs = ("verify", "verify --format json", "verify --repair", "findings", "report", f"replay --from {UNKNOWN}")
    for words in verbs:
        said = say(*words.split(), "--store", store)
        assert (said.code, said.out) == (2, ""), words
        assert f"{store}: no run is recorded there" in said.err, words
    assert store.exists() == (kind != "absent")


def test_a_store_whose_first_run_never_came_to_its_manifest_is_sound(tmp_path, say):
    """There is nothing to go back to, and no need."""
    folder = tmp_path / folder_of(UNKNOWN)
    folder.mkdir(parents=True)
    (folder / FINDINGS).write_bytes(b"")
    for words in ((), ("--repair",)):
        said = say("verify", "--store", tmp_path, *words)
        assert (said.code, said.out.splitlines()[-1]) == (0, "no run is recorded yet")
        assert f"abandoned run {UNKNOWN}: " in said.out


@pytest.mark.parametrize(
    ("store", "code", "message"),
    [
        ("", 2, "--store is given without a value"),
        ("ftp://bucket/x", 2, "--store must be a path"),
        (__file__, 1, f"{__file__}/latest.json: cannot be read: Not a directory"),
    ],
)
def test_a_store_that_can_be_none_is_an_error(store, code, message, say):
    """Of usage, or of what is there."""
    said = say("verify", "--store", store)
    assert (said.code, message in said.out + said.err) == (code, True)
    assert say("verify", "--store", store, "--repair").code == code


# Repair, and what comes after


def test_a_repair_that_finds_no_sound_run_leaves_all_as_it_is(copy, say):
    """Nothing to go back to."""
    for run_id in copy.ids:
        (copy.store / folder_of(run_id) / FINDINGS).write_bytes(b"")
    before = contents(copy.store)
    said = say("verify", "--store", copy.store, "--repair")
    assert (said.code, "there is no sound run to go back to" in said.err) == (1, True)
    assert contents(copy.store) == before


@pytest.fixture
def live(world: World, monkeypatch: pytest.MonkeyPatch) -> tuple[World, Clock, list[str]]:
    """Three recorded runs of an estate that still answers."""
    shop, clock = world.estate.add_gateway("shop"), Clock(monkeypatch)
    ids = []
    for _ in range(3):
        shop.add_connection(status="failed")
        ids.append(clock.run(world))
    return world, clock, ids


LAST: dict[str, Callable[[Path], object]] = {
    "an object changed": lambda folder: (folder / FINDINGS).write_bytes(b"x"),
    "an object removed": lambda folder: (folder / CONNECTIONS).unlink(),
    "the manifest changed": lambda folder: (folder / "manifest.json").write_bytes(
        (folder / "manifest.json").read_bytes() + b" "
    ),
    "the manifest removed": lambda folder: (folder / "manifest.json").unlink(),
    "all removed": shutil.rmtree,
}


@pytest.mark.parametrize("damage", LAST)
def test_after_a_repair_the_chain_goes_on_from_the_newest_sound_run(live, damage, say):
    """What was dropped is said for as long as the receiver was told of nothing newer; a second repair does nothing."""
    world, clock, ids = live
    LAST[damage](world.store / folder_of(ids[-1]))
    repaired = say("verify", "--store", world.store, "--repair")
    assert repaired.err == f"audit: latest.json points to run {ids[-2]} now\n"
    # What the damage itself left is beside the chain now; that the receiver knew it is the one thing still broken.
    assert verify(world.store).problems == [untold(ids[-1])]
    again = say("verify", "--store", world.store, "--repair")
    assert (again.err, again.out) == ("audit: there was nothing to repair\n", repaired.out)
    assert repaired.code == again.code == 1
    world.estate.gateway("shop").add_connection(status="failed")
    last = clock.run(world)
    found = verify(world.store)
    assert (found.problems, list(found.runs)) == ([], [last, ids[-2], ids[-3]])
    assert sorted(world.statuses().values()) == ["new", "new", "ongoing", "ongoing"]


@pytest.mark.parametrize("damage", LAST)
def test_damage_in_the_middle_cannot_be_repaired_but_stops_no_run(live, damage, say):
    """The pointer is right; what is broken stays broken, and every verification says so."""
    world, clock, ids = live
    folder = world.store / folder_of(ids[1])
    LAST[damage](folder)
    before = verify(world.store).problems
    said = say("verify", "--store", world.store, "--repair")
    assert (said.code, said.err) == (1, "audit: there was nothing to repair\n")
    last = clock.run(world)
    found = verify(world.store)
    assert found.problems == before
    assert str(folder) in before[0]
    assert next(iter(found.runs)) == last
    assert set(world.statuses().values()) == {"ongoing"}


def test_a_lost_pointer_is_no_first_run(live, say):
    """Nothing is recorded or shown until it is repaired; then the next run follows the one that was last."""
    world, clock, ids = live
    (world.store / "latest.json").unlink()
    for words in (("findings",), ("findings", "--since", ids[0]), ("report", ids[0]), ("replay", "--from", ids[0])):
        said = say(*words, "--store", world.store)
        assert (said.code, said.out) == (4, ""), words
        assert "latest.json: it is missing, though runs were recorded. Restore that object" in said.err, words
    clock.run(world)
    assert not (world.store / "latest.json").exists()
    assert say("verify", "--store", world.store, "--repair").code == 0
    last = clock.run(world)
    assert (verify(world.store).problems, list(verify(world.store).runs)) == ([], [last, *ids[::-1]])
    assert set(world.statuses().values()) == {"ongoing"}


def test_a_repair_knows_that_a_run_with_a_greater_id_may_be_the_older_one(live):
    """Where a clock was set back: what the last run follows is no newer run, whoever was told of it last."""
    world, clock, ids = live
    clock.runs = 0
    world.receiver.answers += [400] * 9
    world.estate.gateway("shop").add_connection(status="failed")
    last = clock.run(world)
    assert last < ids[-1]
    found = verify(world.store)
    assert (found.problems, list(found.runs)) == ([], [last, *ids[::-1]])
    record = world.store / "receivers/default.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "run_id": ids[-1]}))
    assert repair(world.store) == ""
    assert verify(world.store) == found


# Replay


def replay(say: Callable[..., Said], history: History, *words: str | Path) -> Said:
    places = ("--store", history.store, "--rules-dir", history.rules_dir, "--policy", history.policy)
    said = say("replay", *places, *words)
    assert isinstance(said, Said)
    return said


def test_the_same_rules_find_the_same_in_every_run(history, say):
    """Changes, groups, waivers, overrides, gaps of every kind: no difference; and nothing is written."""
    before = {path: path.stat().st_mtime_ns for path in history.store.rglob("*")}
    results = json.loads(replay(say, history, "--from", history.ids[0], "--format", "json").out)
    assert [result["run_id"] for result in results] == history.ids
    told = dict(zip(history.runs, results, strict=True))
    for name, result in told.items():
        assert (result["differences"], result["added"], result["missing"]) == ([], 0, 0), name
        assert result["then"] == result["now"], name
        assert result["then"] or name == "nothing covered", name
    assert {name: result["unread"] for name, result in told.items() if result["unread"]} == {
        "a gateway not covered": 1, "permissions refused": 3, "permissions refused again": 3,
        "a list that would not hold still": 1, "nothing covered": 4,
    }  # fmt: skip
    idle = {name: result["not_evaluated"] for name, result in told.items()}
    assert set(idle["the first"]) >= {"newly-accepted", "removed"}
    assert set(idle["permissions refused"]) >= {"no-open-door", "accepted-outside-gateway-permissions"}
    assert idle["limited to a gateway"] == dict.fromkeys(("accounts", "few"), "the run was limited to some gateways")
    assert set(idle["limited to a rule"]) == {path.stem for path in history.rules_dir.iterdir()} - {
        LIMIT, "newly-accepted", "removed",
    }, "changes are judged in every run"  # fmt: skip
    assert set(idle["limited to a rule"].values()) == {"the run was limited to other rules"}
    assert idle["the last"] == {}
    assert {path: path.stat().st_mtime_ns for path in history.store.rglob("*")} == before


@pytest.fixture
def rules(history: History, tmp_path: Path) -> History:
    """The history with rules that a test may change."""
    shutil.copytree(history.rules_dir, tmp_path / "rules")
    return history._replace(rules_dir=tmp_path / "rules")


def edit(rules: History, rule_id: str, **changes: Any) -> None:
    path = rules.rules_dir / f"{rule_id}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def stored(history: History, name: str, kind: str = FINDINGS) -> list[dict[str, Any]]:
    path = history.store / folder_of(history.runs[name]) / kind
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def test_other_rules_make_exactly_the_difference(rules, say, tmp_path):
    """One rule gone, one turned around: what is added and missing is known from the readings."""
    (rules.rules_dir / "malformed-record.json").unlink()
    edit(rules, "no-failed-connections", require={"status": "failed"})
    out = tmp_path / "differences"
    run_id = rules.runs["changes"]
    said = replay(say, rules, "--from", run_id, "--to", run_id, "--out", out)
    assert (said.code, said.err) == (0, "")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    rows = stored(rules, "changes", CONNECTIONS)
    found = [f for f in stored(rules, "changes") if f["status"] in {"new", "ongoing", "reopened"}]
    missing = {f["uid"] for f in found if f["rule_id"] in {"malformed-record", "no-failed-connections"}}
    added = {row["id"] for row in rows if row["status"] != "failed"}
    assert {line["uid"] for line in lines if line["difference"] == "missing"} == missing
    assert {line["connection"] for line in lines if line["difference"] == "added"} == added
    assert {line["rule_id"] for line in lines if line["difference"] == "added"} == {"no-failed-connections"}
    assert {line["run_id"] for line in lines} == {run_id}
    assert min(len(missing), len(added)) > 1
    then, now = len(found), len(found) - len(missing) + len(added)
    assert f"{run_id}  {_time(run_id)} {then:6}{now:6}{len(added):7}{len(missing):9}\n" in said.out
    assert said.out.count(f"\nadded\t{run_id}\t") + said.out.count(f"\nmissing\t{run_id}\t") == len(lines)


def _time(run_id: str) -> str:
    return datetime.strptime(run_id[:16], "%Y%m%dT%H%M%SZ").strftime("%Y-%m-%dT%H:%M:%SZ")  # noqa: DTZ007


def test_a_new_rule_about_changes_needs_an_earlier_reading(rules, say):
    """The first run has none, nor has a gateway that was seen for the first time; those are said, not judged."""
    add_rule(SimpleNamespace(rules_dir=rules.rules_dir), "any-change", {**NEWLY_ACCEPTED, "when": True})  # type: ignore[arg-type]
    results = json.loads(replay(say, rules, "--from", rules.ids[0], "--format", "json").out)
    added = {
        name: [line["connection"] for line in result["differences"] if line["difference"] == "added"]
        for name, result in zip(rules.runs, results, strict=True)
    }
    assert (added["the first"], added["nothing new"]) == ([], [])
    assert "no earlier reading" in results[0]["not_evaluated"]["any-change"]
    assert "any-change" not in results[1]["not_evaluated"]
    assert len(added["changes"]) == 4, "accepted, removed, two that are new"
    young = rules.ids.index(rules.runs["covered again"])
    assert "no earlier reading" in results[young]["not_evaluated"]["any-change"]
    assert len(added["covered again"]) == 1, "what changed while the gateway could not be read"


def test_another_policy_is_another_judgement(rules, say, tmp_path):
    """Without the waiver what it excused is found; the time of the run counts, not that of the replay."""
    policy = json.loads(rules.policy.read_text())
    ended = BEGAN + timedelta(hours=HOURS + 1)
    waivers = [{**policy["waivers"][0], "expires": ended.strftime("%Y-%m-%dT%H:%M:%SZ")}]
    other = tmp_path / "policy.json"
    other.write_text(json.dumps({**policy, "waivers": waivers}))
    said = replay(say, rules._replace(policy=other), "--from", rules.ids[0], "--to", rules.ids[2], "--format", "json")
    waived = next(f for f in stored(rules, "changes") if f["status"] == "waived")
    results = json.loads(said.out)
    assert [[line["uid"] for line in result["differences"]] for result in results] == [[], [], [waived["uid"]]]


@pytest.mark.parametrize(
    ("first", "last", "message"),
    [
        (5, 3, "there is no run {5} to {3}"),
        ("x", "", "there is no run x"),
        (UNKNOWN, "", f"there is no run {UNKNOWN}"),
        (3, UNKNOWN, f"there is no run {{3}} to {UNKNOWN}"),
        ("", "", "there is no run "),
    ],
)
def test_runs_in_the_wrong_order_or_unknown_are_a_mistake(history, first, last, message, say):
    """Nothing is judged, nothing is written."""
    ids = [history.ids[name] if isinstance(name, int) else name for name in (first, last)]
    said = replay(say, history, "--from", ids[0], *(("--to", ids[1]) if ids[1] else ()))
    assert (said.code, said.out) == (2, "")
    assert message.format(*history.ids) in said.err


def test_replay_judges_from_one_run_to_another(history, say):
    """Both are among them; without the second up to the last."""
    ids = history.ids
    for first, last, words in ((3, 5, ("--to", ids[5])), (4, 4, ("--to", ids[4])), (12, 13, ()), (13, 13, ())):
        said = replay(say, history, "--from", ids[first], *words, "--format", "json")
        assert [result["run_id"] for result in json.loads(said.out)] == ids[first : last + 1]


def test_a_file_that_cannot_be_written_is_a_mistake(history, tmp_path, say):
    """With the file's name and the reason."""
    for place in (tmp_path, tmp_path / "no/such/place"):
        said = replay(say, history, "--from", history.ids[-1], "--out", place)
        assert (said.code, said.out) == (2, "")
        assert f"--out {place}: cannot be written: " in said.err


def test_replay_believes_no_damaged_reading(copy, say):
    """Of the run itself, or of the one before, which changes are told from."""
    for at, name in ((3, CONNECTIONS), (3, FINDINGS), (3, GATEWAYS), (2, CONNECTIONS)):
        path = copy.store / folder_of(copy.ids[at]) / name
        good = path.read_bytes()
        for bad in (good[:-1], gzip.compress(gzip.decompress(good), 9)):
            path.write_bytes(bad)
            said = replay(say, copy, "--from", copy.ids[3], "--to", copy.ids[3])
            assert (said.code, said.out) == (4, ""), path
            assert str(path) in said.err
        path.write_bytes(good)


# Reports and findings of past runs


@pytest.mark.parametrize("at", [0, 3, 11, 12, 13])
def test_the_report_of_a_run_says_what_its_manifest_says(history, at, say):
    """What was read, judged and found, and how the evidence is anchored."""
    run_id = history.ids[at]
    text = (history.store / manifest_of(run_id)).read_bytes()
    manifest = json.loads(text)
    said = say("report", run_id, "--store", history.store)
    assert (said.code, said.err) == (0, "")
    head, _, findings = said.out.partition("\n\n")
    lines = head.splitlines()
    assert lines[0] == f"run       {run_id}"
    assert f"time      {manifest['now']}, mode manual, version {manifest['version']}" in lines
    scope = manifest["scope"]
    scoped = f"{', '.join(scope['gateways']) or 'all gateways'}; {', '.join(scope['rules']) or 'all rules'}"
    assert f"scope     {scoped}" in lines
    assert f"manifest  sha256 {sha256(text).hexdigest()}" in lines
    assert f"policy    {sha256(history.policy.read_bytes()).hexdigest()}" in lines
    for stored_object in manifest["objects"]:
        assert f": {stored_object['bytes']} bytes, sha256 {stored_object['sha256']}" in head
    parent = manifest["parent"]
    follows = f"run {history.ids[at - 1]} (sha256 {parent['sha256']})" if at else "none: the first run"
    assert lines[-1] == f"follows   {follows}"
    assert findings.count("\n") == len(stored(history, list(history.runs)[at]))
    assert at != 13 or said == say("report", "--store", history.store)


@pytest.mark.parametrize("words", [("report", UNKNOWN), ("report", "../x"), ("findings", "--run", UNKNOWN)])
def test_a_run_that_is_unknown_is_a_mistake(history, words, say):
    """It is named, and so is the store."""
    said = say(*words, "--store", history.store)
    assert (said.code, said.out) == (2, "")
    advice = "`python -m audit verify --format json` lists the runs"
    assert said.err == f"audit: {history.store.as_uri()}: there is no run {words[-1]}; {advice}\n"


def test_of_a_damaged_run_nothing_is_shown(copy, say):
    """Nor of one that can only be reached past a damaged one."""
    path = copy.store / folder_of(copy.ids[3]) / FINDINGS
    path.write_bytes(path.read_bytes()[:-9])
    for words in (("report", copy.ids[3]), ("findings", "--run", copy.ids[3])):
        said = say(*words, "--store", copy.store)
        assert (said.code, said.out, str(path) in said.err) == (4, "", True)
    assert say("report", copy.ids[2], "--store", copy.store).code == 0
    (copy.store / manifest_of(copy.ids[5])).write_bytes(b"{}")
    said = say("report", copy.ids[4], "--store", copy.store)
    assert (said.code, said.out, copy.ids[5] in said.err) == (4, "", True)


def test_findings_of_any_run_are_those_that_it_stored(history, say):
    """In all three formats."""
    for name, run_id in history.runs.items():
        found = json.loads(say("findings", "--run", run_id, "--store", history.store, "--format", "json").out)
        assert sorted(f["uid"] for f in found) == sorted(f["uid"] for f in stored(history, name))
        for words in ((), ("--format", "csv")):
            said = say("findings", "--run", run_id, "--store", history.store, *words)
            assert said.out.count("\n") == len(found) + ("csv" in words)


def since(say: Callable[..., Said], history: History, when: str, *words: str) -> Any:
    """What changed, as data."""
    said = say("findings", "--since", when, "--store", history.store, "--format", "json", *words)
    assert (said.code, said.err) == (0, "")
    return json.loads(said.out)


def test_what_changed_since_a_run(history, say):
    """Nothing since itself; otherwise what is new, resolved, unverified or another in severity."""
    ids = history.ids
    assert since(say, history, ids[-1]) == []
    assert since(say, history, ids[0], "--run", ids[1]) == []
    before, after = ({f["uid"]: f for f in stored(history, name)} for name in ("nothing new", "changes"))
    told = {d["finding"]["uid"]: d["then"] for d in since(say, history, ids[1], "--run", ids[2])}
    resolved = {uid for uid, f in after.items() if f["status"] == "resolved" and before[uid]["status"] != "resolved"}
    assert set(told) == (after.keys() - before.keys()) | resolved
    assert {told[uid] for uid in after.keys() - before.keys()} == {None}
    assert resolved
    text = say("findings", "--since", ids[1], "--run", ids[2], "--store", history.store)
    assert text.err == f"from run  {ids[1]} ({_time(ids[1])})\nto run    {ids[2]} ({_time(ids[2])})\n"
    assert text.out.count("\t- -> new\t") == len(after.keys() - before.keys())
    assert text.out.count(" -> resolved (") == len(resolved)
    assert say("findings", "--since", ids[-1], "--store", history.store).out == "nothing changed\n"


@pytest.mark.parametrize(
    ("hours", "form", "at"),
    [
        (0, "%Y-%m-%dT%H:%M:%SZ", 0),
        (5.99, "%Y-%m-%dT%H:%M:%SZ", 0),
        (6, "%Y-%m-%dT%H:%M:%SZ", 1),
        (6, "%Y-%m-%d %H:%M:%S+00:00", 1),
        (-24, "%Y-%m-%dT%H:%M:%SZ", 0),
        (10_000, "%Y-%m-%dT%H:%M:%SZ", 13),
        (0, "%Y-%m-%d", 0),
        (24, "%Y-%m-%d", 3),
        (48, "%Y-%m-%d", 7),
        (10_000, "%Y-%m-%d", 13),
    ],
)
def test_a_day_or_a_time_means_the_last_run_up_to_it(history, hours, form, at, say):
    """A day counts from its start; before all runs it is the first one."""
    when = (BEGAN + timedelta(hours=hours)).strftime(form)
    said = say("findings", "--since", when, "--store", history.store)
    assert said.code == 0
    assert said.err.startswith(f"from run  {history.ids[at]} (")
    assert since(say, history, when) == since(say, history, history.ids[at])


@pytest.mark.parametrize(
    "when", ["", "yesterday", "2026-02-30", "2026-1-1", "22.11.2026", "2026-11-22T08:15", "-P1D", "\x1b[2J"]
)
def test_a_time_that_is_none_is_a_mistake(history, when, say):
    """What it should be is said with an example."""
    said = say("findings", "--since", when, "--store", history.store)
    assert (said.code, said.out, "\x1b" in said.err) == (2, "", False)
    assert "is neither a day such as 2026-11-22 nor a time such as" in said.err or when == "-P1D"


def test_changes_that_cannot_be_shown_are_a_mistake(history, say):
    """As CSV, of an unknown run, since a run that is later than the one they are asked of, however it is named."""
    later = [(history.ids[5], "--run", history.ids[4]), ("2099-01-01", "--run", history.ids[4])]
    unknown = [(UNKNOWN,), (history.ids[0], "--run", UNKNOWN)]
    for words in [(history.ids[0], "--format", "csv"), *unknown, *later]:
        for form in ((), ("--format", "json")) if "csv" not in words else ((),):
            said = say("findings", "--store", history.store, "--since", *words, *form)
            assert (said.code, said.out) == (2, ""), words
            assert words not in later or f"later than run {history.ids[4]}" in said.err
