"""Checks the chain of runs in a store, and rebuilds the pointer to its end: evidence that anyone can check.

Every manifest names the hashes of its objects and of the manifest before it, so that one changed byte breaks a link.
What this cannot see is a chain that was rewritten as a whole, or cut at its end: compare the hash of a manifest with
the one in the messages that receivers got.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from audit.archive import LATEST, RUN_ID, RUNS, Latest, Link, Manifest, manifest_of
from audit.errors import StateError, StoreError
from audit.store import read_object
from audit.tell import RECEIVERS, read_told

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from audit.notify import Told
    from audit.objects import StoredObject
    from audit.store import Store

_CHUNK = 1 << 20
# How often a store is looked at again in which runs are recorded meanwhile.
_MOST_LOOKS = 3


class Verification(msgspec.Struct):
    """`runs`: the hash of each manifest by run id, from the last run back, as far as the chain holds.

    `abandoned`: ids of runs beside it: never recorded, or left behind by a repair.
    """

    runs: dict[str, str] = msgspec.field(default_factory=dict)
    problems: list[str] = msgspec.field(default_factory=list)
    abandoned: list[str] = msgspec.field(default_factory=list)


class Verifier:
    """Looks at one store; what was hashed once is not hashed again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._hashed: dict[str, str] = {}

    def verify(self, only: str = "", *, everything: bool = False) -> Verification:
        """Follow the chain from its end; `only` hashes the objects of one run, `everything` also of abandoned ones.

        Raises StoreError where the store cannot be listed.
        """
        for _ in range(_MOST_LOOKS):
            found, pointer = Verification(), self._get(LATEST)
            beside = self._list_runs()
            self._follow(found, beside, only)
            self._look_beside(found, beside, everything=everything)
            if self._get(LATEST) == pointer:
                break  # else a run was recorded meanwhile, and would look like one beside the chain
        if only and only not in found.runs:
            found.problems.append(f"run {only} is not in the chain")
        return found

    def repair(self) -> str:
        """Point `latest.json` at the newest sound run, unless it points to a sound one; returns its id, "" for none.

        Raises StateError where no run is sound, StoreError where the store cannot be used.
        """
        pointer = self._get(LATEST)
        runs = {run.run_id: (text, run) for text, run in self._readable(self._list_runs())}
        named = {run.parent.run_id: run.parent.sha256 for _, run in runs.values() if run.parent}
        records = list(self._told(Verification()))
        told = {record.run_id for record in records}
        # A run that was never recorded stands beside one that was: that one others follow, or receivers heard of.
        recorded = named.keys() | told
        named = {record.run_id: record.manifest_sha256 for record in records if record.manifest_sha256} | named
        head = self._head(Verification())
        is_sound = not runs and pointer is None
        if head:
            named[head.run_id] = head.sha256
            is_sound = head.run_id in runs and not self._unsound(*runs[head.run_id], head.sha256)
        if head and is_sound:
            # Nothing to repair, unless it was set back: receivers were told of a newer run, which it does not follow.
            # Their records name its hash: without one, a run that was changed and left behind could come back.
            newer = (told & named.keys()) - self._behind(head.run_id, runs)
            runs = {run_id: run for run_id, run in runs.items() if run_id in newer and run_id > head.run_id}
        for run_id in sorted(runs, reverse=True):
            text, run = runs[run_id]
            siblings = {name for name, (_, other) in runs.items() if other.parent == run.parent and name != run_id}
            if run_id not in recorded and siblings & recorded:
                continue
            digest = sha256(text).hexdigest()
            if self._unsound(text, run, named.get(run_id, digest)):
                continue
            content = msgspec.json.encode(Latest(run_id, manifest_of(run_id), digest)) + b"\n"
            if not self._store.swap(LATEST, pointer if isinstance(pointer, bytes) else None, content):
                raise StoreError(f"{self._store.locate(LATEST)}: was changed meanwhile; run it again")
            return run_id
        if is_sound:
            return ""
        raise StateError(f"{self._store.locate(RUNS)}: there is no sound run to go back to")

    def _behind(self, run_id: str, runs: Mapping[str, tuple[bytes, Manifest]]) -> set[str]:
        """Return a run and those that it followed; where clocks disagree their ids may be greater than its own."""
        behind: set[str] = set()
        while run_id in runs and run_id not in behind:
            behind.add(run_id)
            parent = runs[run_id][1].parent
            run_id = parent.run_id if parent else ""
        return behind

    def _list_runs(self) -> list[str]:
        """List the ids of all runs that left a folder, newest first."""
        folders = {key.split("/")[-2] for key in self._store.list(RUNS)}
        return sorted(filter(RUN_ID.fullmatch, folders), reverse=True)

    def _get(self, key: str) -> bytes | str | None:
        """Read an object; None where there is none, a text that says why where it cannot be read."""
        try:
            return read_object(self._store, key)
        except StoreError as error:
            return str(error)

    def _head(self, found: Verification) -> Link | None:
        text, where = self._get(LATEST), self._store.locate(LATEST)
        if text is None:
            return None
        try:
            latest = msgspec.json.decode(text if isinstance(text, bytes) else b"", type=Latest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            rebuilt = f"{where}: is unreadable: {error}; `--repair` rebuilds it"
            found.problems.append(text if isinstance(text, str) else rebuilt)
            return None
        if not RUN_ID.fullmatch(latest.run_id) or latest.manifest != manifest_of(latest.run_id):
            found.problems.append(f"{where}: does not point to the manifest of a run; `--repair` rebuilds it")
            return None
        return Link(latest.run_id, latest.sha256)

    def _follow(self, found: Verification, beside: list[str], only: str) -> None:
        """Follow the chain, taking what is in it out of `beside`; behind a break it goes on with the next older run."""
        link, named_by = self._head(found), LATEST
        if link is None and self._get(LATEST) is None and any(run.parent for _, run in self._readable(beside)):
            where = self._store.locate(LATEST)
            found.problems.append(f"{where}: is missing, though runs were recorded; `--repair` rebuilds it")
        if link is None and found.problems:
            link, named_by = self._next(beside), "nothing"
        older = "~"  # greater than any id
        while link is not None:
            run_id = link.run_id
            older = run_id if RUN_ID.fullmatch(run_id) else older
            run = self._check_manifest(link, named_by, found.problems)
            if run_id in beside:
                beside.remove(run_id)
            if run is None:
                link, named_by = self._next([name for name in beside if name < older]), "nothing"
                continue
            if only in {"", run_id}:
                self._check_objects(run, found.problems)
            found.runs[run_id] = link.sha256
            link, named_by = run.parent, f"run {run_id}"

    def _next(self, run_ids: Iterable[str]) -> Link | None:
        """Return the newest run of which the manifest can be read, as it is."""
        return next((Link(run.run_id, sha256(text).hexdigest()) for text, run in self._readable(run_ids)), None)

    def _readable(self, run_ids: Iterable[str]) -> Iterator[tuple[bytes, Manifest]]:
        yield from (read for read in map(self._read, run_ids) if isinstance(read, tuple))

    def _read(self, run_id: str) -> tuple[bytes, Manifest] | str:
        """Read a manifest, or say what is wrong with it."""
        text = self._get(manifest_of(run_id))
        where = self._store.locate(manifest_of(run_id))
        if not isinstance(text, bytes):
            return text or f"{where}: is missing"
        try:
            manifest = msgspec.json.decode(text, type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return f"{where}: is unreadable: {error}"
        return (text, manifest) if manifest.run_id == run_id else f"{where}: is the manifest of another run"

    def _check_manifest(self, link: Link, named_by: str, problems: list[str]) -> Manifest | None:
        if not RUN_ID.fullmatch(link.run_id):
            problems.append(f'{named_by} names "{link.run_id}", which is no id of a run')
            return None
        text = self._get(manifest_of(link.run_id))
        where = self._store.locate(manifest_of(link.run_id))
        if isinstance(text, bytes) and sha256(text).hexdigest() != link.sha256:
            problems.append(f"{where}: was changed: its hash is not the one that {named_by} names")
            return None
        read = self._read(link.run_id) if isinstance(text, bytes) else text or f"{where}: is missing"
        if isinstance(read, str):
            problems.append(f"{read}; {named_by} names it")
            return None
        return read[1]

    def _unsound(self, text: bytes, manifest: Manifest, digest: str) -> bool:
        problems: list[str] = []
        self._check_objects(manifest, problems)
        return bool(problems) or sha256(text).hexdigest() != digest

    def _check_objects(self, manifest: Manifest, problems: list[str]) -> None:
        for item in manifest.objects:
            if item.key not in self._hashed:
                self._hashed[item.key] = self._object_problem(item)
            if problem := self._hashed[item.key]:
                problems.append(problem)
        for shard in manifest.shards:
            text, where = self._get(shard.manifest), self._store.locate(shard.manifest)
            if not isinstance(text, bytes):
                problems.append(text or f"{where}: is missing")
            elif sha256(text).hexdigest() != shard.sha256:
                problems.append(f"{where}: was changed: its hash is not the one in the summary {manifest.run_id}")

    def _object_problem(self, item: StoredObject) -> str:
        digest, size = sha256(), 0
        try:
            where = self._store.locate(item.key)
            stream = self._store.open(item.key)
            if stream is None:
                return f"{where}: is missing"
            with stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
        except OSError as error:
            return f"{where}: cannot be read: {error.strerror or error}"
        except StoreError as error:
            return str(error)
        if size != item.bytes:
            return f"{where}: was changed: it has {size} bytes instead of {item.bytes}"
        return "" if digest.hexdigest() == item.sha256 else f"{where}: was changed: its hash is not the manifest's"

    def _look_beside(self, found: Verification, beside: list[str], *, everything: bool) -> None:
        """Name what is not in the chain: runs that were never recorded, and branches that were."""
        runs = {run_id: read[1] if isinstance(read := self._read(run_id), tuple) else None for run_id in beside}
        parents = {run.parent.run_id for run in runs.values() if run and run.parent}
        for run_id, run in sorted(runs.items()):
            if run_id in parents:
                found.problems.append(f"run {run_id} is not in the chain, but another run follows it: a fork")
                continue
            found.abandoned.append(run_id)
            if everything and run:
                self._check_objects(run, found.problems)
        for told in self._told(found):
            digest = found.runs.get(told.run_id)
            if digest is None:
                found.problems.append(
                    f"receiver {told.receiver} was told of run {told.run_id}, which is not in the chain"
                )
            elif told.manifest_sha256 not in {"", digest}:
                found.problems.append(
                    f"receiver {told.receiver} was told another hash for the manifest of run {told.run_id}"
                )

    def _told(self, found: Verification) -> Iterator[Told]:
        """Yield the records of receivers that were told of a run."""
        for key in self._store.list(RECEIVERS):
            try:
                told = read_told(self._store, key)
            except StoreError as error:
                found.problems.append(str(error))
            else:
                if told and told.run_id:
                    yield told
