"""What each kind of receiver is sent in four situations: readable files, and services that take or refuse it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from audit.render.kinds import KINDS
from tests.chat_cases import GOLDEN, NOW, SECRETS, SITUATIONS, document
from tests.emulator import receiver as standard
from tests.emulator.chat import CHAT_KINDS
from tests.emulator.services import SERVICES, Refusal
from tests.emulator.wire import Request

if TYPE_CHECKING:
    from audit.render.post import Post


def request(kind: str, post: Post, target: str = "") -> Request:
    """The post as its service sees it."""
    path, _, query = (target or SERVICES[kind].target).partition("?")
    parts = [query, *(f"{name}={value.replace('+', '%2B')}" for name, value in post.query.items())]
    headers = {name.lower(): value for name, value in post.headers.items()}
    return Request("POST", path, "&".join(filter(None, parts)), headers, post.body)


def check(kind: str, sent: Request, keyword: str = "apig-vpcep-audit") -> None:
    SERVICES[kind].check(sent, SECRETS.get(kind), keyword, NOW)


def build(kind: str, situation: str = "first-findings") -> Post:
    return KINDS[kind].build(SITUATIONS[situation], SECRETS.get(kind), NOW)


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_golden(kind, situation):
    """To renew them: python -m tests.chat_cases."""
    assert document(kind, SITUATIONS[situation]) == (GOLDEN / f"{kind}-{situation}.json").read_text(encoding="utf-8")


def test_there_is_no_other_golden_file():
    """One for each kind and situation; all four situations are messages."""
    assert {path.stem for path in GOLDEN.iterdir()} == {f"{kind}-{name}" for kind in KINDS for name in SITUATIONS}
    assert list(SITUATIONS) == ["first-findings", "reminder", "all-resolved", "coverage-lost"]


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("kind", CHAT_KINDS)
def test_the_service_takes_it(kind, situation):
    """Signature and keyword filter on."""
    check(kind, request(kind, build(kind, situation)))


@pytest.mark.parametrize("kind", CHAT_KINDS)
def test_one_changed_byte_is_refused(kind):
    """In the signature where there is one, in the token of the URL, and in the JSON itself."""
    post, target = build(kind), SERVICES[kind].target
    spoiled = [request(kind, post, target[:-1] + "!"), request(kind, replace(post, body=b"[" + post.body[1:]))]
    if kind == "feishu":
        body: dict[str, Any] = json.loads(post.body)
        for name in ("timestamp", "sign"):
            text = json.dumps({**body, name: _flip(body[name])}).encode()
            spoiled.append(request(kind, replace(post, body=text)))
    if kind == "dingtalk":
        queries = ({**post.query, name: _flip(post.query[name])} for name in ("timestamp", "sign"))
        spoiled += [request(kind, replace(post, query=query)) for query in queries]
    for sent in spoiled:
        with pytest.raises(Refusal):
            check(kind, sent)


def _flip(text: str) -> str:
    """Change one character near the middle into another one of its kind."""
    at = len(text) // 2
    return text[:at] + ("1" if text[at] == "0" else "0") + text[at + 1 :]


def test_one_changed_byte_of_the_generic_body_is_refused():
    """Its signature covers all of it."""
    post = build("generic")
    sign = standard.sign(standard.SECRET, post.headers["webhook-id"], post.headers["webhook-timestamp"], post.body)
    assert post.headers["webhook-signature"] == f"v1,{sign}"
    changed = post.body.replace(b"billing", b"Billing", 1)
    assert standard.sign(standard.SECRET, post.headers["webhook-id"], "1755828000", changed) != sign


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_message_says_what_it_must(kind, situation):
    """The run, the manifest's short hash, coverage, and for chats the fixed first word of the title."""
    message = SITUATIONS[situation]
    text = document(kind, message)
    assert message.run_id in text
    assert "ab12cd34ef56" in text
    if kind != "generic":
        assert "apig-vpcep-audit " in text
        assert "gateways read completely" in text
        assert ("more, see the report" in text) == any(
            (message.left_out, kind == "welink", situation == "all-resolved")
        )
        assert ("evidence.example.com" in text) == (situation in {"first-findings", "reminder"})
        assert ("not fully covered" in text) == (situation == "coverage-lost")
        assert ("Not covered" in text) == (situation == "coverage-lost")
        assert ("Rules not evaluated" in text) == (situation != "all-resolved")


@pytest.mark.parametrize("kind", CHAT_KINDS)
def test_the_worst_severity_is_seen_at_once(kind):
    """By colour or emoji; green is said of nothing but what is fine."""
    assert "🔴" in document(kind, SITUATIONS["first-findings"])
    resolved = document(kind, SITUATIONS["all-resolved"])
    assert "🔴" not in resolved
    assert "🟢" in resolved
