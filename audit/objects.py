"""What a run writes, piece by piece in temporary files until it is stored, and what of it is read back in order."""

from __future__ import annotations

import gzip
import io
import tempfile
import zlib
from contextlib import contextmanager, suppress
from hashlib import sha256
from itertools import groupby
from typing import IO, TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from audit.errors import StoreError
from audit.model import Connection, Finding, GatewayKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from typing_extensions import Self

    from audit.store import Store

_GZIP_FORMAT = 31  # zlib's number for "largest window, with the header and trailer of gzip"


class StoredObject(msgspec.Struct, frozen=True):
    """`bytes` and `sha256` are those of the object as it is stored; `key` counts from the store's root."""

    key: str
    bytes: int
    sha256: str


Line = TypeVar("Line")


class ObjectWriter:
    """Writes one object into a temporary file, piece by piece; `store_into` puts it where it belongs."""

    def __init__(self) -> None:
        with temporary_room():
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  (closed by __exit__)

    def append(self, piece: bytes) -> None:
        with temporary_room():
            self._file.write(piece)

    def store_into(self, store: Store, key: str) -> StoredObject:
        """Store what was written and write no more."""
        with temporary_room():
            size = self._file.tell()
            self._file.seek(0)
            hashed = HashingReader(self._file)
            digest = hashed.hexdigest()
            self._file.seek(0)
        store.put(key, self._file)
        return StoredObject(key, size, digest)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closing writes what is left; after an error that may fail again, and nobody wants it any more.
        with suppress(OSError):
            self._file.close()


class LineWriter(ObjectWriter):
    """Writes NDJSON, compressed.

    Level 1: higher levels cost more than the whole audit for a few percent. There is no time in the header: the same
    lines give the same bytes. (A GzipFile would try to write once more when it is collected after a full disk.)
    """

    def __init__(self) -> None:
        super().__init__()
        self._deflate = zlib.compressobj(1, zlib.DEFLATED, _GZIP_FORMAT)
        self._encode = msgspec.json.Encoder().encode_lines

    def write(self, lines: Iterable[Any]) -> None:
        self.append(self._deflate.compress(self._encode(lines)))

    def lines(self, kind: type[Line]) -> Iterator[Line]:
        """Read the lines again, once they were stored."""
        decode = msgspec.json.Decoder(kind).decode
        self._file.seek(0)
        with gzip.GzipFile(fileobj=self._file) as text:
            yield from map(decode, text)

    def store_into(self, store: Store, key: str) -> StoredObject:
        self.append(self._deflate.flush())
        return super().store_into(store, key)


@contextmanager
def temporary_room() -> Iterator[None]:
    """Say it plainly where a temporary file cannot be written. Raises StoreError."""
    try:
        yield
    except OSError as error:
        where = tempfile.tempdir or "TMPDIR"  # to look for it again would fail again
        raise StoreError(f"{where}: cannot be used for temporary files: {error.strerror or error}") from None


Row = TypeVar("Row", Connection, Finding)


class Slices(Generic[Row]):
    """Lines in the order of their gateways, taken gateway by gateway: a merge, so that memory holds one slice."""

    def __init__(self, lines: Iterable[Row]) -> None:
        self._groups: Iterator[tuple[GatewayKey, Iterator[Row]]] = groupby(lines, key=lambda line: line.gateway_key)
        self._head: tuple[GatewayKey, list[Row]] | None = None
        self._advance()

    def before(self, key: GatewayKey | None) -> Iterator[list[Row]]:
        """Yield the slices of gateways that come before `key` (None: all that are left)."""
        while self._head is not None and (key is None or self._head[0] < key):
            _key, rows = self._head
            self._advance()
            yield rows

    def skip_to(self, key: GatewayKey | None) -> None:
        """Leave out what comes before `key`; reading on to the end (None) is what proves the file's hash."""
        for _rows in self.before(key):
            pass

    def take(self, key: GatewayKey) -> list[Row]:
        """Return the slice of a gateway, empty where it has none; call `before` first."""
        if self._head is None or self._head[0] != key:
            return []
        _key, rows = self._head
        self._advance()
        return rows

    def _advance(self) -> None:
        group = next(self._groups, None)
        self._head = None if group is None else (group[0], list(group[1]))


class HashingReader(io.RawIOBase):
    """Hashes what is read through it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._digest = sha256()

    def read(self, size: int = -1) -> bytes:
        chunk = self._stream.read(size)
        self._digest.update(chunk)
        return chunk

    def readable(self) -> bool:
        return True

    def hexdigest(self) -> str:
        """The hash of everything, read to the end first."""
        while self.read(1 << 20):
            pass
        return self._digest.hexdigest()
