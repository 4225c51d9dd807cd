"""One HTTP exchange, bounded in time and size and refusing redirects; retries are its callers' business."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING

import requests
import urllib3
from requests.adapters import HTTPAdapter

from audit import __version__
from audit.errors import AuditError

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECT_SECONDS = 5.0
READ_SECONDS = 15.0
ANSWER_SECONDS = 60.0
_CHUNK = 65_536


class ExchangeError(AuditError):
    """No usable answer came; the text says why in plain words and names no URL, as a URL may hold a secret."""


@dataclass(frozen=True)
class Answer:
    """What a server said. Header names are case-insensitive."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def retry_after(self) -> float | None:
        """Retry-After in seconds, given as such or as an HTTP date; None where there is none that makes sense."""
        text = self.headers.get("Retry-After", "").strip()
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,3})?", text):
            return float(text)
        try:
            return max(0.0, (parsedate_to_datetime(text) - datetime.now(timezone.utc)).total_seconds())
        except (ValueError, TypeError):
            return None


class HttpClient:
    """Keeps connections to one host open; safe to use from several threads."""

    def __init__(self, base_url: str, connections: int) -> None:
        self._session = requests.Session()
        self._session.headers["User-Agent"] = f"apig-vpcep-audit/{__version__}"
        # Cookies would be shared state between threads, and nothing here wants any.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.mount(base_url, HTTPAdapter(pool_connections=1, pool_maxsize=connections))
        # Proxy and certificate settings of the environment, looked up once: per request it costs more than signing.
        found = self._session.merge_environment_settings(base_url, {}, None, None, None)
        self._session.proxies = found["proxies"]
        self._session.verify = found["verify"]
        self._session.trust_env = False

    def exchange(self, request: requests.Request, *, seconds: float, max_bytes: int) -> Answer:
        """Send a request and read its answer whole.

        `seconds` bound the exchange besides the module's own limits. Raises ExchangeError: no connection, no answer
        in time, a broken connection, a body shorter than announced or longer than `max_bytes`.
        """
        finish_by = time.monotonic() + min(seconds, ANSWER_SECONDS)
        # No compression: what arrives is what counts against max_bytes.
        request.headers = {**request.headers, "Accept-Encoding": "identity"}
        try:
            with self._session.send(
                self._session.prepare_request(request),
                timeout=(min(CONNECT_SECONDS, seconds), min(READ_SECONDS, seconds)),
                allow_redirects=False,
                stream=True,
            ) as response:
                body = _read_body(response, finish_by, max_bytes)
                return Answer(response.status_code, response.headers, body)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, http.client.HTTPException) as error:
            raise ExchangeError(_describe(error)) from None

    def close(self) -> None:
        self._session.close()


def _read_body(response: requests.Response, finish_by: float, max_bytes: int) -> bytes:
    body = bytearray()
    # read1 returns what has arrived, so a server that drips its answer cannot outlast the limit.
    while chunk := response.raw.read1(_CHUNK, decode_content=False):
        body += chunk
        if len(body) > max_bytes:
            raise ExchangeError(f"the answer is larger than {max_bytes} bytes")
        if time.monotonic() > finish_by:
            raise ExchangeError("the answer came too slowly")
    return bytes(body)


def _describe(error: BaseException) -> str:
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
    ((requests.exceptions.InvalidURL, urllib3.exceptions.LocationParseError), "the URL cannot be used"),
)
