"""Stand-ins for seven chat services: each checks a delivery as its vendor describes and answers as the real one does.

Refusals come with HTTP 200 where the real one sends them so. What the vendors do not say is marked (T) in `services`.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import TYPE_CHECKING

from tests.emulator.loopback import LoopbackServer
from tests.emulator.receiver import Delivery
from tests.emulator.services import SERVICES, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.emulator.wire import Answer, Request

WINDOW = 60.0
CHAT_KINDS = tuple(SERVICES)


class ChatService(LoopbackServer):
    """Listens at `url` as one kind of service; `secret` switches its signature check on.

    `keyword`, where set, must stand in every message, as robots can be told to require.
    """

    def __init__(self, kind: str, secret: str | None = None, clock: Callable[[], float] = time.time) -> None:
        super().__init__(self._receive, 0)
        self.kind = kind
        self.service = SERVICES[kind]
        self.secret = secret
        self.keyword = ""
        self.deliveries: list[Delivery] = []
        self.queries: list[str] = []
        """The raw query of each delivery."""
        self.answers: deque[Answer] = deque()
        """What to answer next instead of judging."""
        self._clock = clock
        self._arrivals: deque[float] = deque()
        self._blocked_until = 0.0
        self._lock = Lock()

    @property
    def url(self) -> str:
        """Where to deliver, token and all."""
        return self.origin + self.service.target

    def _receive(self, request: Request) -> AbstractContextManager[Answer]:
        with self._lock:
            problem, verified = None, False
            if self.answers:
                answer = self.answers.popleft()
            else:
                try:
                    self._count()
                    self.service.check(request, self.secret, self.keyword, self._clock())
                    answer, verified = self.service.taken(request), self.secret is not None
                except Refusal as refusal:
                    answer, problem = refusal.answer, str(refusal)
            self.queries.append(request.query)
            self.deliveries.append(Delivery(request.headers, request.body, answer.status, verified, problem))
        return nullcontext(answer)

    def _count(self) -> None:
        """Refuse what comes too fast; some services then want to hear nothing at all for a while."""
        now = self._clock()
        while self._arrivals and self._arrivals[0] <= now - WINDOW:
            self._arrivals.popleft()
        self._arrivals.append(now)
        if len(self._arrivals) > self.service.most_a_minute:
            self._blocked_until = now + self.service.blocked_for
            raise self.service.too_fast()
        if now < self._blocked_until:
            raise self.service.too_fast()


def chat(kind: str, secret: str | None = None, clock: Callable[[], float] = time.time) -> ChatService:
    """Be a chat service on 127.0.0.1 while the block runs."""
    return ChatService(kind, secret, clock)
