"""The emulator's own check of tokens and signatures, with the vendor's signer as its peer."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.emulator import Answer, Estate, Request
from tests.emulator.api import answer
from tests.emulator.errors import ApiError
from tests.emulator.signature import authenticate

HOST = "apig.cn-north-4.myhuaweicloud.com"
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12)


def sign(
    estate: Estate,
    path: str | None = None,
    query: list[tuple[str, str]] | None = None,
    method: str = "GET",
    body: bytes = b"",
    moment: datetime | None = None,
    headers: dict[str, str] | None = None,
) -> Request:
    """A request as the vendor's signer signs it; `path` and `query` are plain text."""
    path = path or f"/v2/{estate.project_id}/apigw/instances"
    moment = moment or datetime.now(timezone.utc)
    request = SdkRequest(
        method=method,
        schema="https",
        host=HOST,
        resource_path=path,
        query_params=query or [],
        header_params={"X-Sdk-Date": f"{moment:%Y%m%dT%H%M%SZ}", **(headers or {})},
        body=body,
    )
    Signer(SimpleNamespace(ak=estate.access_key, sk=estate.secret_key)).sign(request)
    sent = {name.lower(): value for name, value in request.header_params.items()}
    return Request(method, quote(path, safe="/~%"), request.uri.partition("?")[2], sent, body)


def reason(reply: Answer) -> str:
    assert reply.status == 401
    assert reply.json()["error_code"] == "APIG.0301"
    assert reply.json()["request_id"] == reply.headers["x-request-id"]
    message: str = reply.json()["error_msg"]
    return message.removeprefix("Incorrect IAM authentication information: ")


@pytest.fixture
def estate() -> Estate:
    return Estate()


def test_vendors_signature_is_accepted(estate):
    assert answer(estate, sign(estate, query=[("offset", "0"), ("limit", "500")])).status == 200


@settings(deadline=None)
@given(
    segments=st.lists(TEXT.filter(lambda text: "/" not in text), max_size=3),
    query=st.lists(st.tuples(TEXT.filter(bool), TEXT), max_size=4),
    body=st.binary(max_size=20),
    header=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=10),
)
def test_whatever_the_vendor_signs_is_accepted(segments, query, body, header):
    estate = Estate()
    path = quote("/v2/" + "/".join(segments))

    authenticate(estate, sign(estate, path, query, "POST", body, headers={"X-Note": header}))


@pytest.mark.parametrize(
    "tamper",
    [
        lambda request: replace(request, method="POST"),
        lambda request: replace(request, path=request.path + "/other"),
        lambda request: replace(request, query="limit=501"),
        lambda request: replace(request, query=""),
        lambda request: replace(request, query=request.query + "&offset=0"),
        lambda request: replace(request, body=b"{}"),
        lambda request: replace(request, headers={**request.headers, "host": "elsewhere"}),
        lambda request: replace(request, headers={**request.headers, "x-project-id": "other"}),
        lambda request: replace(
            request, headers={**request.headers, "authorization": request.headers["authorization"][:-64] + "0" * 64}
        ),
    ],
)
def test_any_tampering_breaks_the_signature(estate, tamper):
    request = sign(estate, query=[("limit", "500")], headers={"X-Project-Id": estate.project_id})

    assert reason(answer(estate, tamper(request))) == "verify aksk signature fail"


@pytest.mark.parametrize(("minutes", "status"), [(-16, 401), (-14, 200), (14, 200), (16, 401)])
def test_date_must_be_within_fifteen_minutes(estate, minutes, status):
    moment = datetime.now(timezone.utc) + timedelta(minutes=minutes)

    assert answer(estate, sign(estate, moment=moment)).status == status


def test_servers_clock_decides_how_old_a_signature_is(estate):
    estate.clock_skew = timedelta(minutes=20)

    assert "expired" in reason(answer(estate, sign(estate)))


def test_wrong_secret_key_is_refused(estate):
    other = Estate(secret_key="another")

    assert reason(answer(estate, sign(other))) == "verify aksk signature fail"


def test_unknown_access_key_is_refused(estate):
    other = Estate(access_key="ANOTHER")

    assert reason(answer(estate, sign(other))) == "access key not found"


@pytest.mark.parametrize("name", ["host", "x-sdk-date"])
def test_host_and_date_must_be_signed(estate, name):
    request = sign(estate)
    signed = request.headers["authorization"].replace("SignedHeaders=host;x-sdk-date", "SignedHeaders=x-other;x-more")
    headers = {**request.headers, "x-other": "1", "x-more": "2", "authorization": signed}
    if name == "x-sdk-date":
        headers["authorization"] = signed.replace("x-other", "host")

    assert reason(answer(estate, replace(request, headers=headers))) == f"header {name} is not signed"


@pytest.mark.parametrize("value", ["", "Bearer x", "SDK-HMAC-SHA256", "SDK-HMAC-SM3 Access=a, SignedHeaders=b, "])
def test_another_authorization_is_refused(estate, value):
    request = sign(estate)

    assert "not of the form" in reason(answer(estate, replace(request, headers={"authorization": value})))


def test_malformed_date_is_refused(estate):
    request = sign(estate)

    tampered = replace(request, headers={**request.headers, "x-sdk-date": "2025-08-22"})

    assert "X-Sdk-Date" in reason(answer(estate, tampered))


def test_temporary_key_needs_its_token_signed_and_equal():
    estate = Estate(security_token="passing")
    good = sign(estate, headers={"X-Security-Token": "passing"})
    unsigned = sign(estate)

    assert answer(estate, good).status == 200
    assert "does not belong" in reason(answer(estate, sign(estate, headers={"X-Security-Token": "other"})))
    assert "does not belong" in reason(answer(estate, unsigned))
    added = replace(unsigned, headers={**unsigned.headers, "x-security-token": "passing"})
    assert "is not signed" in reason(answer(estate, added))


def test_permanent_key_has_no_security_token(estate):
    assert "does not belong" in reason(answer(estate, sign(estate, headers={"X-Security-Token": "stray"})))


@pytest.mark.parametrize("headers", [{}, {"x-auth-token": "wrong"}])
def test_missing_or_wrong_token_gets_the_documented_error(estate, headers):
    reply = answer(estate, Request("GET", f"/v2/{estate.project_id}/apigw/instances", "", headers))

    assert (reply.status, reply.json()["error_code"]) == (401, "APIC.7102")
    assert estate.failed_signatures == 0


def test_five_failures_lock_the_key_for_five_minutes(estate):
    estate.lock_key_after = 5
    wrong = sign(Estate(secret_key="another"))

    for _ in range(4):
        answer(estate, wrong)
    assert answer(estate, sign(estate)).status == 200
    answer(estate, wrong)

    assert estate.failed_signatures == 5
    assert "reach the limit" in reason(answer(estate, sign(estate)))
    estate.clock_skew = timedelta(minutes=6)
    assert answer(estate, sign(estate)).status == 200


def test_nothing_is_locked_unless_asked(estate):
    for _ in range(9):
        with pytest.raises(ApiError):
            authenticate(estate, sign(Estate(secret_key="another")))

    authenticate(estate, sign(estate))
    assert estate.failed_signatures == 9
