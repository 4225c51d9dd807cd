"""The `generic` receiver: a CloudEvents 1.0 event in structured JSON, signed as Standard Webhooks describes.

Sources: CloudEvents 1.0.2, "JSON Event Format"; Standard Webhooks 1.0.0, "Signature scheme".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import TYPE_CHECKING, Any

import msgspec

from audit.model import OPEN
from audit.notify import Message, build_payload
from audit.render.ocsf import build_event
from audit.render.post import GONE, Post, Reply, Verdict, judge_status
from audit.text import shorten

if TYPE_CHECKING:
    from collections.abc import Mapping

LARGEST_BODY = 20_000
CONTENT_TYPE = "application/cloudevents+json"
_LISTS = ("findings", "not_covered", "rules_not_evaluated", "problems")
_LONGEST_TEXT = 300
# Of a link, in bytes, where not everything fits: one with a token of temporary keys may be long, but is worth nothing
# when it is cut.
_LONGEST_LINK = 5_000
_SECRET_PREFIX = "whsec_"  # noqa: S105  (the public mark of such secrets)
_BUSY = frozenset({408, 425, 429})


def build(message: Message, secret: str | None, now: float) -> Post:
    """Build the request, signed where there is a secret."""
    body = build_body(message)
    return Post(body, build_headers(message.delivery_id, int(now), body, secret))


def classify(reply: Reply) -> Verdict:
    """Any 2xx is success, 3xx is failure, 410 means no more."""
    return GONE if reply.status == 410 else judge_status(reply, success=200 <= reply.status < 300, busy=_BUSY)


def build_body(message: Message) -> bytes:
    """Build the event; what does not fit is shortened, then left out and counted, the longest list first.

    A link to the report that is too long is left out whole.
    """
    data = build_payload(message)
    data |= {f"{name}_left_out": 0 for name in (*_LISTS[1:], "report")}
    data["findings"] = [build_event(finding) for finding in message.findings]
    body = _event(message, data)
    if len(body) > LARGEST_BODY:
        data |= {name: _shortened(data[name]) for name in ("headline", *_LISTS)}
        if len(msgspec.json.encode(data["report"])) > _LONGEST_LINK:
            data |= {"report": "", "report_left_out": 1}
        body = _event(message, data)
    while len(body) > LARGEST_BODY and any(data[name] for name in _LISTS):
        longest = max(_LISTS, key=lambda name: len(msgspec.json.encode(data[name])))
        kept = data[longest][: len(data[longest]) * 4 // 5]
        dropped = data[longest][len(kept) :]
        # Resolved findings stand behind the open ones, and are counted among the changes.
        data[f"{longest}_left_out"] += sum(longest != "findings" or entry["status_code"] in OPEN for entry in dropped)
        data[longest] = kept
        body = _event(message, data)
    return body


def _shortened(value: object) -> object:
    """Shorten every text in plain data."""
    if isinstance(value, str):
        return shorten(value, _LONGEST_TEXT)
    if isinstance(value, dict):
        return {name: _shortened(inner) for name, inner in value.items()}
    return [_shortened(inner) for inner in value] if isinstance(value, list) else value


def _event(message: Message, data: dict[str, Any]) -> bytes:
    event = {
        "specversion": "1.0",
        "id": message.delivery_id,
        "source": "apig-vpcep-audit",
        "type": "apig-vpcep-audit.run.v1",
        "subject": message.run_id,
        "time": message.now,
        "datacontenttype": "application/json",
        "data": data,
    }
    return msgspec.json.encode(event)


def parse_secret(secret: str) -> bytes:
    """Return the key in a `whsec_<base64>` secret. Raises ValueError."""
    if not secret.startswith(_SECRET_PREFIX):
        raise ValueError('it must begin with "whsec_", followed by base64')
    try:
        key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError('what follows "whsec_" is not base64') from None
    if not key:
        raise ValueError('nothing follows "whsec_"')
    return key


def build_headers(delivery_id: str, timestamp: int, body: bytes, secret: str | None) -> Mapping[str, str]:
    """Build the headers of one delivery; `timestamp` in seconds; without a secret there is no signature."""
    headers = {"Content-Type": CONTENT_TYPE, "webhook-id": delivery_id, "webhook-timestamp": str(timestamp)}
    if secret:
        signed = b".".join((delivery_id.encode(), str(timestamp).encode(), body))
        digest = hmac.new(parse_secret(secret), signed, hashlib.sha256).digest()
        headers["webhook-signature"] = "v1," + base64.b64encode(digest).decode()
    return headers
