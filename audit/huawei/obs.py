"""Keeps objects in OBS.

Objects are fetched whole into a temporary file before anybody reads them: a server cuts a connection that is read as
slowly as an audit goes, and what breaks off can be asked for again only while nobody has seen a part of it.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import tempfile
from contextlib import ExitStack, suppress
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any

from obs import PutObjectHeader, SseKmsHeader

from audit.errors import StoreError, Unencrypted, Unsure
from audit.exchange import ExchangeError
from audit.huawei.obs_client import SafeClient
from audit.objects import temporary_room
from audit.text import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from obs import ObsClient

    from audit.deadline import Deadline
    from audit.settings import ObsPlace

    Answer = Any  # the vendor's client has no types

PAGE = 1000
_CHUNK = 65_536
_IN_MEMORY = 1 << 20
# 409 is none of them: that is another writer, and is asked again under the same condition.
_REFUSED = frozenset({400, 412, 501})


class ObsStore:
    """A folder of a bucket, written and read until `deadline`."""

    def __init__(self, place: ObsPlace, deadline: Deadline) -> None:
        self._place = place
        self._client = SafeClient(place, deadline)
        self._root = f"{place.path}/" if place.path else ""
        self.url = str(place)

    def open(self, key: str) -> IO[bytes] | None:
        found = self._fetch(key)
        return found[0] if found else None

    def put(self, key: str, content: IO[bytes]) -> None:
        self._prove_encryption(key, self._send(key, content, {}))

    def swap(self, key: str, expected: bytes | None, content: bytes) -> bool:
        """Do as `Store.swap` says, as far as OBS allows: its manual knows no conditional write.

        Headers that ask for one are sent, and a refusal is heeded. Where they are ignored, of two runs that compare at
        the same moment both may see their own content and believe to have won; the later one holds. What the other one
        wrote stays in its folder, and `verify` names it as abandoned.
        """
        before = self._fetch(key)
        if _content_of(before) != expected:
            return False
        # If-Match is HTTP's and S3's; bare, as the vendor's client would write quotes as %22. The last one stands in
        # clients of third parties (seen 2026-11), not in OBS's manual.
        bare = before[1].strip('"') if before else ""
        extra = {"If-Match": bare} if before else {"If-None-Match": "*", "x-obs-forbid-overwrite": "true"}
        for conditions in (extra, {}):
            trouble: StoreError | None = None
            try:
                refused = self._send(key, BytesIO(content), conditions, _REFUSED if conditions else ()).status >= 300
            except StoreError as error:
                trouble = error  # it may have been taken, and its answer lost
            held = self._read_back(key, content, trouble)
            if held != expected:
                return held == content
            if trouble or not refused:
                raise trouble or StoreError(f"{self.locate(key)}: does not hold what was just written; run it again")
            # Refused, though nobody wrote anything: the conditions were not understood.
        raise AssertionError("the loop returns or raises")

    def _read_back(self, key: str, content: bytes, trouble: StoreError | None) -> bytes | None:
        try:
            held = _content_of(self._fetch(key))
            if held == content:
                self._prove_encryption(key)
        except Unencrypted:
            raise
        except StoreError as error:
            first = f"{trouble}; " if trouble else ""
            raise Unsure(f"{first}whether it was written cannot be told: {error}; run it again") from None
        return held

    def list(self, prefix: str) -> Iterator[str]:
        last, more = "", True
        while more:
            keys, more = self._list_page(prefix, last)
            # What came twice, out of order or from elsewhere would let a marker skip something.
            strange = any(not key.startswith(self._root + prefix) for key in keys)
            if strange or any(after <= before for before, after in zip([last, *keys], keys)):  # noqa: B905  (one longer)
                raise StoreError(f"{self.locate(prefix)}: cannot be listed: the list is out of order")
            # The console writes empty objects for folders.
            yield from (key.removeprefix(self._root) for key in keys if not key.endswith("/"))
            last = keys[-1] if keys else last

    def locate(self, key: str) -> str:
        return printable(str(self._place / key))

    def link(self, key: str, seconds: int) -> str:
        """Sign a GET. It holds no longer than the keys that sign it, and names the token of temporary ones."""
        client = self._client.connect(self._place.keys())
        return str(client.createSignedUrl("GET", self._place.bucket, self._root + key, expires=seconds).signedUrl)

    def _fetch(self, key: str) -> tuple[IO[bytes], str] | None:
        """Bring an object here, with its entity tag; None where there is none, though the bucket is there."""
        with ExitStack() as stack:
            with temporary_room():
                file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115  (whoever reads it closes it)
            stack.callback(_discard, file)

            def download(client: ObsClient) -> Answer:
                answer = client.getObject(self._place.bucket, self._root + key)
                if answer.status < 300:
                    self._copy(answer.body, file)
                return answer

            answer = self._client.ask("read", self.locate(key), download, _is_missing)
            if answer.status < 300:
                with temporary_room():  # going back writes what is left in the buffer
                    file.seek(0)
                stack.pop_all()
                return file, str(answer.body.etag)
        return None

    def _copy(self, body: Answer, file: IO[bytes]) -> None:
        """Copy a body; raises what is worth another try where less of it came than was announced."""
        try:
            with temporary_room():
                file.seek(0)
                file.truncate()
            while chunk := body.response.result.read1(_CHUNK):  # `read` would wait for all of it
                with temporary_room():
                    file.write(chunk)
        finally:
            body.response.close()
        if file.tell() != body.contentLength:
            raise http.client.IncompleteRead(b"")

    def _send(self, key: str, content: IO[bytes], extra: Mapping[str, str], accepted: Collection[int] = ()) -> Answer:
        where, start, kms_key = self.locate(key), content.tell(), self._place.kms_key
        try:
            size, md5 = _measure(content)
        except OSError as error:
            raise StoreError(f"{where}: cannot be written: {error.strerror or error}") from None
        encryption = SseKmsHeader(encryption="kms", key=kms_key) if kms_key else None
        headers = PutObjectHeader(contentLength=size, md5=md5, sseHeader=encryption)

        def upload(client: ObsClient) -> Answer:
            content.seek(start)
            name, more = self._root + key, dict(extra)
            return client.putContent(
                self._place.bucket, name, content, headers=headers, autoClose=False, extensionHeaders=more
            )

        return self._client.ask("written", where, upload, lambda answer: answer.status in accepted)

    def _prove_encryption(self, key: str, answer: Answer = None) -> None:
        """Have OBS say with which key an object is encrypted; where an answer to a PUT names none, it is asked."""
        where, wanted = self.locate(key), self._place.kms_key
        if not wanted:
            return
        if not getattr(answer and answer.body, "sseKmsKey", None):

            def ask(client: ObsClient) -> Answer:
                return client.getObjectMetadata(self._place.bucket, self._root + key)

            answer = self._client.ask("read", where, ask)
        # The key is named as `region:domain:key/id`.
        named = str(getattr(answer.body, "sseKmsKey", None)).rpartition("/")[2]
        if getattr(answer.body, "sseKms", None) != "kms" or named != wanted.rpartition("/")[2]:
            raise Unencrypted(
                f"{where}: was written, but OBS did not encrypt it with the key that was asked for; see that the key "
                "in AUDIT_OBS_KMS_KEY is one of the bucket's region"
            )

    def _list_page(self, prefix: str, last: str) -> tuple[Sequence[str], bool]:
        """Return up to 1,000 names in the bucket that come after `last`, and whether there may be more."""

        def ask(client: ObsClient) -> Answer:
            names = {"prefix": self._root + prefix, "marker": last or None}
            answer = client.listObjects(self._place.bucket, max_keys=PAGE, **names)
            # A body that cannot be understood is swallowed by the client.
            if answer.status < 300 and getattr(answer.body, "name", None) != self._place.bucket:
                raise ExchangeError("the answer is not a whole list of this bucket")
            return answer

        body = self._client.ask("listed", self.locate(prefix), ask).body
        keys = [str(item.key) for item in body.contents]
        if body.is_truncated and not keys:
            raise StoreError(f"{self.locate(prefix)}: cannot be listed: the list is cut short")
        return keys, bool(keys) and (body.is_truncated or len(keys) >= PAGE)


def _is_missing(answer: Answer) -> bool:
    """Whether there is no such object; that there is no such bucket is something else."""
    return bool(answer.status == 404 and answer.errorCode == "NoSuchKey")


def _discard(file: IO[bytes]) -> None:
    with suppress(OSError):  # closing writes what is left, which after an error may fail again
        file.close()


def _content_of(found: tuple[IO[bytes], str] | None) -> bytes | None:
    if found is None:
        return None
    with found[0] as file:
        return file.read()


def _measure(content: IO[bytes]) -> tuple[int, str]:
    """Read to the end; returns how many bytes, and their MD5 as Content-MD5 has it."""
    size, digest = 0, hashlib.md5(usedforsecurity=False)
    while chunk := content.read(_CHUNK):
        size += len(chunk)
        digest.update(chunk)
    return size, base64.b64encode(digest.digest()).decode()
