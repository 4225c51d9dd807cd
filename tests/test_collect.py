"""Reading gateways: complete or said not to be, in order, together, and no more in memory than needed."""

from __future__ import annotations

import random
import threading
from contextlib import closing, contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.deadline import Deadline
from audit.errors import ApiError
from audit.huawei.apig import Apig
from audit.huawei.signing import SignatureAuth
from audit.huawei.transport import Transport
from audit.model import EndpointConnection, Gateway, Reading
from audit.paging import Page
from audit.plan import Step, plan_reading
from audit.reading import find_existing, read_gateways
from audit.targets import Credentials
from audit.text import Redactor
from tests.builders import gateway, record
from tests.emulator import Body, Busy, Estate, Forbidden, NotFound, Unauthorized, serve

REGION = "cn-north-4"


@contextmanager
def api_of(estate: Estate, *, seconds: float = 30, concurrency: int = 8, sk: str = ""):
    """A real client against the emulated API, over HTTP."""
    with serve(estate) as server:
        auth = SignatureAuth(lambda: Credentials(estate.access_key, sk or estate.secret_key), estate.project_id)
        transport = Transport(
            server.url, auth, deadline=Deadline(seconds), concurrency=concurrency, redact=Redactor([])
        )
        with closing(transport):
            yield Apig(transport, REGION, estate.project_id)


def read_all(api, wanted=(), known=(), concurrency=8) -> list[Reading]:
    return list(read_gateways([api], plan_reading(api, wanted, known).steps, concurrency))


def ids(reading: Reading) -> list[str | None]:
    return [connection.id for connection in reading.connections]


def test_everything_is_read_over_http_in_sorted_order():
    """Several gateways, several pages, every status; each as the estate has it."""
    estate = Estate()
    for name, count in [("zeta", 3), ("long", 1203), ("empty", 0), ("alpha", 1)]:
        estate.add_gateway(name).add_connections(count)
    for status in ("pendingAcceptance", "creating", "accepted", "rejected", "failed", "deleting"):
        estate.gateway("zeta").add_connection(status=status)
    with api_of(estate) as api:
        readings = read_all(api)
    assert [r.gateway.id for r in readings] == sorted(g.id for g in estate.gateways)
    for reading in readings:
        assert (reading.state, reading.reason) == ("complete", "")
        there = estate.gateway(reading.gateway.id).connections
        assert ids(reading) == [connection.id for connection in there]
        assert [c.status for c in reading.connections] == [c.status for c in there]
    assert estate.refusals == []
    assert estate.requests[0].path.endswith("/apigw/instances")
    assert estate.failed_signatures == 0


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), changes=st.integers(0, 60), cap=st.sampled_from([3, 5, 500]))
def test_estates_that_change_while_they_are_read_in_parallel(seed, changes, cap):
    """Over real HTTP with pages fetched together: a state that existed during the reading, or not complete."""
    rng, estate = random.Random(seed), Estate()
    estate.page_cap = cap
    shop = estate.add_gateway("shop")
    shop.add_connections(rng.randint(0, 25))
    states: list[frozenset[tuple[str, str, str]]] = []
    left = [changes]

    def remember() -> None:
        states.append(frozenset((c.id, c.status, c.record["updated_at"]) for c in shop.connections))

    def change(call) -> None:
        if call.kind == "connections" and left[0]:
            left[0] -= 1
            there = shop.connections
            kind = rng.choice(["add", "remove", "change", "nothing"])
            if kind == "add":
                shop.insert(rng.randint(0, len(there)))
            elif kind == "remove" and there:
                shop.remove(rng.choice(there).id)
            elif kind == "change" and there:
                shop.change(rng.choice(there).id, status=rng.choice(["accepted", "rejected", "failed"]))
        remember()

    remember()
    estate.before_request(change)
    with api_of(estate) as api:
        (reading,) = read_all(api)
    seen = frozenset((c.id, c.status, c.updated_at) for c in reading.connections)
    if reading.state == "complete":
        assert seen in states
        assert len(seen) == len(reading.connections)
    else:
        assert (reading.state, "would not hold still" in reading.reason) == ("partial", True)


def test_one_gateway_that_cannot_be_read_costs_only_itself():
    """Each failure is a fact about its own gateway, with reason and request id."""
    estate = Estate()
    for name in ("a", "b", "c", "d"):
        estate.add_gateway(name, gateway_id=name).add_connections(2)
    estate.add_gateway("e", gateway_id="e", endpoint_service=False)
    estate.fail(Forbidden(), gateway="a", times=None)
    estate.fail(NotFound(), gateway="b", times=None)
    estate.fail(Busy(), gateway="c", times=1)
    with api_of(estate) as api:
        readings = {reading.gateway.id: reading for reading in read_all(api)}
    assert {gid: reading.state for gid, reading in readings.items()} == {
        "a": "not_covered", "b": "not_covered", "c": "complete", "d": "complete", "e": "complete",
    }  # fmt: skip
    assert "APIC.7106" in readings["a"].reason
    assert "apig:instance:listVpcEndpoint" in readings["a"].reason
    assert readings["a"].request_id
    assert "APIC.7302" in readings["b"].reason
    assert len(readings["c"].connections) == 2
    assert readings["e"].reason == "the gateway has no endpoint service"


def test_a_list_that_never_holds_still_is_partial_and_what_was_seen_is_kept():
    """Nothing is said of what was not proved."""
    estate = Estate()
    shop = estate.add_gateway("shop")
    shop.add_connections(4)
    estate.page_cap = 2
    estate.before_request(
        lambda call: call.kind == "connections" and shop.change(shop.connections[0].id, status="failed")
    )
    with api_of(estate) as api:
        (reading,) = read_all(api)
    assert reading.state == "partial"
    assert len(reading.connections) == 4


def test_the_documented_example_answer_is_read_as_documented():
    """The vendor's example says total 2 and shows one: that one is read, and the rest is said to be missing."""
    body = (
        '{ "total" : 2, "size" : 1, "connections" : [ { "id" : "76ad893c-6a1e-4055-8019-fe9c9bd3204d",'
        ' "marker_id" : 167960098, "created_at" : "2021-04-29T02:12:44Z", "updated_at" : "2021-04-29T02:12:45Z",'
        ' "domain_id" : "b70fde8e849b4e76a61dd8aa0ec05c81", "status" : "accepted" } ] }'
    )

    estate = Estate()
    estate.add_gateway("documented")
    estate.fail(Body(200, body.encode(), "application/json"), kind="connections", times=None)
    with api_of(estate) as api:
        (reading,) = read_all(api)
        page = api.list_connections(estate.gateways[0].id)
    documented = EndpointConnection(
        id="76ad893c-6a1e-4055-8019-fe9c9bd3204d",
        marker_id=167960098,
        created_at="2021-04-29T02:12:44Z",
        updated_at="2021-04-29T02:12:45Z",
        domain_id="b70fde8e849b4e76a61dd8aa0ec05c81",
        status="accepted",
    )
    assert page == Page(2, 1, (documented,))
    assert reading.connections == (documented,)
    assert reading.state == "partial"


def test_a_wrong_key_fails_once_and_before_any_gateway():
    """Five wrong signatures lock a key: the list is read first and alone."""
    estate = Estate()
    estate.add_gateway("a").add_connections(2)
    with api_of(estate, sk="wrong") as api:
        plan = plan_reading(api, ["named"], [gateway("known")])
        states = {r.gateway.id: r.state for r in read_gateways([api], plan.steps, 8)}
    assert estate.failed_signatures == 1
    assert states == {"named": "not_covered", "known": "out_of_scope"}
    (entry,) = plan.coverage
    assert (entry.gateway_id, entry.state) == (None, "not_covered")
    assert "APIG.0301" in entry.reason


def test_credentials_refused_midway_end_all_reading():
    """No further request is sent once one was refused; what was read before stays read."""
    estate = Estate()
    for number in range(30):
        estate.add_gateway(f"g{number:02}", gateway_id=f"g{number:02}").add_connection()
    estate.fail(Unauthorized("APIC.7102"), gateway="g05", times=None)
    with api_of(estate, concurrency=1) as api:
        readings = read_all(api, concurrency=1)
    assert [r.state for r in readings] == ["complete"] * 5 + ["not_covered"] * 25
    assert "APIC.7102" in readings[5].reason
    assert "not asked any more" in readings[29].reason
    assert sum(1 for request in estate.requests if request.status == 401) == 1


def test_named_gateways_that_do_not_exist_are_not_covered():
    """The others are audited; those not named are out of scope."""
    estate = Estate()
    for name in ("a", "b"):
        estate.add_gateway(name, gateway_id=name)
    with api_of(estate) as api:
        readings = read_all(api, wanted=["a", "ghost"])
    assert [(r.gateway.id, r.state) for r in readings] == [
        ("a", "complete"), ("b", "out_of_scope"), ("ghost", "not_covered"),
    ]  # fmt: skip
    assert readings[2].reason == "no such gateway in this project"
    assert not any("/b/" in request.path for request in estate.requests)


def test_a_gateway_that_is_no_longer_listed_is_gone_only_where_the_api_says_so():
    """404 APIC.7302 is the proof; anything else leaves it uncovered."""
    estate = Estate()
    hidden = estate.add_gateway("hidden", gateway_id="hidden")
    known = [Gateway(REGION, estate.project_id, name, name) for name in ("hidden", "gone")]
    with api_of(estate, seconds=3) as api:
        estate.gateways.clear()
        readings = {r.gateway.id: r for r in read_all(api, known=known)}
        assert (readings["gone"].gone, readings["gone"].state) == (True, "complete")
        estate.gateways.append(hidden)

        class Unlisted:
            """The API, whose list of gateways leaves one out."""

            def __getattr__(self, name: str):
                return getattr(api, name)

            def list_gateways(self, offset: int = 0) -> Page[Gateway]:
                return Page(0, 0, ())

        readings = {r.gateway.id: r for r in read_all(Unlisted(), known=known)}
    assert (readings["hidden"].gone, readings["hidden"].state) == (False, "not_covered")
    assert readings["hidden"].reason == "no longer listed, but it still answers"


def test_a_list_of_gateways_that_will_not_hold_still_hides_no_gateway():
    """What was seen is audited, what was known is not covered, and none is taken for deleted."""
    estate = Estate()
    estate.page_cap = 2
    for number in range(4):
        estate.add_gateway(f"g{number}", gateway_id=f"g{number}")
    counter = iter(range(1000))
    estate.before_request(
        lambda call: (
            call.kind == "instances" and estate.add_gateway(f"new{next(counter)}", gateway_id=f"x{next(counter)}")
        )
    )
    known = [Gateway(REGION, estate.project_id, "lost", "lost")]
    with api_of(estate) as api:
        plan = plan_reading(api, [], known)
    assert [(entry.gateway_id, entry.state) for entry in plan.coverage] == [(None, "partial")]
    by_id = {step.gateway.id: step for step in plan.steps}
    assert {"g0", "g1", "g2", "g3"} <= by_id.keys()
    lost = by_id["lost"].decided
    assert lost is not None
    assert (lost.state, lost.gone) == ("not_covered", False)


def test_a_gateway_with_an_unusable_id_is_said_to_be_uncovered():
    """An id that would bend the request's path is never put into one; none at all is a gap in the list."""
    estate = Estate()
    estate.raw_records += [{"id": "../../x?y#", "instance_name": "evil"}, {"instance_name": "nameless"}]
    with api_of(estate) as api:
        plan = plan_reading(api, [], [])
        readings = list(read_gateways([api], plan.steps, 4))
    assert [(r.gateway.name, r.state) for r in readings] == [("evil", "not_covered")]
    assert "id cannot be used" in readings[0].reason
    assert [entry.reason for entry in plan.coverage] == ["it holds a gateway without an id"]
    assert len(estate.requests) == 1


def test_running_out_of_time_is_a_fact_about_each_gateway_that_was_not_read():
    """Nothing waits beyond the time limit."""
    estate = Estate()
    for number in range(20):
        estate.add_gateway(f"g{number:02}").add_connection()
    estate.latency = 0.15
    with api_of(estate, seconds=1.0, concurrency=2) as api:
        readings = read_all(api, concurrency=2)
    states = [reading.state for reading in readings]
    assert states[0] == "complete"
    assert states[-1] == "not_covered"
    assert "time limit" in readings[-1].reason


def test_a_connection_is_asked_for_by_its_id():
    """There, gone, or not to be told: a server that ignores the filter proves nothing."""
    estate = Estate()
    shop = estate.add_gateway("shop", gateway_id="shop")
    there = shop.add_connection()
    estate.add_gateway("bare", gateway_id="bare", endpoint_service=False)
    estate.add_gateway("shut", gateway_id="shut")
    estate.fail(Forbidden(), gateway="shut", times=None)
    with api_of(estate) as api:
        assert find_existing(api, "shop", [there.id, "00000000-dead"], 4, 1) == {there.id: True, "00000000-dead": False}
        for name, expected in {"bare": False, "nowhere": False, "shut": None}.items():
            assert find_existing(api, name, ["x"], 4, 1) == {"x": expected}
    assert {there.id, "00000000-dead"} <= {request.query.get("id") for request in estate.requests}

    class Deaf(FakeApi):
        def list_connections(self, gateway_id, offset=0, *, connection_id=None):
            return Page(self.sizes["total"], 1, (record("another"),))

    for total in (0, 1):
        assert find_existing(Deaf({"total": total}), "shop", ["x"], 4, 1) == {"x": None}


def test_asking_by_id_ends_after_a_few_that_cannot_be_told():
    """The time is for the gateways that are still to be read."""
    asked = []

    class Broken(FakeApi):
        def list_connections(self, gateway_id, offset=0, *, connection_id=None):
            asked.append(connection_id)
            raise ApiError("no")

    names = [f"c{number}" for number in range(1000)]
    assert find_existing(Broken({}), "shop", names, 4, 2) == {"c0": None, "c1": None}
    assert len(asked) < 100
    assert find_existing(Broken({}), "shop", names, 4, 0) == {}


def test_a_total_that_no_memory_holds_costs_neither_time_nor_memory():
    """Pages are asked for a few at a time; a list that says nothing new is given up."""

    class Liar(FakeApi):
        def list_connections(self, gateway_id, offset=0, *, connection_id=None):
            self.fetched += 1
            return Page(10**9, 2, (record("a"), record("b")))

    api = Liar({"shop": 0})
    (reading,) = read_gateways([api], plan_reading(api, [], []).steps, 4)
    assert (reading.state, len(reading.connections)) == ("partial", 2)
    assert api.fetched < 500


class FakeApi:
    """An API of gateways with so many connections each; counts what is held at once."""

    region = REGION
    project_id = "p1"

    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes = sizes
        self.closed = threading.Event()
        self.fetched = 0
        self.lock = threading.Lock()

    def list_gateways(self, offset: int = 0) -> Page[Gateway]:
        return Page(len(self.sizes), None, tuple(map(gateway, self.sizes)))

    def list_connections(self, gateway_id, offset=0, *, connection_id=None) -> Page[EndpointConnection]:
        if self.closed.is_set():
            raise ApiError("closed")
        total = self.sizes[gateway_id]
        items = tuple(record(f"{gateway_id}-{n}") for n in range(offset, min(offset + 500, total)))
        with self.lock:
            self.fetched += len(items)
        return Page(total, len(items), items)

    def list_permissions(self, gateway_id, offset=0) -> Page[str]:
        return Page(0, 0, ())

    def close(self, why: str = "") -> None:
        self.closed.set()


def test_reading_ahead_is_bounded_by_connections_not_by_gateways():
    """Twenty long gateways need no more memory than two hundred short ones; and nobody waits for ever."""
    api = FakeApi({f"g{number:02}": 5000 for number in range(20)})
    ahead = []
    for done, reading in enumerate(read_gateways([api], plan_reading(api, [], []).steps, 16), 1):
        assert len(reading.connections) == 5000
        with api.lock:
            # Two readings of each; the first page of those that wait is known already.
            ahead.append(api.fetched / 2 - done * 5000)
    assert max(ahead) <= 10_000 + 5_000 + 20 * 500 + 3_000
    assert len(ahead) == 20


def test_reading_ahead_does_not_run_away_from_a_slow_consumer():
    """At most twice as many gateways as there are workers are under way."""
    api = FakeApi({f"g{number:03}": 1 for number in range(200)})
    readings = read_gateways([api], plan_reading(api, [], []).steps, 4)
    next(readings)
    threading.Event().wait(0.2)
    assert api.fetched <= 8
    assert len(list(readings)) == 199


def test_a_consumer_that_gives_up_stops_the_reading():
    """Closing the iterator closes the API and leaves no thread behind."""
    before = set(threading.enumerate())
    api = FakeApi({f"g{number:03}": 3000 for number in range(100)})
    readings = read_gateways([api], plan_reading(api, [], []).steps, 8)
    next(readings)
    readings.close()
    assert api.closed.is_set()
    assert not set(threading.enumerate()) - before


def test_decided_steps_ask_nothing():
    """Out of scope means not even looked at."""
    api = FakeApi({})
    step = Step(gateway("a"), Reading(gateway("a"), "out_of_scope"))
    assert [r.state for r in read_gateways([api], [step], 2)] == ["out_of_scope"]
    assert api.fetched == 0


@pytest.mark.parametrize("concurrency", [1, 2, 16])
def test_long_and_short_gateways_together_come_out_whole(concurrency):
    """Order and completeness do not depend on how many workers there are."""
    sizes = {f"g{number:02}": [0, 1, 499, 501, 4000][number % 5] for number in range(25)}
    api = FakeApi(sizes)
    readings = list(read_gateways([api], plan_reading(api, [], []).steps, concurrency))
    assert {r.gateway.id: len(r.connections) for r in readings} == sizes
    assert [r.gateway.id for r in readings] == sorted(sizes)
