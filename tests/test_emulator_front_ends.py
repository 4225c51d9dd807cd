"""The two front ends: the same estate gives the same answers, and nothing is left behind."""

import threading
from datetime import datetime
from typing import Any

import pytest
import requests
from huaweicloudsdkapig.v2 import (
    AcceptOrRejectEndpointConnectionsRequest,
    ApigClient,
    ConnectionActionReq,
    ListEndpointConnectionsRequest,
    ListEndpointPermissionsRequest,
    ListInstancesV2Request,
)
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException

from tests.emulator import ENDPOINT, Busy, Estate, Forbidden, in_process, serve
from tests.emulator.connection import wire_time
from tests.emulator.fixtures import apig

__all__ = ["apig"]  # a fixture is found by its name in the module

# The vendor's client calls datetime.utcnow, and warns when the package dateutil is not there.
quiet_vendor = [
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Unable to convert string to datetime:ImportWarning"),
]


def with_vendor(test):
    """Marks a test that runs the vendor's client."""
    for mark in quiet_vendor:
        test = mark(test)
    return test


CONNECTIONS = "/billing/vpc-endpoint/connections"
REQUESTS = [
    ("GET", ""),
    ("GET", "?limit=1&offset=1"),
    ("GET", "?limit=x"),
    ("GET", CONNECTIONS),
    ("GET", CONNECTIONS + "?limit=500"),
    ("GET", CONNECTIONS + "?status=accepted&limit=3"),
    ("GET", CONNECTIONS + "?status=%61ccepted"),
    ("GET", CONNECTIONS + "?nonsense=1"),
    ("GET", "/orders/vpc-endpoint/connections"),
    ("GET", "/nobody/vpc-endpoint/connections"),
    ("GET", "/bill%69ng/vpc-endpoint/permissions"),
    ("POST", CONNECTIONS + "/action"),
    ("DELETE", CONNECTIONS),
    ("PUT", "/else"),
    ("OPTIONS", ""),
]


def build_estate() -> Estate:
    estate = Estate()
    estate.add_gateway("billing", gateway_id="billing", permissions=["*"]).add_connections(60)
    estate.add_gateway("orders", gateway_id="orders", endpoint_service=False)
    return estate


def collect(estate: Estate, endpoint: str) -> list[tuple[Any, ...]]:
    """Status, body and headers but for the date of each of the requests."""
    seen = []
    with requests.Session() as session:
        for method, path in REQUESTS:
            url = f"{endpoint}/v2/{estate.project_id}/apigw/instances{path}"
            reply = session.request(method, url, headers={"X-Auth-Token": estate.token}, data=b"{}", timeout=5)
            headers = {name.lower(): value for name, value in reply.headers.items() if name.lower() != "date"}
            seen.append((reply.status_code, reply.content, headers))
    return seen


def test_both_front_ends_answer_alike():
    served, answered = build_estate(), build_estate()
    answered.gateways[0]._by_id = dict(served.gateways[0]._by_id)
    for name in ("billing", "orders"):
        answered.gateway(name).created_at = served.gateway(name).created_at

    with serve(served) as server:
        over_http = collect(served, server.url)
    with in_process(answered):
        without_socket = collect(answered, ENDPOINT)

    assert over_http == without_socket
    assert served.refusals == answered.refusals
    assert [(log.path, log.query, log.status) for log in served.requests] == [
        (log.path, log.query, log.status) for log in answered.requests
    ]


def test_fixture_serves_a_fresh_estate(apig):
    apig.add_gateway("billing")

    reply = requests.get(
        f"{ENDPOINT}/v2/{apig.project_id}/apigw/instances", headers={"X-Auth-Token": apig.token}, timeout=5
    )

    assert reply.json()["total"] == 1


def test_in_process_works_as_a_decorator_each_time_it_is_called():
    estate = Estate()

    @in_process(estate, endpoint="https://example.test")
    def ask() -> int:
        return requests.get("https://example.test/v2", timeout=5).status_code

    assert [ask(), ask()] == [401, 401]


def test_other_hosts_refuse_the_connection_in_process(apig):
    with pytest.raises(requests.exceptions.ConnectionError, match="Connection refused"):
        requests.get("https://elsewhere.example/", timeout=5)


def test_loopback_stays_reachable_in_process(apig):
    with serve(Estate()) as server:
        assert requests.get(server.url, timeout=5).status_code == 401


def test_server_stops_with_open_connections_and_leaves_no_thread():
    before = set(threading.enumerate())
    estate = Estate()
    with requests.Session() as session:
        with serve(estate) as server:
            session.get(server.url, timeout=5)
            assert set(threading.enumerate()) - before
        assert not set(threading.enumerate()) - before
        with pytest.raises(requests.exceptions.ConnectionError):
            session.get(server.url, timeout=5)


def test_server_keeps_the_connection_alive():
    estate = Estate()
    with serve(estate) as server, requests.Session() as session:
        before = threading.active_count()
        for _ in range(3):
            session.get(server.url, timeout=5)

        assert threading.active_count() == before + 1  # one thread a connection


def test_failing_callback_is_raised_when_the_server_stops():
    def complain(_: object) -> None:
        raise AssertionError("not like this")

    estate = Estate()
    estate.before_request(complain)

    with (
        pytest.raises(AssertionError, match="not like this"),
        serve(estate) as server,
        pytest.raises(requests.exceptions.ConnectionError),
    ):
        requests.get(server.url, timeout=5)


def test_environment_names_the_endpoint_and_the_credentials():
    estate = Estate(project_id="p", access_key="a", secret_key="s")
    with serve(estate) as server:
        assert server.environment() == {
            "AUDIT_APIG_ENDPOINT": server.url,
            "AUDIT_PROJECT_ID": "p",
            "HUAWEICLOUD_SDK_AK": "a",
            "HUAWEICLOUD_SDK_SK": "s",
        }
        estate.security_token = "t"
        assert server.environment()["HUAWEICLOUD_SDK_SECURITY_TOKEN"] == "t"


def written(moment: datetime | str) -> str:
    """A time as the vendor's client gives it: a text unless the package dateutil is there."""
    return moment if isinstance(moment, str) else wire_time(moment)


@pytest.fixture
def vendor_client():
    """The vendor's generated client, and the estate that it talks to over HTTP."""
    estate = build_estate()
    credentials = BasicCredentials(estate.access_key, estate.secret_key, estate.project_id)
    with serve(estate) as server:
        client = ApigClient.new_builder().with_credentials(credentials).with_endpoints([server.url]).build()
        yield client, estate
    assert estate.refusals == []


@with_vendor
def test_vendors_client_lists_connections_with_every_field(vendor_client):
    client, estate = vendor_client

    reply = client.list_endpoint_connections(
        ListEndpointConnectionsRequest(instance_id="billing", offset=10, limit=25, status="accepted")
    )

    assert (reply.total, reply.size) == (60, 25)
    assert [
        (c.id, c.marker_id, written(c.created_at), written(c.updated_at), c.domain_id, c.status)
        for c in reply.connections
    ] == [tuple(c.record.values()) for c in estate.gateway("billing").connections[10:35]]
    assert len(reply.x_request_id) == 32


@with_vendor
def test_vendors_client_lists_gateways_and_permissions(vendor_client):
    client, estate = vendor_client

    gateways = client.list_instances_v2(ListInstancesV2Request(limit=500))
    permissions = client.list_endpoint_permissions(ListEndpointPermissionsRequest(instance_id="billing"))

    assert (gateways.total, gateways.size) == (2, 2)
    for found, gateway in zip(gateways.instances, estate.gateways, strict=True):
        assert {name: getattr(found, name) for name in gateway.record} == gateway.record
    assert (permissions.total, permissions.size) == (1, 1)
    assert permissions.permissions[0].permission == "*"


@with_vendor
def test_vendors_client_accepts_and_rejects(vendor_client):
    client, estate = vendor_client
    pending = estate.gateway("billing").add_connection(status="pendingAcceptance")

    for action, status in (("receive", "accepted"), ("reject", "rejected")):
        reply = client.accept_or_reject_endpoint_connections(
            AcceptOrRejectEndpointConnectionsRequest("billing", ConnectionActionReq(action, [pending.id]))
        )
        assert [c.status for c in reply.connections] == [status]
        assert estate.gateway("billing").get(pending.id).status == status


@with_vendor
def test_vendors_client_understands_the_errors(vendor_client):
    client, estate = vendor_client
    for fault in (Forbidden(), Busy()):
        estate.fail(fault, kind="connections")

    for status, code in ((403, "APIC.7106"), (409, "APIC.7701")):
        with pytest.raises(ClientRequestException) as caught:
            client.list_endpoint_connections(ListEndpointConnectionsRequest(instance_id="billing"))
        assert (caught.value.status_code, caught.value.error_code) == (status, code)
        assert len(caught.value.request_id) == 32


@with_vendor
def test_vendors_client_with_temporary_credentials():
    estate = Estate(security_token="passing")
    credentials = BasicCredentials(estate.access_key, estate.secret_key, estate.project_id)
    credentials.with_security_token("passing")
    with serve(estate) as server:
        client = ApigClient.new_builder().with_credentials(credentials).with_endpoints([server.url]).build()
        assert client.list_instances_v2(ListInstancesV2Request()).total == 0


def test_request_without_a_stated_length_is_refused():
    with serve(Estate()) as server:
        assert requests.post(server.url, data=iter([b"chunk"]), timeout=5).status_code == 411
