"""A stand-in for a webhook receiver: records deliveries and checks Standard Webhooks signatures by itself."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from tests.emulator.loopback import LoopbackServer
from tests.emulator.wire import Answer, Request, json_answer

if TYPE_CHECKING:
    from collections.abc import Mapping

PATH = "/hook"
SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
TOLERANCE = 300
_PREFIX = "whsec_"


@dataclass(frozen=True)
class Delivery:
    """One request that arrived; `headers` have lower-case names."""

    headers: Mapping[str, str]
    body: bytes
    status: int
    """What was answered."""
    verified: bool
    """Whether a signature was checked and held."""
    problem: str | None = None
    """Why the delivery was refused."""

    def json(self) -> Any:
        """The body as JSON. Raises ValueError if it is not."""
        return json.loads(self.body)


class Receiver(LoopbackServer):
    """Listens for POSTs at `url`. Wrong signatures get 401 and do not use up `answers`."""

    def __init__(self, secret: str | None = SECRET, port: int = 0) -> None:
        super().__init__(self._receive, port)
        self.secret = secret
        """None checks no signatures."""
        self.deliveries: list[Delivery] = []
        self.answers: deque[int | Answer] = deque()
        """What to answer next, a status or a whole answer; 204 once this is empty."""
        self._lock = Lock()

    @property
    def url(self) -> str:
        """Where to deliver."""
        return self.origin + PATH

    def _receive(self, request: Request) -> AbstractContextManager[Answer]:
        with self._lock:
            status, problem = self._find_problem(request)
            answer = json_answer(status, {"error": problem}) if problem else self._next_answer()
            verified = self.secret is not None and problem is None
            self.deliveries.append(Delivery(request.headers, request.body, answer.status, verified, problem))
        return nullcontext(answer)

    def _find_problem(self, request: Request) -> tuple[int, str | None]:
        if request.method != "POST" or request.path != PATH:
            return 404, f"{request.method} {request.path} is unknown; known: POST {PATH}"
        if self.secret is None:
            return 204, None
        return 401, find_signature_problem(self.secret, request.headers, request.body)

    def _next_answer(self) -> Answer:
        answer = self.answers.popleft() if self.answers else 204
        return answer if isinstance(answer, Answer) else Answer(answer)


def receive(secret: str | None = SECRET, port: int = 0) -> AbstractContextManager[Receiver]:
    """Receive webhooks on 127.0.0.1 while the block runs; port 0 takes a free one."""
    return Receiver(secret, port)


def find_signature_problem(secret: str, headers: Mapping[str, str], body: bytes) -> str | None:
    """What is wrong with the Standard Webhooks headers (lower-case names) of a body; None if nothing is."""
    missing = [name for name in ("webhook-id", "webhook-timestamp", "webhook-signature") if name not in headers]
    if missing:
        return f"missing: {', '.join(missing)}"
    identity, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > TOLERANCE:
        return f"webhook-timestamp {timestamp!r} is not within {TOLERANCE} seconds"
    expected = f"v1,{sign(secret, identity, timestamp, body)}"
    # Several signatures may be given, separated by spaces, while a secret is being replaced.
    if not any(hmac.compare_digest(expected, given) for given in headers["webhook-signature"].split(" ")):
        return "webhook-signature does not hold"
    return None


def sign(secret: str, identity: str, timestamp: str, body: bytes) -> str:
    """The Standard Webhooks signature of a delivery, in base64."""
    key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    text = f"{identity}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
