"""Feishu and Lark: a custom bot takes an interactive card, and says in the body whether it took it.

Source: open.feishu.cn, "Custom bot usage guide" (signing, 20 KB a request, 100 a minute and 5 a second). Everything
from outside stands in `plain_text`, which knows no markup, with `<` and `>` replaced besides.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING, Any

import msgspec

from audit.render.chat.digest import REPORT, build_digest
from audit.render.chat.fit import cut, fit
from audit.render.chat.inert import replace_marks
from audit.render.post import Post, json_post, judge_code

if TYPE_CHECKING:
    from audit.notify import Message
    from audit.render.chat.digest import Digest, Mood, Section

_MOST_BYTES = 19_000  # 20 KB are taken, timestamp and signature included
_MOST_TITLE = 200
_BUSY = 11232
_TEMPLATES: dict[Mood, str] = {
    "critical": "red", "high": "orange", "medium": "yellow", "low": "blue", "info": "grey", "clear": "green",
}  # fmt: skip

classify = judge_code("code", 0, again={_BUSY})


def sign(timestamp: str, secret: str) -> str:
    """Sign a timestamp in seconds: it is part of the key, and the signed text is empty."""
    return base64.b64encode(hmac.new(f"{timestamp}\n{secret}".encode(), b"", hashlib.sha256).digest()).decode()


def build(message: Message, secret: str | None, now: float) -> Post:
    """Build the request; the signature stands in the body."""
    card = fit(build_digest(message), _lay_out, lambda made: len(msgspec.json.encode(made)) <= _MOST_BYTES)
    timestamp = str(int(now))
    signed = {"timestamp": timestamp, "sign": sign(timestamp, secret)} if secret else {}
    return json_post({**signed, "msg_type": "interactive", "card": card})


def _lay_out(digest: Digest) -> dict[str, Any]:
    title = cut(digest.title, _MOST_TITLE, _escape)
    lead = [] if title == _escape(digest.title) else [_block(digest.headline)]
    facts = {"tag": "div", "fields": [_field(name, text) for name, text in digest.facts]}
    elements = [*lead, facts, *(block for section in digest.sections for block in _say(section))]
    if digest.link:
        button = {"tag": "button", "text": _plain(REPORT), "type": "primary", "url": digest.link}
        elements.append({"tag": "action", "actions": [button]})
    elements.append({"tag": "note", "elements": [_plain(f"{name} {text}") for name, text in digest.anchors]})
    return {
        "config": {"wide_screen_mode": True},
        "header": {"template": _TEMPLATES[digest.mood], "title": {"tag": "plain_text", "content": title}},
        "elements": elements,
    }


def _say(section: Section) -> list[dict[str, Any]]:
    heading = {"tag": "div", "text": {"tag": "lark_md", "content": f"**{section.heading}**"}}
    return [{"tag": "hr"}, heading, _block("\n".join(f"• {text}" for text in section.texts))]


def _block(text: str) -> dict[str, Any]:
    return {"tag": "div", "text": _plain(text)}


def _field(name: str, text: str) -> dict[str, Any]:
    return {"is_short": True, "text": _plain(f"{name}\n{text}")}


def _plain(text: str) -> dict[str, str]:
    return {"tag": "plain_text", "content": _escape(text)}


def _escape(text: str) -> str:
    return replace_marks(text, "<>")
