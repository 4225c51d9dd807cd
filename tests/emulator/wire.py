"""Requests and answers as they cross the wire, whichever front end carries them; no behaviour of the service."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Mapping

Break = Literal["reset", "truncated"]


@dataclass(frozen=True)
class Request:
    """A request as received.

    `path` is still percent-encoded and without the query; `query` is the raw text after `?`;
    `headers` have lower-case names.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The query's decoded pairs in the order sent, repeated and blank ones included."""
        return parse_qsl(self.query, keep_blank_values=True)


@dataclass(frozen=True)
class Answer:
    """What goes back: a status, headers and a body, and how the transport is to misbehave on the way."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay: float = 0.0
    """Seconds to wait before the first byte."""
    drip: float = 0.0
    """Seconds to wait before each byte of the body."""
    broken: Break | None = None
    """`reset` answers nothing and resets the connection; `truncated` ends it half way through the body."""

    @property
    def sent(self) -> bytes:
        """The part of the body that goes out; shorter than the stated length when the answer is truncated."""
        return self.body[: len(self.body) // 2] if self.broken == "truncated" else self.body

    def json(self) -> Any:
        """The body as JSON. Raises ValueError if it is not."""
        return json.loads(self.body)


def json_answer(status: int, document: object, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer whose body is `document` as JSON."""
    return Answer(status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(document).encode())
