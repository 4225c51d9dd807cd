"""What a FunctionGraph invocation gives: settings from user data, the agency's keys, the time left, the event's kind.

Source: vendor's developer guide of FunctionGraph, "Python", "Context methods" and "Event sources". Not tried live.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from audit.errors import OptionsError
from audit.settings import PREFIX, SETTINGS, Surroundings, references_in
from audit.targets import Credentials

if TYPE_CHECKING:
    from collections.abc import Mapping

# Kept of the invocation's time for whatever comes after the run: the platform cuts without warning.
MARGIN_SECONDS = 20.0


class Context(Protocol):
    """The methods of the platform's context object that are used here."""

    def getUserData(self, key: str) -> str | None: ...  # noqa: N802
    def getSecurityAccessKey(self) -> str | None: ...  # noqa: N802
    def getSecuritySecretKey(self) -> str | None: ...  # noqa: N802
    def getSecurityToken(self) -> str | None: ...  # noqa: N802
    def getProjectID(self) -> str | None: ...  # noqa: N802
    def getRemainingTimeInMilliSeconds(self) -> int: ...  # noqa: N802


def environment_of(context: Context, environment: Mapping[str, str]) -> dict[str, str]:
    """The settings of an invocation: user data (plain and encrypted alike) win over the environment."""
    found = {PREFIX + setting.name: context.getUserData(PREFIX + setting.name) for setting in SETTINGS}
    # User data cannot be listed: what settings refer to has to be asked for by name.
    names = references_in(lambda name: str(found[name] or environment.get(name, "")))
    found |= {name: context.getUserData(name) for name in names}
    return {**environment, **{name: str(value) for name, value in found.items() if value}}


def surroundings_of(context: Context) -> Surroundings:
    """What the platform provides besides settings."""
    left = max(1.0, context.getRemainingTimeInMilliSeconds() / 1000 - MARGIN_SECONDS)
    return Surroundings(
        project_id=context.getProjectID() or "",
        store="",
        time_limit=left,
        most_time=left,
        keys=keys_of(context),
        renew=lambda: keys_of(context),
    )


def keys_of(context: Context) -> Credentials:
    """The keys of the function's agency as they are now: the platform may renew them in a long run."""
    return Credentials(
        ak=context.getSecurityAccessKey() or "",
        sk=context.getSecuritySecretKey() or "",
        security_token=context.getSecurityToken() or None,
    )


class Invocation(msgspec.Struct, frozen=True):
    """`options` as JSON data, not checked yet; `http` where the caller waits for an HTTP answer."""

    options: Any
    mode: str
    http: bool


def is_http(event: object) -> bool:
    """Whether an event is API Gateway's."""
    return isinstance(event, dict) and "httpMethod" in event


def parse_event(event: object) -> Invocation:
    """Read an event of a timer, of API Gateway, or by hand. Raises OptionsError."""
    if isinstance(event, dict) and is_http(event):
        return Invocation(_options_in(_http_body(event), "the request body"), "manual", http=True)
    if isinstance(event, dict) and event.get("trigger_type") == "TIMER":
        return Invocation(_options_in(event.get("user_event") or "", "user_event"), "scheduled", http=False)
    return Invocation({} if event is None else event, "manual", http=False)


def _http_body(event: dict[str, Any]) -> object:
    body = event.get("body") or ""
    if not event.get("isBase64Encoded") or not isinstance(body, str):
        return body
    try:
        return base64.b64decode(body, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise OptionsError(["the request body is not base64 of UTF-8 text, though isBase64Encoded says so"]) from None


def _options_in(text: object, where: str) -> object:
    if not isinstance(text, str):
        return text
    if not text.strip():
        return {}
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise OptionsError(
            [f'{where} is not JSON; run options are a JSON object such as {{"dry_run": true}}']
        ) from None
