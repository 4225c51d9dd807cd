"""Faults on demand, over real sockets and in process: which requests they strike, and what a client then sees."""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest
import requests
from requests.exceptions import ChunkedEncodingError, ConnectionError, ReadTimeout  # noqa: A004

from tests.emulator import (
    ENDPOINT,
    Body,
    Busy,
    Drip,
    Estate,
    Forbidden,
    HtmlError,
    IamError,
    NotFound,
    Oversize,
    Redirect,
    Reset,
    ServerError,
    Slow,
    Throttled,
    Truncated,
    Unauthorized,
    in_process,
    serve,
)

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

Get = Callable[..., requests.Response]


def getter(estate: Estate, endpoint: str, session: requests.Session) -> Get:
    """A function that asks for a path below the gateway list, with the estate's token."""

    def get(path: str = "", timeout: float = 5, **more: Any) -> requests.Response:
        url = f"{endpoint}/v2/{estate.project_id}/apigw/instances{path}"
        return session.get(url, headers={"X-Auth-Token": estate.token}, timeout=timeout, allow_redirects=False, **more)

    return get


@pytest.fixture
def estate() -> Estate:
    estate = Estate()
    estate.add_gateway("billing", gateway_id="billing").add_connections(50)
    estate.add_gateway("orders", gateway_id="orders")
    return estate


@pytest.fixture(params=["socket", "in process"])
def get(request: pytest.FixtureRequest, estate: Estate) -> Iterator[Get]:
    front_end: AbstractContextManager[Any] = serve(estate) if request.param == "socket" else in_process(estate)
    with front_end as server, requests.Session() as session:
        yield getter(estate, server.url if request.param == "socket" else ENDPOINT, session)


def connections(gateway: str, **query: int) -> str:
    return f"/{gateway}/vpc-endpoint/connections?" + "&".join(f"{name}={value}" for name, value in query.items())


def fault_id(value: object) -> str | None:
    return type(value).__name__ if hasattr(value, "strike") else None


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Throttled(), 429, "APIG.0308"),
        (Unauthorized(), 401, "APIC.7102"),
        (Unauthorized("APIG.0301"), 401, "APIG.0301"),
        (Forbidden(), 403, "APIC.7106"),
        (Forbidden("APIC.7130"), 403, "APIC.7130"),
        (NotFound(), 404, "APIC.7302"),
        (NotFound("APIC.7314"), 404, "APIC.7314"),
        (Busy(), 409, "APIC.7701"),
        (ServerError(), 500, "APIC.9007"),
        (ServerError("APIG.9008"), 500, "APIG.9008"),
    ],
    ids=fault_id,
)
def test_service_errors_have_status_code_and_request_id(estate, get, fault, status, code):
    estate.fail(fault)

    reply = get()

    assert (reply.status_code, reply.json()["error_code"]) == (status, code)
    assert len(reply.headers["x-request-id"]) == 32
    assert ("request_id" in reply.json()) == code.startswith("APIG.")
    assert get().status_code == 200


def test_throttling_says_its_threshold(estate, get):
    estate.fail(Throttled())

    reply = get()

    assert reply.json() == {
        "error_code": "APIG.0308",
        "error_msg": "The throttling threshold has been reached: policy ip over ratelimit,limit:10,time:1 second",
        "request_id": reply.headers["x-request-id"],
    }
    assert "Retry-After" not in reply.headers


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (3, "3"),
        (0.5, "0.5"),
        ("soon", "soon"),
        (datetime(2025, 8, 22, 12, tzinfo=timezone.utc), "Fri, 22 Aug 2025 12:00:00 GMT"),
    ],
)
def test_retry_after_takes_any_form(estate, get, given, sent):
    estate.fail(Throttled(retry_after=given))

    assert get().headers["Retry-After"] == sent


def test_iam_errors_nest_code_and_message(estate, get):
    estate.fail(IamError(403, "IAM.0002", "no"))

    reply = get()

    assert (reply.status_code, reply.json()) == (403, {"error": {"code": "IAM.0002", "message": "no"}})


def test_proxy_pages_redirects_and_garbage_are_sent_as_told(estate, get):
    for fault in (HtmlError(503), Redirect("https://elsewhere.example/"), Body(200, b'{"total":', "text/plain")):
        estate.fail(fault)

    page, redirect, garbage = get(), get(), get()

    assert (page.status_code, page.headers["Content-Type"]) == (503, "text/html")
    assert page.text.startswith("<html>")
    assert (redirect.status_code, redirect.headers["Location"]) == (302, "https://elsewhere.example/")
    assert (garbage.status_code, garbage.content) == (200, b'{"total":')


def test_oversize_is_still_good_json(estate, get):
    honest = get().json()
    estate.fail(Oversize(1_000_000))

    reply = get()

    assert len(reply.content) == 1_000_000
    assert reply.json() == honest


def test_reset_is_a_connection_error(estate, get):
    estate.fail(Reset())

    with pytest.raises(ConnectionError, match="reset by peer"):
        get()
    assert get().status_code == 200
    assert [log.status for log in estate.requests] == [0, 200]


def test_truncated_body_is_an_error_for_the_client(estate, get):
    estate.fail(Truncated())

    with pytest.raises(ChunkedEncodingError, match="more expected"):
        get()
    assert get().status_code == 200


def test_slow_answers_late_or_not_in_time(estate, get):
    estate.fail(Slow(0.15))
    began = time.monotonic()
    assert get().status_code == 200
    assert time.monotonic() - began >= 0.15

    estate.fail(Slow(30))
    with pytest.raises(ReadTimeout):
        get(timeout=0.1)


def test_dripping_body_takes_its_time_per_byte(estate, get):
    estate.fail(Drip(0.0002))
    began = time.monotonic()
    reply = get()
    assert time.monotonic() - began >= 0.0002 * len(reply.content)

    estate.fail(Drip(30))
    with pytest.raises(ConnectionError, match="timed out"):
        get(timeout=0.1)


def test_latency_is_added_to_each_answer(estate, get):
    estate.latency = 0.05
    began = time.monotonic()
    get()
    get()

    assert time.monotonic() - began >= 0.1


def test_fault_strikes_only_what_it_was_planned_for(estate, get):
    estate.fail(ServerError(), gateway="billing", kind="connections", offset=20)

    unharmed = [get(), get(connections("orders", offset=20)), get(connections("billing", offset=0))]
    struck = get(connections("billing", offset=20))

    assert [reply.status_code for reply in unharmed] == [200, 200, 200]
    assert struck.status_code == 500
    assert get(connections("billing", offset=20)).status_code == 200


def test_fault_for_a_gateway_without_connections_spares_the_others(estate, get):
    estate.fail(Busy(), gateway=estate.gateway("orders"))

    assert get(connections("billing")).status_code == 200
    assert get(connections("orders")).status_code == 409


def test_times_and_after_count_matching_requests(estate, get):
    planned = estate.fail(Busy(), gateway=estate.gateway("billing"), times=2, after=1)

    codes = []
    for _ in range(5):
        codes.append(get(connections("billing")).status_code)
        assert get(connections("orders")).status_code == 200

    assert codes == [200, 409, 409, 200, 200]
    assert planned.hits == 2


def test_faults_queue_up_and_forever_lasts_until_healed(estate, get):
    estate.fail(Busy())
    estate.fail(ServerError(), times=None)

    assert [get().status_code for _ in range(4)] == [409, 500, 500, 500]
    estate.heal()
    assert get().status_code == 200


def test_fault_that_replaces_an_action_changes_nothing(estate):
    pending = estate.gateway("billing").add_connection(status="pendingAcceptance")
    estate.fail(ServerError(), kind="action")
    body = {"action": "receive", "endpoints": [pending.id]}

    with in_process(estate):
        url = f"{ENDPOINT}/v2/{estate.project_id}/apigw/instances/billing/vpc-endpoint/connections/action"
        replies = [requests.post(url, json=body, headers={"X-Auth-Token": estate.token}, timeout=5) for _ in range(2)]

    assert [reply.status_code for reply in replies] == [500, 200]
    assert estate.gateway("billing").get(pending.id).status == "accepted"


def test_rate_limit_throttles_what_is_too_much(estate, get):
    estate.rate_limit = (3, 0.15)

    replies = [get() for _ in range(5)]
    time.sleep(0.2)

    assert [reply.status_code for reply in replies] == [200, 200, 200, 429, 429]
    assert replies[-1].json()["error_msg"].endswith("limit:3,time:0.15 seconds")
    assert get().status_code == 200


def test_requests_in_flight_are_counted_at_their_peak(estate, get):
    estate.latency = 0.1

    with ThreadPoolExecutor(4) as pool:
        assert {reply.status_code for reply in pool.map(lambda _: get(), range(8))} == {200}

    assert estate.peak_in_flight == 4


def test_reset_is_a_real_rst_on_the_wire(estate):
    estate.fail(Reset())

    lines = ["GET / HTTP/1.1", "Host: x", f"X-Auth-Token: {estate.token}", "", ""]

    with serve(estate) as server, socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as client:
        client.sendall("\r\n".join(lines).encode())
        with pytest.raises(ConnectionResetError):
            client.recv(1)
