"""Starts other invocations of this function (FunctionGraph, "Executing a Function Asynchronously").

Source: vendor's API reference of FunctionGraph. Not tried against the live service.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from audit.huawei.permissions import START_FUNCTION

if TYPE_CHECKING:
    from audit.huawei.transport import Transport

URN = re.compile(
    r"urn:fss:([a-z0-9-]{1,64}):([A-Za-z0-9_-]{1,64}):function:[A-Za-z0-9_-]+:[A-Za-z0-9_-]+:[A-Za-z0-9._-]+"
)
_ACCEPTED = 202


def project_of(urn: str) -> str:
    """The project that a function is in."""
    return urn.split(":")[3]


class _Started(msgspec.Struct, frozen=True):
    request_id: str = ""


class Functions:
    """Starts invocations of one function, `urn`. Delivery is at least once: what is started may run twice."""

    def __init__(self, transport: Transport, urn: str) -> None:
        self._transport = transport
        self._path = f"/v2/{project_of(urn)}/fgs/functions/{quote(urn, safe=':')}/invocations-async"

    def start(self, event: dict[str, object]) -> str:
        """Start an invocation and return its request id. Raises ApiError."""
        return self._transport.post(self._path, event, _decode, permission=START_FUNCTION, status=_ACCEPTED)


def _decode(body: bytes) -> str:
    return msgspec.json.decode(body, type=_Started).request_id
