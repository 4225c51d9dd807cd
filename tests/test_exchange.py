"""One HTTP exchange over real sockets: what comes back, what is refused, and how long it may take."""

from __future__ import annotations

import gzip
import socket
import ssl
import subprocess
import threading
import time
import traceback
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from shutil import which
from typing import TYPE_CHECKING

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.exchange import Answer, ExchangeError, HttpClient
from tests.emulator import Answer as Reply
from tests.emulator import Request
from tests.emulator.loopback import LoopbackServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRET_PATH = "/hook/t0ken"
MOST = 10_000
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Wire:
    """A server that says on each connection whatever its script says."""

    port: int
    connections: int = 0
    heard: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def hear(self, peer: socket.socket) -> bool:
        """Read one request; False where the peer hung up."""
        text = b""
        while b"\r\n\r\n" not in text:
            chunk = peer.recv(65_536)
            if not chunk:
                return False
            text += chunk
        self.heard.append(text)
        return True


@contextmanager
def wire(script: Callable[[Wire, socket.socket], None]) -> Iterator[Wire]:
    """Listen on loopback; each connection is handed to `script` in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Wire(listener.getsockname()[1])
    threads, peers = [], []

    def serve(peer: socket.socket) -> None:
        with suppress(OSError), peer:
            script(server, peer)

    def accept() -> None:
        with suppress(OSError):
            while True:
                peer, _ = listener.accept()
                server.connections += 1
                peers.append(peer)
                threads.append(threading.Thread(target=serve, args=(peer,)))
                threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        acceptor.join()
        listener.close()
        for peer in peers:
            with suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def saying(*answers: bytes) -> Callable[[Wire, socket.socket], None]:
    """A script that gives one answer to each request of a connection, then hangs up."""

    def script(server: Wire, peer: socket.socket) -> None:
        for answer in answers:
            if not server.hear(peer):
                return
            peer.sendall(answer)

    return script


def dripping(start: bytes, drop: bytes) -> Callable[[Wire, socket.socket], None]:
    """A script that says `start`, then `drop` every 5 ms for as long as anyone listens."""

    def script(server: Wire, peer: socket.socket) -> None:
        server.hear(peer)
        peer.sendall(start)
        while True:
            time.sleep(0.005)
            peer.sendall(drop)

    return script


@contextmanager
def app(answer: Callable[[Request], Reply]) -> Iterator[LoopbackServer]:
    with LoopbackServer(lambda request: nullcontext(answer(request))) as server:
        yield server


def ask(url: str, *, client: HttpClient | None = None, seconds: float = 5, whole: bool = True) -> Answer:
    if client is None:
        with closing(HttpClient(url, 1)) as own:
            return ask(url, client=own, seconds=seconds, whole=whole)
    request = requests.Request("GET", url + SECRET_PATH)
    return client.exchange(request, seconds=seconds, max_bytes=MOST, whole=whole)


def failure(url: str, seconds: float = 5) -> str:
    """Why an exchange failed; never with a word of the URL."""
    with pytest.raises(ExchangeError) as caught:
        ask(url, seconds=seconds)
    whole = "".join(traceback.format_exception(caught.value))
    assert "t0ken" not in whole
    assert "127.0.0.1" not in whole
    return str(caught.value)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_status_headers_and_body_are_read():
    """Whatever the status; names of headers in any case; we name ourselves and want no compression."""
    seen = []

    def answer(request: Request) -> Reply:
        seen.append(request.headers)
        return Reply(404, {"X-Request-Id": "r1"}, b"gone")

    with app(answer) as server:
        answered = ask(server.origin)

    assert (answered.status, answered.headers["x-request-id"], answered.body) == (404, "r1", b"gone")
    assert seen[0]["accept-encoding"] == "identity"
    assert seen[0]["user-agent"].startswith("apig-vpcep-audit/")


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 204 None\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Go on\r\n\r\n" + OK,
    ],
)
def test_connection_is_used_again(answer):
    """After any complete answer."""
    with wire(saying(answer, answer, answer)) as server, closing(HttpClient(server.url, 1)) as client:
        for _ in range(3):
            ask(server.url, client=client)
        assert server.connections == 1


def test_broken_connection_is_not_used_again():
    """After an answer that was too long, the next exchange begins on a new connection."""
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + bytes(200_000)
    with wire(saying(long, OK)) as server, closing(HttpClient(server.url, 1)) as client:
        with pytest.raises(ExchangeError, match="larger than 10000 bytes"):
            ask(server.url, client=client)
        assert ask(server.url, client=client, whole=False).body == bytes(MOST)
        assert server.connections == 2


def test_connection_that_the_server_closed_meanwhile_does_no_harm():
    """The next exchange begins on a new one."""
    with wire(saying(OK)) as server, closing(HttpClient(server.url, 1)) as client:
        for _ in range(2):
            assert ask(server.url, client=client).body == b"ok"
            time.sleep(0.05)
        assert server.connections == 2


def test_several_threads_share_a_client():
    """Every answer goes to who asked for it."""
    with (
        app(lambda request: Reply(200, {}, request.query.encode())) as server,
        closing(HttpClient(server.origin, 4)) as client,
    ):
        wrong = []

        def work(number: int) -> None:
            for turn in range(20):
                request = requests.Request("GET", server.origin, params={"n": f"{number}-{turn}"})
                body = client.exchange(request, seconds=5, max_bytes=MOST).body
                if body != f"n={number}-{turn}".encode():
                    wrong.append(body)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status):
    """They would carry signature and token elsewhere."""
    paths = []

    def answer(request: Request) -> Reply:
        paths.append(request.path)
        return Reply(status, {"Location": "/elsewhere"})

    with app(answer) as server:
        assert ask(server.origin).status == status
    assert paths == [SECRET_PATH]


def test_body_of_a_redirect_is_bounded_too():
    """And left as it is: compressed, a small one might fill the memory."""
    packed = gzip.compress(bytes(5_000_000))
    start = b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    with wire(saying(start % len(packed) + packed)) as server:
        assert ask(server.url).body == packed
    long = bytes(20_000)
    with wire(saying(start % len(long) + long)) as server:
        assert failure(server.url) == "the answer is larger than 10000 bytes"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "the answer was cut short"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nshort", "the answer was cut short"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", "the answer was cut short"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "the answer was cut short"),
        (b"", "the connection was broken off"),
        (b"220 mail.example ESMTP t0ken\r\n", "the answer is not HTTP as it should be"),
        (b"HTTP/1.1 abc t0ken\r\n\r\n", "the answer is not HTTP as it should be"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: t0ken\r\n" * 101 + b"\r\n", "the answer is not HTTP as it should be"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", "the answer is not HTTP as it should be"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + bytes(20_000), "the answer is larger than 10000 bytes"),
    ],
)
def test_broken_answer_is_refused_in_plain_words(answer, words):
    """Half an answer is no answer."""
    with wire(saying(answer)) as server:
        assert failure(server.url) == words


def test_excerpt_of_a_broken_answer_is_enough_where_asked_for():
    """Not `whole`: status and what came of the body."""
    with wire(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort")) as server:
        answer = ask(server.url, whole=False)
    assert (answer.status, answer.body, answer.whole) == (200, b"short", False)


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"y"),
        (b"", b"HTTP/1.1 100 Go on\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n", b"y"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\ny\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1"),
    ],
)
def test_dripping_answer_ends_in_time(start, drop):
    """However little keeps coming, in the status line, headers or body."""
    with wire(dripping(start, drop)) as server:
        began = time.monotonic()
        failure(server.url, seconds=0.2)
        assert 0.15 < time.monotonic() - began < 3


def test_silence_ends_in_time():
    """A server that takes the request and says nothing."""
    with app(lambda _: Reply(200, {}, b"late", delay=5)) as server:
        began = time.monotonic()
        assert failure(server.origin, seconds=0.2) == "no answer in time"
        assert time.monotonic() - began < 3


def test_idle_server_costs_less_than_the_whole_time(monkeypatch):
    """One wait for bytes has a limit of its own."""
    monkeypatch.setattr("audit.exchange.READ_SECONDS", 0.1)
    with app(lambda _: Reply(200, {}, b"late", delay=5)) as server:
        began = time.monotonic()
        assert failure(server.origin, seconds=5) == "no answer in time"
        assert time.monotonic() - began < 3


def test_slow_but_steady_answer_is_read():
    """Within the time given."""
    with app(lambda _: Reply(200, {}, b"0123456789", drip=0.01)) as server:
        assert ask(server.origin, seconds=2).body == b"0123456789"


def test_without_time_nothing_is_sent():
    """The clock may run out between the caller's look at it and the exchange."""
    with wire(saying(OK)) as server:
        assert failure(server.url, seconds=0) == "no time was left"
        assert server.connections == 0


def test_refused_port():
    """Said in plain words."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert failure(f"http://127.0.0.1:{port}") == "the connection was refused"


def test_unknown_host(monkeypatch):
    """Said in plain words."""

    def look_up(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert failure("https://apig.no-such-region.example") == "the host name cannot be resolved"


def test_host_that_does_not_answer(monkeypatch):
    """A connection that does not come about is given up after its own limit."""
    monkeypatch.setattr("audit.exchange.CONNECT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        waiting = []
        for _ in range(4):  # fill the queue, so that the kernel lets nobody in
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(address)
        try:
            assert failure(f"http://127.0.0.1:{address[1]}", seconds=5) == "no connection in time"
        finally:
            for one in waiting:
                one.close()


@pytest.mark.parametrize("value", ["t0ken\nX-Evil: 1", "t0ken\u4e2d"])
def test_header_that_http_cannot_carry_is_not_repeated(value):
    """It may be a secret."""
    auth = type("Auth", (), {"__call__": lambda _, request: request.headers.update({"X": value}) or request})()
    with wire(saying(OK)) as server, closing(HttpClient(server.url, 1)) as client:
        with pytest.raises(ExchangeError) as caught:
            client.exchange(requests.Request("GET", server.url, auth=auth), seconds=1, max_bytes=MOST)
        assert "t0ken" not in str(caught.value)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Self-signed certificates for this machine's loopback address and for another host."""
    if which("openssl") is None:
        pytest.skip("there is no openssl command to make a certificate with")
    folder = tmp_path_factory.mktemp("certificates")
    for name, subject in (("here", "IP:127.0.0.1"), ("elsewhere", "DNS:elsewhere.example")):
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem", "-days", "2"]
        command += ["-subj", "/CN=test", "-addext", f"subjectAltName={subject}"]
        subprocess.run(command, check=True, capture_output=True)
    return folder


def over_tls(folder, name: str, script: Callable[[Wire, socket.socket], None]) -> Callable[[Wire, socket.socket], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")

    def wrapped(server: Wire, peer: socket.socket) -> None:
        with context.wrap_socket(peer, server_side=True) as secure:
            script(server, secure)

    return wrapped


def test_self_signed_certificate_is_refused(certificates):
    """Nothing is sent to whoever shows one."""
    with wire(over_tls(certificates, "here", saying(OK))) as server:
        assert failure(f"https://127.0.0.1:{server.port}") == "the server's certificate is not trusted"
        assert server.heard == []


def test_certificate_of_another_host_is_refused(certificates, monkeypatch):
    """Also one that is trusted."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates / "elsewhere.pem"))
    with wire(over_tls(certificates, "elsewhere", saying(OK))) as server:
        assert failure(f"https://127.0.0.1:{server.port}") == "the server's certificate is not trusted"
        assert server.heard == []


def test_certificates_of_the_environment_are_trusted(certificates, monkeypatch):
    """REQUESTS_CA_BUNDLE adds a company's own; answers over TLS are read, and bounded, alike."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates / "here.pem"))
    with wire(over_tls(certificates, "here", saying(OK, OK))) as server:
        url = f"https://127.0.0.1:{server.port}"
        with closing(HttpClient(url, 1)) as client:
            assert [ask(url, client=client).body for _ in range(2)] == [b"ok", b"ok"]
        assert server.connections == 1
    with wire(over_tls(certificates, "here", dripping(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"))) as server:
        began = time.monotonic()
        assert failure(f"https://127.0.0.1:{server.port}", seconds=0.3) == "no answer in time"
        assert time.monotonic() - began < 3


def test_tls_to_a_plain_port():
    """Said in plain words."""

    def script(_: Wire, peer: socket.socket) -> None:
        peer.recv(10)
        peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with wire(script) as plain:
        assert failure(f"https://127.0.0.1:{plain.port}") == "the TLS handshake failed"


def test_silent_tls_handshake_ends_in_time():
    """A port that takes the connection and never says hello."""
    with wire(dripping(b"", b"")) as server:
        began = time.monotonic()
        failure(f"https://127.0.0.1:{server.port}", seconds=0.2)
        assert time.monotonic() - began < 3


def test_proxy_of_the_environment_is_used(monkeypatch):
    """And NO_PROXY is obeyed."""
    with wire(saying(OK)) as proxy, app(lambda _: Reply(200, {}, b"direct")) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert ask("http://apig.example").body == b"ok"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert ask(server.origin).body == b"direct"
    assert proxy.heard[0].startswith(b"GET http://apig.example/hook/t0ken HTTP/1.1\r\n")
    assert len(proxy.heard) == 1


@pytest.mark.parametrize("name", ["HTTP_PROXY", "HTTPS_PROXY"])
def test_proxy_that_is_not_there(monkeypatch, name):
    """The proxy is blamed, not the host."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv(name, f"http://user:t0ken@127.0.0.1:{port}")
    assert failure(f"{name.partition('_')[0].lower()}://apig.example") == "the proxy could not be used"


def test_dripping_proxy_ends_in_time(monkeypatch):
    """It is as hostile as any server."""
    with wire(dripping(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        began = time.monotonic()
        failure("https://apig.example", seconds=0.2)
        assert time.monotonic() - began < 3
        assert proxy.heard[0].startswith(b"CONNECT apig.example:443 ")


def test_netrc_is_ignored(monkeypatch, tmp_path):
    """Else a stranger's password would go to the API."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with wire(saying(OK)) as server:
        ask(server.url)
    assert b"authorization" not in server.heard[0].lower()


def test_cookies_are_not_kept():
    """What one answer sets, the next request does not carry."""
    answer = OK.replace(b"\r\n", b"\r\nSet-Cookie: a=b; Path=/\r\n", 1)
    with wire(saying(answer, answer)) as server, closing(HttpClient(server.url, 1)) as client:
        ask(server.url, client=client)
        ask(server.url, client=client)
    assert b"cookie" not in server.heard[1].lower()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7),
        (" 1.5 ", 1.5),
        ("0", 0),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("1e9", None),
        ("\u0661", None),
        ("9" * 5000, None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Mon, 01 Jan 2024 00:00:00 -0000", None),
        ("Mon, 01 Jan 2024 00:00:00 +999999999999999", None),
        ("Mon, 01 Jan 99999999999999999999999 00:00:00 GMT", None),
    ],
)
def test_retry_after(text, seconds):
    """Seconds, or None for what makes no sense."""
    assert Answer(429, {"Retry-After": text}, b"").retry_after == seconds


def test_retry_after_a_date():
    """Seconds from now."""
    text = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=90), usegmt=True)
    found = Answer(429, {"Retry-After": text}, b"").retry_after
    assert found is not None
    assert 85 < found <= 90


def test_retry_after_absent():
    """None, and no date either."""
    assert Answer(429, {}, b"").retry_after is None
    assert Answer(429, {}, b"").date is None


@settings(deadline=None, max_examples=50)
@given(st.text() | st.from_regex(r"Mon, [0-9]{1,30} Jan [0-9]{1,30} [0-9:]{1,30} [+-][0-9]{1,30}"))
def test_no_date_of_a_server_raises(text):
    """Whatever it is."""
    answer = Answer(429, {"Retry-After": text, "Date": text}, b"")
    assert answer.date is None or answer.date.tzinfo is not None
    assert answer.retry_after is None or answer.retry_after >= 0
