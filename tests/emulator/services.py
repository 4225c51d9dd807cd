"""What each chat service takes and how it answers; an independent reading of the vendors' documents.

(T): told by third parties only.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.emulator.wire import Answer, Request, json_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    Taken = Callable[[Request], Answer]
    Check = Callable[[Request, "str | None", str, float], None]

HOUR = 3600
NEVER_TOO_FAST = 1_000_000


class Refusal(Exception):
    """A delivery that is not taken, with what is answered."""

    def __init__(self, problem: str, answer: Answer) -> None:
        super().__init__(problem)
        self.answer = answer


@dataclass(frozen=True)
class Service:
    """`target`: path and query of the webhook. `blocked_for`: seconds of silence after too many messages."""

    target: str
    check: Check
    taken: Taken
    too_fast: Callable[[], Refusal]
    most_a_minute: int = NEVER_TOO_FAST
    blocked_for: float = 0.0


def read(request: Request, target: str, no_such: Answer, bad: Answer, most: int = 1_000_000) -> Any:
    """The body as an object, where method, path, token and size are right."""
    path, _, query = target.partition("?")
    wanted = [pair for pair in query.split("&") if pair]
    if request.method != "POST" or request.path != path or not set(wanted) <= set(request.query.split("&")):
        raise Refusal("no such webhook", no_such)
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise Refusal("not application/json", bad)
    if len(request.body) > most:
        raise Refusal(f"{len(request.body)} bytes are too many", bad)
    try:
        value = json.loads(request.body)
    except ValueError:
        raise Refusal("not JSON", bad) from None
    if not isinstance(value, dict):
        raise Refusal("not an object", bad)
    return value


def expect(problem: str, holds: object, answer: Answer) -> None:
    if not holds:
        raise Refusal(problem, answer)


def is_text(value: object, least: int = 1, most: int = 1_000_000) -> bool:
    """Measured as JavaScript and Java do, in UTF-16 units."""
    return isinstance(value, str) and least <= len(value.encode("utf-16-le")) // 2 <= most


def texts_in(value: object) -> list[str]:
    """Every text in a document."""
    if isinstance(value, dict):
        return [text for inner in value.values() for text in texts_in(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in texts_in(inner)]
    return [value] if isinstance(value, str) else []


def plain(status: int, text: str, **headers: str) -> Answer:
    return Answer(status, {"Content-Type": "text/plain", **headers}, text.encode())


# Slack

SLACK = "/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX"


def check_slack(request: Request, _secret: str | None, _keyword: str, _now: float) -> None:
    value = read(request, SLACK, plain(403, "invalid_token"), plain(400, "invalid_payload"))
    invalid = plain(400, "invalid_blocks")
    expect("no text", is_text(value.get("text")), plain(400, "no_text"))
    blocks = value.get("blocks", [])
    expect("1 to 50 blocks", isinstance(blocks, list) and 1 <= len(blocks) <= 50, invalid)
    expect("about 13,200 characters", len(json.dumps(value, ensure_ascii=False)) <= 13_200, plain(400, "msg_too_long"))
    for block in blocks:
        kind = block.get("type")
        if kind == "header":
            text = block["text"]
            expect("a header is plain text", text["type"] == "plain_text" and is_text(text["text"], 1, 150), invalid)
        elif kind == "section":
            texts = [block["text"]] if "text" in block else []
            expect("a section says something", texts or block.get("fields"), invalid)
            expect("a text of 3000", all(is_text(text["text"], 1, 3000) for text in texts), invalid)
            fields = block.get("fields", [])
            expect("10 fields of 2000", len(fields) <= 10 and all(is_text(f["text"], 1, 2000) for f in fields), invalid)
        elif kind == "actions":
            for button in block["elements"]:
                expect("a link", is_link(button["url"], 3000) and is_text(button["text"]["text"], 1, 75), invalid)
        else:
            expect("a known block", kind == "context" and 1 <= len(block["elements"]) <= 10, invalid)


def is_link(url: object, most: int) -> bool:
    return is_text(url, 1, most) and str(url).startswith(("https://", "http://"))


# Teams

TEAMS = "/workflows/0123456789abcdef/triggers/manual/paths/invoke?api-version=2016-06-01&sp=%2Frun&sv=1.0&sig=SIG"


def check_teams(request: Request, _secret: str | None, _keyword: str, _now: float) -> None:
    no_such = json_answer(401, {"error": {"code": "DirectApiAuthorizationRequired", "message": "sig is wrong"}})
    bad = json_answer(
        400, {"error": {"code": "TriggerInputSchemaMismatch", "message": "the input is not as it should"}}
    )
    value = read(request, TEAMS, no_such, bad, 28_000)
    expect("a message with one attachment", value.get("type") == "message" and len(value["attachments"]) == 1, bad)
    (attachment,) = value["attachments"]
    expect("a card", attachment["contentType"] == "application/vnd.microsoft.card.adaptive", bad)
    card = attachment["content"]
    expect("an Adaptive Card 1.4", (card["type"], card["version"]) == ("AdaptiveCard", "1.4"), bad)
    for element in card["body"]:
        expect("a known element", element["type"] in {"Container", "TextBlock", "FactSet"}, bad)
        expect("a text", element["type"] != "TextBlock" or is_text(element["text"]), bad)
    for action in card.get("actions", []):
        expect("an address", action["type"] == "Action.OpenUrl" and is_link(action["url"], 8000), bad)


# Feishu and Lark

FEISHU = "/open-apis/bot/v2/hook/01234567-89ab-cdef-0123-456789abcdef"


def feishu(code: int, text: str) -> Answer:
    return json_answer(200, {"code": code, "data": {}, "msg": text})


def check_feishu(request: Request, secret: str | None, keyword: str, now: float) -> None:
    no_such = json_answer(
        400, {"code": 19001, "data": {}, "msg": "param invalid: incoming webhook access token invalid"}
    )
    bad = feishu(9499, "Bad Request")
    value = read(request, FEISHU, no_such, bad, 20 * 1024)
    if secret is not None:
        stamp = value.get("timestamp")
        wrong = feishu(19021, "sign match fail or timestamp is not within one hour from current time")
        expect(
            "a fresh timestamp", isinstance(stamp, str) and stamp.isdecimal() and abs(now - int(stamp)) < HOUR, wrong
        )
        digest = hmac.new(f"{stamp}\n{secret}".encode(), digestmod=hashlib.sha256).digest()
        expect("the signature", value.get("sign") == base64.b64encode(digest).decode(), wrong)
    expect(
        "the keyword",
        any(keyword in text for text in texts_in(value.get("card"))),
        feishu(19024, "Key Words Not Found"),
    )
    expect("a card", value.get("msg_type") == "interactive" and isinstance(value.get("card"), dict), bad)
    card = value["card"]
    expect(
        "a header", card["header"]["title"]["tag"] == "plain_text" and is_text(card["header"]["title"]["content"]), bad
    )
    for element in card["elements"]:
        expect("a known element", element["tag"] in {"div", "hr", "action", "note"}, bad)
        for button in element.get("actions", []):
            expect("an address", button["tag"] == "button" and is_link(button["url"], 8000), bad)


# DingTalk

DINGTALK = "/robot/send?access_token=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"


def errcode(code: int, text: str) -> Answer:
    return json_answer(200, {"errcode": code, "errmsg": text})


def check_dingtalk(request: Request, secret: str | None, keyword: str, now: float) -> None:
    bad = errcode(400, "invalid message")
    value = read(request, DINGTALK, errcode(300005, "token is not exist"), bad)
    if secret is not None:
        found = dict(request.pairs)
        stamp, wrong = found.get("timestamp", ""), errcode(310000, "sign not match")
        expect("a fresh timestamp", stamp.isdecimal() and abs(now - int(stamp) / 1000) < HOUR, wrong)
        digest = hmac.new(secret.encode(), f"{stamp}\n{secret}".encode(), hashlib.sha256).digest()
        expect("the signature", found.get("sign") == base64.b64encode(digest).decode(), wrong)
    kind = value.get("msgtype")
    expect("a known kind", kind in {"actionCard", "markdown"} and isinstance(value.get(kind), dict), bad)
    said = value[kind]
    expect("the keyword", keyword in said["title"] + said["text"], errcode(310000, "keywords not in content"))
    expect("a title of 64 (T)", is_text(said["title"], 1, 64), bad)
    expect(
        "a text under 5000 (T)", is_text(said["text"], 1, 4999), errcode(460101, "message too long, exceed 20000 bytes")
    )
    if kind == "actionCard":
        expect("something to open", is_text(said["singleTitle"]) and is_link(said["singleURL"], 8000), bad)


# WeCom

WECOM = "/cgi-bin/webhook/send?key=01234567-89ab-cdef-0123-456789abcdef"


def check_wecom(request: Request, _secret: str | None, _keyword: str, _now: float) -> None:
    bad = errcode(40008, "invalid message type")
    value = read(request, WECOM, errcode(93000, "invalid webhook url, hint: [1], from ip: 127.0.0.1"), bad)
    expect("markdown", value.get("msgtype") == "markdown", bad)
    content = value["markdown"]["content"]
    expect(
        "1 to 4096 bytes",
        content and len(content.encode()) <= 4096,
        errcode(40058, "markdown.content exceed max length 4096"),
    )


# WeLink (T, all of it)

WELINK = "/api/werobot/v1/webhook/send?token=0123456789abcdef&channel=standard"


def welink(code: str, text: str) -> Answer:
    return json_answer(200, {"code": code, "message": text, "data": ""})


def check_welink(request: Request, _secret: str | None, _keyword: str, _now: float) -> None:
    bad = welink("58601", "invalid parameter")
    value = read(request, WELINK, welink("58404", "the robot does not exist"), bad)
    expect("text", value.get("messageType") == "text" and is_text(value["content"].get("text"), 1, 500), bad)
    expect("milliseconds", isinstance(value.get("timeStamp"), int) and value["timeStamp"] > 1_000_000_000_000, bad)
    expect("a uuid", is_text(value.get("uuid"), 1, 64), bad)
    expect("nobody is called", value.get("isAt") is False and value.get("isAtAll") is False, bad)


# Discord

DISCORD = "/api/webhooks/123456789012345678/abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_ab"


def check_discord(request: Request, _secret: str | None, _keyword: str, _now: float) -> None:
    no_such = json_answer(404, {"message": "Unknown Webhook", "code": 10015})
    bad = json_answer(400, {"message": "Invalid Form Body", "code": 50035, "errors": {}})
    value = read(request, DISCORD, no_such, bad)
    expect("nobody is called", value.get("allowed_mentions") == {"parse": []}, bad)
    expect("1 to 10 embeds", 1 <= len(value.get("embeds", [])) <= 10, bad)
    total = 0
    for embed in value["embeds"]:
        parts = [(embed.get("title"), 256), (embed.get("description"), 4096), (embed["footer"]["text"], 2048)]
        fields = embed.get("fields", [])
        expect("25 fields", len(fields) <= 25, bad)
        for field in fields:
            expect("a field that says something", is_text(field["name"]) and is_text(field["value"]), bad)
            parts += [(field["name"], 256), (field["value"], 1024)]
        # An absent or empty description is fine.
        expect("texts that are not too long", all(is_text(text or "", 0, most) for text, most in parts), bad)
        expect("a link", "url" not in embed or is_link(embed["url"], 2048), bad)
        total += sum(len(text or "") for text, _ in parts)
    expect("6000 in all", total <= 6000, bad)


def take_discord(request: Request) -> Answer:
    """Only who waits learns what became of it."""
    if dict(request.pairs).get("wait") != "true":
        return Answer(204)
    return json_answer(200, {"id": "1", "type": 0, "embeds": json.loads(request.body)["embeds"]})


def throttled(seconds: float) -> Refusal:
    answer = json_answer(429, {"message": "You are being rate limited.", "retry_after": seconds, "global": False})
    return Refusal("too fast", answer)


SERVICES = {
    "slack": Service(
        SLACK, check_slack, lambda _: plain(200, "ok"),
        lambda: Refusal("too fast", plain(429, "rate_limited", **{"Retry-After": "30"})), 60,
    ),
    "teams": Service(
        TEAMS, check_teams, lambda _: Answer(202),
        lambda: Refusal("too fast", json_answer(429, {"error": {"code": "Throttled"}}, {"Retry-After": "30"})), 240,
    ),
    "feishu": Service(
        FEISHU, check_feishu, lambda _: feishu(0, "success"),
        lambda: Refusal("too fast", feishu(11232, "frequency limited")), 100,
    ),
    "dingtalk": Service(
        DINGTALK, check_dingtalk, lambda _: errcode(0, "ok"),
        lambda: Refusal("too fast", errcode(130101, "send too fast, exceed 20 times per minute")), 20, 600,
    ),
    "wecom": Service(
        WECOM, check_wecom, lambda _: errcode(0, "ok"),
        lambda: Refusal("too fast", errcode(45009, "api freq out of limit")), 20,
    ),
    "welink": Service(
        WELINK, check_welink, lambda _: welink("0", "ok"),
        lambda: Refusal("too fast", welink("58602", "too many messages")), NEVER_TOO_FAST,
    ),
    "discord": Service(DISCORD, check_discord, take_discord, lambda: throttled(0.5), 30),
}  # fmt: skip
