"""Requests to the emulator as the vendor's signer signs them, for its own tests."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer

from tests.emulator import Key

if TYPE_CHECKING:
    from tests.emulator import ApigServer, Estate, Function

SECURITY_TOKENS = "/v3.0/OS-CREDENTIAL/securitytokens"


def own_key(estate: Estate) -> Key:
    """The estate's own keys."""
    return Key(estate.access_key, estate.secret_key, estate.security_token)


def send(
    server: ApigServer,
    path: str,
    method: str = "GET",
    body: bytes = b"",
    key: Key | None = None,
    sent: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> requests.Response:
    """Sign `body` and send it, or `sent` in its place."""
    key = key or own_key(server.estate)
    named = {"X-Sdk-Date": f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}", "Content-Type": "application/json"}
    if key.security_token:
        named["X-Security-Token"] = key.security_token
    signed = SdkRequest(
        method=method,
        schema="http",
        host=urlsplit(server.url).netloc,
        resource_path=path,
        query_params=[],
        header_params={**named, **(headers or {})},
        body=body,
    )
    Signer(as_vendor(key)).sign(signed)
    return requests.request(
        method, server.url + path, headers=signed.header_params, data=body if sent is None else sent, timeout=20
    )


def as_vendor(key: Key) -> Any:
    """The key under the vendor's names."""
    return type("Vendors", (), {"ak": key.access, "sk": key.secret})


def assume(
    server: ApigServer, name: str, key: Key | None = None, seconds: int = 3600, **account: str
) -> requests.Response:
    """Ask for an agency's keys."""
    role = {"agency_name": name, "duration_seconds": seconds, **account}
    document = {"auth": {"identity": {"methods": ["assume_role"], "assume_role": role}}}
    return send(server, SECURITY_TOKENS, "POST", json.dumps(document).encode(), key)


def issued(reply: requests.Response) -> Key:
    """The key of a good answer."""
    assert reply.status_code == 201, reply.text
    found = reply.json()["credential"]
    return Key(found["access"], found["secret"], found["securitytoken"])


def read(server: ApigServer, project_id: str, key: Key | None = None) -> requests.Response:
    """List the gateways of a project."""
    return send(server, f"/v2/{project_id}/apigw/instances", key=key)


def invoke(
    server: ApigServer, function: Function | str, event: Any, *, wait: bool = False, **how: Any
) -> requests.Response:
    """Invoke a function, or a URN of the estate's own project."""
    urn = function if isinstance(function, str) else function.urn
    project_id = server.estate.project_id if isinstance(function, str) else function.project_id
    path = f"/v2/{project_id}/fgs/functions/{urn}/invocations" + ("" if wait else "-async")
    return send(server, path, "POST", json.dumps(event).encode(), **how)
