"""Keys of an agency: asked for once, renewed in time, refused in one sentence, and never shown."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from audit.deadline import Deadline
from audit.errors import ApiError, CredentialsRefused
from audit.huawei import transport as module
from audit.huawei.iam import AssumedAgency
from audit.huawei.signing import SignatureAuth
from audit.huawei.transport import Transport
from audit.targets import Agency, Credentials
from audit.text import Redactor
from tests.emulator import ApigServer, Body, Estate, IamError, ServerError, Slow, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMED = Agency("apig-audit", "retail")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_BACKOFF", 0.002)


@pytest.fixture
def server() -> Iterator[ApigServer]:
    estate = Estate()
    estate.iam.add_agency("retail", "apig-audit", ["p"])
    with serve(estate) as served:
        yield served


class Borrower:
    """An agency that is assumed with the estate's own key, a clock that is set, and what was learned."""

    def __init__(self, server: ApigServer, agency: Agency = NAMED, secret: str = "") -> None:
        estate = server.estate
        own = Credentials(estate.access_key, secret or estate.secret_key)
        self.redact = Redactor(own.secrets)
        self.transport = Transport(
            server.url,
            SignatureAuth(lambda: own, ""),
            deadline=Deadline(10),
            concurrency=4,
            redact=self.redact,
        )
        self.learned: list[tuple[str, ...]] = []
        self.now = datetime.now(timezone.utc)
        self.keys = AssumedAgency(self.transport, agency, self.learned.append, lambda: self.now)

    def refusal(self) -> ApiError:
        with pytest.raises(ApiError) as caught:
            self.keys()
        return caught.value


@pytest.fixture
def borrower(server: ApigServer) -> Iterator[Borrower]:
    borrower = Borrower(server)
    with closing(borrower.transport):
        yield borrower


def test_one_request_serves_all_that_wait_for_keys(server: ApigServer, borrower: Borrower) -> None:
    server.estate.fail(Slow(0.1))
    with ThreadPoolExecutor(16) as pool:
        keys = list(pool.map(lambda _: borrower.keys(), range(64)))
    assert len(set(keys)) == len(server.estate.requests) == 1
    assert "x-project-id" not in server.estate.requests[0].headers
    assert server.estate.refusals == []


def test_keys_are_renewed_before_they_end_and_not_sooner(server: ApigServer, borrower: Borrower) -> None:
    first = borrower.keys()
    borrower.now += timedelta(minutes=54)
    assert borrower.keys() == first
    borrower.now += timedelta(minutes=2)
    assert borrower.keys() != first
    assert len(server.estate.requests) == 2


def test_secrets_are_learned_before_anyone_has_them(borrower: Borrower) -> None:
    keys = borrower.keys()
    assert borrower.learned == [(keys.ak, keys.sk, keys.security_token)]
    assert not {keys.ak, keys.sk, keys.security_token} & set(repr(keys).replace("'", " ").split())


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (IamError(403, 403, "You are not authorized"), "HTTP 403 403 You are not authorized"),
        (ServerError(), "HTTP 500"),
        (Body(201, b"{}"), "HTTP 201"),
        (Body(201, b'{"credential": {"access": "a", "secret": "s", "securitytoken": "t"}}'), "`expires_at`"),
        (
            Body(
                201,
                b'{"credential": {"access": "a", "secret": "s", "securitytoken": "t", '
                b'"expires_at": "2999-01-01T00:00:00"}}',
            ),
            "no time zone",
        ),
    ],
)
def test_a_refusal_is_said_once_and_not_asked_for_again(
    server: ApigServer, borrower: Borrower, fault: Any, said: str
) -> None:
    server.estate.fail(fault, times=None)
    first = borrower.refusal()
    asked = len(server.estate.requests)
    assert str(first).startswith('the agency "apig-audit" of account "retail" could not be assumed: HTTP ')
    assert said in str(first)
    assert not first.retryable
    assert borrower.refusal() is first
    assert len(server.estate.requests) == asked


def test_a_403_names_the_action_to_grant(server: ApigServer, borrower: Borrower) -> None:
    server.estate.fail(IamError(403, 403, "no"), times=None)
    assert str(borrower.refusal()).endswith(
        "grant iam:agencies:assume (identity policy) or iam:tokens:assume (role policy)"
    )


def test_an_agency_that_is_not_there_is_named(server: ApigServer) -> None:
    stranger = Borrower(server, Agency("nobody", "retail"))
    with closing(stranger.transport):
        assert 'the agency "nobody" of account "retail" could not be assumed: HTTP 404' in str(stranger.refusal())


def test_a_wrong_key_is_tried_once_and_stands_in_no_error(server: ApigServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "audit")
    wrong = Borrower(server, secret="wrong-secret-of-the-test")
    with closing(wrong.transport):
        error = wrong.refusal()
        assert not isinstance(error, CredentialsRefused)  # it is not the agency's key that was refused
        wrong.refusal()
    assert server.estate.failed_signatures == 1
    assert "wrong-secret" not in str(error) + caplog.text
    assert server.estate.access_key not in str(error) + caplog.text


def test_what_an_answer_that_makes_no_sense_holds_is_not_repeated(server: ApigServer, borrower: Borrower) -> None:
    body = b'{"credential": {"access": "HSTAHIDDEN", "secret": "hidden-secret", "securitytoken": 7, "expires_at": "x"}}'
    server.estate.fail(Body(201, body), times=None)
    assert "hidden" not in str(borrower.refusal()).lower()
