"""Asks one API host, again where that helps, and turns every failure into an ApiError that says what went wrong."""

from __future__ import annotations

import json
import logging
import math
import random
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, TypeVar

import msgspec
import requests

from audit.errors import (
    ApiError,
    CredentialsRefused,
    Forbidden,
    NotFound,
    OutOfTime,
    Throttled,
    Unavailable,
    Unexpected,
)
from audit.exchange import Answer, ExchangeError, HttpClient
from audit.huawei.pace import Pace
from audit.huawei.permissions import describe
from audit.huawei.trial import Trial
from audit.text import printable, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from requests.auth import AuthBase

    from audit.deadline import Deadline
    from audit.huawei.permissions import Action
    from audit.text import Redactor

TRIES = 5
MOST_BYTES = 16 * 1024 * 1024
_FIRST_BACKOFF = 0.5
_LONGEST_BACKOFF = 8.0
_LEAST_SECONDS = 5.0
_SKEW_SECONDS = 60
_BUSY = "APIC.7701"
# Answers that come after the signature was checked; others may come from in front of that.
_KNOWS_WHO_ASKS = frozenset({200, 201, 202, 401, 403, 404})

Decoded = TypeVar("Decoded")
log = logging.getLogger(__name__)


class _Call(msgspec.Struct, frozen=True):
    """A request, to be built anew for every try: a signature is good for one."""

    method: str
    url: str
    permission: Action
    params: Mapping[str, str | int] = msgspec.field(default_factory=dict)
    body: bytes = b""
    status: int = requests.codes.ok

    def build(self, auth: AuthBase) -> requests.Request:
        return requests.Request(self.method, self.url, params=dict(self.params), data=self.body or None, auth=auth)


class Transport:
    """Sends requests to one endpoint; safe to use from several threads.

    Concurrency is bounded here, for all callers together. Once credentials are refused, no further request is sent:
    wrong signatures lock a key, which is why all endpoints that are asked with one key share its `trial`. Nor is any
    once nothing usable came for `patience` seconds of asking: where others are to be read too, the time is theirs.
    `skew` tells how far the server's clock is from ours, in seconds.
    """

    def __init__(
        self,
        endpoint: str,
        auth: AuthBase,
        *,
        deadline: Deadline,
        concurrency: int,
        redact: Redactor,
        trial: Trial | None = None,
        patience: float = math.inf,
    ) -> None:
        self._endpoint = endpoint
        self._trial = trial or Trial()
        self._patience = patience
        self._asking_since = math.inf
        self._auth = auth
        self._deadline = deadline
        self._redact = redact
        self._pace = Pace(concurrency)
        self._http = HttpClient(endpoint, concurrency)
        self._stopped_by: ApiError | None = None
        self.skew = 0.0

    def get(
        self, path: str, params: Mapping[str, str | int], decode: Callable[[bytes], Decoded], *, permission: Action
    ) -> Decoded:
        """Return the decoded answer.

        `decode` raises ValueError for a body that is not what it should be; that is retried like a broken answer.
        `permission` is what is missing where the answer is 403. Raises ApiError.
        """
        call = _Call("GET", self._endpoint + path, permission, params)
        return self._send(call, decode)

    def post(
        self, path: str, document: object, decode: Callable[[bytes], Decoded], *, permission: Action, status: int
    ) -> Decoded:
        """The same for a JSON document, where success answers with `status`. What is retried may be done twice."""
        call = _Call("POST", self._endpoint + path, permission, body=json.dumps(document).encode(), status=status)
        return self._send(call, decode)

    def _send(self, call: _Call, decode: Callable[[bytes], Decoded]) -> Decoded:
        for attempt in range(1, TRIES + 1):
            try:
                return self._try(call, decode, attempt)
            except ApiError as error:
                if not error.retryable:
                    raise
                wait = max(_backoff(attempt), error.retry_after or 0.0)
                if isinstance(error, Throttled):
                    self._pace.slow(wait)
                if attempt == TRIES or wait >= min(self._deadline.left(), self._patience_left()):
                    given_up = _given_up(error, attempt, wait)
                    if not self._patience_left():
                        self._stop(Unexpected(given_up.text, status=error.status, code=error.code))
                    raise given_up from None
                log.info("%s; trying again in %.1f s", error, wait)
                self._pace.pause(wait)
        raise AssertionError("unreachable")

    def close(self, why: str = "") -> None:
        """Send nothing any more; whoever waits for a turn is told at once, and why."""
        if why:
            self._stopped_by = self._stopped_by or OutOfTime(why)
        self._pace.stop()
        self._http.close()

    def _try(self, call: _Call, decode: Callable[[bytes], Decoded], attempt: int) -> Decoded:
        with self._pace.turn(self._deadline.left(), attempt) as came, self._trial.turn(self._deadline.left()) as may:
            if not came or not may:
                raise self._why_not()
            answer = self._ask(call.build(self._auth))
            if answer.status in _KNOWS_WHO_ASKS:
                self._trial.note(accepted=answer.status != requests.codes.unauthorized)
            if answer.status != call.status:
                raise self._refusal(answer, call.permission)
        self._pace.quicken()
        try:
            # A server that echoes a secret in a name must not carry it into the evidence.
            decoded = decode(self._redact.body(answer.body))
        except (ValueError, RecursionError) as error:
            raise self._error(Unavailable, answer, "", f"the answer makes no sense: {error}") from None
        self._asking_since = math.inf
        return decoded

    def _why_not(self) -> ApiError:
        if stopped_by := self._stopped_by:
            text = f"not asked any more: {stopped_by}"
            return type(stopped_by)(text, status=stopped_by.status, code=stopped_by.code)
        if self._trial.is_lost:
            return CredentialsRefused("not asked any more: the same access key was refused elsewhere")
        return OutOfTime("deadline: the time limit of the run was reached")

    def _patience_left(self) -> float:
        return max(0.0, self._asking_since + self._patience - time.monotonic())

    def _stop(self, error: ApiError) -> None:
        self._stopped_by = self._stopped_by or error
        self._pace.stop()

    def _ask(self, request: requests.Request) -> Answer:
        self._asking_since = min(self._asking_since, time.monotonic())
        # Nobody asked for a while, perhaps, and all is well by now.
        seconds = min(self._deadline.left(), max(_LEAST_SECONDS, self._patience_left()))
        try:
            answer = self._http.exchange(request, seconds=seconds, max_bytes=MOST_BYTES)
        except ExchangeError as error:
            if not self._deadline.left():
                raise self._why_not() from None
            raise Unavailable(str(error)) from None
        if answer.date:
            self.skew = (answer.date - datetime.now(timezone.utc)).total_seconds()
        return answer

    def _refusal(self, answer: Answer, permission: Action) -> ApiError:
        code, message = _error_of(answer.body)
        kind = _kind_of(answer.status, code)
        error = self._error(kind, answer, code, message, f"; grant {describe(permission)}" if kind is Forbidden else "")
        if isinstance(error, CredentialsRefused):
            self._stop(error)
        return error

    def _error(self, kind: type[ApiError], answer: Answer, code: str, message: str, advice: str = "") -> ApiError:
        """Build an error that keeps all there is to know of an answer, fit to be shown."""
        code, message, request_id = map(self._clean, (code, message, answer.headers.get("x-request-id", "")))
        text = " ".join(filter(None, [f"HTTP {answer.status}", code, message]))
        if request_id:
            text += f" (request id {request_id})"
        return kind(
            text + advice,
            status=answer.status,
            code=code,
            request_id=request_id or None,
            retry_after=answer.retry_after,
        )

    def warnings(self) -> list[str]:
        """Say where our clock and the server's disagree by more than a minute."""
        if abs(self.skew) <= _SKEW_SECONDS:
            return []
        side = "behind" if self.skew > 0 else "ahead of"
        return [
            f"this machine's clock is {abs(self.skew):.0f} s {side} the API's; ages are judged by this machine's clock"
        ]

    def _clean(self, text: str) -> str:
        return shorten(printable(self._redact(text)), 300)


def _kind_of(status: int, code: str) -> type[ApiError]:
    """Read the vendor's table of errors (see README, "When the API fails")."""
    known: dict[int, type[ApiError]] = {401: CredentialsRefused, 403: Forbidden, 404: NotFound, 429: Throttled}
    if status in known:
        return known[status]
    if status in {500, 502, 503, 504} or (status == requests.codes.conflict and code == _BUSY):
        return Unavailable
    return Unexpected


def _error_of(body: bytes) -> tuple[str, str]:
    """Find code and message in any of the three shapes of an error body; ("", "") where there is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(document, dict):
        return "", ""
    inner = document.get("error")
    pairs = [(document.get("error_code"), document.get("error_msg"))]
    if isinstance(inner, dict):
        pairs.append((inner.get("code"), inner.get("message")))
    for code, message in pairs:
        if isinstance(code, str | int) or isinstance(message, str):
            return str("" if code is None else code), str("" if message is None else message)
    return "", ""


def _backoff(attempt: int) -> float:
    """Full jitter, but never less than a tenth of the step: an immediate retry rarely meets a mended server."""
    step = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0 ** (attempt - 1))
    return random.uniform(step / 10, step)


def _given_up(error: ApiError, attempt: int, wait: float) -> ApiError:
    tries = "1 try" if attempt == 1 else f"{attempt} tries"
    text = f"{error} after {tries}"
    if attempt < TRIES:
        text += f"; the next try would be in {math.ceil(wait)} s, which is too late"
    return type(error)(text, status=error.status, code=error.code, request_id=error.request_id)
