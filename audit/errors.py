"""Every error that the product raises on purpose; each says what failed, where, and what to do next.

AuditError
├── UsageError           settings, rules or policy are wrong: exit code 2, before anything is read
│   └── OptionsError     the run options of this one call are wrong (HTTP 400)
├── ApiError             the API did not give what was asked for; becomes a coverage fact
│   ├── CredentialsRefused   401: never retried, ends all reading
│   ├── Forbidden            403: an IAM action is missing
│   ├── NotFound             404
│   ├── Throttled            429: slows every worker
│   ├── Unavailable          worth another try: busy, 5xx, no connection, an answer that makes no sense
│   ├── Unexpected           an answer outside the vendor's table: not retried
│   └── OutOfTime            the run's time is up
├── StoreError           the store cannot be read or written: exit code 4
│   ├── StateError       what the previous run left is unreadable: exit code 4
│   └── Overtaken        another run was recorded meanwhile: exit code 4
└── DeliveryError        a receiver did not take a message; what it said is due again next time
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class AuditError(Exception):
    """Base of all errors below; its text is fit to be shown to a person."""


class UsageError(AuditError):
    """Something that a person wrote is wrong; `problems` holds one line for each mistake."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class OptionsError(UsageError):
    """The run options of this call are wrong."""


class ApiError(AuditError):
    """A request to the API failed.

    `status` is None where no answer came; `code` and `request_id` are "" and None where the answer held none;
    `retry_after` is in seconds, None where the server named no time.
    """

    retryable = False

    def __init__(
        self,
        text: str,
        *,
        status: int | None = None,
        code: str = "",
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.text = text
        self.status = status
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after
        super().__init__(text)


class CredentialsRefused(ApiError):
    """401. More than five wrong signatures lock an access key for five minutes, so one refusal ends the reading."""


class Forbidden(ApiError):
    """403: the credentials are right, their permissions are not."""


class NotFound(ApiError):
    """404; `code` tells a missing gateway (APIC.7302) from a gateway without endpoint service (APIC.7314)."""


class Throttled(ApiError):
    """429."""

    retryable = True


class Unavailable(ApiError):
    """The service is busy or broken, cannot be reached, or answers what makes no sense: try again."""

    retryable = True


class Unexpected(ApiError):
    """An answer that the vendor's documents do not speak of."""


class OutOfTime(ApiError):
    """The time limit of the run came before the answer."""


class StoreError(AuditError):
    """The store cannot be read or written. `short` is the reason of the exit code."""

    short = "the run could not be recorded"


class StateError(StoreError):
    """What the previous run left cannot be read, or is not what it says it is."""

    short = "what the previous run left is unreadable"


class Overtaken(StoreError):
    """Another run was recorded while this one was reading; to record this one too would hide what that one found."""

    short = "another run was recorded meanwhile"


class Unsure(StoreError):
    """The pointer was written, but whether that took effect could not be seen; the next run takes up what it finds."""

    short = "whether the run was recorded cannot be told"


class Unencrypted(StoreError):
    """Something was written, but OBS did not encrypt it with the key that was asked for."""

    short = "what was stored is not encrypted as asked"


class DeliveryError(AuditError):
    """A receiver refused a message or could not be reached.

    `gone` is true where the receiver asked for no more messages to this URL.
    """

    def __init__(self, text: str, *, gone: bool = False) -> None:
        self.gone = gone
        super().__init__(text)
