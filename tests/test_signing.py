"""Signatures: the vendor's own, byte for byte, and what is sent with them."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timezone
from urllib.parse import quote

import pytest
import requests
from huaweicloudsdkapig.v2 import (
    AddEndpointPermissionsRequest,
    ApigClient,
    EndpointPermissionList,
    ListEndpointConnectionsRequest,
)
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ServiceResponseException
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.huawei.signing import SignatureAuth, TokenAuth
from audit.targets import Credentials
from tests.emulator import Estate, Request, in_process, serve
from tests.emulator.signature import DATE_FORMAT, authenticate

HOST = "https://apig.cn-north-4.myhuaweicloud.com"
CLOCK = datetime(2026, 11, 22, 8, 15, 0, tzinfo=timezone.utc)


def sign(url: str, auth, *, agent: str = "me/1", params=None) -> requests.PreparedRequest:
    return requests.Request("GET", url, headers={"User-Agent": agent}, params=params, auth=auth).prepare()


def received(prepared: requests.PreparedRequest) -> Request:
    """What a server sees of a prepared request."""
    path, _, query = prepared.path_url.partition("?")
    return Request("GET", path, query, {name.lower(): str(value) for name, value in prepared.headers.items()})


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Unable to convert string to datetime:ImportWarning")
@pytest.mark.parametrize("security_token", [None, "a temporary/token+="])
def test_vendors_client_signs_alike(security_token):
    """Its Authorization and ours are the same bytes where clock, User-Agent and request are, and so is all it sends."""
    estate = Estate(security_token=security_token)
    estate.add_gateway("billing", gateway_id="billing")
    with serve(estate) as server:
        credentials = BasicCredentials(estate.access_key, estate.secret_key, estate.project_id)
        if security_token:
            credentials = credentials.with_security_token(security_token)
        client = ApigClient.new_builder().with_credentials(credentials).with_endpoint(server.url).build()
        client.list_endpoint_connections(
            ListEndpointConnectionsRequest(
                instance_id="billing", offset=0, limit=500, id="a b/c+d~é", marker_id=7, status="accepted"
            )
        )
        theirs = estate.requests[0]
        assert theirs.status == 200

        date = datetime.strptime(theirs.headers["x-sdk-date"], DATE_FORMAT).replace(tzinfo=timezone.utc)
        key = Credentials(estate.access_key, estate.secret_key, security_token)
        ours = sign(
            server.url + theirs.path,
            SignatureAuth(lambda: key, estate.project_id, lambda: date),
            agent=theirs.headers["user-agent"],
            params={"offset": 0, "limit": 500, "id": "a b/c+d~é", "marker_id": 7, "status": "accepted"},
        )

    assert ours.headers["Authorization"] == theirs.headers["authorization"]
    sent = {name.lower(): value for name, value in ours.headers.items()}
    assert sent.items() <= theirs.headers.items()


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Unable to convert string to datetime:ImportWarning")
def test_vendors_client_signs_a_body_alike():
    """To what it posts the emulator knows no answer; the signature covers every byte of it all the same."""
    estate = Estate(security_token="a temporary/token+=")
    with serve(estate) as server:
        credentials = BasicCredentials(estate.access_key, estate.secret_key, estate.project_id)
        credentials = credentials.with_security_token(estate.security_token)
        client = ApigClient.new_builder().with_credentials(credentials).with_endpoint(server.url).build()
        permissions = EndpointPermissionList(["iam:domain::é"])
        bodies: list[bytes] = []
        estate.before_request(lambda call: bodies.append(call.request.body))
        with suppress(ServiceResponseException):
            client.add_endpoint_permissions(AddEndpointPermissionsRequest("billing", body=permissions))
        theirs = estate.requests[0]
        date = datetime.strptime(theirs.headers["x-sdk-date"], DATE_FORMAT).replace(tzinfo=timezone.utc)
        key = Credentials(estate.access_key, estate.secret_key, estate.security_token)
        auth = SignatureAuth(lambda: key, estate.project_id, lambda: date)
        headers = {"User-Agent": theirs.headers["user-agent"]}
        ours = requests.Request("POST", server.url + theirs.path, headers=headers, data=bodies[0], auth=auth).prepare()
    assert b"permissions" in bodies[0]
    assert ours.headers["Content-Type"] == theirs.headers["content-type"]
    assert ours.headers["Authorization"] == theirs.headers["authorization"]


def test_worked_value():
    """Fixed for ever, so that a change of the signer shows."""
    key = Credentials("EXAMPLEACCESSKEY0001", "example-secret-key")
    signed = sign(
        HOST + "/v2/p1/apigw/instances", SignatureAuth(lambda: key, "p1", lambda: CLOCK), params={"offset": 0}
    )

    assert signed.headers["X-Sdk-Date"] == "20261122T081500Z"
    assert signed.headers["X-Project-Id"] == "p1"
    assert signed.headers["Content-Type"] == "application/json"
    assert signed.headers["Host"] == "apig.cn-north-4.myhuaweicloud.com"
    assert signed.headers["Authorization"] == (
        "SDK-HMAC-SHA256 Access=EXAMPLEACCESSKEY0001, "
        "SignedHeaders=content-type;host;user-agent;x-project-id;x-sdk-date, "
        "Signature=4aa6578bca7a0f3b273407d43edc7952dc8e980d128a6492151529cbe2e2c334"
    )


def test_temporary_credentials_send_and_sign_their_token():
    """A signature without it is worth nothing."""
    auth = SignatureAuth(lambda: Credentials("ak", "sk", "temporary"), "p1", lambda: CLOCK)
    signed = sign(HOST + "/v2", auth)
    assert signed.headers["X-Security-Token"] == "temporary"
    assert ";x-security-token" in signed.headers["Authorization"]


def test_permanent_credentials_send_no_token():
    """Not even an empty one."""
    signed = sign(HOST + "/v2", SignatureAuth(lambda: Credentials("ak", "sk"), "p1"))
    assert "X-Security-Token" not in signed.headers


def test_token_is_sent_as_it_is_and_nothing_is_signed():
    """X-Auth-Token only."""
    sent = sign(HOST + "/v2", TokenAuth("MIIF+token=="))
    assert sent.headers == {"User-Agent": "me/1", "X-Auth-Token": "MIIF+token=="}


def test_signature_bears_the_time_of_signing():
    """Each preparation asks the clock anew."""
    moments = iter([CLOCK, CLOCK.replace(minute=16)])
    auth = SignatureAuth(lambda: Credentials("ak", "sk"), "p1", lambda: next(moments))
    first, second = sign(HOST, auth), sign(HOST, auth)
    assert first.headers["X-Sdk-Date"] != second.headers["X-Sdk-Date"]
    assert first.headers["Authorization"] != second.headers["Authorization"]


@settings(deadline=None, max_examples=50)
@given(
    value=st.text(st.characters(codec="utf-8"), max_size=20),
    segment=st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=10),
)
def test_any_query_and_path_is_signed_as_it_is_sent(value, segment):
    """An independent reading of the algorithm verifies what arrives."""
    estate = Estate(security_token="temporary")
    key = Credentials(estate.access_key, estate.secret_key, "temporary")
    url = f"{HOST}/v2/{quote('x' + segment, safe='')}/vpc-endpoint"

    arrived = received(sign(url, SignatureAuth(lambda: key, estate.project_id), params={"id": value, "offset": 0}))

    authenticate(estate, arrived)
    assert arrived.pairs == [("id", value), ("offset", "0")]


@pytest.mark.parametrize("spoil", ["sk", "token", "project", "query", "agent"])
def test_spoiled_request_is_refused(spoil):
    """So the verifier above does verify: key, token, project, query and User-Agent are all covered."""
    estate = Estate(security_token="temporary")
    key = Credentials(
        estate.access_key,
        "wrong" if spoil == "sk" else estate.secret_key,
        "wrong" if spoil == "token" else "temporary",
    )
    with in_process(estate, endpoint=HOST):
        signed = sign(f"{HOST}/v2/{estate.project_id}/apigw/instances", SignatureAuth(lambda: key, estate.project_id))
        if spoil == "project":
            signed.headers["X-Project-Id"] = "other"
        if spoil == "agent":
            signed.headers["User-Agent"] = "other"
        if spoil == "query":
            signed.url = f"{signed.url}?limit=1"
        with requests.Session() as session:
            assert session.send(signed).status_code == 401


def test_secrets_do_not_show():
    """In the key's own description."""
    assert repr(Credentials("ak", "hidden", "hidden")) == "Credentials()"
