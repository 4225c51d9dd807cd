"""Slack: an incoming webhook takes blocks, and says `ok` where it took them.

Source: docs.slack.dev, "Sending messages using incoming webhooks" and "Block Kit". There is no signing; the URL is
the secret. `verbatim` keeps Slack from making links and mentions of plain text; `&`, `<` and `>` have escapes, the
other marks have none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from audit.render.chat.digest import REPORT, build_digest
from audit.render.chat.fit import cut, fit, units
from audit.render.chat.inert import replace_marks
from audit.render.post import Post, Reply, Verdict, json_post, judge_status

if TYPE_CHECKING:
    from audit.notify import Message
    from audit.render.chat.digest import Digest, Section

_MOST_TITLE = 150
_MOST_TEXT = 3000
_MOST_LINK = 3000
_MOST_BYTES = 13_000  # about 13,200 characters are taken
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def build(message: Message, _secret: str | None, _now: float) -> Post:
    """Build the request."""
    return json_post(fit(build_digest(message), _lay_out, _fits, _MOST_LINK))


def classify(reply: Reply) -> Verdict:
    """Only `ok` is success."""
    return judge_status(reply, success=reply.status == 200 and reply.body == b"ok")


def _lay_out(digest: Digest) -> dict[str, Any]:
    title = cut(digest.title, _MOST_TITLE, _entities)
    blocks: list[dict[str, Any]] = [{"type": "header", "text": {"type": "plain_text", "text": title, "emoji": True}}]
    if title != _entities(digest.title):
        blocks.append({"type": "section", "text": _text(_escape(digest.headline))})
    facts = [_text(f"*{name}*\n{_escape(text)}") for name, text in digest.facts]
    blocks.append({"type": "section", "fields": facts})
    blocks += [{"type": "section", "text": _text(_say(section))} for section in digest.sections]
    if digest.link:
        button = {"type": "button", "text": {"type": "plain_text", "text": REPORT}, "url": digest.link}
        blocks.append({"type": "actions", "elements": [button]})
    anchors = [_text(f"{name} {_escape(text)}") for name, text in digest.anchors]
    blocks.append({"type": "context", "elements": anchors})
    return {"text": title, "blocks": blocks, "unfurl_links": False, "unfurl_media": False}


def _say(section: Section) -> str:
    return "\n".join([f"*{section.heading}*", *(f"• {_escape(text)}" for text in section.texts)])


def _text(text: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _escape(text: str) -> str:
    return replace_marks(_entities(text), "*_~`")


def _entities(text: str) -> str:
    return text.translate(_ENTITIES)


def _fits(payload: dict[str, Any]) -> bool:
    texts = [block["text"]["text"] for block in payload["blocks"] if "text" in block]
    return all(units(text) <= _MOST_TEXT for text in texts) and len(msgspec.json.encode(payload)) <= _MOST_BYTES
