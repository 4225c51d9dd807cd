"""What every kind of receiver consists of: a pure builder of one request and a pure judge of its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from audit.notify import Message

JSON_TYPE = "application/json; charset=utf-8"


class Post(msgspec.Struct, frozen=True):
    """One request. `query` is added to that of the receiver's URL."""

    body: bytes
    headers: Mapping[str, str] = msgspec.field(default_factory=lambda: {"Content-Type": JSON_TYPE})
    query: Mapping[str, str] = msgspec.field(default_factory=dict)


class Reply(msgspec.Struct, frozen=True):
    """What the service said. `retry_after` in seconds, None where its headers name no time."""

    status: int
    body: bytes
    retry_after: float | None = None

    def member(self, name: str) -> Any:  # noqa: ANN401  (whatever JSON may hold)
        """Return a member of a JSON object; None where the body is none, or has no such member."""
        try:
            value = msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return value.get(name) if isinstance(value, dict) else None


class Verdict(msgspec.Struct, frozen=True):
    """What an answer means. `again`: try once more, not before `seconds`; `gone`: send no more to this URL.

    An answer that is not known to be success is a refusal.
    """

    outcome: Literal["delivered", "again", "refused", "gone"]
    seconds: float = 0.0


DELIVERED, REFUSED, GONE = Verdict("delivered"), Verdict("refused"), Verdict("gone")
Classifier: TypeAlias = "Callable[[Reply], Verdict]"
# Takes the message, the signing secret, and the time in seconds since 1970.
Builder: TypeAlias = "Callable[[Message, str | None, float], Post]"


def json_post(value: object, query: Mapping[str, str] | None = None) -> Post:
    """Make a request of plain data."""
    return Post(msgspec.json.encode(value), query=query or {})


def judge_status(reply: Reply, *, success: bool, busy: Collection[int] = (429,)) -> Verdict:
    """Judge by the HTTP status: what is busy or broken may take it later, all else that is no success never will."""
    if success:
        return DELIVERED
    if reply.status in busy or reply.status >= 500:
        return Verdict("again", reply.retry_after or 0.0)
    return REFUSED


def judge_code(member: str, success: int | str, again: Collection[int | str] = ()) -> Classifier:
    """Make a judge for services that say "refused" in the body of a HTTP 200: only the code of success is success."""

    def classify(reply: Reply) -> Verdict:
        code = reply.member(member)
        if isinstance(code, int | str) and code in again:
            return Verdict("again", reply.retry_after or 0.0)
        # True equals 1 and False equals 0, but neither is a code.
        return judge_status(reply, success=reply.status == 200 and type(code) is type(success) and code == success)

    return classify
