"""One HTTP exchange, bounded in time and size, following no redirect; retries are its callers' business."""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
import time
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import msgspec
import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from audit import __version__
from audit.errors import AuditError
from audit.route import find_route

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECT_SECONDS = 5.0
READ_SECONDS = 15.0
ANSWER_SECONDS = 60.0
_CHUNK = 65_536
# No compression: what arrives is what counts against a limit of bytes.
_HEADERS = {"User-Agent": f"apig-vpcep-audit/{__version__}", "Accept-Encoding": "identity"}


class ExchangeError(AuditError):
    """No usable answer came; the text says why in plain words and names no URL, as a URL may hold a secret."""


class Answer(msgspec.Struct, frozen=True):
    """What a server said. Header names are case-insensitive. `whole`: the body did not break off."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool = True

    @property
    def date(self) -> datetime | None:
        """The server's clock; None where it does not tell or cannot be understood."""
        return _parse_date(self.headers.get("Date", ""))

    @property
    def retry_after(self) -> float | None:
        """Retry-After in seconds, given as such or as an HTTP date; None where there is none that makes sense."""
        text = self.headers.get("Retry-After", "").strip()
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,3})?", text):
            return float(text)
        date = _parse_date(text)
        return None if date is None else max(0.0, (date - datetime.now(timezone.utc)).total_seconds())


def _parse_date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):  # what it raises depends on the Python and on what is wrong
        return None
    return date if date.tzinfo else None


class HttpClient:
    """Keeps connections to one host open; safe to use from several threads.

    There is no session around the adapter: nothing follows redirects, keeps cookies or reads .netrc. Raises UsageError
    where the environment names a proxy or certificates that cannot be used.
    """

    def __init__(self, base_url: str, connections: int) -> None:
        self._adapter = _Adapter(pool_connections=1, pool_maxsize=connections)
        # Looked up once: per request it costs more than signing.
        route = find_route(base_url)
        self._proxies = {base_url.partition(":")[0]: route.proxy} if route.proxy else {}
        self._verify = route.certificates

    def exchange(self, request: requests.Request, *, seconds: float, max_bytes: int, whole: bool = True) -> Answer:
        """Send a request and read its answer.

        `seconds` bound the exchange besides the module's own limits; only looking up the host name is up to the
        system. Raises ExchangeError: no connection, no answer in time, a broken connection, a body shorter than
        announced or longer than `max_bytes`. Unless `whole`, what could be read of such a body is taken for it.
        """
        if seconds <= 0:
            raise ExchangeError("no time was left")
        timeout: Any = urllib3.Timeout(connect=min(CONNECT_SECONDS, seconds), total=min(ANSWER_SECONDS, seconds))
        request.headers = {**_HEADERS, **request.headers}
        try:
            with self._adapter.send(
                request.prepare(), stream=True, timeout=timeout, verify=self._verify, proxies=self._proxies
            ) as response:
                return Answer(response.status_code, response.headers, *_read_body(response, max_bytes, whole=whole))
        except _FAILURES as error:
            raise ExchangeError(describe_failure(error)) from None

    def close(self) -> None:
        self._adapter.close()


def _read_body(response: requests.Response, max_bytes: int, *, whole: bool) -> tuple[bytes, bool]:
    """Return the body, and whether it came to its end or its limit."""
    body, ended = bytearray(), True
    try:
        while len(body) <= max_bytes and (chunk := response.raw.read(_CHUNK, decode_content=False)):
            body += chunk
    except _FAILURES:
        if whole:
            raise
        ended = False
    if whole and len(body) > max_bytes:
        raise ExchangeError(f"the answer is larger than {max_bytes} bytes")
    return bytes(body[:max_bytes]), ended


class _PunctualSocket(io.RawIOBase):
    """Reads from a socket until the timeout that it has now is over, and waits READ_SECONDS at most each time.

    A socket's own timeout begins anew with every byte, so that a server could drip headers for ever.
    """

    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        self._sock = sock
        self._raw = raw
        self._end = time.monotonic() + (sock.gettimeout() or ANSWER_SECONDS)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401  (a writable buffer has no name in Python 3.10)
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(min(left, READ_SECONDS))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class PunctualResponse(http.client.HTTPResponse):
    """An answer that is read in the time that its socket has when it begins, however little keeps coming."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:  # noqa: ANN401
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_PunctualSocket(sock, self.fp.detach()))


class _Connection(HTTPConnection):
    response_class = PunctualResponse


class _TlsConnection(HTTPSConnection):
    response_class = PunctualResponse


class _Adapter(HTTPAdapter):
    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        pool: Any = super().get_connection_with_tls_context(*args, **options)
        pool.ConnectionCls = _TlsConnection if pool.scheme == "https" else _Connection
        return pool


# ValueError: a header that HTTP cannot carry, whose text would repeat it.
_FAILURES = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, http.client.HTTPException, ValueError)


def describe_failure(error: BaseException) -> str:
    """Say in plain words why an exchange failed, from the innermost cause that is known."""
    causes = list(_causes(error))
    for kinds, words in _REASONS:
        if any(isinstance(cause, kinds) for cause in causes):
            return words
    return f"the exchange failed ({type(causes[-1]).__name__})"


def _causes(error: BaseException) -> list[BaseException]:
    """List an error and what it wraps: libraries hide causes in `reason`, in `args` and in the chain."""
    found: list[BaseException] = []
    queue: list[object] = [error]
    while queue:
        item = queue.pop(0)
        if isinstance(item, BaseException) and not any(item is known for known in found):
            found.append(item)
            queue += [getattr(item, "reason", None), *item.args, item.__cause__, item.__context__]
    return found


# In the order of meaning: a refused proxy is first a proxy problem, a failed handshake first a TLS problem.
_REASONS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((requests.exceptions.ProxyError,), "the proxy could not be used"),
    ((ssl.SSLCertVerificationError,), "the server's certificate is not trusted"),
    ((requests.exceptions.SSLError, ssl.SSLError), "the TLS handshake failed"),
    ((urllib3.exceptions.NameResolutionError, socket.gaierror), "the host name cannot be resolved"),
    ((requests.exceptions.ConnectTimeout,), "no connection in time"),
    ((requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError, TimeoutError), "no answer in time"),
    ((ConnectionRefusedError,), "the connection was refused"),
    ((http.client.IncompleteRead, urllib3.exceptions.IncompleteRead), "the answer was cut short"),
    ((ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected), "the connection was broken off"),
    ((urllib3.exceptions.NewConnectionError,), "no connection to the host"),
    (
        (http.client.HTTPException, urllib3.exceptions.ProtocolError, urllib3.exceptions.DecodeError),
        "the answer is not HTTP as it should be",
    ),
    ((ValueError,), "the request or its URL cannot be used"),
)
