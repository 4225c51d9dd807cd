"""Posts messages to receivers: https, no redirects, bounded tries; the URL is a secret and is never named."""

from __future__ import annotations

import logging
import random
import time
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

import requests

from audit.deadline import Deadline
from audit.errors import DeliveryError, UsageError
from audit.exchange import Answer, ExchangeError, HttpClient
from audit.render.kinds import KINDS
from audit.render.post import Reply
from audit.text import Redactor, printable, shorten

if TYPE_CHECKING:
    from collections.abc import Mapping

    from audit.notify import Message
    from audit.receivers import Receiver

TRIES = 3
# One receiver may take this long at most, so that one that hangs does not use up the time of the others.
SECONDS = 60.0
_MOST_BYTES = 16_384
_LONGEST_EXCERPT = 200
_SHORTEST_BACKOFF = 0.1
_LONGEST_BACKOFF = 4.0
log = logging.getLogger(__name__)


class WebhookSender:
    """Delivers messages; of the time left, each of `receivers` gets a fair share."""

    def __init__(self, deadline: Deadline, redact: Redactor, receivers: int = 1) -> None:
        self._deadline = deadline
        self._redact = redact
        self._waiting = receivers

    def deliver(self, receiver: Receiver, message: Message) -> str:
        """Return what was answered, fit to be shown, once the receiver took the message.

        Raises DeliveryError; then the message is still due.
        """
        deadline = Deadline(min(self._deadline.left() / max(1, self._waiting), SECONDS))
        self._waiting -= 1
        parts = urlsplit(receiver.url)
        try:
            http = HttpClient(f"{parts.scheme}://{parts.netloc}", 1)
        except UsageError as error:
            raise DeliveryError(str(error)) from None
        with closing(http) as client:
            for attempt in range(1, TRIES + 1):
                try:
                    return self._try(client, receiver, message, deadline.left())
                except _TryAgain as again:
                    wait = max(random.uniform(_SHORTEST_BACKOFF, _LONGEST_BACKOFF), again.seconds)
                    said = f"{again} after {attempt} {'try' if attempt == 1 else 'tries'}"
                    if attempt < TRIES and again.seconds and wait >= deadline.left():
                        raise DeliveryError(f"{said}; the next would be in {wait:.0f} s, which is too late") from None
                    if attempt == TRIES or wait >= deadline.left():
                        raise DeliveryError(said) from None
                    log.info("receiver %s: %s; trying again in %.1f s", receiver.name, again, wait)
                    time.sleep(wait)
        raise AssertionError("the loop returns or raises")

    def _try(self, client: HttpClient, receiver: Receiver, message: Message, seconds: float) -> str:
        """Post once; built and signed anew each time, as receivers refuse old timestamps."""
        kind = KINDS[receiver.kind]
        post = kind.build(message, receiver.secret, time.time())
        url = _with_query(receiver.url, post.query)
        request = requests.Request("POST", url, data=post.body, headers=dict(post.headers))
        try:
            # Of an answer that is cut short or too long, what there is will do.
            answer = client.exchange(request, seconds=seconds, max_bytes=_MOST_BYTES, whole=False)
        except ExchangeError as error:
            raise _TryAgain(str(error)) from None
        verdict = kind.classify(Reply(answer.status, answer.body, answer.retry_after))
        text = self._describe(answer, url, message)
        if verdict.outcome == "again":
            raise _TryAgain(text, verdict.seconds)
        if verdict.outcome == "refused" and answer.status < 300 and not answer.whole:
            raise _TryAgain(f"{text} (cut short)")
        if verdict.outcome != "delivered":
            raise DeliveryError(text, gone=verdict.outcome == "gone")
        return text

    def _describe(self, answer: Answer, url: str, message: Message) -> str:
        """Say what was answered, in short, without what the query was signed with and what may open the report."""
        more = Redactor([url, *([message.standing.report_url] if message.standing else [])])
        # Before anything is cut or escaped: half a secret would not be known for one.
        said = printable(more(self._redact(answer.body.decode("utf-8", "replace"))))
        return f"HTTP {answer.status} {shorten(said, _LONGEST_EXCERPT)}".strip()


def _with_query(url: str, more: Mapping[str, str]) -> str:
    """Add parameters to a URL; those that it has already stay as they are."""
    query = urlsplit(url).query
    known = {name for name, _ in parse_qsl(query, keep_blank_values=True)}
    added = urlencode({name: value for name, value in more.items() if name not in known})
    return f"{url.rstrip('?')}{'&' if query else '?'}{added}" if added else url


class _TryAgain(Exception):
    """The receiver may take it later, but not before `seconds` have passed."""

    def __init__(self, text: str, seconds: float = 0.0) -> None:
        super().__init__(text)
        self.seconds = seconds
