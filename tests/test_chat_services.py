"""Sending to each kind of service over HTTP: what they answer, what it means, and what is tried again."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import requests

from audit import webhook as module
from audit.deadline import Deadline
from audit.errors import DeliveryError
from audit.receivers import Receiver, check_wire
from audit.render.chat import dingtalk, feishu
from audit.render.kinds import KINDS, find_kind, host_problem
from audit.render.post import Reply, Verdict
from audit.text import Redactor
from audit.webhook import WebhookSender
from tests.chat_cases import REPORT_URL, SITUATIONS
from tests.emulator.chat import CHAT_KINDS, ChatService, chat
from tests.emulator.wire import Answer, json_answer

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRETS = {"feishu": "secret-of-the-test", "dingtalk": "SECof-the-test"}
MESSAGE = SITUATIONS["first-findings"]
OK = {
    "slack": b"ok",
    "feishu": b'{"code":0,"msg":"success"}',
    "dingtalk": b'{"errcode":0,"errmsg":"ok"}',
    "wecom": b'{"errcode":0,"errmsg":"ok"}',
    "welink": b'{"code":"0","message":"ok"}',
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(module, "_SHORTEST_BACKOFF", 0.001)
    monkeypatch.setattr(module, "_LONGEST_BACKOFF", 0.002)


@pytest.fixture(params=CHAT_KINDS)
def service(request) -> Iterator[ChatService]:
    with chat(request.param, SECRETS.get(request.param)) as running:
        running.keyword = "apig-vpcep-audit"
        yield running


def receiver_of(service: ChatService, *, secret: str | None = None) -> Receiver:
    return Receiver("one", service.kind, service.url, secret or service.secret)


def post(service: ChatService, *, seconds: float = 5, secret: str | None = None, url: str = "") -> str:
    receiver = receiver_of(service, secret=secret)
    receiver = replace(receiver, url=url or receiver.url)
    return WebhookSender(Deadline(seconds), Redactor(receiver.secrets)).deliver(receiver, MESSAGE)


def refusal(service: ChatService, **changes) -> str:
    with pytest.raises(DeliveryError) as caught:
        post(service, **changes)
    assert not caught.value.gone
    text = str(caught.value)
    assert service.origin not in text
    assert service.url.rpartition("/")[2] not in text
    return text


def test_each_service_takes_what_is_sent(service):
    """Over HTTP, signature and keyword filter on, in one request."""
    said = post(service)
    (delivery,) = service.deliveries
    assert (delivery.problem, delivery.verified) == (None, service.secret is not None)
    assert said.startswith("HTTP 202" if service.kind == "teams" else "HTTP 200")


def test_each_situation_is_taken(service):
    """The four of the golden files, by one sender."""
    sender = WebhookSender(Deadline(20), Redactor([]), len(SITUATIONS))
    for message in SITUATIONS.values():
        sender.deliver(receiver_of(service), message)
    assert [delivery.problem for delivery in service.deliveries] == [None] * 4


@pytest.mark.parametrize("kind", SECRETS)
def test_a_wrong_secret_is_refused_once(kind):
    """At HTTP 200, and not tried again."""
    with chat(kind, SECRETS[kind]) as service:
        text = refusal(service, secret="another")
        assert text.startswith("HTTP 200 {")
        assert {"feishu": "19021", "dingtalk": "310000"}[kind] in text
        assert [delivery.problem for delivery in service.deliveries] == ["the signature"]


def test_a_wrong_token_is_refused_once(service):
    """Each service has its own words for it; the token is in none of ours."""
    refusal(service, url=service.url[:-1] + "!")
    assert [delivery.problem for delivery in service.deliveries] == ["no such webhook"]


@pytest.mark.parametrize("kind", ["feishu", "dingtalk"])
def test_a_missing_keyword_is_refused_once(kind):
    """Robots can be told to take messages with a word only."""
    with chat(kind) as service:
        service.keyword = "something else"
        assert {"feishu": "19024", "dingtalk": "310000"}[kind] in refusal(service)
        assert len(service.deliveries) == 1


def test_the_signature_is_made_anew_for_each_try(monkeypatch):
    """Time goes on between them."""
    for kind, secret in SECRETS.items():
        moments = count(time.time())
        clock = SimpleNamespace(time=moments.__next__, sleep=time.sleep)
        monkeypatch.setattr(module, "time", clock)
        with chat(kind, secret) as service:
            service.answers.append(Answer(500))
            post(service)
            sent = list(zip(service.queries, (delivery.body for delivery in service.deliveries), strict=True))
        assert len(set(sent)) == 2


def test_busy_services_are_asked_again(service):
    """HTTP 500 and 429, with every kind."""
    service.answers += [Answer(500), Answer(429)]
    post(service)
    assert len(service.deliveries) == 3


def test_a_broken_connection_is_tried_again_and_a_redirect_is_not_followed(service):
    """Whatever the kind."""
    service.answers.append(Answer(0, broken="reset"))
    post(service)
    service.answers.append(Answer(302, {"Location": service.url}, OK.get(service.kind, b"")))
    assert refusal(service).startswith("HTTP 302")
    assert len(service.deliveries) == 3


def test_an_answer_that_breaks_off_before_it_tells_is_asked_for_again(service):
    """Where the status alone tells, it did tell."""
    by_status = service.kind in {"teams", "discord"}
    cut = Answer(200, {}, OK.get(service.kind, b"accepted"), broken="truncated")
    service.answers.append(cut)
    post(service)
    assert len(service.deliveries) == (1 if by_status else 2)
    service.answers += [cut] * 3
    assert by_status or refusal(service).endswith("(cut short) after 3 tries")


def test_too_many_messages(service):
    """What then comes back is understood: later, much later, or not at all."""
    most = service.service.most_a_minute
    if most > 1_000:
        pytest.skip("no limit is known")
    service._arrivals.extend([time.time()] * most)
    text = refusal(service)
    tries = {"slack": 1, "teams": 1, "feishu": 3, "dingtalk": 1, "wecom": 3, "discord": 3}[service.kind]
    assert len(service.deliveries) == tries, text
    if service.kind == "dingtalk":
        assert "130101" in text, "it blocks for ten minutes: a retry makes it worse"
    if service.kind in {"slack", "teams"}:
        assert text.endswith("after 1 try; the next would be in 30 s, which is too late")


def test_discord_says_in_the_body_when_to_come_again():
    """In seconds; it is waited for."""
    with chat("discord") as service:
        service.answers.append(json_answer(429, {"message": "slow", "retry_after": 0.4, "global": False}))
        began = time.monotonic()
        post(service)
        assert 0.4 <= time.monotonic() - began < 5
        service.answers.append(json_answer(429, {"retry_after": 3600}))
        assert refusal(service).endswith("after 1 try; the next would be in 3600 s, which is too late")


def test_discord_is_asked_to_wait_and_the_urls_own_parameters_stay():
    """Without it an unsaved message would count as sent."""
    with chat("discord") as service:
        post(service, url=service.url + "?thread_id=7")
        post(service, url=service.url + "?wait=false")
        assert service.queries == ["thread_id=7&wait=true", "wait=false"]
        assert [delivery.status for delivery in service.deliveries] == [200, 204]


def test_an_unknown_answer_is_a_failure_with_a_redacted_excerpt(service):
    """Not the URL, the secret, the link to the report, nor anything that moves a cursor."""
    echo = f"what? {service.url} {service.secret} {REPORT_URL} \x1b[2J".encode() + b"x" * 1000
    service.answers.append(Answer(206, {}, echo))
    text = refusal(service)
    assert text.startswith("HTTP 206 what? ***")
    assert "of-the-test" not in text
    assert "Signature" not in text
    assert "\\x1b[2J" in text
    assert len(text) <= 210


@pytest.mark.parametrize(
    ("kind", "status", "body", "verdict"),
    [
        *((kind, 200, body, "delivered") for kind, body in OK.items()),
        *((kind, 201, body, "refused") for kind, body in OK.items()),
        *((kind, 302, body, "refused") for kind, body in OK.items()),
        *((kind, 400, body, "refused") for kind, body in OK.items()),
        *((kind, 500, body, "again") for kind, body in OK.items()),
        *((kind, 200, b"", "refused") for kind in OK),
        *((kind, 200, b"<html>", "refused") for kind in OK),
        *((kind, 200, b"\xff", "refused") for kind in OK),
        *((kind, 200, b"[]", "refused") for kind in OK),
        *((kind, 200, b'{"code":null,"errcode":null}', "refused") for kind in OK),
        *((kind, 200, b'{"code":false,"errcode":false}', "refused") for kind in OK),
        *((kind, status, b"", "refused") for kind in CHAT_KINDS for status in (301, 400, 403, 404, 410)),
        *((kind, status, b"", "again") for kind in KINDS for status in (429, 500, 502, 503, 504)),
        ("slack", 200, b"OK", "refused"),
        ("slack", 200, b"ok\n", "refused"),
        ("teams", 200, b"", "delivered"),
        ("teams", 202, b"", "delivered"),
        ("teams", 204, b"", "refused"),
        ("discord", 204, b"", "delivered"),
        ("discord", 200, b"{}", "delivered"),
        ("discord", 202, b"", "refused"),
        ("feishu", 200, b'{"code":11232}', "again"),
        ("feishu", 400, b'{"code":11232}', "again"),
        ("feishu", 200, b'{"code":"0"}', "refused"),
        *(("feishu", 200, b'{"code":%d}' % code, "refused") for code in (19021, 19024, 9499)),
        ("dingtalk", 200, b'{"errcode":-1}', "again"),
        *(("dingtalk", 200, b'{"errcode":%d}' % code, "refused") for code in (310000, 130101)),
        *(("wecom", 200, b'{"errcode":%d}' % code, "again") for code in (-1, 45009)),
        *(("wecom", 200, b'{"errcode":%d}' % code, "refused") for code in (93000, 40058)),
        ("welink", 200, b'{"code":0}', "refused"),
        *(("welink", 200, b'{"code":"%d"}' % code, "refused") for code in (58404, 58601, 58602)),
        *(("generic", status, b"", "again") for status in (408, 425)),
        ("generic", 204, b"", "delivered"),
        ("generic", 302, b"", "refused"),
        ("generic", 410, b"", "gone"),
    ],
)
def test_classification(kind, status, body, verdict):
    """As the table of the README says; True and False are no codes."""
    assert KINDS[kind].classify(Reply(status, body)).outcome == verdict


@pytest.mark.parametrize(
    ("kind", "reply", "seconds"),
    [
        ("slack", Reply(429, b"", 30.0), 30.0),
        ("teams", Reply(503, b"", 5.0), 5.0),
        ("feishu", Reply(200, b'{"code":11232}', 2.0), 2.0),
        ("discord", Reply(429, b'{"retry_after":1.5}', 9.0), 1.5),
        ("discord", Reply(429, b"", 9.0), 9.0),
        ("discord", Reply(429, b'{"retry_after":true}', 9.0), 9.0),
        ("discord", Reply(429, b'{"retry_after":-3}', 9.0), 0.0),
        ("discord", Reply(503, b'{"retry_after":-3}', 9.0), 9.0),
    ],
)
def test_when_to_come_again(kind, reply, seconds):
    """By header, or by Discord's body, which is more exact."""
    assert KINDS[kind].classify(reply) == Verdict("again", seconds)


def test_worked_values_of_signatures():
    """Both are HMAC-SHA256, with key and text the other way about."""
    assert dingtalk.sign("1755828000000", "SECtest") == "Wbls0I9U5I+t7jnBLPfl/eiLtHbPPvh32P/hXKM/TOo="
    assert feishu.sign("1755828000", "test-secret") == "DobiSUUb1NqAoZLBoFydNLFAJy2K8Tp4FKNXuJd9odA="


def test_the_signature_in_the_url_is_quoted():
    """A plus would be read as a blank."""
    post = KINDS["dingtalk"].build(MESSAGE, "SECtest", 1755828000)
    url = module._with_query("https://oapi.dingtalk.com/robot/send?access_token=t", post.query)
    assert url == (
        "https://oapi.dingtalk.com/robot/send?access_token=t&timestamp=1755828000000"
        "&sign=Wbls0I9U5I%2Bt7jnBLPfl%2FeiLtHbPPvh32P%2FhXKM%2FTOo%3D"
    )
    assert requests.Request("POST", url).prepare().url == url


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("hooks.slack.com", "slack"),
        ("prod-01.westeurope.logic.azure.com", "teams"),
        ("default1.environment.api.powerplatform.com", "teams"),
        ("open.feishu.cn", "feishu"),
        ("open.larksuite.com", "feishu"),
        ("oapi.dingtalk.com", "dingtalk"),
        ("qyapi.weixin.qq.com", "wecom"),
        ("open.welink.huaweicloud.com", "welink"),
        ("discord.com", "discord"),
        ("slack.com", ""),
        ("hooks.slack.com.evil.example", ""),
        ("evilhooks.slack.com", ""),
        ("logic.azure.com", ""),
        ("evillogic.azure.com", ""),
        ("example.com", ""),
    ],
)
def test_hosts(host, kind):
    """A kind lives at its hosts and nowhere else; generic lives anywhere but there."""
    assert find_kind(host) == kind
    for name in KINDS:
        assert bool(host_problem(name, host)) == (name != (kind or "generic")), name
        assert host_problem(name, "127.0.0.1") == ""


@pytest.mark.parametrize(
    ("given", "kind", "problems"),
    [
        (("", "https://HOOKS.slack.com/x", ""), "slack", set()),
        (("", "https://hooks.slack.com:443/x", ""), "slack", set()),
        (("", "http://hooks.slack.com/x", ""), "", {"url"}),
        (("", "https://me@hooks.slack.com/x", ""), "", {"url"}),
        (("", "https://example.com/x", ""), "", {"kind"}),
        (("", "http://127.0.0.1/x", ""), "", {"kind"}),
        (("slack", "http://127.0.0.1/x", ""), "slack", set()),
        (("slack", "https://discord.com/x", "s"), "slack", {"url", "secret"}),
        (("pager", "nonsense", ""), "pager", {"url", "kind"}),
        (("feishu", "https://open.feishu.cn/x", "any"), "feishu", set()),
        (("generic", "https://open.feishu.cn/x", ""), "generic", {"url"}),
        (("generic", "https://example.com/x", "no"), "generic", {"secret"}),
    ],
)
def test_kind_url_and_secret_fit_together(given, kind, problems):
    """https only, and the kind is taken from the host where it is not given."""
    found, said = check_wire(*given)
    assert (found, set(said)) == (kind, problems)


def test_one_receiver_that_hangs_leaves_the_others_their_share(monkeypatch):
    """Of the time that is left, each has a fair part."""
    with chat("slack") as hangs, chat("wecom") as works:
        hangs.answers += [Answer(200, delay=9)] * 3
        sender = WebhookSender(Deadline(2), Redactor([]), 2)
        began = time.monotonic()
        with pytest.raises(DeliveryError, match="no answer in time"):
            sender.deliver(receiver_of(hangs), MESSAGE)
        assert 0.9 <= time.monotonic() - began < 1.8
        sender.deliver(receiver_of(works), MESSAGE)
        assert [delivery.problem for delivery in works.deliveries] == [None]


# The services themselves


@pytest.mark.parametrize(
    ("kind", "spoil", "answer"),
    [
        (
            "slack",
            {"blocks": [{"type": "header", "text": {"type": "plain_text", "text": "x" * 151}}]},
            (400, b"invalid"),
        ),
        ("slack", {"blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": "x" * 3001}}]}, (400, b"invalid")),
        ("slack", {"blocks": [{"type": "unknown"}]}, (400, b"invalid_blocks")),
        ("slack", {"blocks": [{"type": "context", "elements": ["x" * 14_000]}]}, (400, b"msg_too_long")),
        ("teams", {"attachments": []}, (400, b"TriggerInputSchemaMismatch")),
        ("feishu", {"msg_type": "text"}, (200, b"9499")),
        ("feishu", {"card": {"x": "y" * 21_000}}, (200, b"9499")),
        ("dingtalk", {"actionCard": {"title": "t" * 65, "text": "x"}}, (200, b"400")),
        ("dingtalk", {"actionCard": {"title": "t", "text": "x" * 5000}}, (200, b"460101")),
        ("wecom", {"markdown": {"content": "漢" * 1366}}, (200, b"40058")),
        ("welink", {"content": {"text": "x" * 501}}, (200, b"58601")),
        ("welink", {"isAtAll": True}, (200, b"58601")),
        ("discord", {"allowed_mentions": {}}, (400, b"50035")),
        ("discord", {"embeds": [{"description": "x" * 4097, "footer": {"text": ""}}]}, (400, b"50035")),
        ("discord", {"embeds": [{"title": "x", "footer": {"text": ""}}] * 11}, (400, b"50035")),
    ],
)
def test_the_services_refuse_what_the_real_ones_would(kind, spoil, answer):
    """Oversize and malformed messages, with the status and code of the vendor's document."""
    with chat(kind) as service:
        post = KINDS[kind].build(MESSAGE, None, time.time())
        body = {**json.loads(post.body), **spoil}
        reply = requests.post(service.url, json=body, timeout=5)
    assert reply.status_code == answer[0]
    assert answer[1] in reply.content


@pytest.mark.parametrize("kind", ["feishu", "dingtalk"])
def test_an_old_signature_is_refused(kind):
    """After an hour."""
    with chat(kind, SECRETS[kind], clock=lambda: time.time() + 3601) as service:
        refusal(service)
        assert service.deliveries[0].problem == "a fresh timestamp"


def test_dingtalk_is_silent_for_ten_minutes_after_the_21st_message():
    """As its real one is."""
    now = [1_000_000.0]
    with chat("dingtalk", clock=lambda: now[0]) as service:
        for wait, problem in [*[(0, None)] * 20, (0, "too fast"), (500, "too fast"), (101, None)]:
            now[0] += wait
            post = KINDS["dingtalk"].build(MESSAGE, None, now[0])
            requests.post(service.url, data=post.body, headers=dict(post.headers), timeout=5)
            assert service.deliveries[-1].problem == problem
