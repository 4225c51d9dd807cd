"""Borrows the keys of an agency of another account (IAM, "Obtaining Temporary Access Keys Through an Agency").

Source: vendor's API reference of IAM, `POST /v3.0/OS-CREDENTIAL/securitytokens`. Not tried against the live service.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import msgspec

from audit.errors import ApiError, Unexpected
from audit.huawei.permissions import ASSUME_AGENCY
from audit.targets import Credentials

if TYPE_CHECKING:
    from collections.abc import Callable

    from audit.huawei.transport import Transport
    from audit.targets import Agency

_PATH = "/v3.0/OS-CREDENTIAL/securitytokens"
_CREATED = 201
_SECONDS = 3600
# Renewed this long before they end: a request that is under way must still find them good.
_SPARE = timedelta(minutes=5)


class _Keys(msgspec.Struct, frozen=True):
    access: str
    secret: str
    securitytoken: str
    expires_at: datetime


class _Answer(msgspec.Struct, frozen=True):
    credential: _Keys


def _now() -> datetime:
    return datetime.now(timezone.utc)


class AssumedAgency:
    """Gives the keys of an agency, asked for when they are needed first and again before they end.

    `learn` hears every secret before anything else does. A call raises ApiError, which is not worth another try.
    """

    def __init__(
        self,
        transport: Transport,
        agency: Agency,
        learn: Callable[[tuple[str, ...]], None],
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._transport = transport
        self._agency = agency
        self._learn = learn
        self._now = now
        self._lock = threading.Lock()
        self._keys: _Keys | None = None
        self._refusal: ApiError | None = None

    def __call__(self) -> Credentials:
        with self._lock:
            if self._refusal:
                raise self._refusal
            if self._keys is None or self._keys.expires_at - self._now() < _SPARE:
                self._keys = self._assume()
            return Credentials(self._keys.access, self._keys.secret, self._keys.securitytoken)

    def _assume(self) -> _Keys:
        agency = self._agency
        wanted = {"agency_name": agency.name, "domain_name": agency.domain, "duration_seconds": _SECONDS}
        document = {"auth": {"identity": {"methods": ["assume_role"], "assume_role": wanted}}}
        try:
            answer = self._transport.post(_PATH, document, _decode, permission=ASSUME_AGENCY, status=_CREATED)
        except ApiError as error:
            # Said once for all requests that wait for it; asking again for each would only add to the trouble.
            self._refusal = Unexpected(
                f'the agency "{agency.name}" of account "{agency.domain}" could not be assumed: {error}',
                status=error.status,
                code=error.code,
                request_id=error.request_id,
            )
            raise self._refusal from None
        self._learn((answer.access, answer.secret, answer.securitytoken))
        return answer


def _decode(body: bytes) -> _Keys:
    keys = msgspec.json.decode(body, type=_Answer).credential
    if keys.expires_at.tzinfo is None:
        raise ValueError("`expires_at` has no time zone")
    return keys
