"""Discord: a webhook takes embeds, and with `wait` says whether the message was kept.

Source: discord.com/developers, "Webhook Resource" and "Message Resource" (limits, `allowed_mentions`), "Rate Limits"
(`retry_after` in the body, in seconds). There is no signing; the URL is the secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from audit.render.chat.digest import NOTHING_MORE, build_digest
from audit.render.chat.fit import cut, fit, units
from audit.render.chat.inert import escape_markup
from audit.render.post import Post, Reply, Verdict, json_post, judge_status

if TYPE_CHECKING:
    from audit.notify import Message
    from audit.render.chat.digest import Digest, Mood, Section

_MOST_TITLE = 256
_MOST_DESCRIPTION = 4096
_MOST_VALUE = 1024
_MOST_FOOTER = 2048
_MOST_IN_ALL = 6000
_LONGEST_WAIT = 86_400  # seconds; beyond any run
_COLOURS: dict[Mood, int] = {
    "critical": 0xD32F2F, "high": 0xF57C00, "medium": 0xFBC02D, "low": 0x1976D2, "info": 0x9E9E9E, "clear": 0x388E3C,
}  # fmt: skip


def build(message: Message, _secret: str | None, _now: float) -> Post:
    """Build the request. Without `wait` a message that is not kept would be success too."""
    embed = fit(build_digest(message), _lay_out, _fits)
    return json_post({"embeds": [embed], "allowed_mentions": {"parse": []}}, {"wait": "true"})


def classify(reply: Reply) -> Verdict:
    """200 with `wait`, 204 without; when to come again stands in the body."""
    seconds = reply.member("retry_after")
    if reply.status == 429 and isinstance(seconds, int | float) and not isinstance(seconds, bool):
        return Verdict("again", float(min(max(seconds, 0), _LONGEST_WAIT)))
    return judge_status(reply, success=reply.status in {200, 204})


def _lay_out(digest: Digest) -> dict[str, Any]:
    title = cut(digest.title, _MOST_TITLE, escape_markup)
    lead = [] if title == escape_markup(digest.title) else [escape_markup(digest.headline)]
    embed = {
        "title": title,
        "description": "\n\n".join([*lead, *map(_say, digest.sections)]) or NOTHING_MORE,
        "color": _COLOURS[digest.mood],
        "fields": [{"name": name, "value": escape_markup(text), "inline": True} for name, text in digest.facts],
        "footer": {"text": " · ".join(f"{name} {text}" for name, text in digest.anchors)},
    }
    return {**embed, "url": digest.link} if digest.link else embed


def _say(section: Section) -> str:
    return "\n".join([f"**{section.heading}**", *(f"• {escape_markup(text)}" for text in section.texts)])


def _fits(embed: dict[str, Any]) -> bool:
    values = [field["value"] for field in embed["fields"]]
    texts = [embed["title"], embed["description"], embed["footer"]["text"], *values]
    texts += [field["name"] for field in embed["fields"]]
    return (
        units(embed["description"]) <= _MOST_DESCRIPTION
        and units(embed["footer"]["text"]) <= _MOST_FOOTER
        and all(units(value) <= _MOST_VALUE for value in values)
        and sum(map(units, texts)) <= _MOST_IN_ALL
    )
