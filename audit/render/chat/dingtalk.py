"""DingTalk: a custom robot takes a card with Markdown, and says in the body whether it took it.

Source: open.dingtalk.com, "Custom robot access" (signing, 20 messages a minute, then none for ten). The limits of
text (5000) and title (64) are told by others only; they are taken for bytes and for UTF-16 units. A card needs an
address to open; without one the message is plain Markdown.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING

from audit.render.chat import markdown
from audit.render.chat.digest import REPORT, build_digest
from audit.render.chat.fit import cut, fit, octets
from audit.render.post import Post, json_post, judge_code

if TYPE_CHECKING:
    from audit.notify import Message
    from audit.render.chat.digest import Digest

_MOST_TEXT = 4_900
_MOST_TITLE = 64
_BUSY = -1

classify = judge_code("errcode", 0, again={_BUSY})


def sign(timestamp: str, secret: str) -> str:
    """Sign a timestamp in milliseconds; not yet quoted for a URL."""
    digest = hmac.new(secret.encode(), f"{timestamp}\n{secret}".encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


def build(message: Message, secret: str | None, now: float) -> Post:
    """Build the request; the signature stands in the query."""
    timestamp = str(int(now * 1000))
    signed = {"timestamp": timestamp, "sign": sign(timestamp, secret)} if secret else {}
    digest = build_digest(message)
    title, link, text = fit(digest, _lay_out, lambda made: octets(made[2]) <= _MOST_TEXT)
    if not link:
        return json_post({"msgtype": "markdown", "markdown": {"title": title, "text": text}}, signed)
    card = {"title": title, "text": text, "singleTitle": REPORT, "singleURL": link}
    return json_post({"msgtype": "actionCard", "actionCard": card}, signed)


def _lay_out(digest: Digest) -> tuple[str, str, str]:
    """Return title, link and text. The title shows in the list of chats, so that the text has one of its own."""
    text = markdown.lay_out(digest, f"### {markdown.escape(digest.title)}", gap="\n\n")
    return cut(digest.title, _MOST_TITLE, markdown.escape), digest.link, text
