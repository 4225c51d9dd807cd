"""What the emulator promises of the vendor's API document: lists, pages, filters, actions, errors and refusals."""

import json
import time
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.emulator import Answer, Call, Estate, Forbidden, Gateway, NotFound, Request, ServerError, Unauthorized
from tests.emulator.api import answer
from tests.emulator.connection import STATUSES
from tests.emulator.samples import build_documented

NOW = datetime(2025, 8, 22, 12, 0, tzinfo=timezone.utc)
DOCUMENTED = """{
  "total" : 2,
  "size" : 1,
  "connections" : [ {
    "id" : "76ad893c-6a1e-4055-8019-fe9c9bd3204d",
    "marker_id" : 167960098,
    "created_at" : "2021-04-29T02:12:44Z",
    "updated_at" : "2021-04-29T02:12:45Z",
    "domain_id" : "b70fde8e849b4e76a61dd8aa0ec05c81",
    "status" : "accepted"
  } ]
}"""


@pytest.fixture
def estate() -> Estate:
    return Estate(now=NOW)


@pytest.fixture
def billing(estate: Estate) -> Gateway:
    return estate.add_gateway("billing", permissions=["iam:domain::b70fde8e849b4e76a61dd8aa0ec05c81", "*"])


def ask(estate: Estate, path: str = "", method: str = "GET", body: bytes = b"", **query: Any) -> Answer:
    """Asks for what is below the gateway list, with the estate's token."""
    full = f"/v2/{estate.project_id}/apigw/instances{path}"
    return answer(estate, Request(method, full, urlencode(query), {"x-auth-token": estate.token}, body))


def connections(gateway: Gateway, **query: Any) -> Answer:
    return ask(gateway.estate, f"/{gateway.id}/vpc-endpoint/connections", **query)


def act(gateway: Gateway, document: object) -> Answer:
    body = json.dumps(document).encode()
    return ask(gateway.estate, f"/{gateway.id}/vpc-endpoint/connections/action", "POST", body)


def test_documented_example_response_is_reproduced():
    estate = build_documented(NOW, 0)

    assert connections(estate.gateways[0], limit=1).json() == json.loads(DOCUMENTED)


@pytest.mark.parametrize(
    ("query", "first", "size"),
    [
        ({}, 0, 20),
        ({"offset": -1}, 0, 20),
        ({"offset": 0}, 0, 20),
        ({"offset": 599}, 599, 20),
        ({"offset": 619}, 619, 1),
        ({"offset": 620}, 620, 0),
        ({"offset": 10**17}, 620, 0),
        ({"limit": -5}, 0, 20),
        ({"limit": 0}, 0, 20),
        ({"limit": 1}, 0, 1),
        ({"limit": 500}, 0, 500),
        ({"limit": 501}, 0, 500),
        ({"limit": 9999, "offset": 500}, 500, 120),
    ],
)
def test_offset_and_limit_are_converted_as_documented(billing, query, first, size):
    billing.add_connections(620)

    page = connections(billing, **query).json()

    assert (page["total"], page["size"]) == (620, size)
    assert [record["id"] for record in page["connections"]] == [c.id for c in billing.connections[first:][:size]]


@pytest.mark.parametrize(("limit", "size"), [(None, 20), (-1, 20), (0, 20), (1, 1), (500, 500), (501, 500)])
def test_gateway_list_is_paged_alike(estate, limit, size):
    for number in range(501):
        estate.add_gateway(f"g{number}")

    page = ask(estate, **({} if limit is None else {"limit": limit})).json()

    assert (page["total"], page["size"], len(page["instances"])) == (501, size, size)


@settings(deadline=None)
@given(total=st.integers(0, 60), limit=st.integers(1, 70), cap=st.none() | st.integers(1, 70))
def test_walking_the_pages_gives_every_record_once(total, limit, cap):
    estate = Estate(now=NOW)
    estate.page_cap = cap
    gateway = estate.add_gateway("g")
    gateway.add_connections(total)
    gateway.raw_records.append({"id": "raw"})
    seen: list[str] = []

    while page := connections(gateway, offset=len(seen), limit=limit).json()["connections"]:
        assert len(page) <= limit
        seen += [record["id"] for record in page]

    assert seen == [c.id for c in gateway.connections] + ["raw"]


@settings(deadline=None)
@given(statuses=st.lists(st.sampled_from(STATUSES), max_size=30), wanted=st.sampled_from(STATUSES))
def test_status_filter_keeps_order_and_counts_before_paging(statuses, wanted):
    estate = Estate(now=NOW)
    gateway = estate.add_gateway("g")
    for status in statuses:
        gateway.add_connection(status=status)

    reply = connections(gateway, status=wanted, limit=3)

    if wanted in ("creating", "deleting"):
        assert reply.status == 400
    else:
        matches = [c.record for c in gateway.connections if c.status == wanted]
        assert reply.json() == {"total": len(matches), "size": len(matches[:3]), "connections": matches[:3]}


def test_id_and_marker_filters_find_one_connection(billing):
    wanted = billing.add_connections(30)[17]

    assert connections(billing, id=wanted.id).json()["connections"] == [wanted.record]
    assert connections(billing, marker_id=wanted.marker_id).json()["connections"] == [wanted.record]
    assert connections(billing, marker_id=wanted.marker_id, status="failed").json()["total"] == 0
    assert connections(billing, id="nobody").json() == {"total": 0, "size": 0, "connections": []}


def test_gateway_record_is_complete(estate, billing):
    (record,) = ask(estate).json()["instances"]

    assert record == {
        "id": billing.id,
        "project_id": estate.project_id,
        "instance_name": "billing",
        "status": "Running",
        "instance_status": 6,
        "type": "apig",
        "spec": "PROFESSIONAL",
        "create_time": int((NOW - timedelta(days=365)).timestamp()) * 1000,
        "enterprise_project_id": "0",
        "eip_address": "",
    }


def test_permissions_are_listed_and_paged(estate, billing):
    page = ask(estate, f"/{billing.id}/vpc-endpoint/permissions", offset=1, limit=1).json()

    assert (page["total"], page["size"]) == (2, 1)
    assert page["permissions"][0]["permission"] == "*"
    assert set(page["permissions"][0]) == {"id", "permission", "created_at"}


@pytest.mark.parametrize(("action", "status"), [("receive", "accepted"), ("reject", "rejected")])
def test_action_changes_state_and_update_time(billing, action, status):
    pending = billing.add_connection(status="pendingAcceptance", age=timedelta(hours=49))

    reply = act(billing, {"action": action, "endpoints": [pending.id]})

    changed = billing.get(pending.id)
    assert reply.json() == {"total": 1, "size": 1, "connections": [changed.record]}
    assert (changed.status, changed.updated_at, changed.created_at) == (status, NOW, pending.created_at)


@pytest.mark.parametrize(
    "document",
    [
        {"action": "accept", "endpoints": ["x"]},
        {"action": "receive", "endpoints": []},
        {"action": "receive", "endpoints": ["x"] * 2},
        {"action": "receive", "endpoints": [str(n) for n in range(51)]},
        {"action": "receive", "endpoints": "x"},
        {"action": "receive", "endpoints": ["nobody"]},
        {"action": "receive"},
        {"action": ["receive"], "endpoints": ["x"]},
        {"action": "receive", "endpoints": ["x"], "more": 1},
        [],
    ],
)
def test_wrong_action_is_refused_and_changes_nothing(estate, billing, document):
    before = billing.add_connection(status="pendingAcceptance", connection_id="x")

    assert act(billing, document).status == 400
    assert billing.get("x") == before
    assert len(estate.refusals) == 1


def test_action_with_one_impossible_connection_changes_none(billing):
    good, bad = billing.add_connection(status="pendingAcceptance"), billing.add_connection(status="failed")

    assert act(billing, {"action": "receive", "endpoints": [good.id, bad.id]}).status == 400
    assert billing.get(good.id) == good


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("page=2", "unknown query parameter 'page'; known: offset, limit, id, marker_id, status"),
        ("offset=ten", "offset is 'ten'; known: integers"),
        ("limit=1.5", "limit is '1.5'; known: integers"),
        ("limit=", "limit is ''; known: integers"),
        ("marker_id=0x10", "marker_id is '0x10'; known: integers"),
        ("status=Accepted", "status is 'Accepted'; known: pendingAcceptance, accepted, rejected, failed"),
        ("status=creating", "status is 'creating'; known: pendingAcceptance, accepted, rejected, failed"),
        ("limit=5&limit=6", "query parameter 'limit' is repeated"),
    ],
)
def test_wrong_query_is_refused_and_recorded(estate, billing, query, said):
    path = f"/v2/{estate.project_id}/apigw/instances/{billing.id}/vpc-endpoint/connections"

    reply = answer(estate, Request("GET", path, query, {"x-auth-token": estate.token}))

    assert reply.status == 400
    assert said in reply.json()["error_msg"]
    assert said in estate.refusals[0]


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", "/v2/{p}/apigw/gateways", 404, "unknown route GET"),
        ("GET", "/v2/{p}/apigw/instances/", 404, "known: GET /v2/{project_id}/apigw/instances;"),
        ("GET", "//v2/{p}/apigw/instances", 404, "unknown route"),
        ("DELETE", "/v2/{p}/apigw/instances", 405, "unknown method DELETE"),
        ("POST", "/v2/{p}/apigw/instances/x/vpc-endpoint/connections", 405, "known: GET"),
        ("GET", "/v2/{p}/apigw/instances/x/vpc-endpoint/connections/action", 405, "known: POST"),
        ("GET", "/v2/other/apigw/instances", 404, "unknown project 'other'"),
    ],
)
def test_wrong_route_is_refused_and_recorded(estate, method, path, status, said):
    request = Request(method, path.replace("{p}", estate.project_id), "", {"x-auth-token": estate.token})

    reply = answer(estate, request)

    assert reply.status == status
    assert said in reply.json()["error_msg"]
    assert len(estate.refusals) == 1


@pytest.mark.parametrize(
    ("fault", "status", "body"),
    [
        (
            Unauthorized(),
            401,
            {"error_code": "APIC.7102", "error_msg": "Incorrect token or token resolution failed"},
        ),
        (Forbidden(), 403, {"error_code": "APIC.7106", "error_msg": "No permissions to request for the method"}),
        (NotFound("APIC.7314"), 404, {"error_code": "APIC.7314", "error_msg": "Endpoint service not found"}),
        (ServerError(), 500, {"error_code": "APIC.9007", "error_msg": "Failed to execute VCPEP request"}),
    ],
)
def test_documented_errors_are_verbatim(estate, billing, fault, status, body):
    estate.fail(fault)

    reply = connections(billing)

    assert (reply.status, reply.json()) == (status, body)
    assert estate.refusals == []


def test_gateway_without_endpoint_service_answers_7314(estate):
    reply = connections(estate.add_gateway("analytics", endpoint_service=False))

    assert (reply.status, reply.json()["error_code"]) == (404, "APIC.7314")


def test_gateway_that_is_gone_answers_7302_without_a_refusal(estate, billing):
    estate.remove_gateway(billing.id)

    reply = connections(billing)

    assert (reply.status, reply.json()) == (404, {"error_code": "APIC.7302", "error_msg": "Instance not found"})
    assert estate.refusals == []


def test_every_answer_has_a_request_id_of_its_own_and_the_servers_date(estate, billing):
    estate.clock_skew = timedelta(hours=3)

    replies = [ask(estate), connections(billing), connections(billing, limit="x"), ask(estate, "/nowhere/at/all")]

    assert len({reply.headers["x-request-id"] for reply in replies}) == len(replies)
    assert all(reply.headers["Date"] == f"{estate.server_time():%a, %d %b %Y %H:%M:%S} GMT" for reply in replies)


def test_a_change_always_moves_the_update_time(billing):
    connection = billing.add_connection(status="accepted", age=timedelta(0))
    states = [connection]
    states += [billing.change(connection.id, status=status) for status in ("rejected", "accepted", "rejected")]

    assert [state.updated_at - NOW for state in states] == [timedelta(seconds=n) for n in range(4)]


def test_insert_and_remove_keep_the_order(billing):
    first, second = billing.add_connections(2)
    front = billing.insert(0, status="failed")
    billing.remove(first.id)

    assert [record["id"] for record in connections(billing).json()["connections"]] == [front.id, second.id]


def test_the_same_id_twice_on_a_gateway_is_an_error(billing):
    billing.add_connection(connection_id="x")

    with pytest.raises(ValueError, match="has a connection x already"):
        billing.add_connection(connection_id="x")


def test_raw_records_are_served_verbatim(estate, billing):
    oddities: list[Any] = [
        None,
        7,
        "text",
        [],
        {"id": 5, "status": None},
        {"status": "accepted", "extra": {"deep": [1]}},
    ]
    billing.raw_records += oddities
    estate.raw_records.append({"id": None})

    assert connections(billing).json()["connections"] == oddities
    assert connections(billing, status="accepted").json()["connections"] == oddities[-1:]
    assert ask(estate).json()["instances"][-1] == {"id": None}


def test_stated_total_may_lie(billing):
    billing.add_connections(3)
    billing.stated_total = 12

    assert connections(billing).json()["total"] == 12


def test_callback_may_shift_the_list_between_pages(estate, billing):
    ids = [c.id for c in billing.add_connections(4)]
    estate.before_request(lambda call: billing.remove(ids[0]) if call.offset == 2 else None)

    seen = [connections(billing, offset=offset, limit=2).json()["connections"] for offset in (0, 2)]

    assert [record["id"] for page in seen for record in page] == [ids[0], ids[1], ids[3]]


def test_callback_sees_what_is_asked(estate, billing):
    calls: list[Call] = []
    estate.before_request(calls.append)

    connections(billing, limit=7, offset=14)
    ask(estate, "/nowhere/at/all")

    assert (calls[0].kind, calls[0].gateway_id, calls[0].offset) == ("connections", billing.id, 14)
    assert calls[0].query == {"limit": "7", "offset": "14"}
    assert (calls[1].kind, calls[1].gateway_id) == (None, None)


def test_requests_are_logged_with_their_status(estate, billing):
    connections(billing, limit=7)
    connections(billing, limit="x")

    assert [(log.method, log.query, log.status) for log in estate.requests] == [
        ("GET", {"limit": "7"}, 200),
        ("GET", {"limit": "x"}, 400),
    ]
    assert estate.requests[0].path.endswith(f"/{billing.id}/vpc-endpoint/connections")
    assert estate.requests[0].headers == {"x-auth-token": estate.token}


def test_two_estates_made_alike_are_equal():
    first, second = (build_documented(NOW, 0) for _ in range(2))

    assert first.gateways[0].connections == second.gateways[0].connections
    assert ask(first).body == ask(second).body


def test_requests_do_not_change_the_ids_of_what_is_added_later():
    quiet, busy = Estate(now=NOW), Estate(now=NOW)
    for _ in range(3):
        ask(busy)

    assert quiet.add_gateway("g").add_connection() == busy.add_gateway("g").add_connection()


def test_a_hundred_thousand_connections_are_built_and_read_fast():
    began = time.process_time()
    gateway = Estate(now=NOW).add_gateway("large")
    gateway.add_connections(100_000)
    built = time.process_time()
    for offset in range(0, 10_000, 500):
        connections(gateway, offset=offset, limit=500)
    paged = time.process_time()

    assert built - began < 10
    assert paged - built < 5
