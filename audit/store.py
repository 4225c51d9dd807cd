"""Where runs are kept: the port that every store fills, and the local directory."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn, Protocol

from audit.errors import StoreError
from audit.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

_COPY = 1 << 20


class Store(Protocol):
    """Keeps objects under keys such as `runs/2026/11/22/x/manifest.json`. Every method raises StoreError."""

    url: str

    def open(self, key: str) -> IO[bytes] | None:
        """Open an object for reading; None where there is none."""

    def put(self, key: str, content: IO[bytes]) -> None:
        """Write an object whole or not at all, replacing what was there."""

    def swap(self, key: str, expected: bytes | None, content: bytes) -> bool:
        """Replace an object that holds `expected` (None: there is none); False where it holds something else.

        True only once the object was seen to hold `content`.
        """

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with `prefix`, a folder such as `runs/`, sorted."""

    def locate(self, key: str) -> str:
        """Say where a person finds an object: a path or a URL."""

    def link(self, key: str, seconds: int) -> str:
        """Return a URL that shows an object to whoever has it, for so many seconds where the store can limit that."""


def read_object(store: Store, key: str) -> bytes | None:
    """Read a small object whole; None where there is none. Raises StoreError."""
    stream = store.open(key)
    if stream is None:
        return None
    with stream:
        try:
            return stream.read()
        except OSError as error:
            raise StoreError(f"{store.locate(key)}: cannot be read: {error.strerror or error}") from None


class LocalStore:
    """A directory; an object is written beside its place, flushed to the disk, and renamed into it."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self.url = self._root.as_uri()

    def open(self, key: str) -> IO[bytes] | None:
        try:
            return self._path(key).open("rb")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._error(key, "read", error) from None

    def put(self, key: str, content: IO[bytes]) -> None:
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
            try:
                with os.fdopen(handle, "wb") as target:
                    target.writelines(_chunks(content))
                    target.flush()
                    os.fsync(target.fileno())
                Path(temporary).chmod(0o640)
                Path(temporary).replace(path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            for directory in (path.parent, *path.parent.parents):
                _sync_directory(directory)
                if directory == self._root:
                    break
        except OSError as error:
            raise self._error(key, "written", error) from None

    def swap(self, key: str, expected: bytes | None, content: bytes) -> bool:
        lock = self._path(f".{key}.lock")
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            with lock.open("wb") as held:
                # Left behind: to remove it would let two processes lock two different files.
                _lock(held)
                if read_object(self, key) != expected:
                    return False
                self.put(key, io.BytesIO(content))
                if read_object(self, key) != content:
                    raise StoreError(f"{self.locate(key)}: does not hold what was just written; run it again")
        except OSError as error:
            raise self._error(key, "locked", error) from None
        return True

    def list(self, prefix: str) -> Iterator[str]:
        def fail(error: OSError) -> NoReturn:
            raise self._error(prefix, "listed", error)

        top = self._path(prefix.rstrip("/"))
        walk = os.walk(top, onerror=fail) if top.exists() else ()
        paths = (Path(folder) / name for folder, _, names in walk for name in names if not name.startswith("."))
        yield from sorted(path.relative_to(self._root).as_posix() for path in paths)

    def locate(self, key: str) -> str:
        return printable(str(self._path(key)))

    def link(self, key: str, seconds: int) -> str:  # noqa: ARG002  (a file's URL does not end)
        return self._path(key).as_uri()

    def _path(self, key: str) -> Path:
        if "\0" in key:
            raise StoreError(f"{self.url}: a key holds a zero byte")
        return self._root.joinpath(*key.split("/"))

    def _error(self, key: str, what: str, error: OSError) -> StoreError:
        return StoreError(f"{self.locate(key)}: cannot be {what}: {error.strerror or error}")


def _lock(file: IO[bytes]) -> None:
    """Wait for the only lock on a file, which ends with it or with the process; Windows does without."""
    if sys.platform != "win32":
        import fcntl  # noqa: PLC0415

        fcntl.flock(file, fcntl.LOCK_EX)


def _chunks(content: IO[bytes]) -> Iterator[bytes]:
    while chunk := content.read(_COPY):
        yield chunk


def _sync_directory(path: Path) -> None:
    """Make a rename survive a power cut; where a system does not offer that, it does without."""
    flags = getattr(os, "O_DIRECTORY", None)
    if flags is None:
        return
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
