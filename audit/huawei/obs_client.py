"""Asks OBS through the vendor's client, with its defaults made safe, and turns every failure into a StoreError.

What `esdk-obs-python` 3.26.6 does by itself (each point reproduced, November 2026), and what is done about it:
certificates are not verified, and host names never are: it gets a context of our own. It sends an unsigned probe first,
and changes the signature for IP addresses: the mode `workflow` does neither. It returns errors, follows redirects,
tries again and waits on its own: `ask` looks at every status, and the rest is switched off. Without keys it goes on
unsigned: that is refused. It knows nothing of a proxy in the environment: it is told.
"""

from __future__ import annotations

import random
import ssl
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import certifi
import requests
from obs import ObsClient

from audit.errors import StoreError
from audit.exchange import describe_failure
from audit.huawei.permissions import GET_OBJECT, LIST_OBJECTS, PUT_OBJECT, USE_KEY, describe
from audit.text import Redactor, printable, shorten

if TYPE_CHECKING:
    from collections.abc import Callable

    from audit.deadline import Deadline
    from audit.settings import Credentials, ObsPlace

    Answer = Any  # the vendor's client has no types

TRIES = 4
SILENCE_SECONDS = 15.0
_FIRST_BACKOFF = 0.2
_AGAIN = frozenset({408, 409, 429, 500, 502, 503, 504})
_WRONG_KEY = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSecurityToken"})
# What it takes to do something. OBS tells nobody that an object is missing who may not list its bucket.
_NEEDS = {"read": (GET_OBJECT, LIST_OBJECTS), "written": (PUT_OBJECT,), "listed": (LIST_OBJECTS,)}


class SafeClient:
    """Asks for one place; everything ends with `deadline`, but for one wait for a silent server (15 s at most).

    Keys are asked for before every try, so that temporary ones may be renewed in a long run.
    """

    def __init__(self, place: ObsPlace, deadline: Deadline) -> None:
        self._place = place
        self._deadline = deadline
        with requests.Session() as session:  # proxy and certificates as everywhere else in this product
            found: Any = session.merge_environment_settings(place.endpoint, {}, None, None, None)
        self._proxy = _proxy_of(found["proxies"].get(urlsplit(place.endpoint).scheme) or "")
        bundle = certifi.where() if found["verify"] is True else found["verify"]
        self._tls = ssl.create_default_context(cafile=bundle) if place.endpoint.startswith("https:") else None

    def ask(
        self,
        what: str,
        where: str,
        call: Callable[[ObsClient], Answer],
        accepts: Callable[[Answer], bool] = lambda _answer: False,
    ) -> Answer:
        """Return an answer below 300, or one that `accepts` lets pass, after some tries. Raises StoreError.

        `what` is what is done to `where`: "read", "written" or "listed".
        """
        for attempt in range(1, TRIES + 1):
            left, keys, again = self._deadline.left(), self._place.keys(), True
            if not left:
                raise StoreError(f"{where}: cannot be {what}: the time limit was reached")
            try:
                answer = call(self.connect(keys, min(left, SILENCE_SECONDS)))
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001  (the client raises bare Exceptions; all end in a StoreError)
                again = not isinstance(error, ssl.SSLCertVerificationError)
                why = describe_failure(error)
            else:
                if answer.status < 300 or accepts(answer):
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

    def connect(self, keys: Credentials, seconds: float) -> ObsClient:
        """Make the vendor's client for one request, with `seconds` for each wait."""
        if not (keys.ak and keys.sk):
            raise StoreError(f"{self._place}: there are no keys to sign requests with")
        client = ObsClient(
            keys.ak,
            keys.sk,
            security_token=keys.security_token,
            server=self._place.endpoint,
            signature="obs",
            client_mode="workflow",
            is_signature_negotiation=False,
            max_retry_count=0,
            max_redirect_count=0,
            timeout=seconds,
            **self._proxy,
        )
        client.context = self._tls
        return client


def _refusal(answer: Answer) -> str:
    """Say what OBS answered: status, code and request id. Not its text, which repeats what was signed."""
    named = shorten(printable(f"HTTP {answer.status} {answer.errorCode or ''}".strip()), 100)
    if answer.requestId:
        named += f" (request id {shorten(printable(str(answer.requestId)), 100)})"
    return named


def _proxy_of(url: str) -> dict[str, Any]:
    if not url:
        return {}
    parts = urlsplit(url)
    found: dict[str, Any] = {"proxy_host": parts.hostname, "proxy_port": parts.port or 80}
    if parts.username:
        found |= {"proxy_username": unquote(parts.username), "proxy_password": unquote(parts.password or "")}
    return found
