"""Delivering messages: what counts as taken, what is tried again, how it is signed, and what fits."""

from __future__ import annotations

import json
import socket
import time
from datetime import datetime, timezone
from email.utils import format_datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from standardwebhooks.webhooks import Webhook

from audit import webhook as module
from audit.deadline import Deadline
from audit.errors import DeliveryError
from audit.extent import Extent
from audit.model import Coverage, Finding, GatewayRef
from audit.notify import Message, Standing
from audit.receivers import Receiver
from audit.render.generic import LARGEST_BODY, build_body, build_headers, parse_secret
from audit.render.kinds import KINDS
from audit.render.post import Reply
from audit.text import Redactor
from audit.webhook import WebhookSender
from tests.emulator import Answer, receive
from tests.emulator import Receiver as Service
from tests.emulator.receiver import SECRET

if TYPE_CHECKING:
    from collections.abc import Iterator

STANDING = Standing(
    store="file:///evidence",
    run_id="20261122T081500Z-7f3a9c",
    now="2026-11-22T08:15:00Z",
    open={},
    waived={},
    events={},
    reopened=frozenset(),
    worst=(),
    past_events=[],
    extent=Extent(()),
    problems=(),
    manifest_location="file:///evidence/manifest.json",
    manifest_sha256="ab" * 32,
)
MESSAGE = Message(
    delivery_id="msg_1",
    receiver="one",
    headline="1 new; 1 open (1 high)",
    run_id="20261122T081500Z-7f3a9c",
    now="2026-11-22T08:15:00Z",
    changes={"new": 1},
    open_by_severity={"high": 1},
    findings=(),
    left_out=0,
    problems=(),
    standing=STANDING,
)


def finding(text: str, status: str = "new") -> Finding:
    return Finding(
        uid="0" * 64,
        rule_id="only-approved-accounts",
        title="Only approved accounts",
        severity="high",
        status=status,  # type: ignore[arg-type]
        resolution=None,
        subject="connection",
        gateway=GatewayRef("g", "billing", "cn-north-4", "p"),
        connection="c",
        group=None,
        message=text,
        expected={"in": ["a", text]},
        actual=text,
        remediation="Reject it.",
        controls={"iso27001": ["A.5.15", text]},
        waiver=None,
        first_seen=MESSAGE.now,
        last_seen=MESSAGE.now,
        resolved_at=None,
        occurrences=1,
        run_id=MESSAGE.run_id,
    )


def with_gaps(number: int) -> Standing:
    return replace(STANDING, extent=Extent([gap(each) for each in range(number)]))


def gap(number: int) -> Coverage:
    return Coverage("cn-north-4", "p", f"g{number}", "billing", "not_covered", "HTTP 500 " + "x" * 100, 0, "r" * 32)


@pytest.fixture
def service() -> Iterator[Service]:
    with receive() as running:
        yield running


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(module, "_SHORTEST_BACKOFF", 0.001)
    monkeypatch.setattr(module, "_LONGEST_BACKOFF", 0.002)


def deliver(service: Service, message: Message = MESSAGE, *, seconds: float = 5, url: str = "") -> None:
    url = url or service.url
    receiver = Receiver("one", "generic", url, service.secret)
    WebhookSender(Deadline(seconds), Redactor([url, SECRET])).deliver(receiver, message)


def refusal(service: Service, *, seconds: float = 5, url: str = "") -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        deliver(service, seconds=seconds, url=url)
    assert "127.0.0.1" not in str(caught.value)
    assert "/hook" not in str(caught.value)
    return caught.value


def test_worked_value_of_a_signature():
    """Standard Webhooks: the headers of one delivery."""
    headers = build_headers("msg_1", 1755828000, b'{"specversion":"1.0","id":"evt_1"}', SECRET)
    assert headers == {
        "Content-Type": "application/cloudevents+json",
        "webhook-id": "msg_1",
        "webhook-timestamp": "1755828000",
        "webhook-signature": "v1,ZPQrf5gQVhwvfgdFqJcBR3xZOSx90M+w/rFj8z5Yf5A=",
    }


def test_delivery_is_verified_by_others(service):
    """By the receiver and by the reference implementation."""
    deliver(service)
    (delivery,) = service.deliveries
    assert delivery.verified
    assert Webhook(SECRET).verify(delivery.body, dict(delivery.headers)) == delivery.json()


def test_without_a_secret_nothing_is_signed():
    """Id and time are sent all the same."""
    with receive(None) as service:
        deliver(service)
        (delivery,) = service.deliveries
    assert delivery.headers["webhook-id"] == "msg_1"
    assert "webhook-signature" not in delivery.headers


def test_event_is_a_cloud_event(service):
    """Version 1.0, structured, with the message as its data."""
    deliver(service, replace(MESSAGE, findings=[finding("x")], left_out=3, standing=with_gaps(2), problems=["p"]))
    (delivery,) = service.deliveries
    event = delivery.json()
    data = event.pop("data")
    assert delivery.headers["content-type"] == "application/cloudevents+json"
    assert event == {
        "specversion": "1.0",
        "id": "msg_1",
        "source": "apig-vpcep-audit",
        "type": "apig-vpcep-audit.run.v1",
        "subject": MESSAGE.run_id,
        "time": MESSAGE.now,
        "datacontenttype": "application/json",
    }
    assert data["headline"] == MESSAGE.headline
    assert data["manifest"] == {"location": STANDING.manifest_location, "sha256": STANDING.manifest_sha256}
    assert [found["message"] for found in data["findings"]] == ["x"]
    assert [entry["gateway_id"] for entry in data["not_covered"]] == ["g0", "g1"]
    left_out = {name: value for name, value in data.items() if name.endswith("left_out")}
    names = ("not_covered", "rules_not_evaluated", "problems", "report")
    assert left_out == {"findings_left_out": 3, **{f"{name}_left_out": 0 for name in names}}


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_success(service, status):
    """One request, and no error."""
    service.answers.append(status)
    deliver(service)
    assert len(service.deliveries) == 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, {}, bytes(1_000_000)),
        Answer(200, {}, b"taken, thank you", broken="truncated"),
    ],
)
def test_2xx_is_success_whatever_is_said_besides(service, answer):
    """Else the receiver would be told three times, and in every run again."""
    service.answers.append(answer)
    deliver(service)
    assert len(service.deliveries) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 413, 422])
def test_refusal_is_not_tried_again(service, status):
    """3xx (which is not followed) and most 4xx: it would be the same again."""
    with receive() as elsewhere:
        service.answers.append(Answer(status, {"Location": elsewhere.url}, b"no"))
        error = refusal(service)
        assert elsewhere.deliveries == []
    assert str(error) == f"HTTP {status} no"
    assert not error.gone
    assert len(service.deliveries) == 1


def test_410_asks_for_no_more(service):
    """Which the caller remembers."""
    service.answers.append(410)
    error = refusal(service)
    assert error.gone
    assert len(service.deliveries) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504, 599])
def test_trouble_is_tried_again(service, status):
    """Three times in all."""
    service.answers.extend([status, status])
    deliver(service)
    service.answers.extend([status] * 3)
    error = refusal(service)
    assert str(error) == f"HTTP {status} after 3 tries"
    assert not error.gone
    assert len(service.deliveries) == 6


def test_broken_connection_is_tried_again(service):
    """Nobody knows whether it was taken: the id tells the receiver."""
    service.answers.append(Answer(0, broken="reset"))
    deliver(service)
    assert len(service.deliveries) == 2


def test_delivery_id_stays_and_signature_is_renewed(service, monkeypatch):
    """Over all tries; receivers refuse old timestamps."""
    now = time.time()
    moments = iter([now, now + 5, now + 10])
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: next(moments), sleep=time.sleep))
    service.answers.extend([500, 500])
    deliver(service)
    headers = [delivery.headers for delivery in service.deliveries]
    assert [header["webhook-id"] for header in headers] == ["msg_1"] * 3
    assert [int(header["webhook-timestamp"]) - int(now) for header in headers] == [0, 5, 10]
    assert len({header["webhook-signature"] for header in headers}) == 3
    assert all(delivery.verified for delivery in service.deliveries)


def test_retry_after_is_waited_for(service):
    """As long as the receiver asks."""
    service.answers.append(Answer(429, {"Retry-After": "0.3"}))
    began = time.monotonic()
    deliver(service)
    assert 0.3 <= time.monotonic() - began < 5


@pytest.mark.parametrize("wait", ["3600", format_datetime(datetime(2100, 1, 1, tzinfo=timezone.utc), usegmt=True)])
def test_retry_after_beyond_the_time_left_gives_up_at_once(service, wait):
    """It stays due for the next run."""
    service.answers.append(Answer(503, {"Retry-After": wait}))
    began = time.monotonic()
    said = str(refusal(service))
    assert said.startswith("HTTP 503 after 1 try; the next would be in ")
    assert said.endswith(" s, which is too late")
    assert time.monotonic() - began < 2


def test_one_receiver_does_not_use_up_the_time_of_others(service, monkeypatch):
    """However long the run may take."""
    monkeypatch.setattr(module, "SECONDS", 0.2)
    service.answers.extend([Answer(204, delay=5)] * 3)
    began = time.monotonic()
    assert str(refusal(service, seconds=600)).startswith("no answer in time after")
    assert time.monotonic() - began < 3


def test_without_time_nothing_is_sent(service):
    """And that is the reason given."""
    assert str(refusal(service, seconds=0)) == "no time was left after 1 try"
    assert service.deliveries == []


def test_receiver_that_is_not_there(service):
    """Said in plain words, without its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = refusal(service, url=f"http://127.0.0.1:{port}/hook")
    assert str(error) == "the connection was refused after 3 tries"


def test_url_and_secret_that_the_receiver_repeats_are_taken_out(service):
    """As is what could move a cursor; the rest is shortened."""
    said = f"no such hook {service.url} {SECRET} \x1b[2J ".encode() + b"x" * 1000
    service.answers.append(Answer(404, {}, said))
    text = str(refusal(service))
    assert text.startswith("HTTP 404 no such hook *** *** \\x1b[2J xxx")
    assert len(text) <= 209


def test_parts_of_the_url_that_the_receiver_repeats_are_taken_out(service):
    """Short ones and escaped ones too, before the answer is cut: a half would not be known any more."""
    url = f"{service.url}?key=k-77&sig=a%2Bb%3D9&wait=true"
    service.answers.append(Answer(404, {}, b'{"wait": true, "query": "key\\u003dk-77\\u0026sig=a%2bb%3d9"}'))
    assert str(refusal(service, url=url)) == 'HTTP 404 {"wait": true, "query": "key=***&sig=***"}'
    service.answers.append(Answer(404, {}, b"x" * 196 + b" k-77"))
    assert "k-" not in str(refusal(service, url=url))


def test_description_hides_url_and_secret():
    """In logs and tracebacks."""
    assert repr(Receiver("one", "generic", "https://h/t0ken", "whsec_x")) == (
        "Receiver(name='one', kind='generic', wishes=Wishes(min_severity='low', repeat_interval=None, heartbeat=None, "
        "send_resolved=True))"
    )


@pytest.mark.parametrize("secret", ["", "c2VjcmV0", "whsec_", "whsec_???", "whsec_abc", "WHSEC_c2VjcmV0"])
def test_senseless_secret_is_refused_without_repeating_it(secret):
    """Before anything is sent."""
    with pytest.raises(ValueError, match="whsec_") as caught:
        parse_secret(secret)
    assert not secret.removeprefix("whsec_") or secret.removeprefix("whsec_") not in str(caught.value)


def open_in(data: dict[str, Any]) -> int:
    return sum(1 for found in data["findings"] if found["status_code"] != "resolved")


@pytest.mark.parametrize("text", ["x" * 400, "x" * 100_000, "é" * 50_000, "\\" * 10_000])
@pytest.mark.parametrize("gaps", [0, 1, 500])
def test_body_is_bounded_and_what_is_left_out_is_counted(text, gaps):
    """Twenty findings of any length, five of them resolved, and any number of gateways that were not covered."""
    findings = [finding(f"{number} {text}") for number in range(15)]
    resolved = [finding(text, "resolved") for _ in range(5)]
    message = replace(
        MESSAGE,
        headline=text,
        findings=[*findings, *resolved],
        left_out=7,
        standing=with_gaps(gaps),
        problems=[text] * 40,
    )

    body = build_body(message)

    assert len(body) <= LARGEST_BODY
    data = json.loads(body)["data"]
    assert open_in(data) + data["findings_left_out"] == 22
    assert len(data["not_covered"]) + data["not_covered_left_out"] == gaps
    assert len(data["problems"]) + data["problems_left_out"] == 40
    assert data["findings"][0]["message"].startswith("0 ")
    assert len(data["not_covered"]) >= min(gaps, 5)


@pytest.mark.parametrize("gaps", [0, 500])
@pytest.mark.parametrize("length", [100, 3_000, 18_000, 100_000])
@pytest.mark.parametrize("rules", [0, 600, 5_000])
def test_rules_and_link_are_bounded_too(rules, length, gaps):
    """Rules that were not evaluated are counted like all else; a link is whole, or left out in words."""
    idle = frozenset(f"a-rule-with-a-name-of-some-length-{number}" for number in range(rules))
    link = "https://evidence.example.com/" + "x" * length
    standing = replace(with_gaps(gaps), report_url=link)
    standing = replace(standing, extent=replace(standing.extent, idle=idle))
    problems = [f"rule {name} was not evaluated: not configured: list l is empty in the policy" for name in idle]
    message = replace(MESSAGE, findings=[finding("x")], standing=standing, problems=problems)

    body = build_body(message)

    assert len(body) <= LARGEST_BODY
    data = json.loads(body)["data"]
    assert len(data["rules_not_evaluated"]) + data["rules_not_evaluated_left_out"] == rules
    assert len(data["rules_not_evaluated"]) >= min(rules, 5)
    assert len(data["findings"]) == 1
    assert (data["report"], data["report_left_out"]) in {(link, 0), ("", 1)}
    assert data["report"] or length > 5_000


def test_many_gaps_do_not_crowd_out_the_findings():
    """The longest list gives way first."""
    message = replace(MESSAGE, findings=[finding("x") for _ in range(5)], standing=with_gaps(500))
    data = json.loads(build_body(message))["data"]
    assert len(data["findings"]) == 5
    assert data["findings_left_out"] == 0


def test_what_fits_is_not_shortened():
    """Long texts stay whole where there is room."""
    message = replace(MESSAGE, findings=[finding("x" * 2_000)])
    assert json.loads(build_body(message))["data"]["findings"][0]["message"] == "x" * 2_000


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_no_answer_breaks_a_classifier(kind):
    """However deep it is nested, or long its numbers are."""
    for status in (200, 204, 429, 500):
        for body in (
            b"[" * 16_000,
            b'{"retry_after": 1' + b"0" * 400 + b"}",
            b'{"retry_after": 1e308}',
            b'{"code": []}',
        ):
            assert KINDS[kind].classify(Reply(status, body)).seconds <= 86_400
