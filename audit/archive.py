"""Runs in a store: an immutable folder each, chained by hashes, with `latest.json` as the point of commit.

Objects are written first, then the manifest that names their hashes, then `latest.json`. A crash before that last
write leaves a folder that nothing points to, never a half run.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from contextlib import suppress
from hashlib import sha256
from typing import IO, TYPE_CHECKING, cast

import msgspec

from audit.errors import Overtaken, StateError, StoreError
from audit.extent import Extent
from audit.model import NARROWED, NOT_ALL_READ, Connection, Coverage, Finding, Gateway, GatewayKey, Reading
from audit.objects import HashingReader, Line, StoredObject
from audit.store import read_object

if TYPE_CHECKING:
    from collections.abc import Iterator

    from audit.model import TargetNames
    from audit.store import Store

LATEST = "latest.json"
CONNECTIONS = "connections.ndjson.gz"
FINDINGS = "findings.ndjson.gz"
EVENTS = "findings.ocsf.ndjson.gz"
SHEET = "findings.csv"
GATEWAYS = "gateways.ndjson.gz"
REPORT = "report.html"
MANIFEST = "manifest.json"
RUNS = "runs/"
TREND_RUNS = 90
_LINK_SECONDS = 7 * 86_400
RUN_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}")


class Link(msgspec.Struct, frozen=True):
    """The run before, with the hash of its manifest."""

    run_id: str
    sha256: str


class RuleUsed(msgspec.Struct, frozen=True):
    """A rule of this run. `not_evaluated` says why it was not, "" where it was."""

    id: str
    sha256: str
    not_evaluated: str

    @property
    def problem(self) -> str:
        """Say that it was not evaluated; "" where it was."""
        return self.not_evaluated and f"rule {self.id} was not evaluated: {self.not_evaluated}"


class Counts(msgspec.Struct, frozen=True):
    """Findings of this run by status, the open ones by severity; `carried` were out of scope and are in neither."""

    by_status: dict[str, int]
    by_severity: dict[str, int]
    carried: int


class TrendPoint(msgspec.Struct, frozen=True):
    """One run in the history that every manifest carries."""

    run_id: str
    now: str
    by_status: dict[str, int]
    by_severity: dict[str, int]
    covered: int
    gateways: int


class TargetRef(msgspec.Struct, frozen=True):
    """A project in a region, and what people call it."""

    name: str
    region: str
    project_id: str


class RunScope(msgspec.Struct, frozen=True):
    """What the run was limited to; empty lists for everything. `targets`: those that it was about, where several."""

    gateways: list[str]
    rules: list[str]
    targets: list[TargetRef] = []

    @property
    def names(self) -> TargetNames:
        return {(target.region, target.project_id): target.name for target in self.targets}

    @property
    def limited(self) -> tuple[str, ...]:
        """What it was limited to some of."""
        return ("gateways",) * bool(self.gateways) + ("rules",) * bool(self.rules)


class ShardUsed(msgspec.Struct, frozen=True):
    """The run of another chain, in the same store, that read a target: when, and the hash of its manifest."""

    target: str
    run_id: str
    now: str
    manifest: str
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """`manifest.json`: what a run did, read and left behind. Instants as in `times`.

    `shards`: the runs that did the reading where this one summarizes them.
    """

    run_id: str
    mode: str
    started_at: str
    finished_at: str
    now: str
    version: str
    scope: RunScope
    rules: list[RuleUsed]
    policy_sha256: str | None
    coverage: list[Coverage]
    counts: Counts
    trend: list[TrendPoint]
    objects: list[StoredObject]
    parent: Link | None
    shards: list[ShardUsed] = []

    @property
    def extent(self) -> Extent:
        """How far the run reached; the names of the rules that it was not asked for are not on record."""
        idle = {rule.id for rule in self.rules if rule.not_evaluated not in {"", NARROWED, NOT_ALL_READ}}
        narrowed = {rule.id for rule in self.rules if rule.not_evaluated == NARROWED}
        return Extent(
            self.coverage,
            frozenset(idle),
            narrowed=frozenset(narrowed),
            limited=self.scope.limited,
            targets=self.scope.names,
        )

    @property
    def report(self) -> str | None:
        """The key of the run's page; None where there is none."""
        key = folder_of(self.run_id) + REPORT
        return key if any(item.key == key for item in self.objects) else None


class Latest(msgspec.Struct, frozen=True):
    """`latest.json`; `manifest` is a key, `sha256` that of the manifest's stored bytes."""

    run_id: str
    manifest: str
    sha256: str


def shard_folder(name: str) -> str:
    """Where the shard that reads the target of this name has its runs."""
    return f"shards/{name}/"


def shard_of(name: str, run: StoredRun) -> ShardUsed:
    """Name the run that read a target as the manifest of a summary does."""
    manifest = run.manifest
    return ShardUsed(name, manifest.run_id, manifest.now, shard_folder(name) + manifest_of(manifest.run_id), run.sha256)


def folder_of(run_id: str) -> str:
    """The folder of a run: `runs/2026/11/22/20261122T081500Z-7f3a9c/`."""
    return f"runs/{run_id[:4]}/{run_id[4:6]}/{run_id[6:8]}/{run_id}/"


def manifest_of(run_id: str) -> str:
    """The key of a run's manifest."""
    return folder_of(run_id) + MANIFEST


class StoredRun(msgspec.Struct, frozen=True):
    """A committed run, as later ones read it; `pointer` holds the bytes of `latest.json` where it is the last one."""

    store: Store
    manifest: Manifest
    sha256: str
    pointer: bytes | None = None

    def connections(self) -> Iterator[Connection]:
        return self._lines(CONNECTIONS, Connection)

    def findings(self) -> Iterator[Finding]:
        return self._lines(FINDINGS, Finding)

    def gateways(self) -> Iterator[Gateway]:
        """Yield the gateways that were read; runs of versions that did not keep them raise StateError."""
        return self._lines(GATEWAYS, Gateway)

    def recall(self, entry: Coverage, gateway: Gateway | None) -> Reading:
        """Return what the run read of a gateway, but for its connections; `gateway` as it was stored, if it was."""
        key = GatewayKey(entry.region, entry.project_id, entry.gateway_id or "")
        gateway = gateway or Gateway(*key, entry.name)
        return Reading(
            gateway,
            entry.state,
            reason=entry.reason,
            request_id=entry.request_id,
            permissions=gateway.permissions,
            permissions_refused=entry.state == "partial" and entry.complete_in == self.manifest.run_id,
        )

    def check(self, *names: str) -> None:
        """Read objects whole, before anything is made of them. Raises StateError where one is not as it was written."""
        for name in names:
            stored, stream = self._open(name)
            with stream:
                if HashingReader(stream).hexdigest() != stored.sha256:
                    raise _unreadable(self.store, stored.key, "its hash is not the one in the manifest")

    def _lines(self, name: str, line: type[Line]) -> Iterator[Line]:
        """Yield the lines of an object; raises StateError as soon as it is not what the manifest says, at the end."""
        stored, stream = self._open(name)
        key = stored.key
        decode = msgspec.json.Decoder(line).decode
        with stream:
            hashed = HashingReader(stream)
            try:
                with gzip.GzipFile(fileobj=cast("IO[bytes]", hashed)) as text:
                    for row in text:
                        yield decode(row)
            except (OSError, EOFError, zlib.error, msgspec.DecodeError, UnicodeDecodeError) as error:
                raise _unreadable(self.store, key, str(error)) from None
            if hashed.hexdigest() != stored.sha256:
                raise _unreadable(self.store, key, "its hash is not the one in the manifest")

    def _open(self, name: str) -> tuple[StoredObject, IO[bytes]]:
        key = folder_of(self.manifest.run_id) + name
        stored = next((item for item in self.manifest.objects if item.key == key), None)
        if stored is None:
            raise _unreadable(self.store, key, "the manifest does not name it")
        stream = self.store.open(key)
        if stream is None:
            raise _unreadable(self.store, key, "it is missing")
        return stored, stream


class Archive:
    """The runs in one store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def latest(self) -> StoredRun | None:
        """Return the last committed run; None only where there never was one. Raises StateError, StoreError."""
        text = read_object(self.store, LATEST)
        if text is None:
            self._prove_beginning()
            return None
        latest = self._decode(text, LATEST, Latest)
        if latest.manifest != manifest_of(latest.run_id) or not RUN_ID.fullmatch(latest.run_id):
            raise _unreadable(self.store, LATEST, "it does not point to the manifest of a run")
        return self._load(latest.run_id, latest.sha256, f"the one in {LATEST}", text)

    def chain(self) -> Iterator[StoredRun]:
        """Yield the runs from the last one back to the first. Raises StateError where a link is broken."""
        run = self.latest()
        while run is not None:
            yield run
            parent = run.manifest.parent
            name = f"the one in the manifest of {run.manifest.run_id}"
            run = self._load(parent.run_id, parent.sha256, name) if parent else None

    def commit(self, manifest: Manifest, parent: StoredRun | None) -> str:
        """Write the manifest and point `latest.json` at it; returns the manifest's hash.

        Raises Overtaken where another run was committed since `parent` was read: its findings would be lost.
        """
        text = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
        key = manifest_of(manifest.run_id)
        self.store.put(key, io.BytesIO(text))
        digest = sha256(text).hexdigest()
        latest = msgspec.json.encode(Latest(manifest.run_id, key, digest)) + b"\n"
        if not self.store.swap(LATEST, parent.pointer if parent else None, latest):
            raise Overtaken(
                f"{self.store.locate(LATEST)}: another run was recorded while this one was read; run it again"
            )
        return digest

    def _prove_beginning(self) -> None:
        """Raise StateError where a run followed another one: then the pointer is lost, and this is no first run."""
        for key in self.store.list(RUNS):
            if key.endswith(f"/{MANIFEST}"):
                with suppress(msgspec.DecodeError, UnicodeDecodeError):
                    if msgspec.json.decode(read_object(self.store, key) or b"", type=Manifest).parent:
                        raise _unreadable(self.store, LATEST, "it is missing, though runs were recorded")

    def _load(self, run_id: str, digest: str, source: str, pointer: bytes | None = None) -> StoredRun:
        key = manifest_of(run_id)
        text = read_object(self.store, key)
        if text is None:
            raise _unreadable(self.store, key, "it is missing")
        if sha256(text).hexdigest() != digest:
            raise _unreadable(self.store, key, f"its hash is not {source}")
        return StoredRun(self.store, self._decode(text, key, Manifest), digest, pointer)

    def _decode(self, text: bytes, key: str, kind: type[Line]) -> Line:
        try:
            return msgspec.json.decode(text, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _unreadable(self.store, key, str(error)) from None


def report_link(store: Store, run_id: str) -> str:
    """Link to a run's page, for a week where the store can limit that; "" where the store can make no link."""
    try:
        return store.link(folder_of(run_id) + REPORT, _LINK_SECONDS)
    except StoreError:
        return ""


def is_overtaken(store: Store, run_id: str) -> bool:
    """Whether `latest.json` names another run by now; False where that cannot be told."""
    try:
        text = read_object(store, LATEST)
        return msgspec.json.decode(text or b"", type=Latest).run_id != run_id
    except (StoreError, msgspec.DecodeError, UnicodeDecodeError):
        return False


def _unreadable(store: Store, key: str, why: str) -> StateError:
    return StateError(
        f"what the previous run left is unreadable: {store.locate(key)}: {why}. "
        "Restore that object from a backup or an older version of it; or go back to the newest sound run with "
        "`python -m audit verify --repair`"
    )
