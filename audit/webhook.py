"""Posts messages to receivers: https, no redirects, bounded tries; the URL is a secret and is never named."""

from __future__ import annotations

import logging
import random
import time
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests

from audit.deadline import Deadline
from audit.errors import DeliveryError
from audit.exchange import Answer, ExchangeError, HttpClient
from audit.render import generic
from audit.text import printable, shorten

if TYPE_CHECKING:
    from audit.notify import Message
    from audit.receivers import Receiver
    from audit.text import Redactor

TRIES = 3
# One receiver may take this long at most, so that one that hangs does not use up the time of the others.
SECONDS = 60.0
_MOST_BYTES = 16_384
_SHORTEST_BACKOFF = 0.1
_LONGEST_BACKOFF = 4.0
log = logging.getLogger(__name__)


class WebhookSender:
    """Delivers a message to a receiver of kind `generic`."""

    def __init__(self, deadline: Deadline, redact: Redactor) -> None:
        self._deadline = deadline
        self._redact = redact

    def deliver(self, receiver: Receiver, message: Message) -> None:
        """Return once the receiver took the message. Raises DeliveryError; then the message is still due."""
        body = generic.build_body(message)
        deadline = Deadline(min(self._deadline.left(), SECONDS))
        parts = urlsplit(receiver.url)
        with closing(HttpClient(f"{parts.scheme}://{parts.netloc}", 1)) as client:
            for attempt in range(1, TRIES + 1):
                try:
                    self._post(client, receiver, message.delivery_id, body, deadline.left())
                except _TryAgain as again:
                    wait = max(random.uniform(_SHORTEST_BACKOFF, _LONGEST_BACKOFF), again.seconds)
                    if attempt == TRIES or wait >= deadline.left():
                        tries = "1 try" if attempt == 1 else f"{attempt} tries"
                        late = (
                            ""
                            if attempt == TRIES or not again.seconds
                            else f"; the next would be in {wait:.0f} s, which is too late"
                        )
                        raise DeliveryError(f"{again} after {tries}{late}") from None
                    log.info("receiver %s: %s; trying again in %.1f s", receiver.name, again, wait)
                    time.sleep(wait)
                else:
                    return

    def _post(self, client: HttpClient, receiver: Receiver, delivery_id: str, body: bytes, seconds: float) -> None:
        # Signed anew each time: receivers refuse old timestamps.
        headers = generic.build_headers(delivery_id, int(time.time()), body, receiver.secret)
        request = requests.Request("POST", receiver.url, data=body, headers=dict(headers))
        try:
            # The status tells; of what is said besides, an excerpt will do.
            answer = client.exchange(request, seconds=seconds, max_bytes=_MOST_BYTES, whole=False)
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
            raise _TryAgain(text, answer.retry_after or 0.0)
        raise DeliveryError(text, gone=answer.status == requests.codes.gone)


class _TryAgain(Exception):
    """The receiver may take it later, but not before `seconds` have passed."""

    def __init__(self, text: str, seconds: float = 0.0) -> None:
        super().__init__(text)
        self.seconds = seconds
