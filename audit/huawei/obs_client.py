"""Asks OBS through the vendor's client, with its defaults made safe, and turns every failure into a StoreError.

What `esdk-obs-python` 3.26.6 does by itself (each point reproduced, November 2026), and what is done about it:
certificates are not verified, and host names never are: it gets a context of our own. It sends an unsigned probe first,
and changes the signature for IP addresses: the mode `workflow` does neither. It returns errors, follows redirects,
tries again and waits on its own: `ask` looks at every status, and the rest is switched off. Without keys it goes on
unsigned: that is refused. Its time limit begins anew with every byte, it reads lists and errors of any length, it knows
no proxy of the environment, and forgets connections that break while it sends: its connections are our own.
"""

from __future__ import annotations

import http.client
import math
import random
import ssl
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from obs import ObsClient
from requests.adapters import HTTPAdapter
from requests.exceptions import ProxyError
from requests.utils import is_ipv4_address

from audit import exchange
from audit.errors import StoreError
from audit.huawei.permissions import GET_OBJECT, LIST_OBJECTS, PUT_OBJECT, USE_KEY, describe
from audit.route import find_route, tls_context
from audit.text import Redactor, printable, shorten

if TYPE_CHECKING:
    from collections.abc import Callable

    from audit.deadline import Deadline
    from audit.settings import ObsPlace
    from audit.targets import Credentials

    Answer = Any  # the vendor's client has no types

TRIES = 4
# A list of 1,000 keys, each as long as a key may be, with every character of it escaped, is not larger.
MOST_BYTES = 8 << 20
_FIRST_BACKOFF = 0.2
_AGAIN = frozenset({408, 409, 429, 500, 502, 503, 504})
_WRONG_KEY = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSecurityToken"})
# What it takes to do something. OBS tells nobody that an object is missing who may not list its bucket.
_NEEDS = {"read": (GET_OBJECT, LIST_OBJECTS), "written": (PUT_OBJECT,), "listed": (LIST_OBJECTS,)}


class SafeClient:
    """Asks for one place until `deadline`; only looking up the host name is up to the system.

    Keys are asked for before every try, so that temporary ones may be renewed in a long run. Raises UsageError where
    the environment names a proxy or certificates that cannot be used.
    """

    def __init__(self, place: ObsPlace, deadline: Deadline) -> None:
        self._place = place
        self._deadline = deadline
        parts = urlsplit(place.endpoint)
        host = parts.netloc if is_ipv4_address(str(parts.hostname)) else f"{place.bucket}.{parts.netloc}"
        route = find_route(f"{parts.scheme}://{host}", ["http"])
        self._proxy = route.proxy
        self._tls = tls_context(route.certificates) if parts.scheme == "https" else None

    def ask(
        self,
        what: str,
        where: str,
        call: Callable[[ObsClient], Answer],
        accepts: Callable[[Answer], bool] = lambda _answer: False,
    ) -> Answer:
        """Return an answer of status 200, or one that `accepts` lets pass, after some tries. Raises StoreError.

        `what` is what is done to `where`: "read", "written" or "listed".
        """
        for attempt in range(1, TRIES + 1):
            keys, again = self._place.keys(), True
            if not self._deadline.left():
                raise StoreError(f"{where}: cannot be {what}: the time limit was reached")
            try:
                answer = call(self.connect(keys))
            except StoreError:
                raise
            except exchange.ExchangeError as error:
                why = str(error)
            except Exception as error:  # noqa: BLE001  (the client raises bare Exceptions; all end in a StoreError)
                again = not isinstance(error, ssl.SSLCertVerificationError)
                why = exchange.describe_failure(error)
            else:
                if answer.status == 200 or accepts(answer):
                    return answer
                again = answer.status in _AGAIN
                why = _refusal(answer) + self._advice(answer, what)
            wait = _FIRST_BACKOFF * 2.0**attempt * random.uniform(0.5, 1)
            if not again or attempt == TRIES or wait >= self._deadline.left():
                secrets = [text for text in (keys.ak, keys.sk, keys.security_token) if text]
                raise StoreError(f"{where}: cannot be {what}: {Redactor(secrets)(why)}")
            time.sleep(wait)
        raise AssertionError("the loop returns or raises")

    def _advice(self, answer: Answer, what: str) -> str:
        if answer.status == 401 or answer.errorCode in _WRONG_KEY:
            return "; check the access key"
        if answer.status != 403:
            return ""
        if answer.errorCode == "RequestTimeTooSkewed":
            return "; set the clock of this machine"
        grant = f"; grant {describe(*_NEEDS[what])}"
        if self._place.kms_key and what != "listed":
            grant += f", and for the key {describe(*USE_KEY)}"
        return f"{grant}: see README, Permissions"

    def connect(self, keys: Credentials) -> ObsClient:
        """Make the vendor's client for one request."""
        if not (keys.ak and keys.sk):
            raise StoreError(f"{self._place}: there are no keys to sign requests with")
        client = _Client(
            keys.ak,
            keys.sk,
            security_token=keys.security_token,
            server=self._place.endpoint,
            signature="obs",
            client_mode="workflow",
            is_signature_negotiation=False,
            max_retry_count=0,
            max_redirect_count=0,
        )
        client.deadline, client.proxy, client.context = self._deadline, self._proxy, self._tls
        return client


def _refusal(answer: Answer) -> str:
    """Say what OBS answered: status, code and request id. Not its text, which repeats what was signed."""
    named = shorten(printable(f"HTTP {answer.status} {answer.errorCode or ''}".strip()), 100)
    if answer.requestId:
        named += f" (request id {shorten(printable(str(answer.requestId)), 100)})"
    return named


class _Client(ObsClient):  # type: ignore[misc]
    deadline: Deadline
    proxy: str

    def _get_server_connection_use_http1x(self, is_secure: bool, server: str, port: int, *_: object) -> _Connection:
        proxy = urlsplit(self.proxy)
        host, at = (str(proxy.hostname), proxy.port or 80) if self.proxy else (server, port)
        seconds = min(self.deadline.left(), exchange.CONNECT_SECONDS)
        connection = (
            _TlsConnection(host, at, timeout=seconds, context=self.context)
            if is_secure
            else _Connection(host, at, timeout=seconds)
        )
        connection.deadline = self.deadline
        if self.proxy:
            connection.set_tunnel(server, port, HTTPAdapter().proxy_headers(self.proxy))
            connection.proxied = True
        return connection

    @staticmethod
    def _prepare_response_data(result: http.client.HTTPResponse, _: int) -> bytes:
        """Read what is no object: a list, an error, or nothing."""
        text = result.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise exchange.ExchangeError(f"the answer is larger than {MOST_BYTES} bytes")
        # The client breaks on errors that are not UTF-8; what they say is not quoted anyhow.
        return text if result.status < 300 else text.decode("utf-8", "replace").encode()


class _Connection(http.client.HTTPConnection):
    """A connection that ends with `deadline`, and is closed when it breaks."""

    response_class = exchange.PunctualResponse
    deadline: Deadline
    proxied = False
    broken: OSError | None = None

    def connect(self) -> None:
        try:
            super().connect()
        except OSError as error:
            if self.proxied and not isinstance(error, ssl.SSLError):
                raise ProxyError from error
            raise

    def send(self, data: Any) -> None:  # noqa: ANN401
        try:
            if self.sock is None:
                self.connect()
            self._limit(exchange.READ_SECONDS)
            try:
                super().send(data)
            except (BrokenPipeError, ConnectionResetError) as error:
                self.broken = error  # an upload may be refused, and hung up on, before all of it is there
        except BaseException:
            self.close()
            raise

    def getresponse(self) -> http.client.HTTPResponse:
        self._limit(math.inf)
        response = super().getresponse()
        if self.broken and response.status < 300:
            raise self.broken
        return response

    def _limit(self, most: float) -> None:
        left = min(self.deadline.left(), most)
        if not left:
            raise TimeoutError
        self.sock.settimeout(left)


class _TlsConnection(_Connection, http.client.HTTPSConnection):
    pass
