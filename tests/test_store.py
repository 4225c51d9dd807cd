"""The local store: whole objects or none."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from audit.errors import StoreError
from audit.store import LocalStore, read_object


def test_an_object_is_read_back_and_replaced_whole(tmp_path):
    """Put, get, put again."""
    store = LocalStore(tmp_path / "new" / "deep")
    assert read_object(store, "a/b.json") is None
    store.put("a/b.json", io.BytesIO(b"one"))
    store.put("a/b.json", io.BytesIO(b"two" * 1_000_000))
    assert read_object(store, "a/b.json") == b"two" * 1_000_000
    assert store.locate("a/b.json") == str(tmp_path / "new" / "deep" / "a" / "b.json")
    assert [path.name for path in (tmp_path / "new" / "deep" / "a").iterdir()] == ["b.json"]


def test_a_write_that_breaks_off_leaves_what_was_there(tmp_path):
    """No half object, no leavings."""

    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            chunk = super().read(10)
            if not chunk:
                raise OSError(5, "Input/output error")
            return chunk

    store = LocalStore(tmp_path)
    store.put("key", io.BytesIO(b"before"))
    with pytest.raises(StoreError, match="key: cannot be written: Input/output error"):
        store.put("key", Breaking(b"x" * 25))
    assert read_object(store, "key") == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


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
