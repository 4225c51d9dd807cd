"""The `generic` receiver: a CloudEvents 1.0 event in structured JSON, signed as Standard Webhooks describes.

Sources: CloudEvents 1.0.2, "JSON Event Format"; Standard Webhooks 1.0.0, "Signature scheme".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import TYPE_CHECKING

import msgspec

from audit.notify import MOST_FINDINGS, Message, build_payload

if TYPE_CHECKING:
    from collections.abc import Mapping

LARGEST_BODY = 20_000
CONTENT_TYPE = "application/cloudevents+json"
_SECRET_PREFIX = "whsec_"  # noqa: S105  (the public mark of such secrets)


def build_body(message: Message) -> bytes:
    """Build the event, with as many findings as fit; what is left out is counted in it."""
    body = b""
    for limit in (MOST_FINDINGS, 10, 5, 2, 0):
        body = _encode(message, limit)
        if len(body) <= LARGEST_BODY:
            return body
    # Only a list of hundreds of gateways that could not be read is as long as that.
    data = build_payload(message, 0)
    left_out = len(data["not_covered"])
    while data["not_covered"] and len(body) > LARGEST_BODY:
        del data["not_covered"][len(data["not_covered"]) // 2 :]
        data["not_covered_left_out"] = left_out - len(data["not_covered"])
        body = _event(message, data)
    return body


def _encode(message: Message, limit: int) -> bytes:
    return _event(message, build_payload(message, limit))


def _event(message: Message, data: dict[str, object]) -> bytes:
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
