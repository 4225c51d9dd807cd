"""The client of the API: what it asks, over HTTP, and what it makes of any answer."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from audit.deadline import Deadline
from audit.errors import ApiError, Forbidden, NotFound, Unavailable
from audit.huawei import transport as transport_module
from audit.huawei.apig import (
    STATUS_FILTERS,
    Apig,
    decode_connections,
    decode_gateways,
    decode_permissions,
    endpoint_of,
)
from audit.huawei.permissions import LIST_CONNECTIONS, LIST_GATEWAYS, LIST_PERMISSIONS
from audit.huawei.signing import SignatureAuth
from audit.huawei.transport import Transport
from audit.model import EndpointConnection, Gateway
from audit.targets import Credentials
from audit.text import Redactor
from tests.emulator import Body, Estate, serve
from tests.emulator import Forbidden as Denied
from tests.emulator.connection import wire_time

if TYPE_CHECKING:
    from collections.abc import Iterator

# Verbatim from the vendor's document, "Example Responses".
EXAMPLE = b"""{
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
RECORD = json.loads(EXAMPLE)["connections"][0]
READ = EndpointConnection(
    id="76ad893c-6a1e-4055-8019-fe9c9bd3204d",
    marker_id=167960098,
    created_at="2021-04-29T02:12:44Z",
    updated_at="2021-04-29T02:12:45Z",
    domain_id="b70fde8e849b4e76a61dd8aa0ec05c81",
    status="accepted",
)
FIELDS = tuple(RECORD)
HOSTILE = [
    "a b",
    "a+b",
    "a&limit=1",
    "a=b",
    "a/b",
    "a%2Fb",
    "a#b",
    "a?b",
    "é中🔑",
    "~-_.",
    "a;b",
    "a\nb",
    "'\"<>\\",
    " ",
]


@pytest.fixture
def estate() -> Estate:
    return Estate()


@pytest.fixture
def apig(estate, monkeypatch) -> Iterator[Apig]:
    monkeypatch.setattr(transport_module, "_FIRST_BACKOFF", 0.002)
    key = Credentials(estate.access_key, estate.secret_key)
    auth = SignatureAuth(lambda: key, estate.project_id)
    with serve(estate) as server:
        transport = Transport(server.url, auth, deadline=Deadline(5), concurrency=2, redact=Redactor(()))
        with closing(Apig(transport, "cn-north-4", estate.project_id)) as client:
            yield client
    assert estate.failed_signatures == 0


def page_of(*records: object, **changed: object) -> bytes:
    page = {"total": len(records), "size": len(records), "connections": list(records)} | changed
    return json.dumps(page).encode()


def read_one(**changed: object) -> EndpointConnection:
    (connection,) = decode_connections(page_of(RECORD | changed)).items
    return connection


def read_raw(name: str, text: str) -> EndpointConnection:
    """Read a record of which one field is this JSON text."""
    fields = {key: json.dumps(value) for key, value in RECORD.items()} | {name: text}
    record = ",".join(f'"{key}":{value}' for key, value in fields.items())
    (connection,) = decode_connections(f'{{"total":1,"size":1,"connections":[{{{record}}}]}}'.encode()).items
    return connection


def without(name: str) -> EndpointConnection:
    return EndpointConnection(**{key: value for key, value in RECORD.items() if key != name})


@pytest.mark.parametrize(
    ("region", "endpoint"),
    [
        ("cn-north-4", "https://apig.cn-north-4.myhuaweicloud.com"),
        ("eu-west-101", "https://apig.eu-west-101.myhuaweicloud.eu"),
    ],
)
def test_endpoint_of_a_region(region, endpoint):
    """The European region has a domain of its own."""
    assert endpoint_of(region) == endpoint


def test_every_field_of_every_connection_is_read(apig, estate):
    """As the API shows them, in its order."""
    gateway = estate.add_gateway("billing")
    known = [gateway.add_connection(status) for status in ("pendingAcceptance", "creating", "accepted")]
    known += [gateway.add_connection(status) for status in ("rejected", "failed", "deleting", "brandNew")]

    page = apig.list_connections(gateway.id)

    assert (page.total, page.size) == (7, 7)
    assert page.items == tuple(
        EndpointConnection(c.id, c.marker_id, wire_time(c.created_at), wire_time(c.updated_at), c.domain_id, c.status)
        for c in known
    )
    assert estate.requests[0].query == {"offset": "0", "limit": "500"}


def test_page_is_asked_for_by_offset_and_limit(apig, estate):
    """Total is of all, size of the page."""
    gateway = estate.add_gateway("billing")
    known = gateway.add_connections(10)
    page = apig.list_connections(gateway.id, offset=4, limit=3)
    assert (page.total, page.size) == (10, 3)
    assert [item.id for item in page.items] == [connection.id for connection in known[4:7]]


def test_every_filter_is_sent_and_each_must_match(apig, estate):
    """id, marker_id and status; and none that was not asked for."""
    gateway = estate.add_gateway("billing")
    one, two = gateway.add_connections(2, status="accepted")

    def ids(**wanted) -> list[str | None]:
        return [item.id for item in apig.list_connections(gateway.id, **wanted).items]

    assert ids(connection_id=one.id) == [one.id]
    assert ids(marker_id=two.marker_id) == [two.id]
    assert ids(marker_id=0) == []
    assert ids(status="accepted") == [one.id, two.id]
    assert ids(connection_id=one.id, marker_id=one.marker_id, status="accepted") == [one.id]
    assert ids(connection_id=one.id, marker_id=two.marker_id) == []
    full = {"offset": "0", "limit": "500", "id": one.id, "marker_id": str(one.marker_id), "status": "accepted"}
    assert estate.requests[4].query == full
    assert estate.refusals == []


@pytest.mark.parametrize("status", STATUS_FILTERS)
def test_status_filters_are_those_of_the_api(apig, estate, status):
    """Each of the four is understood."""
    gateway = estate.add_gateway("billing")
    gateway.add_connection(status)
    assert apig.list_connections(gateway.id, status=status).total == 1


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_connection_id_arrives_as_it_is(apig, estate, text):
    """Signed as it is sent, which the emulator verifies; it is a value and nothing else."""
    gateway = estate.add_gateway("billing")
    gateway.add_connection(connection_id=text)
    page = apig.list_connections(gateway.id, connection_id=text)
    assert [item.id for item in page.items] == [text]
    assert estate.requests[0].query == {"offset": "0", "limit": "500", "id": text}


@pytest.mark.parametrize("text", [text for text in HOSTILE if "/" not in text and "%2F" not in text])
def test_hostile_gateway_id_stays_in_its_place(apig, estate, text):
    """One segment of the path, signed as it is sent."""
    gateway = estate.add_gateway("billing", gateway_id=text)
    gateway.add_connections(2)
    assert apig.list_connections(text).total == 2


def test_gateways_are_listed_in_any_state(apig, estate):
    """With id, name and the API's word for their status."""
    for number, status in enumerate(("Running", "Frozen", "Brand new")):
        estate.add_gateway(f"g{number}", gateway_id=f"id{number}", status=status)

    page = apig.list_gateways(offset=1, limit=5)

    assert (page.total, page.size) == (3, 2)
    assert page.items == (
        Gateway("cn-north-4", estate.project_id, "id1", "g1", "Frozen"),
        Gateway("cn-north-4", estate.project_id, "id2", "g2", "Brand new"),
    )


def test_permissions_are_listed(apig, estate):
    """As the texts that they are."""
    gateway = estate.add_gateway("billing", permissions=["iam:domain::b70f", "*", "iam:domain::0815"])
    page = apig.list_permissions(gateway.id, offset=1, limit=1)
    assert (page.total, page.size, page.items) == (3, 1, ("*",))
    assert apig.list_permissions(gateway.id).items == ("iam:domain::b70f", "*", "iam:domain::0815")


@pytest.mark.parametrize(
    ("ask", "permission"),
    [
        (lambda apig: apig.list_gateways(), LIST_GATEWAYS),
        (lambda apig: apig.list_connections("g"), LIST_CONNECTIONS),
        (lambda apig: apig.list_permissions("g"), LIST_PERMISSIONS),
    ],
)
def test_403_names_the_action_to_grant(apig, estate, ask, permission):
    """Of the call that was refused."""
    estate.fail(Denied())
    with pytest.raises(Forbidden) as caught:
        ask(apig)
    assert str(caught.value).endswith(
        f"; grant {permission.identity} (identity policy) or {permission.role} (role policy)"
    )


@pytest.mark.parametrize(("gone", "code"), [(True, "APIC.7302"), (False, "APIC.7314")])
def test_missing_gateway_and_missing_endpoint_service_differ(apig, estate, gone, code):
    """By the code of the 404."""
    gateway = estate.add_gateway("billing", endpoint_service=False)
    if gone:
        estate.remove_gateway(gateway.id)
    with pytest.raises(NotFound) as caught:
        apig.list_connections(gateway.id)
    assert caught.value.code == code


def test_closed_client_asks_no_more(apig, estate):
    """Whoever still calls hears so."""
    apig.close()
    with pytest.raises(ApiError, match="time limit"):
        apig.list_gateways()
    assert estate.requests == []


def test_vendors_example_is_read_exactly():
    """The example of the API's document, to the last field."""
    page = decode_connections(EXAMPLE)
    assert (page.total, page.size, page.items) == (2, 1, (READ,))


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [None, True, 1.5, [], {}, "absent"])
def test_malformed_field_reads_as_none(apig, estate, name, value):
    """Absent, null or of another type; the other five stay as they are, and so do other records."""
    gateway = estate.add_gateway("billing")
    fine = gateway.add_connection()
    record = {key: field for key, field in RECORD.items() if (key, value) != (name, "absent")}
    gateway.raw_records = [record if value == "absent" else record | {name: value}]

    page = apig.list_connections(gateway.id)

    assert [item.id for item in page.items] == [fine.id, None if name == "id" else RECORD["id"]]
    assert page.items[1] == without(name)
    assert len(estate.requests) == 1


@pytest.mark.parametrize("name", FIELDS)
def test_text_for_a_number_and_a_number_for_text_read_as_none(name):
    """No guess is made."""
    assert read_one(**{name: "7" if name == "marker_id" else 7}) == without(name)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-1", -1),
        (str(2**63 - 1), 2**63 - 1),
        (str(-(2**63)), -(2**63)),
        (str(2**63), None),
        (str(-(2**63) - 1), None),
        ("1" + "0" * 30, None),
        ("9" * 5000, None),
        ("1e400", None),
        ("1.0", None),
        ("1E2", None),
    ],
)
def test_numbers(text, value):
    """Integers of 64 bits; a larger one spoils its field, not the page."""
    assert read_raw("marker_id", text).marker_id == value
    assert read_raw("marker_id", text).id == READ.id


@pytest.mark.parametrize("name", ["created_at", "updated_at"])
@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2021-04-29T10:12:44+08:00", "2021-04-29T02:12:44Z"),
        ("2021-04-29T02:12:44.987Z", "2021-04-29T02:12:44Z"),
        ("2021-04-29t02:12:44z", "2021-04-29T02:12:44Z"),
        ("2021-04-29T02:12:44", None),
        ("2021-02-30T02:12:44Z", None),
        ("2021-04-29", None),
        ("1619662364", None),
        ("yesterday", None),
        ("", None),
        (" ", None),
    ],
)
def test_times(name, text, instant):
    """Converted to the documented form, or None where the instant is not certain."""
    assert getattr(read_one(**{name: text}), name) == instant


def test_empty_id_is_no_id():
    """It names nothing."""
    assert read_one(id="") == without("id")


def test_unknown_fields_and_statuses_are_no_fault():
    """The API may grow; rules speak of statuses."""
    assert read_one(status="brandNew", extra={"a": [1, None]}).status == "brandNew"
    assert read_one(status="brandNew", extra={"a": [1, None]}).id == READ.id


@pytest.mark.parametrize("extra", ["1e400", "9" * 5000, "[" * 500 + "]" * 500])
def test_unknown_field_of_any_content_is_ignored(extra):
    """Nobody reads it."""
    assert read_raw("extra", extra) == READ


def test_null_list_is_empty_where_total_is_0():
    """So some services say that there is nothing."""
    page = decode_connections(b'{"total": 0, "size": 0, "connections": null}')
    assert (page.total, page.size, page.items) == (0, 0, ())


def test_size_may_be_absent():
    """Only `total` and the list are needed."""
    assert decode_connections(page_of(RECORD).replace(b'"size": 1, ', b"")).size is None


WRONG_SHAPES = [
    b"",
    b"<html>",
    b"null",
    b"[]",
    b'"text"',
    b"{}",
    b'{"total": 1}',
    b'{"LIST": []}',
    b'{"total": 1, "LIST": null}',
    b'{"total": null, "LIST": []}',
    b'{"total": "1", "LIST": []}',
    b'{"total": 1.5, "LIST": []}',
    b'{"total": -1, "LIST": []}',
    b'{"total": 10000001, "LIST": [{}]}',
    b'{"total": true, "LIST": []}',
    b'{"total": 1, "size": "1", "LIST": [{}]}',
    b'{"total": 1, "LIST": {}}',
    b'{"total": 1, "LIST": "x"}',
    b'{"total": 1, "LIST": [7]}',
    b'{"total": 1, "LIST": [null]}',
    b'{"total": 1, "LIST": [[]]}',
    b'{"total": 1, "LIST": [{}]',
    b'{"total": 1, "LIST": [{"a": NaN}]}',
    b'{"total": 1, "LIST": [{"a": "\\ud800"}]}',
    b'{"total": 0, "LIST": []} trailing',
    b'\xff{"total": 0, "LIST": []}',
    b"[" * 100_000,
    b'{"total": 1, "LIST": [{"a": ' + b"[" * 100_000,
    b'{"a": ' * 100_000,
]


@pytest.mark.parametrize("body", WRONG_SHAPES)
def test_answer_of_the_wrong_shape_is_refused(body):
    """Whatever was asked for."""
    with pytest.raises((ValueError, RecursionError)):
        decode_connections(body.replace(b"LIST", b"connections"))
    with pytest.raises((ValueError, RecursionError)):
        decode_gateways(body.replace(b"LIST", b"instances"), "r", "p")
    with pytest.raises((ValueError, RecursionError)):
        decode_permissions(body.replace(b"LIST", b"permissions"))


@pytest.mark.parametrize("body", [b'{"total": 1, "size": 1}', b'{"total": 1, "connections": [7]}', b"[" * 100_000])
def test_answer_of_the_wrong_shape_is_tried_again(apig, estate, body):
    """Over HTTP: five times, then the error says what was wrong."""
    gateway = estate.add_gateway("billing")
    estate.fail(Body(200, body), times=None)
    with pytest.raises(Unavailable, match=r"the answer makes no sense: .* after 5 tries"):
        apig.list_connections(gateway.id)
    assert len(estate.requests) == 5


@pytest.mark.parametrize(
    ("record", "gateway"),
    [
        ('{"id": "a", "instance_name": "n", "status": "Running"}', Gateway("r", "p", "a", "n", "Running")),
        ('{"id": "a"}', Gateway("r", "p", "a", "", None)),
        ('{"id": "a", "instance_name": null, "status": 6}', Gateway("r", "p", "a", "", None)),
        ('{"id": "a", "status": ""}', Gateway("r", "p", "a", "", None)),
        ('{"id": 7, "instance_name": "n"}', Gateway("r", "p", "", "n", None)),
        ('{"id": null}', Gateway("r", "p", "", "", None)),
        ("{}", Gateway("r", "p", "", "", None)),
        ('{"id": "a", "create_time": 1e400}', Gateway("r", "p", "a", "", None)),
    ],
)
def test_malformed_gateway(record, gateway):
    """One without a usable id is kept, so that it can be said that it was not covered."""
    page = decode_gateways(f'{{"total": 1, "size": 1, "instances": [{record}]}}'.encode(), "r", "p")
    assert page.items == (gateway,)


@pytest.mark.parametrize("record", ["{}", '{"permission": null}', '{"permission": 7}'])
def test_malformed_permission_is_no_permission_list(record):
    """Who may connect must not be guessed."""
    with pytest.raises(ValueError, match=r"."):
        decode_permissions(f'{{"total": 1, "permissions": [{record}]}}'.encode())
