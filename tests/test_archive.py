"""Runs in a store: written whole, committed last, believed only where hashes agree."""

from __future__ import annotations

import gzip
import io
import json
from hashlib import sha256

import msgspec
import pytest

from audit.archive import (
    CONNECTIONS,
    FINDINGS,
    LATEST,
    Archive,
    Counts,
    Link,
    Manifest,
    RunScope,
    folder_of,
)
from audit.errors import StateError, StoreError
from audit.model import GatewayKey
from audit.objects import LineWriter, Slices
from audit.store import LocalStore
from tests.builders import NOW_TEXT, RUN_ID, connection, finding, gateway


def write_run(archive: Archive, run_id: str = RUN_ID, parent=None, connections=(), findings=()) -> str:
    folder = folder_of(run_id)
    with LineWriter() as first, LineWriter() as second:
        first.write(connections)
        second.write(findings)
        objects = [
            first.store_into(archive.store, folder + CONNECTIONS),
            second.store_into(archive.store, folder + FINDINGS),
        ]
    link = Link(parent.manifest.run_id, parent.sha256) if parent else None
    manifest = Manifest(
        run_id=run_id, mode="manual", started_at=NOW_TEXT, finished_at=NOW_TEXT, now=NOW_TEXT, version="0",
        scope=RunScope([], []), rules=[], policy_sha256=None, coverage=[], counts=Counts({}, {}, 0), trend=[],
        objects=objects, parent=link,
    )  # fmt: skip
    return archive.commit(manifest, parent)


@pytest.fixture
def archive(tmp_path) -> Archive:
    return Archive(LocalStore(tmp_path))


def test_an_empty_store_has_no_run(archive):
    """Only where there is no latest.json at all."""
    assert archive.latest() is None


def test_a_run_is_read_back_as_it_was_written(archive, tmp_path):
    """Lines, manifest and hashes; the layout is the documented one."""
    rows, found = [connection("c1"), connection(None, domain_id=None)], [finding(), finding("r2")]
    digest = write_run(archive, connections=rows, findings=found)
    run = archive.latest()
    assert run is not None
    assert (list(run.connections()), list(run.findings())) == (rows, found)
    folder = tmp_path / "runs/2026/11/22" / RUN_ID
    assert digest == run.sha256 == sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert json.loads((tmp_path / LATEST).read_bytes()) == {
        "run_id": RUN_ID, "manifest": f"runs/2026/11/22/{RUN_ID}/manifest.json", "sha256": digest,
    }  # fmt: skip
    for stored in run.manifest.objects:
        text = (tmp_path / stored.key).read_bytes()
        assert (stored.bytes, stored.sha256) == (len(text), sha256(text).hexdigest())


def test_the_same_lines_give_the_same_bytes(archive):
    """Nothing of the moment is in the compressed file."""
    with LineWriter() as one, LineWriter() as two:
        one.write([connection("c1")])
        two.write([connection("c1")])
        assert one.store_into(archive.store, "a").sha256 == two.store_into(archive.store, "b").sha256


def test_a_run_names_the_hash_of_the_one_before(archive):
    """The chain."""
    first = write_run(archive)
    parent = archive.latest()
    write_run(archive, "20261122T091500Z-000002", parent)
    latest = archive.latest()
    assert latest is not None
    assert latest.manifest.parent == Link(RUN_ID, first)


def test_a_run_that_was_overtaken_is_not_committed(archive):
    """Its findings would hide those of the run that came between."""
    write_run(archive)
    parent = archive.latest()
    write_run(archive, "20261122T091500Z-000002", parent)
    with pytest.raises(StoreError, match="another run was recorded while this one was read"):
        write_run(archive, "20261122T091501Z-000003", parent)
    latest = archive.latest()
    assert latest is not None
    assert latest.manifest.run_id == "20261122T091500Z-000002"


@pytest.mark.parametrize(
    "broken", [b"", b"{", b"[]", b"\xff", b'{"run_id": "x"}', b'{"run_id":1,"manifest":"x","sha256":"y"}']
)
def test_a_garbled_pointer_is_never_taken_for_a_first_run(archive, tmp_path, broken):
    """It is an error that names the object and what to do."""
    write_run(archive)
    (tmp_path / LATEST).write_bytes(broken)
    with pytest.raises(StateError, match=r"latest\.json: .*Restore that object"):
        archive.latest()


def test_a_missing_or_changed_manifest_is_an_error(archive, tmp_path):
    """One changed byte is enough."""
    write_run(archive)
    manifest = tmp_path / folder_of(RUN_ID) / "manifest.json"
    text = manifest.read_bytes()
    manifest.write_bytes(text.replace(b'"manual"', b'"manuaL"'))
    with pytest.raises(StateError, match="hash is not the one in latest.json"):
        archive.latest()
    manifest.unlink()
    with pytest.raises(StateError, match="it is missing"):
        archive.latest()


@pytest.mark.parametrize("name", [CONNECTIONS, FINDINGS])
def test_every_damage_to_an_object_is_noticed(archive, tmp_path, name):
    """Missing, cut short, changed, replaced by other well-formed lines, grown at the end."""
    write_run(archive, connections=[connection("c1")] * 50, findings=[finding()] * 50)
    run = archive.latest()
    assert run is not None
    path = tmp_path / folder_of(RUN_ID) / name
    good = path.read_bytes()
    lines = gzip.decompress(good)
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    damages = [
        good[:-4], good[: len(good) // 2], b"", bytes(flipped), gzip.compress(lines.replace(b"c1", b"c2")),
        good + b"\0", good + gzip.compress(b""), gzip.compress(lines + b"{}\n"), gzip.compress(b"\xff\n"),
    ]  # fmt: skip
    for damage in damages:
        path.write_bytes(damage)
        with pytest.raises(StateError, match=name):
            list(run.connections() if name == CONNECTIONS else run.findings())
    path.unlink()
    with pytest.raises(StateError, match="it is missing"):
        list(run.connections() if name == CONNECTIONS else run.findings())


def test_an_object_that_the_manifest_does_not_name_is_an_error(archive):
    """A manifest without readings is not a run without connections."""
    write_run(archive)
    run = archive.latest()
    assert run is not None
    bare = type(run)(run.store, msgspec.structs.replace(run.manifest, objects=[]), run.sha256)
    with pytest.raises(StateError, match="does not name it"):
        list(bare.connections())


def test_slices_follow_the_gateways(archive):
    """Taken in order; what comes before a gateway is told apart from what is its own."""
    keys = [gateway(name).key for name in ("a", "b", "c", "d")]
    rows = [connection(f"{key.gateway_id}{n}", gateway_id=key.gateway_id) for key in keys for n in (1, 2)]
    slices = Slices(rows)
    assert [row.id for row in slices.take(keys[0])] == ["a1", "a2"]
    assert [[row.id for row in part] for part in slices.before(keys[2])] == [["b1", "b2"]]
    assert slices.take(GatewayKey("cn-north-4", "p1", "bb")) == []
    assert [row.id for row in slices.take(keys[2])] == ["c1", "c2"]
    assert [[row.id for row in part] for part in slices.before(None)] == [["d1", "d2"]]
    assert slices.take(keys[3]) == []


@pytest.mark.parametrize("room", [0, 5, 5000])
def test_no_room_for_temporary_files_is_a_clear_error(archive, monkeypatch, room):
    """Named with the directory that is full."""

    class Full(io.BytesIO):
        def write(self, text) -> int:
            if self.tell() + len(text) > room:
                raise OSError(28, "No space left on device")
            return super().write(text)

    monkeypatch.setattr("tempfile.TemporaryFile", Full)

    def write_much() -> None:
        with LineWriter() as writer:
            writer.write([connection("c1")] * 100_000)
            writer.store_into(archive.store, "key")

    with pytest.raises(StoreError, match="temporary files: No space left on device"):
        write_much()


def test_a_pointer_that_does_not_hold_what_was_written_is_an_error(archive):
    """A store that loses writes must not look like success."""

    class Forgetful(LocalStore):
        def put(self, key, content) -> None:
            super().put(key, io.BytesIO(b"{}") if key == LATEST else content)

    forgetful = Archive(Forgetful(archive.store._root))
    with pytest.raises(StoreError, match="does not hold what was just written"):
        write_run(forgetful)
