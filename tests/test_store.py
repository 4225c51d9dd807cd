"""What every store promises, held against each: a directory, and OBS over a real S3 server."""

from __future__ import annotations

import io
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from audit.deadline import Deadline
from audit.errors import StoreError
from audit.settings import ObsPlace
from audit.store import LocalStore, read_object
from audit.targets import Credentials
from tests.seaweed import AK, BUCKET, SK

if TYPE_CHECKING:
    from audit.store import Store


@pytest.fixture(params=["directory", "obs"])
def store(request, tmp_path) -> Store:
    if request.param == "directory":
        return LocalStore(tmp_path / "new" / "deep")
    from audit.huawei.obs import ObsStore  # noqa: PLC0415

    origin = request.getfixturevalue("obs").origin
    return ObsStore(ObsPlace(BUCKET, tmp_path.name, origin, "", lambda: Credentials(AK, SK)), Deadline(20))


def test_an_object_is_read_back_and_replaced_whole(store):
    """Put, get, put again."""
    assert read_object(store, "a/b.json") is None
    store.put("a/b.json", io.BytesIO(b"one"))
    store.put("a/b.json", io.BytesIO(b"two" * 1_000_000))
    assert read_object(store, "a/b.json") == b"two" * 1_000_000
    store.put("a/b.json", io.BytesIO(b""))
    assert read_object(store, "a/b.json") == b""
    assert store.locate("a/b.json").endswith("/a/b.json")
    assert store.locate("a/b\n.json").endswith("/a/b\\n.json")


def test_content_is_taken_from_where_it_stands(store):
    """As a file that was read a bit."""
    content = io.BytesIO(b"head and body")
    content.seek(9)
    store.put("key", content)
    assert read_object(store, "key") == b"body"


class Breaking(io.BytesIO):
    """Fails in the middle."""

    def read(self, size: int | None = -1) -> bytes:
        chunk = super().read(10)
        if not chunk:
            raise OSError(5, "Input/output error")
        return chunk


def test_a_write_that_breaks_off_leaves_what_was_there(store):
    """No half object, no leavings."""
    store.put("key", io.BytesIO(b"before"))
    with pytest.raises(StoreError, match="key: cannot be written: Input/output error"):
        store.put("key", Breaking(b"x" * 25))
    assert read_object(store, "key") == b"before"
    assert list(store.list("")) == ["key"]


def test_a_swap_needs_what_was_expected(store):
    """From nothing, from a value, and not from another one."""
    assert not store.swap("k", b"old", b"x")
    assert store.swap("k", None, b"one")
    assert not store.swap("k", None, b"two")
    assert store.swap("k", b"one", b"two")
    assert not store.swap("k", b"one", b"three")
    assert read_object(store, "k") == b"two"


def test_keys_are_listed_in_order_from_one_folder_down(store):
    """And none from a folder whose name begins alike."""
    for key in ("runs/b/2", "runs/a", "runs/b/1", "runsx/c", "other"):
        store.put(key, io.BytesIO(b""))
    assert list(store.list("runs/")) == ["runs/a", "runs/b/1", "runs/b/2"]
    assert list(store.list("none/")) == []


def test_a_link_shows_the_object(store):
    """To whoever has it."""
    store.put("runs/report 网.html", io.BytesIO(b"<html>"))
    with urllib.request.urlopen(store.link("runs/report 网.html", 60), timeout=5) as answer:
        assert answer.read() == b"<html>"


def test_a_write_in_a_directory_leaves_nothing_beside_it(tmp_path):
    """No temporary file."""
    store = LocalStore(tmp_path)
    store.put("a/b.json", io.BytesIO(b"one"))
    with pytest.raises(StoreError):
        store.put("a/b.json", Breaking(b"x" * 25))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]


def test_a_file_where_a_directory_should_be_is_an_error_that_names_it(tmp_path):
    """For reading and for writing."""
    (tmp_path / "file").write_text("")
    store = LocalStore(tmp_path / "file")
    with pytest.raises(StoreError, match="file/latest.json: cannot be read: Not a directory"):
        read_object(store, "latest.json")
    with pytest.raises(StoreError, match="file/latest.json: cannot be written"):
        store.put("latest.json", io.BytesIO(b""))


def test_a_directory_where_an_object_should_be_is_an_error(tmp_path):
    """Not taken for absence."""
    (tmp_path / "latest.json").mkdir()
    with pytest.raises(StoreError, match="Is a directory"):
        read_object(LocalStore(tmp_path), "latest.json")


def test_a_relative_directory_keeps_its_meaning(tmp_path, monkeypatch):
    """The store's place is fixed when it is opened."""
    monkeypatch.chdir(tmp_path)
    store = LocalStore(Path("out"))
    monkeypatch.chdir("/")
    store.put("key", io.BytesIO(b"x"))
    assert (tmp_path / "out" / "key").read_bytes() == b"x"
    assert store.url == (tmp_path / "out").as_uri()
