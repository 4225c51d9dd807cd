"""Authenticates requests, as `requests` auth classes: signed with an access key, or carrying a token."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer
from requests.auth import AuthBase

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests import PreparedRequest

    from audit.targets import Credentials


def _now() -> datetime:
    return datetime.now(timezone.utc)


class SignatureAuth(AuthBase):
    """Signs with the vendor's own algorithm (SDK-HMAC-SHA256); a request sent again must be prepared again.

    `keys` gives those that hold now; temporary ones are renewed in a long run. `project_id`: "" where a call is about
    no project.
    """

    def __init__(self, keys: Callable[[], Credentials], project_id: str, now: Callable[[], datetime] = _now) -> None:
        self._keys = keys
        self._project_id = project_id
        self._now = now

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        key, url = self._keys(), urlsplit(str(request.url))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": request.headers.get("User-Agent", ""),
            # Given here because the signer would ask `datetime.utcnow`, deprecated since Python 3.12.
            "X-Sdk-Date": self._now().strftime("%Y%m%dT%H%M%SZ"),
        }
        if self._project_id:
            headers["X-Project-Id"] = self._project_id
        if key.security_token:
            headers["X-Security-Token"] = key.security_token
        signed = SdkRequest(
            method=request.method,
            schema=url.scheme,
            host=url.netloc,
            resource_path=url.path,
            query_params=parse_qsl(url.query, keep_blank_values=True),
            header_params=headers,
            body=request.body or "",
        )
        Signer(key).sign(signed)
        request.headers.update(signed.header_params)
        request.url = f"{url.scheme}://{url.netloc}{signed.uri}"
        return request


class TokenAuth(AuthBase):
    """Sends an IAM token as it is."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        request.headers["X-Auth-Token"] = self._token
        return request
