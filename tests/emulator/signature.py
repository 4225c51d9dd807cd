"""Checks who sent a request: a token, or a signature of SDK-HMAC-SHA256 worked out anew from what arrived.

Written from the vendor's description of the algorithm, apart from any signer, so that it can judge one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from tests.emulator import errors

if TYPE_CHECKING:
    from tests.emulator.estate import Estate
    from tests.emulator.iam import Key
    from tests.emulator.wire import Request

ALGORITHM = "SDK-HMAC-SHA256"
DATE_FORMAT = "%Y%m%dT%H%M%SZ"
TOLERANCE = timedelta(minutes=15)
LOCKED_FOR = timedelta(minutes=5)
_AUTHORIZATION = re.compile(rf"{ALGORITHM} Access=([^,]+), SignedHeaders=([^,]+), Signature=([0-9a-f]{{64}})")


def authenticate(estate: Estate, request: Request) -> Key | None:
    """The key that signed a request; None for the estate's token. Raises a 401 `ApiError` if neither holds.

    Failed signatures are counted, and lock their key when the estate is set to.
    """
    if "authorization" not in request.headers:
        if not hmac.compare_digest(request.headers.get("x-auth-token", "").encode(), estate.token.encode()):
            raise errors.unauthorized()
        return None
    match = _AUTHORIZATION.fullmatch(request.headers["authorization"])
    name = match[1] if match else estate.access_key
    if name in estate.locked_until and estate.server_time() < estate.locked_until[name]:
        raise errors.bad_signature("AK access failed to reach the limit, forbidden")
    try:
        return _check_signature(estate, request)
    except errors.ApiError:
        _count_failure(estate, name)
        raise


def canonical_request(request: Request, signed_headers: list[str]) -> str:
    """The text that is hashed and signed: method, path, query, headers, names of the headers, hash of the body."""
    headers = "".join(f"{name}:{_as_sent(request.headers[name])}\n" for name in signed_headers)
    return "\n".join(
        [
            request.method.upper(),
            _canonical_path(request.path),
            "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in sorted(request.pairs)),
            headers,
            ";".join(signed_headers),
            _body_hash(request),
        ]
    )


def sign(text: str, date: str, secret_key: str) -> str:
    """The signature, in hex, of a canonical request."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return hmac.new(secret_key.encode(), f"{ALGORITHM}\n{date}\n{digest}".encode(), hashlib.sha256).hexdigest()


def _check_signature(estate: Estate, request: Request) -> Key:
    match = _AUTHORIZATION.fullmatch(request.headers["authorization"])
    if not match:
        raise errors.bad_signature("header Authorization is not of the form of SDK-HMAC-SHA256")
    access_key, names, signature = match.groups()
    signed_headers = names.split(";")
    _check_headers(request, signed_headers)
    _check_date(estate, request)
    key = estate.iam.find(access_key)
    if key is None:
        raise errors.bad_signature("access key not found")
    _check_security_token(key, request, signed_headers)
    expected = sign(canonical_request(request, signed_headers), request.headers["x-sdk-date"], key.secret)
    if not hmac.compare_digest(expected, signature):
        raise errors.bad_signature("verify aksk signature fail")
    if key.expires_at and estate.server_time() >= key.expires_at:
        raise errors.bad_signature("the security token has expired")
    return key


def _check_headers(request: Request, signed_headers: list[str]) -> None:
    for name in ("host", "x-sdk-date"):
        if name not in signed_headers:
            raise errors.bad_signature(f"header {name} is not signed")
    for name in signed_headers:
        if name not in request.headers:
            raise errors.bad_signature(f"signed header {name} is missing")


def _check_date(estate: Estate, request: Request) -> None:
    try:
        date = datetime.strptime(request.headers["x-sdk-date"], DATE_FORMAT).replace(tzinfo=timezone.utc)
    except ValueError:
        raise errors.bad_signature("header X-Sdk-Date is not of the form YYYYMMDDTHHMMSSZ") from None
    if abs(estate.server_time() - date) > TOLERANCE:
        raise errors.bad_signature("the signature is expired: X-Sdk-Date is more than 15 minutes off")


def _check_security_token(key: Key, request: Request, signed_headers: list[str]) -> None:
    token = request.headers.get("x-security-token")
    if token != key.security_token:
        raise errors.bad_signature("header X-Security-Token does not belong to the access key")
    if token is not None and "x-security-token" not in signed_headers:
        raise errors.bad_signature("header X-Security-Token is not signed")


def _count_failure(estate: Estate, access_key: str) -> None:
    estate.failed_signatures += 1
    estate.failures_of[access_key] += 1
    if estate.lock_key_after and estate.failures_of[access_key] % estate.lock_key_after == 0:
        estate.locked_until[access_key] = estate.server_time() + LOCKED_FOR


def _canonical_path(path: str) -> str:
    segments = "/".join(quote(segment, safe="~") for segment in unquote(path).split("/"))
    return segments if segments.endswith("/") else segments + "/"


def _body_hash(request: Request) -> str:
    if request.body and request.headers.get("x-sdk-content-sha256") == "UNSIGNED-PAYLOAD":
        return "UNSIGNED-PAYLOAD"
    return hashlib.sha256(request.body).hexdigest()


def _as_sent(value: str) -> str:
    """A header's text: on the wire it is UTF-8, which HTTP libraries read as Latin-1."""
    try:
        return value.strip().encode("latin-1").decode()
    except UnicodeError:
        return value.strip()
