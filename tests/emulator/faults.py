"""Faults on demand: what a network, a proxy or a service under strain does to an answer.

`strike` gets the honest answer as a function: a fault that replaces it never calls it, so that the request changes
nothing. It returns what is sent instead, or raises `ApiError`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Protocol

from tests.emulator import errors
from tests.emulator.wire import Answer

if TYPE_CHECKING:
    from tests.emulator.api import Call

Honest = Callable[[], Answer]


class Fault(Protocol):
    """One way for a request to go wrong."""

    def strike(self, honest: Honest) -> Answer:
        """What is sent in place of the honest answer. Raises `ApiError` for an error of the service."""
        ...


@dataclass(frozen=True)
class Throttled:
    """429 APIG.0308; `retry_after` is seconds, a time, or a text sent as it is."""

    retry_after: float | str | datetime | None = None

    def strike(self, honest: Honest) -> Answer:
        raise errors.throttled(headers={} if self.retry_after is None else {"Retry-After": self._header()})

    def _header(self) -> str:
        if isinstance(self.retry_after, datetime):
            return format_datetime(self.retry_after, usegmt=True)
        return str(self.retry_after)


@dataclass(frozen=True)
class Unauthorized:
    """401."""

    code: str = "APIC.7102"

    def strike(self, honest: Honest) -> Answer:
        raise errors.unauthorized(self.code)


@dataclass(frozen=True)
class Forbidden:
    """403."""

    code: str = "APIC.7106"

    def strike(self, honest: Honest) -> Answer:
        raise errors.forbidden(self.code)


@dataclass(frozen=True)
class NotFound:
    """404; the default says that the gateway is gone."""

    code: str = "APIC.7302"

    def strike(self, honest: Honest) -> Answer:
        raise errors.not_found(self.code)


@dataclass(frozen=True)
class Busy:
    """409 APIC.7701."""

    def strike(self, honest: Honest) -> Answer:
        raise errors.busy()


@dataclass(frozen=True)
class ServerError:
    """500."""

    code: str = "APIC.9007"

    def strike(self, honest: Honest) -> Answer:
        raise errors.server_error(self.code)


@dataclass(frozen=True)
class IamError:
    """An error in the layout of the identity service: `{"error": {"code", "message"}}`.

    Its own call answers the status as the code, and a `title`.
    """

    status: int = 401
    code: str | int = "IAM.0001"
    message: str = "The request is invalid"

    def strike(self, honest: Honest) -> Answer:
        raise errors.ApiError(self.status, self.code, self.message, shape="iam")


@dataclass(frozen=True)
class Body:
    """Any answer at all."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"

    def strike(self, honest: Honest) -> Answer:
        return Answer(self.status, {"Content-Type": self.content_type}, self.body)


@dataclass(frozen=True)
class HtmlError:
    """An error page of a proxy in between."""

    status: int = 502

    def strike(self, honest: Honest) -> Answer:
        page = f"<html><head><title>{self.status}</title></head><body><h1>{self.status}</h1></body></html>\r\n"
        return Answer(self.status, {"Content-Type": "text/html"}, page.encode())


@dataclass(frozen=True)
class Redirect:
    """Sends the client to another URL."""

    url: str
    status: int = 302

    def strike(self, honest: Honest) -> Answer:
        return Answer(self.status, {"Location": self.url, "Content-Type": "text/html"})


@dataclass(frozen=True)
class Oversize:
    """The honest answer, still good JSON, blown up with spaces to `n_bytes`."""

    n_bytes: int

    def strike(self, honest: Honest) -> Answer:
        answer = honest()
        return replace(answer, body=answer.body.ljust(self.n_bytes))


@dataclass(frozen=True)
class Reset:
    """The connection is reset before anything is answered."""

    def strike(self, honest: Honest) -> Answer:
        return Answer(0, broken="reset")


@dataclass(frozen=True)
class Truncated:
    """The honest answer ends half way through its stated length."""

    def strike(self, honest: Honest) -> Answer:
        return replace(honest(), broken="truncated")


@dataclass(frozen=True)
class Slow:
    """The honest answer, `seconds` late."""

    seconds: float

    def strike(self, honest: Honest) -> Answer:
        return replace(honest(), delay=self.seconds)


@dataclass(frozen=True)
class Drip:
    """The honest answer, one byte of the body at a time."""

    seconds_per_byte: float

    def strike(self, honest: Honest) -> Answer:
        return replace(honest(), drip=self.seconds_per_byte)


@dataclass
class Planned:
    """A fault with the requests that it strikes; None matches everything."""

    fault: Fault
    gateway_id: str | None = None
    kind: str | None = None
    offset: int | None = None
    times: int | None = 1
    """How often it still strikes; None is forever."""
    after: int = 0
    """How many matching requests it still lets pass."""
    project_id: str | None = None
    hits: int = field(default=0, init=False)

    def takes(self, call: Call) -> bool:
        """Whether this fault strikes a request; counts it."""
        if self.times == 0 or not self._matches(call):
            return False
        if self.after > 0:
            self.after -= 1
            return False
        self.hits += 1
        if self.times is not None:
            self.times -= 1
        return True

    def _matches(self, call: Call) -> bool:
        names = ("kind", "project_id", "gateway_id", "offset")
        return all(getattr(self, name) in (None, getattr(call, name)) for name in names)
