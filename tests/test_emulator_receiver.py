"""The webhook receiver: what it records, which signatures it believes, and how it answers on demand."""

import json
import time
from collections.abc import Iterator
from datetime import datetime, timezone

import pytest
import requests
from standardwebhooks.webhooks import Webhook

from tests.emulator import Answer, Receiver, receive
from tests.emulator.receiver import SECRET, sign

BODY = '{"specversion":"1.0","id":"evt_1"}'


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receive() as receiver:
        yield receiver


def post(receiver: Receiver, body: str = BODY, age: int = 0, **changed: str) -> requests.Response:
    """Delivers a body as the reference implementation signs it, with some headers changed."""
    moment = int(time.time()) - age
    signature = Webhook(SECRET).sign("msg_1", datetime.fromtimestamp(moment, timezone.utc), body)
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(moment), "webhook-signature": signature}
    headers.update({name.replace("_", "-"): value for name, value in changed.items()})
    return requests.post(receiver.url, data=body, headers=headers, timeout=5)


def test_worked_example_of_a_signature():
    assert sign(SECRET, "msg_1", "1755828000", BODY.encode()) == "ZPQrf5gQVhwvfgdFqJcBR3xZOSx90M+w/rFj8z5Yf5A="


def test_reference_signature_is_believed_and_recorded(receiver):
    assert post(receiver).status_code == 204

    (delivery,) = receiver.deliveries
    assert delivery.verified
    assert delivery.json() == json.loads(BODY)
    assert delivery.headers["webhook-id"] == "msg_1"


@pytest.mark.parametrize(
    "changed",
    [
        {"webhook_id": "msg_2"},
        {"webhook_timestamp": "1755828000"},
        {"webhook_timestamp": "now"},
        {"webhook_signature": "v1,AAAA"},
        {"webhook_signature": ""},
        {"age": 301},
        {"age": -301},
    ],
)
def test_wrong_signature_is_refused_and_recorded(receiver, changed):
    receiver.answers.append(500)

    assert post(receiver, **changed).status_code == 401
    assert [(d.verified, d.status) for d in receiver.deliveries] == [(False, 401)]
    assert list(receiver.answers) == [500]


def test_missing_headers_are_named(receiver):
    reply = requests.post(receiver.url, data=BODY, headers={"webhook-id": "x"}, timeout=5)

    assert (reply.status_code, reply.json()) == (401, {"error": "missing: webhook-timestamp, webhook-signature"})


def test_one_good_signature_of_several_is_enough(receiver):
    good = f"v1,{sign(SECRET, 'msg_1', str(int(time.time())), BODY.encode())}"

    assert post(receiver, webhook_signature=f"v1,AAAA {good}").status_code in (204, 401)
    assert post(receiver, webhook_timestamp=str(int(time.time())), webhook_signature=f"v1,AAAA {good}").ok


def test_answers_are_given_in_order(receiver):
    receiver.answers += [503, Answer(429, {"Retry-After": "7"}), 410]

    replies = [post(receiver) for _ in range(4)]

    assert [reply.status_code for reply in replies] == [503, 429, 410, 204]
    assert replies[1].headers["Retry-After"] == "7"
    assert [delivery.status for delivery in receiver.deliveries] == [503, 429, 410, 204]


def test_answer_may_break_the_connection(receiver):
    receiver.answers.append(Answer(0, broken="reset"))

    with pytest.raises(requests.exceptions.ConnectionError):
        post(receiver)
    assert post(receiver).status_code == 204


def test_without_a_secret_nothing_is_checked():
    with receive(secret=None) as receiver:
        assert requests.post(receiver.url, data=b"x", timeout=5).status_code == 204
        assert [(d.verified, d.problem, d.body) for d in receiver.deliveries] == [(False, None, b"x")]


def test_only_posts_to_the_hook_are_known(receiver):
    assert requests.get(receiver.url, timeout=5).status_code == 404
    assert requests.post(receiver.origin + "/other", timeout=5).status_code == 404
