"""WeCom: a group robot takes Markdown, counted in bytes, and says in the body whether it took it.

Source: developer.work.weixin.qq.com, "Group robot configuration" (4096 bytes, 20 messages a minute). There is no
signing; the key in the URL is the secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from audit.render.chat import markdown
from audit.render.chat.digest import build_digest
from audit.render.chat.fit import fit, octets
from audit.render.post import Post, json_post, judge_code

if TYPE_CHECKING:
    from audit.notify import Message
    from audit.render.chat.digest import Digest, Mood

_MOST_BYTES = 4_096
_MOST_LINK = 1_500
_BUSY, _TOO_OFTEN = -1, 45009
_COLOURS: dict[Mood, str] = {
    "critical": "warning",
    "high": "warning",
    "medium": "warning",
    "low": "comment",
    "info": "comment",
    "clear": "info",
}  # fmt: skip  (orange, grey, green: there are no others)

classify = judge_code("errcode", 0, again={_BUSY, _TOO_OFTEN})


def build(message: Message, _secret: str | None, _now: float) -> Post:
    """Build the request."""
    content = fit(build_digest(message), _lay_out, lambda text: octets(text) <= _MOST_BYTES, _MOST_LINK)
    return json_post({"msgtype": "markdown", "markdown": {"content": content}})


def _lay_out(digest: Digest) -> str:
    title = f'### <font color="{_COLOURS[digest.mood]}">{markdown.escape(digest.title)}</font>'
    text = markdown.lay_out(digest, title)
    return f"{text}\n\n{markdown.link_to(digest.link)}" if digest.link else text
