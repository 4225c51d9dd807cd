"""Checks the chain of runs in a store, and rebuilds the pointer to its end: evidence that anyone can check.

Every manifest names the hashes of its objects and of the manifest before it, so that one changed byte breaks a link.
What this cannot see is a chain that was rewritten as a whole, or cut at its end: compare the hash of a manifest with
the one in the messages that receivers got.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from audit.archive import LATEST, RUN_ID, RUNS, Latest, Link, Manifest, manifest_of
from audit.errors import StateError, StoreError
from audit.store import read_object
from audit.tell import RECEIVERS, read_told

if TYPE_CHECKING:
    from audit.archive import StoredObject
    from audit.store import Store

_CHUNK = 1 << 20


@dataclass
class Verification:
    """`runs`: the hash of each manifest by run id, from the last run back, as far as the chain holds.

    `abandoned`: ids of runs that ended before they were recorded.
    """

    runs: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    abandoned: list[str] = field(default_factory=list)


class Verifier:
    """Looks at one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def verify(self, only: str = "", *, everything: bool = False) -> Verification:
        """Follow the chain from its end; `only` hashes the objects of one run, `everything` also of abandoned ones."""
        found = Verification()
        link = self._head(found)
        named_by = LATEST
        while link is not None:  # it ends: no run can hold the hash of one that holds its own
            manifest = self._check_manifest(link, named_by, found)
            if manifest is None:
                found.problems.append("what is older cannot be reached from here")
                return found
            if not only or only == link.run_id:
                self._check_objects(manifest, found.problems)
            found.runs[link.run_id] = link.sha256
            named_by = f"run {link.run_id}"
            link = manifest.parent
        self._look_beside(found, everything=everything)
        if only and only not in found.runs:
            found.problems.append(f"run {only} is not in the chain")
        return found

    def repair(self) -> str:
        """Point `latest.json` at the newest sound run; returns its id, "" where it points there already.

        Raises StateError where no run is sound.
        """
        for run_id in sorted(self._folders, reverse=True):
            manifest = self._read(run_id)
            problems: list[str] = []
            if manifest is None:
                continue
            self._check_objects(manifest[1], problems)
            if problems:
                continue
            text, _ = manifest
            pointer = msgspec.json.encode(Latest(run_id, manifest_of(run_id), sha256(text).hexdigest())) + b"\n"
            if read_object(self._store, LATEST) == pointer:
                return ""
            self._store.put(LATEST, io.BytesIO(pointer))
            return run_id
        raise StateError(f"{self._store.locate(RUNS)}: there is no sound run to go back to")

    @cached_property
    def _folders(self) -> dict[str, set[str]]:
        """Every run's folder with the keys in it."""
        folders: dict[str, set[str]] = {}
        for key in self._store.list(RUNS):
            parts = key.split("/")
            if RUN_ID.fullmatch(parts[-2]):
                folders.setdefault(parts[-2], set()).add(key)
        return folders

    def _head(self, found: Verification) -> Link | None:
        text = read_object(self._store, LATEST)
        where = self._store.locate(LATEST)
        if text is None:
            if self._folders:
                found.problems.append(f"{where}: is missing, though there are runs; `--repair` rebuilds it")
            return None
        try:
            latest = msgspec.json.decode(text, type=Latest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            found.problems.append(f"{where}: is unreadable: {error}; `--repair` rebuilds it")
            return None
        if latest.manifest != manifest_of(latest.run_id):
            found.problems.append(f"{where}: does not point to the manifest of a run; `--repair` rebuilds it")
            return None
        return Link(latest.run_id, latest.sha256)

    def _read(self, run_id: str) -> tuple[bytes, Manifest] | None:
        """Read a manifest; None where there is none, or it is not that of this run."""
        text = read_object(self._store, manifest_of(run_id))
        try:
            manifest = msgspec.json.decode(text or b"", type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return (text or b"", manifest) if manifest.run_id == run_id else None

    def _check_manifest(self, link: Link, named_by: str, found: Verification) -> Manifest | None:
        where = self._store.locate(manifest_of(link.run_id))
        text = read_object(self._store, manifest_of(link.run_id))
        if text is None:
            found.problems.append(f"{where}: is missing; {named_by} names it")
            return None
        if sha256(text).hexdigest() != link.sha256:
            found.problems.append(f"{where}: was changed: its hash is not the one that {named_by} names")
            return None
        read = self._read(link.run_id)
        if read is None:
            found.problems.append(f"{where}: is not the manifest of run {link.run_id}")
            return None
        return read[1]

    def _check_objects(self, manifest: Manifest, problems: list[str]) -> None:
        checked = ((item.key, self._object_problem(item)) for item in manifest.objects)
        problems += [f"{self._store.locate(key)}: {problem}" for key, problem in checked if problem]

    def _object_problem(self, item: StoredObject) -> str:
        digest, size = sha256(), 0
        try:
            stream = self._store.open(item.key)
            if stream is None:
                return "is missing"
            with stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
        except (OSError, StoreError) as error:
            return f"cannot be read: {error}"
        if size != item.bytes:
            return f"was changed: it has {size} bytes instead of {item.bytes}"
        return "" if digest.hexdigest() == item.sha256 else "was changed: its hash is not the one in the manifest"

    def _look_beside(self, found: Verification, *, everything: bool) -> None:
        """Name what is not in the chain: runs that were never recorded, and branches that were."""
        beside = {run_id: self._read(run_id) for run_id in sorted(self._folders.keys() - set(found.runs))}
        parents = {read[1].parent.run_id for read in beside.values() if read and read[1].parent}
        for run_id, read in beside.items():
            if run_id in parents:
                found.problems.append(f"run {run_id} is not in the chain, but another run follows it: a fork")
                continue
            found.abandoned.append(run_id)
            if everything and read:
                self._check_objects(read[1], found.problems)
        for key in self._store.list(RECEIVERS):
            told = read_told(self._store, key)
            if told and told.run_id and told.run_id not in found.runs:
                found.problems.append(
                    f"receiver {told.receiver} was told of run {told.run_id}, which is not in the chain"
                )
