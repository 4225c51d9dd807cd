"""Requests, retries and errors, over HTTP against the emulator."""

from __future__ import annotations

import math
import socket
import threading
import time
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from requests.structures import CaseInsensitiveDict

from audit.deadline import Deadline
from audit.errors import (
    ApiError,
    CredentialsRefused,
    Forbidden,
    NotFound,
    OutOfTime,
    Throttled,
    Unavailable,
    Unexpected,
)
from audit.huawei import transport as module
from audit.huawei.pace import Pace
from audit.huawei.permissions import Action
from audit.huawei.signing import SignatureAuth, TokenAuth
from audit.huawei.transport import Transport
from audit.targets import Credentials
from audit.text import Redactor
from tests.emulator import (
    ApigServer,
    Body,
    Busy,
    Drip,
    Estate,
    HtmlError,
    IamError,
    Oversize,
    Redirect,
    Reset,
    ServerError,
    Slow,
    Truncated,
    Unauthorized,
    serve,
)
from tests.emulator import Forbidden as Denied
from tests.emulator import NotFound as Missing
from tests.emulator import Throttled as TooMany
from tests.emulator.estate import PROJECT_ID
from tests.emulator.signature import DATE_FORMAT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from audit.exchange import Answer

HIDDEN = "s3cret/with+odd=characters"


def spoil(monkeypatch, transport: Transport, **headers: str) -> None:
    """Let every answer have these headers."""
    exchange = transport._http.exchange

    def spoiled(*args, **options) -> Answer:
        answer = exchange(*args, **options)
        changed = CaseInsensitiveDict(answer.headers)
        changed.update({name.replace("_", "-"): value for name, value in headers.items()})
        return replace(answer, headers=changed)

    monkeypatch.setattr(transport._http, "exchange", spoiled)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(module, "_FIRST_BACKOFF", 0.002)


@pytest.fixture
def estate() -> Estate:
    return Estate()


@pytest.fixture
def server(estate) -> Iterator[ApigServer]:
    with serve(estate) as running:
        yield running


@contextmanager
def connect(
    server, *, seconds: float = 5, concurrency: int = 4, auth=None, secrets=(), patience: float = math.inf
) -> Iterator[Transport]:
    estate = server.estate
    auth = auth or SignatureAuth(lambda: Credentials(estate.access_key, estate.secret_key), estate.project_id)
    deadline, redact = Deadline(seconds), Redactor(secrets)
    with closing(
        Transport(server.url, auth, deadline=deadline, concurrency=concurrency, redact=redact, patience=patience)
    ) as transport:
        yield transport


def echo(body: bytes) -> bytes:
    return body


def ask(transport: Transport, decode: Callable[[bytes], bytes] = echo) -> bytes:
    params = {"offset": 0, "limit": 500}
    return transport.get(f"/v2/{PROJECT_ID}/apigw/instances", params, decode, permission=Action("list", "lists"))


def refusal(transport: Transport, decode=echo) -> ApiError:
    with pytest.raises(ApiError) as caught:
        ask(transport, decode=decode)
    return caught.value


def fail_always(server, fault) -> tuple[ApiError, int]:
    """The error of a fault that does not go away, and how many requests were made."""
    server.estate.fail(fault, times=None)
    with connect(server) as transport:
        error = refusal(transport)
    return error, len(server.estate.requests)


def test_answer_is_decoded(server):
    """And the request was understood in every detail."""
    with connect(server) as transport:
        assert b'"instances"' in ask(transport)
    assert server.estate.refusals == []
    assert server.estate.requests[0].query == {"offset": "0", "limit": "500"}


@pytest.mark.parametrize("code", ["APIC.7100", "APIC.7102", "APIC.7107", "APIG.0301"])
def test_401_is_never_tried_again(server, code):
    """Not by this call nor by any later one: wrong signatures lock a key."""
    server.estate.fail(Unauthorized(code))
    with connect(server) as transport:
        error = refusal(transport)
        later = refusal(transport)
    assert isinstance(error, CredentialsRefused)
    assert (error.status, error.code) == (401, code)
    assert isinstance(later, CredentialsRefused)
    assert (later.status, later.code, later.request_id) == (401, code, None)
    assert str(later) == f"not asked any more: {error}"
    assert len(server.estate.requests) == 1


def test_401_ends_the_requests_of_all_threads(server, monkeypatch):
    """Those that wait for a turn, that wait to try again, and that come later."""
    server.estate.fail(TooMany(2), times=3)
    server.estate.fail(Slow(0.1), times=1)
    server.estate.fail(Unauthorized(), times=None)
    errors: list[ApiError] = []

    def work() -> None:
        errors.append(refusal(transport))

    with connect(server, seconds=20, concurrency=1) as transport:
        monkeypatch.setattr(transport._pace, "slow", lambda _: None)  # the hold is another test's
        sleepers = [threading.Thread(target=work) for _ in range(3)]
        for thread in sleepers:
            thread.start()
        while len(server.estate.requests) < 3:
            time.sleep(0.005)
        slow = threading.Thread(target=lambda: ask(transport))
        slow.start()
        while len(server.estate.requests) < 4:
            time.sleep(0.005)
        waiting = [threading.Thread(target=work) for _ in range(4)]
        began = time.monotonic()
        for thread in waiting:
            thread.start()
        for thread in [*sleepers, slow, *waiting]:
            thread.join(5)
        assert time.monotonic() - began < 1.5
        refusal(transport)
    assert [type(error) for error in errors] == [CredentialsRefused] * 7
    assert len(server.estate.requests) == 5


def test_wrong_key_fails_once(server):
    """The emulator's own check refuses it."""
    auth = SignatureAuth(lambda: Credentials(server.estate.access_key, "wrong"), server.estate.project_id)
    with connect(server, auth=auth) as transport:
        assert isinstance(refusal(transport), CredentialsRefused)
    assert server.estate.failed_signatures == 1


@pytest.mark.parametrize(
    ("fault", "kind", "status", "code"),
    [
        (Denied("APIC.7106"), Forbidden, 403, "APIC.7106"),
        (Denied("APIC.7300"), Forbidden, 403, "APIC.7300"),
        (IamError(403, "IAM.0002", "no"), Forbidden, 403, "IAM.0002"),
        (Missing("APIC.7302"), NotFound, 404, "APIC.7302"),
        (Missing("APIC.7314"), NotFound, 404, "APIC.7314"),
        (Body(400, b'{"error_code": "APIC.2011", "error_msg": "bad"}'), Unexpected, 400, "APIC.2011"),
        (Body(405), Unexpected, 405, ""),
        (Body(409, b'{"error_code": "APIC.7702", "error_msg": "other"}'), Unexpected, 409, "APIC.7702"),
        (Body(409), Unexpected, 409, ""),
        (Body(204), Unexpected, 204, ""),
        (Body(501), Unexpected, 501, ""),
        (IamError(401, "IAM.0001", "no"), CredentialsRefused, 401, "IAM.0001"),
    ],
)
def test_errors_that_are_not_tried_again(server, fault, kind, status, code):
    """One request, and the error says what it was."""
    error, requests = fail_always(server, fault)
    assert type(error) is kind
    assert (error.status, error.code, requests) == (status, code, 1)


@pytest.mark.parametrize(
    ("fault", "kind", "status", "code"),
    [
        (TooMany(), Throttled, 429, "APIG.0308"),
        (Busy(), Unavailable, 409, "APIC.7701"),
        (ServerError("APIC.9000"), Unavailable, 500, "APIC.9000"),
        (ServerError("APIC.9007"), Unavailable, 500, "APIC.9007"),
        (ServerError("APIC.9999"), Unavailable, 500, "APIC.9999"),
        (ServerError("APIG.9008"), Unavailable, 500, "APIG.9008"),
        (HtmlError(502), Unavailable, 502, ""),
        (HtmlError(503), Unavailable, 503, ""),
        (HtmlError(504), Unavailable, 504, ""),
        (Reset(), Unavailable, None, ""),
        (Truncated(), Unavailable, None, ""),
    ],
)
def test_errors_that_are_tried_again(server, fault, kind, status, code):
    """Five times at most; gone before that, nobody hears of them."""
    error, requests = fail_always(server, fault)
    assert type(error) is kind
    assert (error.status, error.code, requests) == (status, code, 5)
    assert str(error).endswith(" after 5 tries")
    server.estate.heal()
    server.estate.fail(fault, times=4)
    with connect(server) as transport:
        ask(transport)
    assert len(server.estate.requests) == 10


@pytest.mark.parametrize("problem", [ValueError("no `connections`"), RecursionError("too deep")])
def test_answer_that_makes_no_sense_is_tried_again(server, problem):
    """What the decoder says goes into the error, with the request id."""

    def decode(_: bytes) -> bytes:
        raise problem

    with connect(server) as transport:
        error = refusal(transport, decode)
    assert isinstance(error, Unavailable)
    assert error.status == 200
    assert str(error) == (
        f"HTTP 200 the answer makes no sense: {problem} (request id {error.request_id}) after 5 tries"
    )
    assert len(server.estate.requests) == 5


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Denied(), "HTTP 403 APIC.7106 No permissions to request for the method (request id ID); grant PERMISSION"),
        (Missing("APIC.7314"), "HTTP 404 APIC.7314 Endpoint service not found (request id ID)"),
        (
            ServerError(),
            "HTTP 500 APIC.9007 Failed to execute VCPEP request (request id ID) after 5 tries",
        ),
        (IamError(401, "IAM.0001", "The token expired"), "HTTP 401 IAM.0001 The token expired (request id ID)"),
        (HtmlError(), "HTTP 502 (request id ID) after 5 tries"),
        (Body(400, b'{"error_code": 7, "error_msg": null}'), "HTTP 400 7 (request id ID)"),
        (Body(400, b'{"error_code": null, "error_msg": "m"}'), "HTTP 400 m (request id ID)"),
        (Body(400, b'{"error": "text"}'), "HTTP 400 (request id ID)"),
        (Body(400, b'["error_code"]'), "HTTP 400 (request id ID)"),
        (Body(400, b"\xff\xfe"), "HTTP 400 (request id ID)"),
        (Body(400, b"[" * 100_000), "HTTP 400 (request id ID)"),
        (Body(400, b'{"error_msg": "' + b"x" * 400 + b'"}'), f"HTTP 400 {'x' * 299}… (request id ID)"),
        (
            Body(400, b'{"error_msg": "a\\u001b[2J\\u202e\\ud800b"}'),
            "HTTP 400 a\\x1b[2J\\u202e\\ud800b (request id ID)",
        ),
        (Reset(), "the connection was broken off after 5 tries"),
        (Truncated(), "the answer was cut short after 5 tries"),
    ],
)
def test_error_says_status_code_message_and_request_id(server, fault, text):
    """And 403 names the action to grant; whatever the body, and nothing that moves a cursor."""
    error, _ = fail_always(server, fault)
    if "ID" in text:
        assert error.request_id
    text = text.replace("PERMISSION", "list (identity policy) or lists (role policy)")
    assert str(error) == text.replace(" ID)", f" {error.request_id})")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect_is_refused(server, status):
    """Not followed, not tried again: it would carry the signature elsewhere."""
    with serve(Estate()) as elsewhere:
        error, requests = fail_always(server, Redirect(f"{elsewhere.url}/v2", status))
        assert elsewhere.estate.requests == []
    assert (type(error), error.status, requests) == (Unexpected, status, 1)


def test_too_large_an_answer_is_bounded(server, monkeypatch):
    """Memory is finite; it counts as a broken answer."""
    monkeypatch.setattr(module, "MOST_BYTES", 20_000)
    error, requests = fail_always(server, Oversize(1_000_000))
    assert str(error) == "the answer is larger than 20000 bytes after 5 tries"
    assert (type(error), requests) == (Unavailable, 5)


def test_unreachable_host_is_tried_again():
    """As a network may come back."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with closing(
        Transport(f"http://127.0.0.1:{port}", TokenAuth("t"), deadline=Deadline(5), concurrency=1, redact=Redactor(()))
    ) as transport:
        error = refusal(transport)
    assert (type(error), str(error)) == (Unavailable, "the connection was refused after 5 tries")


def test_throttling_is_waited_for(server):
    """Retry-After in seconds; nothing is sent before."""
    server.estate.fail(TooMany(0.3))
    with connect(server) as transport:
        began = time.monotonic()
        ask(transport)
        assert 0.3 <= time.monotonic() - began < 3


def test_throttling_until_a_date_is_waited_for(server):
    """Retry-After as an HTTP date, which is whole seconds."""
    until = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(seconds=1)
    server.estate.fail(TooMany(until))
    with connect(server) as transport:
        ask(transport)
        assert until <= datetime.now(timezone.utc) < until + timedelta(seconds=0.5)


def test_retry_after_of_another_status_is_waited_for(server, monkeypatch):
    """503 may name a time too."""
    server.estate.fail(ServerError())
    with connect(server) as transport:
        spoil(monkeypatch, transport, Retry_After="0.3")
        began = time.monotonic()
        ask(transport)
        assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize("past", ["0", "Thu, 01 Jan 1970 00:00:00 GMT", "soon", "-5", ""])
def test_retry_after_that_is_over_or_senseless_is_no_invitation_to_hammer(server, past, monkeypatch):
    """Then our own backoff counts."""
    monkeypatch.setattr(module, "_FIRST_BACKOFF", 0.1)
    monkeypatch.setattr("random.uniform", lambda low, high: (low + high) / 2)
    server.estate.fail(TooMany(past))
    with connect(server) as transport:
        began = time.monotonic()
        ask(transport)
        assert time.monotonic() - began >= 0.05


@pytest.mark.parametrize("wait", [3600, datetime.now(timezone.utc) + timedelta(hours=1)])
def test_retry_after_beyond_the_time_left_gives_up_at_once(server, wait):
    """Without waiting, and says so."""
    server.estate.fail(TooMany(wait))
    with connect(server) as transport:
        began = time.monotonic()
        error = refusal(transport)
        assert time.monotonic() - began < 3
    assert type(error) is Throttled
    assert "after 1 try; the next try would be in 3" in str(error)
    assert str(error).endswith(" s, which is too late")
    assert len(server.estate.requests) == 1


def test_throttling_slows_all_workers(server):
    """Whoever comes while one is told to wait waits too, then with half the requests in flight."""
    server.estate.fail(TooMany(0.3))
    with connect(server, concurrency=8) as transport:
        first = threading.Thread(target=ask, args=(transport,))
        began = time.monotonic()
        first.start()
        while not server.estate.requests:
            time.sleep(0.002)
        time.sleep(0.05)
        server.estate.peak_in_flight = 0
        server.estate.latency = 0.02
        others = [threading.Thread(target=ask, args=(transport,)) for _ in range(12)]
        for thread in others:
            thread.start()
        time.sleep(0.1)
        assert len(server.estate.requests) == 1
        for thread in [first, *others]:
            thread.join()
        assert time.monotonic() - began >= 0.3
    assert len(server.estate.requests) == 14
    assert 2 <= server.estate.peak_in_flight <= 6


def test_who_was_refused_goes_before_others(server, monkeypatch):
    """Each try asks for its turn with its number."""
    server.estate.fail(ServerError(), times=2)
    asked: list[int] = []
    with connect(server) as transport:
        turn = transport._pace.turn

        def recorded(patience: float, attempt: int):
            asked.append(attempt)
            return turn(patience, attempt)

        monkeypatch.setattr(transport._pace, "turn", recorded)
        ask(transport)
    assert asked == [1, 2, 3]


def test_requests_in_flight_are_bounded(server):
    """Whatever the number of threads."""
    server.estate.latency = 0.01
    with connect(server, concurrency=3) as transport:
        threads = [threading.Thread(target=ask, args=(transport,)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert server.estate.peak_in_flight == 3


def test_api_with_a_rate_limit_is_read_all_the_same(server, monkeypatch):
    """Many workers meet one limit, without a Retry-After to help: each request gets through within its tries."""
    monkeypatch.setattr(module, "_FIRST_BACKOFF", 0.05)
    server.estate.rate_limit = (4, 0.05)
    failures: list[ApiError] = []

    def work() -> None:
        for _ in range(3):
            try:
                ask(transport)
            except ApiError as error:
                failures.append(error)

    with connect(server, seconds=20, concurrency=8) as transport:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


@pytest.mark.parametrize("fault", [Slow(30), Drip(0.05)])
def test_slow_answers_do_not_outlast_the_time(server, fault):
    """The time limit holds whatever the server does."""
    server.estate.fail(fault, times=None)
    with connect(server, seconds=0.3) as transport:
        began = time.monotonic()
        error = refusal(transport)
        assert time.monotonic() - began < 3
    assert (type(error), str(error)) == (OutOfTime, "deadline: the time limit of the run was reached")


def test_without_time_nothing_is_asked(server):
    """Not even once."""
    with connect(server, seconds=0) as transport:
        assert type(refusal(transport)) is OutOfTime
    assert server.estate.requests == []


def test_time_that_ends_between_two_looks_is_no_crash(server):
    """A clock that jumps past the end at any moment."""
    answered = 0
    for looks in range(1, 6):
        ticks = chain([0.0] * looks, repeat(99.0))
        deadline = Deadline(1, partial(next, ticks))
        auth = TokenAuth(server.estate.token)
        transport = Transport(server.url, auth, deadline=deadline, concurrency=1, redact=Redactor(()))
        with closing(transport), suppress(OutOfTime):
            ask(transport)
            answered += 1
    assert 0 < answered < 5


def test_waiting_for_a_turn_ends_with_the_time(server):
    """Another request may hold the only turn."""
    server.estate.fail(Slow(0.5))
    with connect(server, seconds=0.2, concurrency=1) as transport:
        first = threading.Thread(target=refusal, args=(transport,))
        first.start()
        began = time.monotonic()
        assert type(refusal(transport)) is OutOfTime
        assert time.monotonic() - began < 3
        first.join()


def test_closing_ends_all_waiting(server):
    """And nothing more is sent."""
    server.estate.fail(TooMany(4), times=None)
    with connect(server, seconds=20) as transport:
        errors: list[ApiError] = []
        threads = [threading.Thread(target=lambda: errors.append(refusal(transport))) for _ in range(3)]
        for thread in threads:
            thread.start()
        while not server.estate.requests:
            time.sleep(0.002)
        time.sleep(0.05)
        sent = len(server.estate.requests)
        transport.close()
        for thread in threads:
            thread.join(1)
        assert [type(error) for error in errors] == [OutOfTime] * 3
        assert type(refusal(transport)) is OutOfTime
    assert len(server.estate.requests) == sent


def test_each_try_is_signed_anew(server):
    """With the time of that try; the emulator verifies each."""
    now = datetime.now(timezone.utc).replace(microsecond=0)
    moments = iter([now, now + timedelta(seconds=1), now + timedelta(seconds=2)])
    key = Credentials(server.estate.access_key, server.estate.secret_key)
    auth = SignatureAuth(lambda: key, server.estate.project_id, lambda: next(moments))
    server.estate.fail(ServerError(), times=2)
    with connect(server, auth=auth) as transport:
        ask(transport)
    dates = [request.headers["x-sdk-date"] for request in server.estate.requests]
    assert dates == [(now + timedelta(seconds=s)).strftime(DATE_FORMAT) for s in range(3)]
    assert len({request.headers["authorization"] for request in server.estate.requests}) == 3
    assert server.estate.failed_signatures == 0


def test_token_is_sent_alone(server):
    """No signature beside it."""
    with connect(server, auth=TokenAuth(server.estate.token)) as transport:
        ask(transport)
    headers = server.estate.requests[0].headers
    assert headers["x-auth-token"] == server.estate.token
    assert "authorization" not in headers


def test_temporary_credentials_are_accepted():
    """With their security token, which the emulator demands signed."""
    estate = Estate(security_token="temporary")
    key = Credentials(estate.access_key, estate.secret_key, "temporary")
    with serve(estate) as server, connect(server, auth=SignatureAuth(lambda: key, estate.project_id)) as transport:
        ask(transport)
    assert estate.requests[0].headers["x-security-token"] == "temporary"


@pytest.mark.parametrize(
    ("skew", "words"),
    [(300, "300 s behind"), (-300, "300 s ahead of"), (50, ""), (-50, "")],
)
def test_clocks_that_disagree_are_told(server, skew, words):
    """By more than a minute."""
    server.estate.clock_skew = timedelta(seconds=skew)
    with connect(server) as transport:
        assert transport.warnings() == []
        ask(transport)
        text = "".join(transport.warnings()).replace("299 s", "300 s").replace("301 s", "300 s")
    assert text == (
        f"this machine's clock is {words} the API's; ages are judged by this machine's clock" if words else ""
    )


def test_skew_is_seen_in_errors_too(server):
    """A refused signature is the likeliest time to need it."""
    server.estate.clock_skew = timedelta(hours=1)
    with connect(server) as transport:
        assert isinstance(refusal(transport), CredentialsRefused)
        assert "behind the API's" in transport.warnings()[0]


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 01 Jan 2024 00:00:00 +999999999999999"])
def test_senseless_date_is_no_skew(server, monkeypatch, date):
    """And no crash."""
    with connect(server) as transport:
        spoil(monkeypatch, transport, Date=date)
        ask(transport)
        assert transport.warnings() == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"error_code": "APIC.1", "error_msg": "bad key s3cret/with+odd=characters"}',
        b'{"error_code": "s3cret/with+odd=characters", "error_msg": "x"}',
        b'{"error": {"code": "x", "message": "of s3cret%2Fwith%2Bodd%3Dcharacters"}}',
        b'{"error_msg": "' + b"x" * 280 + b's3cret/with+odd=characters"}',
    ],
)
def test_secrets_that_the_server_repeats_are_taken_out(server, body):
    """Of code and message, also encoded, also where the text is cut."""
    server.estate.fail(Body(400, body))
    with connect(server, secrets=[HIDDEN]) as transport:
        error = refusal(transport)
    for text in (str(error), error.text, error.code, repr(error)):
        assert "s3cret" not in text


def test_secrets_in_what_the_decoder_says_and_in_request_ids_are_taken_out(server, monkeypatch):
    """They come from the server as well."""

    def decode(_: bytes) -> bytes:
        raise ValueError(f"Invalid value '{HIDDEN}'")

    with connect(server, secrets=[HIDDEN]) as transport:
        spoil(monkeypatch, transport, X_Request_Id=HIDDEN)
        error = refusal(transport, decode)
    assert "s3cret" not in f"{error} {error.request_id}"
    assert error.request_id == "***"


def test_connections_are_kept_and_used_again(server):
    """One for each worker; a handshake each time would double the time of a run."""
    peers = set()
    process = server._server.process_request

    def count(request, client_address) -> None:
        peers.add(client_address)
        process(request, client_address)

    server._server.process_request = count
    server.estate.fail(Missing(), times=3, after=2)
    with connect(server, concurrency=1) as transport:
        for turn in range(10):
            if turn in {2, 3, 4}:
                refusal(transport)
            else:
                ask(transport)
    assert len(peers) == 1


def test_a_server_that_is_silent_for_as_long_as_patience_lasts_is_asked_no_more(server, monkeypatch):
    """Others are to be read too, and would wait for it."""
    monkeypatch.setattr(module, "_LEAST_SECONDS", 0.1)
    server.estate.fail(Slow(3), times=None)
    with connect(server, patience=0.4) as transport:
        began = time.monotonic()
        assert str(refusal(transport)).startswith("no answer in time after 1 try")
        assert str(refusal(transport)).startswith("not asked any more: no answer in time after 1 try")
        assert time.monotonic() - began < 2
    assert len(server.estate.requests) <= 1


def test_a_wait_beyond_patience_costs_what_was_asked_for_and_nothing_else(server, monkeypatch):
    monkeypatch.setattr(Pace, "slow", lambda *_: None)
    server.estate.fail(TooMany(4))
    with connect(server, patience=2) as transport:
        assert str(refusal(transport)).endswith("after 1 try; the next try would be in 4 s, which is too late")
        assert ask(transport)


def test_time_in_which_nobody_asks_costs_no_patience(server):
    """A target may have been read ahead, and wait for its turn."""
    with connect(server, patience=0.3) as transport:
        ask(transport)
        time.sleep(0.4)
        server.estate.fail(ServerError(), times=4)
        assert ask(transport)
        server.estate.fail(ServerError(), times=5)
        assert isinstance(refusal(transport), Unavailable)
        time.sleep(0.4)
        assert ask(transport)
