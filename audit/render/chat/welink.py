"""WeLink: a group robot takes plain text of at most 500 characters, and says in the body whether it took it.

All that is known of it is told by others only (body, limit, and `"0"` as the code of success).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from audit.render.chat.digest import OPEN, SEE_REPORT, build_digest
from audit.render.chat.fit import fit, units
from audit.render.post import Post, json_post, judge_code

if TYPE_CHECKING:
    from audit.notify import Message
    from audit.render.chat.digest import Digest

_MOST_TEXT = 500
_MOST_LINK = 250

classify = judge_code("code", "0")


def build(message: Message, _secret: str | None, now: float) -> Post:
    """Build the request; its `uuid` stays the same when the same is told again."""
    text = fit(build_digest(message), _lay_out, lambda made: units(made) <= _MOST_TEXT, _MOST_LINK)
    body = {
        "messageType": "text",
        "content": {"text": text},
        "timeStamp": int(now * 1000),
        "uuid": message.delivery_id,
        "isAt": False,
        "isAtAll": False,
    }
    return json_post(body)


def _lay_out(digest: Digest) -> str:
    # What is open stands in the title; every character counts.
    facts = "; ".join(f"{name}: {text}" for name, text in digest.facts if name != OPEN)
    sections = ["\n".join([f"{section.heading}:", *section.texts]) for section in digest.sections if section.lines]
    # Those that are there by their number only share a line.
    others = ", ".join(f"{section.heading} +{section.left_out}" for section in digest.sections if not section.lines)
    anchors = "; ".join(f"{name} {text}" for name, text in digest.anchors)
    return "\n".join(
        filter(None, [digest.title, facts, *sections, others and f"{others} {SEE_REPORT}", anchors, digest.link])
    )
