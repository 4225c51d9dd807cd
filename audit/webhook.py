"""Posts messages to receivers: https, no redirects, bounded tries; the URL is a secret and is never named."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests

from audit.errors import DeliveryError
from audit.exchange import Answer, ExchangeError, HttpClient
from audit.render import generic
from audit.text import printable, shorten

if TYPE_CHECKING:
    from audit.deadline import Deadline
    from audit.notify import Message
    from audit.text import Redactor

TRIES = 3
_MOST_BYTES = 65_536
_LONGEST_BACKOFF = 4.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Receiver:
    """Who is told. `url` and `secret` are secrets; `min_severity` is the least that it hears of."""

    name: str
    kind: str
    url: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)
    min_severity: str = "low"

    @property
    def url_hash(self) -> str:
        return sha256(self.url.encode()).hexdigest()


class WebhookSender:
    """Delivers a message to a receiver of kind `generic`."""

    def __init__(self, deadline: Deadline, redact: Redactor) -> None:
        self._deadline = deadline
        self._redact = redact

    def deliver(self, receiver: Receiver, message: Message) -> None:
        """Return once the receiver took the message. Raises DeliveryError; then the message is still due."""
        body = generic.build_body(message)
        parts = urlsplit(receiver.url)
        client = HttpClient(f"{parts.scheme}://{parts.netloc}", 1)
        try:
            for attempt in range(1, TRIES + 1):
                try:
                    self._post(client, receiver, message.delivery_id, body)
                except _TryAgain as again:
                    wait = again.seconds if again.seconds is not None else random.uniform(0.1, _LONGEST_BACKOFF)
                    if attempt == TRIES or wait >= self._deadline.left():
                        tries = "1 try" if attempt == 1 else f"{attempt} tries"
                        raise DeliveryError(f"{again} after {tries}") from None
                    log.info("receiver %s: %s; trying again in %.1f s", receiver.name, again, wait)
                    time.sleep(wait)
                else:
                    return
        finally:
            client.close()

    def _post(self, client: HttpClient, receiver: Receiver, delivery_id: str, body: bytes) -> None:
        if not self._deadline.left():
            raise DeliveryError("no time was left to deliver it")
        # Signed anew each time: receivers refuse old timestamps.
        headers = generic.build_headers(delivery_id, int(time.time()), body, receiver.secret)
        request = requests.Request("POST", receiver.url, data=body, headers=dict(headers))
        try:
            answer = client.exchange(request, seconds=self._deadline.left(), max_bytes=_MOST_BYTES)
        except ExchangeError as error:
            raise _TryAgain(str(error)) from None
        self._judge(answer)

    def _judge(self, answer: Answer) -> None:
        """Raise unless the receiver took it: any 2xx is success, 3xx is failure, 410 means no more."""
        if 200 <= answer.status < 300:
            return
        said = shorten(printable(self._redact(answer.body.decode("utf-8", "replace"))), 200)
        text = f"HTTP {answer.status}" + (f" {said}" if said else "")
        if answer.status in {408, 425, 429} or answer.status >= 500:
            raise _TryAgain(text, answer.retry_after)
        raise DeliveryError(text, gone=answer.status == requests.codes.gone)


class _TryAgain(Exception):
    """The receiver may take it later; `seconds` where it said when."""

    def __init__(self, text: str, seconds: float | None = None) -> None:
        super().__init__(text)
        self.seconds = seconds
