"""The OBS store: signatures, TLS, failures, and an audit that keeps its runs and its rules there."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import re
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from shutil import which
from threading import Thread
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import requests

import tests.world
from audit import cli
from audit.compose import load_rules, open_archive, perform
from audit.deadline import Deadline
from audit.errors import StoreError, Unencrypted, Unsure, UsageError
from audit.huawei import obs as obs_module
from audit.huawei import obs_client
from audit.huawei.obs import ObsStore
from audit.options import RunOptions
from audit.settings import ObsPlace, Surroundings, load_settings
from audit.store import read_object
from audit.targets import Credentials
from audit.verify import Verifier
from tests.emulator.wire import Answer, Request
from tests.seaweed import AK, BUCKET, SK, Obs, refusal
from tests.test_exchange import Wire, dripping, saying, wire

if TYPE_CHECKING:
    from audit.outcome import Outcome
    from audit.settings import Settings

KEYS = {"HUAWEICLOUD_SDK_AK": AK, "HUAWEICLOUD_SDK_SK": SK}
KMS_KEY = "4f1cd4de-ab64-4807-920a-47fc42e7f0d0"


def place_in(obs: Obs, folder: str, **changes: Any) -> ObsPlace:
    keys = changes.pop("keys", lambda: Credentials(AK, SK))
    return ObsPlace(BUCKET, folder, changes.pop("endpoint", obs.origin), changes.pop("kms_key", ""), keys)


@pytest.fixture
def store(obs: Obs, tmp_path) -> ObsStore:
    return ObsStore(place_in(obs, tmp_path.name), Deadline(20))


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Pauses between tries are not what is tested."""
    monkeypatch.setattr(obs_client, "_FIRST_BACKOFF", 0.01)


def failing(answer: Answer):
    return lambda _request: answer


UNAVAILABLE = failing(refusal(503, "SlowDown"))


# What goes over the wire


def test_every_request_is_signed_and_there_is_no_other(obs, store):
    """No probe; the gateway has verified each signature by the vendor's document."""
    store.put("a b/网关.json", io.BytesIO(b"{}"))
    assert read_object(store, "a b/网关.json") == b"{}"
    assert list(store.list("a b/")) == ["a b/网关.json"]
    assert [request.method for request in obs.seen] == ["PUT", "GET", "GET"]
    assert all(request.headers["authorization"].startswith(f"OBS {AK}:") for request in obs.seen)
    assert (
        obs.seen[0].headers["content-md5"]
        == base64.b64encode(hashlib.md5(b"{}", usedforsecurity=False).digest()).decode()
    )


def test_a_bucket_is_part_of_the_host_name_in_the_cloud(obs, tmp_path, monkeypatch):
    """As the vendor wants it; only IP addresses have it in the path."""
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *rest, **more: resolve(
            "127.0.0.1" if host == f"{BUCKET}.obs.example.com" else host, *rest, **more
        ),
    )
    endpoint = f"http://obs.example.com:{obs.origin.rpartition(':')[2]}"
    store = ObsStore(place_in(obs, tmp_path.name, endpoint=endpoint), Deadline(20))
    store.put("k", io.BytesIO(b"x"))
    assert (read_object(store, "k"), list(store.list(""))) == (b"x", ["k"])
    assert obs.seen[0].path == f"/{tmp_path.name}/k"
    assert store.link("k", 60).startswith(f"http://{BUCKET}.obs.example.com:")


def test_a_wrong_secret_is_refused_once_and_said_without_it(obs, tmp_path):
    """Neither key is in the message, though the server repeats one; the request id is."""
    store = ObsStore(place_in(obs, tmp_path.name, keys=lambda: Credentials(AK, "wrong-secret")), Deadline(20))
    with pytest.raises(StoreError) as caught:
        store.put("k", io.BytesIO(b"x"))
    text = str(caught.value)
    assert "obs://evidence/" in text
    assert "k: cannot be written: HTTP 403 SignatureDoesNotMatch (request id REQX); check the access key" in text
    assert AK not in text
    assert len(obs.seen) == 1


@pytest.mark.parametrize("status", [403, 404])
def test_a_server_that_repeats_secrets_is_not_quoted(obs, store, status):
    """Not even where its code holds one."""
    obs.faults = [failing(refusal(status, f"No{SK}For{AK}"))]
    with pytest.raises(StoreError, match=rf"HTTP {status} No\*\*\*For\*\*\*"):
        read_object(store, "k")


def test_temporary_keys_are_renewed_in_a_long_run(obs, tmp_path):
    """They are asked for before every request, with their token; a link carries it."""
    issued = [Credentials("AK1", "sk-one", "token-one"), Credentials("AK2", "sk-two", "token-two")]
    store = ObsStore(place_in(obs, tmp_path.name, keys=lambda: issued[0]), Deadline(20))
    obs.keys = {"AK1": ("sk-one", "token-one")}
    store.put("k", io.BytesIO(b"x"))
    obs.keys = {"AK2": ("sk-two", "token-two")}
    del issued[0]
    assert read_object(store, "k") == b"x"
    assert "x-obs-security-token=token-two" in store.link("k", 60)
    issued[0] = Credentials("AK3", "sk-three")
    with pytest.raises(StoreError, match="HTTP 403 InvalidAccessKeyId"):
        read_object(store, "k")


def test_without_keys_nothing_is_sent(obs, tmp_path):
    """The vendor's client would go on without a signature."""
    store = ObsStore(place_in(obs, tmp_path.name, keys=Credentials), Deadline(20))
    with pytest.raises(StoreError, match="there are no keys to sign requests with"):
        read_object(store, "k")
    assert obs.seen == []


def test_a_link_ends_and_cannot_be_bent(obs: Obs, store):
    """Another object, a later end, or none: refused."""
    store.put("k", io.BytesIO(b"x"))
    link = store.link("k", 60)
    path, _, query = link.removeprefix(obs.origin).partition("?")

    def status(path: str, query: str) -> int:
        with obs.answer(Request("GET", path, query, {"host": "127.0.0.1"})) as answer:
            return answer.status

    assert status(path, query) == 200
    assert status(path + "2", query) == 403
    assert status(path, re.sub(r"Expires=\d+", "Expires=9999999999", query)) == 403
    path, _, query = store.link("k", -1).removeprefix(obs.origin).partition("?")
    assert status(path, query) == 403


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Path:
    """Self-signed, for this machine's loopback address and for another host."""
    if which("openssl") is None:
        pytest.skip("there is no openssl command to make a certificate with")
    folder: Path = tmp_path_factory.mktemp("certificates")
    for name, subject in {"here": "IP:127.0.0.1", "elsewhere": "DNS:elsewhere.example"}.items():
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem", "-days", "1"]
        subprocess.run([*command, "-subj", "/CN=x", "-addext", f"subjectAltName={subject}"], check=True, stderr=-3)
    return folder


def ask_over_tls(certificates: Path, name: str) -> tuple[str, bytes]:
    """Read an object from a server with one of the certificates; returns the error and what the server received."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    received = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(5)

        def serve() -> None:
            client, _ = listening.accept()
            client.settimeout(5)
            try:
                with context.wrap_socket(client, server_side=True) as tls:
                    received.extend(tls.recv(65536))
                    tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            except OSError:
                client.close()

        thread = Thread(target=serve)
        thread.start()
        place = ObsPlace(BUCKET, "", f"https://127.0.0.1:{listening.getsockname()[1]}", "", lambda: Credentials(AK, SK))
        try:
            return str(read_object(ObsStore(place, Deadline(5)), "k")), bytes(received)
        except StoreError as error:
            return str(error), bytes(received)
        finally:
            thread.join(5)


def test_a_self_signed_server_gets_nothing(certificates):
    """The chain is verified, at once and for good."""
    assert ask_over_tls(certificates, "here") == (
        "obs://evidence/k: cannot be read: the server's certificate is not trusted",
        b"",
    )


def test_a_trusted_certificate_of_another_host_gets_nothing(certificates, monkeypatch):
    """The host name is verified too."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates / "elsewhere.pem"))
    assert ask_over_tls(certificates, "elsewhere") == (
        "obs://evidence/k: cannot be read: the server's certificate is not trusted",
        b"",
    )


def test_a_trusted_server_is_asked(certificates, monkeypatch):
    """The same with the right name, so that the two tests above prove something."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates / "here.pem"))
    text, received = ask_over_tls(certificates, "here")
    assert text == "b'ok'"
    assert received.startswith(b"GET /evidence/k HTTP/1.1\r\n")


def test_a_directory_of_certificates_will_do(certificates, monkeypatch, tmp_path):
    """As for the rest of the product."""
    (tmp_path / "here.pem").write_bytes((certificates / "here.pem").read_bytes())
    subprocess.run(["openssl", "rehash", str(tmp_path)], check=True, stdout=-3)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    assert ask_over_tls(certificates, "here")[0] == "b'ok'"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates))  # not made ready
    assert "not trusted" in ask_over_tls(certificates, "here")[0]


def tunnel(server: Wire, peer: socket.socket) -> None:
    """A proxy that lets everything through."""
    server.hear(peer)
    host, port = server.heard[-1].split()[1].decode().split(":")
    with socket.create_connection((host, int(port))) as far:
        peer.sendall(b"HTTP/1.1 200 Go on\r\n\r\n")
        there = Thread(target=pump, args=(peer, far))
        there.start()
        pump(far, peer)
        there.join()


def pump(here: socket.socket, there: socket.socket) -> None:
    with suppress(OSError):
        while chunk := here.recv(65_536):
            there.sendall(chunk)
        there.shutdown(socket.SHUT_WR)


def test_a_tunnel_leads_to_the_server_that_is_verified(certificates, monkeypatch):
    """Not to the proxy, whose name no certificate here has."""
    with wire(tunnel) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"localhost:{proxy.port}")
        for name, said in (("here", "b'ok'"), ("elsewhere", "the server's certificate is not trusted")):
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates / f"{name}.pem"))
            assert ask_over_tls(certificates, name)[0].endswith(said)
        assert len(proxy.heard) == 2


def test_a_store_without_tls_is_reached_through_a_tunnel(obs, store, monkeypatch, tmp_path):
    """Every method alike."""
    with wire(tunnel) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://localhost:{proxy.port}")
        store = ObsStore(place_in(obs, tmp_path.name), Deadline(20))
        store.put("k", io.BytesIO(b"x" * 100_000))
        assert (read_object(store, "k"), list(store.list(""))) == (b"x" * 100_000, ["k"])
        assert len(proxy.heard) == 3


# Failures


@pytest.mark.parametrize(
    "fault",
    [
        UNAVAILABLE,
        failing(refusal(500, "InternalError")),
        failing(refusal(409, "OperationAborted")),
        failing(Answer(500, {}, b"", broken="reset")),
        failing(Answer(200, {}, b"half of it is missing", broken="truncated")),
    ],
)
def test_what_may_pass_is_tried_again(obs, store, fault):
    """Reading, writing and listing; a body that is cut short is not taken for the object."""
    lies = fault(Request("PUT", "/")).status == 200
    obs.faults = [] if lies else [fault]
    store.put("k", io.BytesIO(b"content"))
    obs.faults = [fault, fault]
    assert read_object(store, "k") == b"content"
    obs.faults = [fault]
    assert list(store.list("")) == ["k"]


def test_tries_end(obs, store):
    """The error is the last answer's."""
    obs.faults = [UNAVAILABLE] * 9
    with pytest.raises(StoreError, match=r"k: cannot be read: HTTP 503 SlowDown \(request id REQX\)$"):
        read_object(store, "k")
    assert len(obs.seen) == 4


@pytest.mark.parametrize("what", ["silence", "drip", "503"])
def test_nothing_outlasts_the_time_left(obs, tmp_path, monkeypatch, what):
    """Waits, slow bodies and new tries end with the deadline."""
    answers = {
        "silence": Answer(200, {}, b"x", delay=5),
        "drip": Answer(200, {}, b"x" * 200_000, drip=0.2),
        "503": refusal(503, "SlowDown"),
    }
    obs.faults = [failing(answers[what])] * 9
    monkeypatch.setattr(obs_client, "_FIRST_BACKOFF", 0.2)
    store = ObsStore(place_in(obs, tmp_path.name), Deadline(0.5))
    begun = time.monotonic()
    with pytest.raises(StoreError, match="cannot be read"):
        read_object(store, "k")
    assert time.monotonic() - begun < 1.5
    with pytest.raises(StoreError, match="cannot be written: the time limit was reached"):
        ObsStore(place_in(obs, tmp_path.name), Deadline(0)).put("k", io.BytesIO(b""))


def read(store: ObsStore) -> None:
    read_object(store, "k")


def write(store: ObsStore) -> None:
    store.put("k", io.BytesIO(b"x"))


def show(store: ObsStore) -> None:
    list(store.list(""))


@pytest.mark.parametrize("act", [read, write, show])
@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (b"", b"H"),
        (b"", b"HTTP/1.1 100 Go on\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"y"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n", b"y"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 9000\r\n\r\n", b"y"),
    ],
)
def test_what_drips_ends_in_time(act, start, drop):
    """In the status line, headers, lists, errors and answers to uploads."""
    with wire(dripping(start, drop)) as server:
        place = ObsPlace(BUCKET, "", server.url, "", lambda: Credentials(AK, SK))
        begun = time.monotonic()
        with pytest.raises(StoreError, match="no answer in time|time limit was reached"):
            act(ObsStore(place, Deadline(0.3)))
        assert time.monotonic() - begun < 1.5


def test_an_upload_that_is_taken_slowly_ends_in_time():
    """Something goes out all the time, so that no single wait is long."""

    def sipping(_: Wire, peer: socket.socket) -> None:
        while peer.recv(65_536):
            time.sleep(0.05)

    with wire(sipping) as server:
        place = ObsPlace(BUCKET, "", server.url, "", lambda: Credentials(AK, SK))
        begun = time.monotonic()
        with pytest.raises(StoreError, match="k: cannot be written: no answer in time"):
            ObsStore(place, Deadline(0.5)).put("k", io.BytesIO(bytes(30_000_000)))
        assert time.monotonic() - begun < 3


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "HTTP 403; grant"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "the connection was broken off"),
    ],
)
def test_an_upload_that_is_refused_half_way_says_why(answer, said):
    """The server hangs up before all of it is there; that it took what it has not is not believed."""
    with wire(saying(answer)) as server:
        place = ObsPlace(BUCKET, "", server.url, "", lambda: Credentials(AK, SK))
        with pytest.raises(StoreError, match=f"k: cannot be written: {said}"):
            ObsStore(place, Deadline(20)).put("k", io.BytesIO(bytes(30_000_000)))


def test_lists_and_errors_are_bounded(obs, store, monkeypatch):
    """Objects are not; an error without end is not read to it."""
    store.put("k", io.BytesIO(bytes(5000)))
    monkeypatch.setattr(obs_client, "MOST_BYTES", 1000)
    assert read_object(store, "k") == bytes(5000)
    for status, act in ((200, show), (404, read), (403, write)):
        obs.faults = [failing(Answer(status, {}, b"x" * 1001))] * 4
        with pytest.raises(StoreError, match="the answer is larger than 1000 bytes"):
            act(store)


def test_an_error_that_is_no_text_keeps_its_status(obs, store):
    """The client breaks on what is not UTF-8."""
    obs.faults = [failing(Answer(403, {}, b"<Error>\xff"))]
    with pytest.raises(StoreError, match="cannot be written: HTTP 403; grant"):
        write(store)


def test_a_missing_bucket_is_not_a_missing_object(obs, store, tmp_path):
    """Or a misspelt bucket would look like a first run."""
    obs.faults = [failing(refusal(404, "NoSuchBucket"))]
    with pytest.raises(StoreError, match="HTTP 404 NoSuchBucket"):
        read_object(store, "latest.json")
    obs.faults = [failing(Answer(404, {}, b""))]
    with pytest.raises(StoreError, match="HTTP 404"):
        read_object(store, "latest.json")


@pytest.mark.parametrize("status", [301, 302, 307])
def test_a_redirect_is_an_error(obs, store, status):
    """It would take the signature, or the evidence, elsewhere."""
    obs.faults = [failing(Answer(status, {"Location": "http://127.0.0.1:9/x"}, b""))] * 3
    with pytest.raises(StoreError, match=f"HTTP {status}"):
        read_object(store, "k")
    with pytest.raises(StoreError, match=f"HTTP {status}"):
        store.put("k", io.BytesIO(b"x"))
    with pytest.raises(StoreError, match=f"HTTP {status}"):
        list(store.list(""))
    assert len(obs.seen) == 3


def test_a_body_that_changed_on_the_way_is_refused_by_the_server(obs: Obs, store):
    """Content-MD5 is not for show."""

    def corrupt(request: Request) -> Answer:
        return obs._answer(Request(request.method, request.path, "", request.headers, b"tampered"))

    obs.faults = [corrupt]
    with pytest.raises(StoreError, match="HTTP 400"):
        store.put("k", io.BytesIO(b"original"))
    assert read_object(store, "k") is None


# Encryption


def test_a_kms_key_encrypts_every_object(obs, tmp_path):
    """The answer says so, and with which key."""
    store = ObsStore(place_in(obs, tmp_path.name, kms_key=KMS_KEY), Deadline(20))
    store.put("k", io.BytesIO(b"x"))
    assert store.swap("latest", None, b"y")
    puts = [request.headers for request in obs.seen if request.method == "PUT"]
    assert [p["x-obs-server-side-encryption"] for p in puts] == ["kms", "kms"]
    assert [p["x-obs-server-side-encryption-kms-key-id"] for p in puts] == [KMS_KEY, KMS_KEY]


@pytest.fixture
def locked(obs, tmp_path) -> ObsStore:
    return ObsStore(place_in(obs, tmp_path.name, kms_key=KMS_KEY), Deadline(20))


def test_an_answer_that_names_no_key_is_not_believed(obs, locked):
    """OBS is asked for it, and says."""
    obs.names_key = False
    locked.put("k", io.BytesIO(b"x"))
    assert [request.method for request in obs.seen] == ["PUT", "HEAD"]
    assert locked.swap("latest", None, b"y")


SSE = "x-obs-server-side-encryption"
NOT_AS_ASKED = "was written, but OBS did not encrypt it with the key that was asked for"


@pytest.mark.parametrize("said", [{}, {SSE: "kms"}, {SSE: "AES256"}, {SSE: "kms", f"{SSE}-kms-key-id": "cn:d:key/x"}])
@pytest.mark.parametrize("asked", [{}, {SSE: "kms"}, {SSE: "kms", f"{SSE}-kms-key-id": "cn:d:key/x"}])
def test_an_object_that_is_not_encrypted_as_asked_is_an_error(obs, locked, said, asked):
    """Though the server says 200: in plain text, with another key, or with nobody knows which."""
    obs.faults = [failing(Answer(200, said, b"")), failing(Answer(200, asked, b""))]
    with pytest.raises(Unencrypted, match=f"k: {NOT_AS_ASKED}"):
        locked.put("k", io.BytesIO(b"x"))


def test_a_pointer_that_is_not_encrypted_is_there_all_the_same(obs, locked):
    """The message says that it is."""
    obs.encrypts = False
    with pytest.raises(Unencrypted, match=f"latest: {NOT_AS_ASKED}"):
        locked.swap("latest", None, b"x")
    assert read_object(locked, "latest") == b"x"


# Lists and swaps


def test_more_keys_than_one_answer_holds_are_listed(obs, store, tmp_path, monkeypatch):
    """By markers, none twice and none left out; the folder objects of the console are no keys."""
    monkeypatch.setattr(obs_module, "PAGE", 10)
    keys = [f"runs/{number:03}" for number in range(30)]
    for key in keys:
        obs.direct("PUT", f"{tmp_path.name}/{key}", b"x")
    obs.direct("PUT", f"{tmp_path.name}/runs/empty/")
    assert list(store.list("runs/")) == keys
    assert [dict(request.pairs).get("marker", "")[-3:] for request in obs.seen][:3] == ["", "009", "019"]


def listed(*keys: str, more: bool = False, bucket: str = BUCKET) -> Answer:
    text = "".join(f"<Contents><Key>{key}</Key><Size>1</Size></Contents>" for key in keys)
    text = f"<Name>{bucket}</Name><IsTruncated>{str(more).lower()}</IsTruncated>{text}"
    return Answer(200, {"Content-Type": "application/xml"}, f"<ListBucketResult>{text}</ListBucketResult>".encode())


def test_a_thousand_and_more_keys_take_two_answers(obs, store, tmp_path):
    """The limit of the service; a full answer is never taken for the last one."""
    keys = [f"{tmp_path.name}/{number:04}" for number in range(1500)]
    obs.faults = [failing(listed(*keys[:1000])), failing(listed(*keys[1000:]))]
    assert list(store.list("")) == [key.rpartition("/")[2] for key in keys]
    assert dict(obs.seen[1].pairs)["marker"] == keys[999]


@pytest.mark.parametrize(
    "answer",
    [
        listed("{folder}/b", "{folder}/a"),
        listed("{folder}/a", "{folder}/a"),
        listed("a", bucket="other"),
        listed("elsewhere/a"),
        listed(more=True),
        Answer(200, {"Content-Type": "application/xml"}, b"<ListBucketResult><Name>evid"),
        Answer(200, {"Content-Type": "text/html"}, b"<html>welcome</html>"),
    ],
)
def test_a_list_that_makes_no_sense_is_an_error(obs, store, tmp_path, answer):
    """Not taken for a short one."""
    answer = Answer(200, answer.headers, answer.body.replace(b"{folder}", tmp_path.name.encode()))
    obs.faults = [failing(answer)] * 9
    with pytest.raises(StoreError, match="cannot be listed: the (answer is not a whole list of this bucket|list is )"):
        list(store.list(""))


@pytest.mark.parametrize("status", [204, 206])
def test_only_200_is_success(obs, store, status):
    """A part of an object is not taken for it."""
    obs.faults = [failing(Answer(status, {}, b"" if status == 204 else b"a part"))] * 2
    with pytest.raises(StoreError, match=f"cannot be read: HTTP {status}"):
        store.open("k")
    with pytest.raises(StoreError, match=f"cannot be written: HTTP {status}"):
        store.put("k", io.BytesIO(b"content"))


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("expected", [None, b"old"])
def test_a_swap_that_another_run_wins_says_so(obs, store, tmp_path, conditional, expected):
    """Between compare and put where headers are understood, and after the put in any case."""
    if expected:
        store.put("latest", io.BytesIO(expected))
    obs.conditional = conditional
    key = f"{tmp_path.name}/latest"
    if conditional:
        obs.meanwhile = lambda: obs.direct("PUT", key, b"theirs")
    else:
        # The other's write comes after ours, before we read back.
        obs.faults = [lambda _r: None, lambda _r: None, lambda _r: obs.direct("PUT", key, b"theirs") and None]
    assert not store.swap("latest", expected, b"ours")
    assert read_object(store, "latest") == b"theirs"


def test_a_swap_whose_answer_is_lost_has_happened(obs, store):
    """The second try is refused, because the first one was taken."""
    obs.faults = [lambda _r: None, lambda r: obs._answer(r) and Answer(200, {}, b"", broken="reset")]
    assert store.swap("latest", None, b"ours")
    assert [request.method for request in obs.seen] == ["GET", "PUT", "PUT", "GET"]


@pytest.mark.parametrize("status", [400, 412, 501])
def test_a_swap_works_where_conditional_headers_are_not_understood(obs, store, status):
    """A refusal without anybody else's write is none."""
    obs.faults = [lambda _r: None, failing(refusal(status, "NotImplemented"))]
    assert store.swap("latest", None, b"ours")
    assert read_object(store, "latest") == b"ours"


def test_a_swap_in_conflict_is_tried_again_under_its_condition(obs, store, tmp_path):
    """Another writer is at it: what it wrote is never overwritten."""
    key = f"{tmp_path.name}/latest"
    obs.faults = [
        lambda _r: None,
        failing(refusal(409, "ConditionalRequestConflict")),
        lambda _r: obs.direct("PUT", key, b"theirs") and None,
    ]
    assert not store.swap("latest", None, b"ours")
    assert read_object(store, "latest") == b"theirs"


@pytest.mark.parametrize("taken", [True, False])
def test_a_swap_that_fails_is_read_back(obs, store, taken):
    """Every answer to it is lost, and what is there decides; where that cannot be read, nothing is claimed."""

    def lost(request: Request) -> Answer:
        if taken:
            obs._answer(request)
        return Answer(200, {}, b"", broken="reset")

    obs.faults = [lambda _r: None, *[lost] * 4]
    if taken:
        assert store.swap("latest", None, b"ours")
    else:
        with pytest.raises(StoreError, match=r"latest: cannot be written: the connection was broken off$"):
            store.swap("latest", None, b"ours")
    obs.faults = [lambda _r: None, *[lost] * 4, *[UNAVAILABLE] * 4]
    with pytest.raises(Unsure, match=r"cannot be written: .*; whether it was written cannot be told: .* HTTP 503"):
        store.swap("latest", b"ours" if taken else None, b"more")


def test_a_swap_that_is_forgotten_is_an_error(obs, store):
    """Said to be written, and not there."""
    obs.faults = [lambda _r: None, failing(Answer(200, {"ETag": '"x"'}, b""))]
    with pytest.raises(StoreError, match="does not hold what was just written"):
        store.swap("latest", None, b"ours")


# A deployment that keeps everything in OBS


@pytest.fixture
def deployment(world, obs, tmp_path):
    return Deployment(world, obs, tmp_path.name)


class Deployment:
    """The world of other tests, with its store, rules and policy in OBS."""

    def __init__(self, world, obs: Obs, folder: str) -> None:
        self.world, self.obs, self.folder = world, obs, folder
        obs.keys[world.environment["HUAWEICLOUD_SDK_AK"]] = (world.environment["HUAWEICLOUD_SDK_SK"], None)
        for path in world.rules_dir.iterdir():
            obs.direct("PUT", f"{folder}/rules/{path.name}", path.read_bytes())
        obs.direct("PUT", f"{folder}/site/policy.json", world.policy.read_bytes())

    @property
    def settings(self) -> Settings:
        root = f"obs://{BUCKET}/{self.folder}"
        places = {
            "AUDIT_STORE": f"{root}/runs-of-mine",
            "AUDIT_RULES_DIR": f"{root}/rules/",
            "AUDIT_POLICY": f"{root}/site/policy.json",
            "AUDIT_OBS_ENDPOINT": self.obs.origin,
        }
        return load_settings({**self.world.environment, **places}, Surroundings(), {})

    def run(self) -> Outcome:
        return perform(self.settings, RunOptions(), mode="manual")

    def get(self, key: str) -> bytes:
        return self.obs.direct("GET", f"{self.folder}/runs-of-mine/{key}").body

    def findings(self) -> list[dict[str, Any]]:
        folder = json.loads(self.get("latest.json"))["manifest"].rpartition("/")[0]
        lines = gzip.decompress(self.get(f"{folder}/findings.ndjson.gz")).splitlines()
        found = [json.loads(line) for line in lines]
        for finding in found:
            jsonschema.validate(finding, tests.world.SCHEMA)
        return found


class Killed(BaseException):
    """The process ends here: nothing catches it."""


def test_an_audit_lives_in_obs_through_a_kill(deployment, monkeypatch):
    """Three runs, the second killed before it commits: the chain is sound, the killed one is named as abandoned."""
    shop = deployment.world.estate.add_gateway("shop")
    shop.add_connections(2, status="failed")
    first = deployment.run()
    assert (first.summary.exit_code, first.summary.problems) == (1, [])
    shop.add_connection(domain_id=tests.world.STRANGER)
    with monkeypatch.context() as patch:

        def killed(*_arguments: object) -> bool:
            raise Killed

        patch.setattr(ObsStore, "swap", killed)
        with pytest.raises(Killed):
            deployment.run()
    assert {finding["status"] for finding in deployment.findings()} == {"new"}
    third = deployment.run()
    assert sorted(finding["status"] for finding in deployment.findings()) == ["new", "ongoing", "ongoing"]
    archive = open_archive(deployment.settings.store)
    assert [run.manifest.run_id for run in archive.chain()] == [third.summary.run_id, first.summary.run_id]
    found = Verifier(archive.store).verify(everything=True)
    assert (found.problems, len(found.runs), len(found.abandoned)) == ([], 2, 1)
    assert [delivery.outcome for delivery in third.summary.deliveries] == ["delivered"]
    text = json.dumps([delivery.json() for delivery in deployment.world.receiver.deliveries])
    assert f"obs://{BUCKET}/{deployment.folder}/runs-of-mine/runs/" in text
    link = deployment.world.receiver.deliveries[-1].json()["data"]["report"]
    page = requests.get(link, timeout=10)
    assert (page.status_code, page.text.startswith("<!doctype html>")) == (200, True), "whoever has the link may read"


def test_a_store_that_fails_in_the_middle_ends_the_run_with_4(deployment):
    """And the receiver hears of it."""
    deployment.world.estate.add_gateway("shop").add_connections(1)
    deployment.run()

    def broken(request: Request) -> Answer | None:
        deployment.obs.faults.append(broken)
        return refusal(403, "AccessDenied") if request.method == "PUT" and "runs-of-mine/runs" in request.path else None

    deployment.obs.faults = [broken]
    outcome = deployment.run()
    assert outcome.summary.exit_code == 4
    assert "HTTP 403 AccessDenied" in outcome.summary.problems[-1]
    assert len(deployment.world.receiver.deliveries) == 2


def test_rules_in_obs_are_found_wrong_under_their_own_names(deployment):
    """Not under those of the files that they were brought into."""
    deployment.obs.direct("PUT", f"{deployment.folder}/rules/broken.json", b"{")
    deployment.obs.direct("PUT", f"{deployment.folder}/rules/deeper/other.json", b"{")
    deployment.obs.direct("PUT", f"{deployment.folder}/site/policy.json", b"[]")
    settings = deployment.settings
    with pytest.raises(UsageError) as caught:
        load_rules(settings.rules_dir, settings.policy)
    root = f"obs://{BUCKET}/{deployment.folder}"
    assert sorted({problem.partition(".json")[0] for problem in caught.value.problems}) == [
        f"{root}/rules/broken",
        f"{root}/site/policy",
    ]


def test_rules_that_find_no_room_are_an_error_of_the_store(deployment, monkeypatch, tmp_path):
    """Not a defect: no directory at all, or a full one. Rules that are files need none."""
    settings = deployment.settings
    for full in (False, True):
        with monkeypatch.context() as patch:
            if full:
                patch.setattr(Path, "write_bytes", lambda *_: os.write(os.open("/dev/full", os.O_WRONLY), b"x"))
            else:
                patch.setattr(tempfile, "tempdir", None)
                patch.setattr(tempfile, "_get_default_tempdir", no_directory)
            with pytest.raises(StoreError, match="cannot be used for temporary files: No "):
                load_rules(settings.rules_dir, settings.policy)
            assert load_rules(deployment.world.rules_dir, deployment.world.policy)


def no_directory() -> str:
    raise FileNotFoundError(2, "No usable temporary directory found")


@pytest.mark.parametrize("missing", [1, 50_000])
def test_an_object_that_finds_no_room_is_an_error(store, monkeypatch, missing):
    """Also where only its last byte does, which is written when the file is read again, or thrown away."""
    monkeypatch.setattr(obs_module, "_CHUNK", 1000)
    size = obs_module._IN_MEMORY + 100_000
    store.put("k", io.BytesIO(bytes(size)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - missing, limits[1]))
    try:
        with pytest.raises(StoreError, match="cannot be used for temporary files: File too large"):
            read_object(store, "k")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_policy_in_obs_that_is_missing_is_an_error(deployment):
    """A misspelt one would lose every waiver."""
    rules = deployment.settings.rules_dir
    with pytest.raises(UsageError, match=r"site/polici.json: cannot be read: No such file"):
        load_rules(rules, deployment.settings.policy.parent / "polici.json")
    with pytest.raises(UsageError, match=r"/nothing: there is no rule \(\*\.json\)"):
        load_rules(rules.parent / "nothing", None)


def test_a_policy_among_the_rules_in_obs_is_no_rule(deployment):
    """By either name."""
    rules = deployment.settings.rules_dir
    for name in ("policy.json", "site.json"):
        deployment.obs.direct("PUT", f"{rules.path}/{name}", deployment.world.policy.read_bytes())
    assert load_rules(rules, rules / "site.json").policy.sha256
    deployment.obs.direct("DELETE", f"{rules.path}/site.json")
    assert load_rules(rules, None).policy.sha256


def test_the_command_line_looks_into_obs(deployment, monkeypatch, capsys):
    """Findings, verification and rules, with the same settings as a run."""
    deployment.world.estate.add_gateway("shop").add_connections(1, status="failed")
    run_id = deployment.run().summary.run_id
    for name in [name for name in os.environ if name.startswith(("AUDIT_", "HUAWEICLOUD_"))]:
        monkeypatch.delenv(name)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    root = f"obs://{BUCKET}/{deployment.folder}"
    where = ["--region", "cn-north-4", "--obs-endpoint", deployment.obs.origin]
    assert cli.main(["findings", "--store", f"{root}/runs-of-mine", *where]) == 0
    assert "no-failed-connections" in capsys.readouterr().out
    assert cli.main(["verify", "--store", f"{root}/runs-of-mine", *where]) == 0
    assert run_id in capsys.readouterr().out
    assert cli.main(["rules", "check", f"{root}/rules", "--policy", f"{root}/site/policy.json", *where]) == 0
    assert cli.main(["rules", "check", f"{root}/none", *where]) == 2
    assert f"{root}/none: there is no rule" in capsys.readouterr().err
    deployment.obs.keys.clear()
    assert cli.main(["rules", "check", f"{root}/rules", *where]) == 4
    assert "rules/: cannot be listed: HTTP 403 InvalidAccessKeyId" in capsys.readouterr().err.replace(
        "rules:", "rules/:"
    )


def test_the_vendors_client_is_loaded_only_for_a_place_in_obs(tmp_path):
    """Cold start and the terminal pay nothing for it."""
    code = (
        "import sys, handler, audit.cli\n"
        "from audit.compose import open_archive\n"
        "from audit.settings import ObsPlace, Path\n"
        f"open_archive(Path({str(tmp_path)!r})).latest()\n"
        "assert not {'obs', 'Crypto', 'crcmod'} & sys.modules.keys()\n"
        "open_archive(ObsPlace('bucket', '', 'https://obs.example.com'))\n"
        "assert 'obs' in sys.modules\n"
    )
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
