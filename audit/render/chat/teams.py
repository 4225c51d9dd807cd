"""Microsoft Teams: a workflow "when a webhook request is received" takes an Adaptive Card 1.4.

Source: learn.microsoft.com, "Create incoming webhooks with Workflows" and "Format cards in Microsoft Teams" (28 KB a
message; we stay under 20). There is no signing; the URL is the secret. 202 means that the workflow was started: what
it posts later, nobody tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from audit.render.chat.digest import REPORT, build_digest
from audit.render.chat.fit import fit
from audit.render.chat.inert import escape_markup, replace_marks
from audit.render.post import Post, Reply, Verdict, json_post, judge_status

if TYPE_CHECKING:
    from audit.notify import Message
    from audit.render.chat.digest import Digest, Mood, Section

_MOST_BYTES = 20_000
_CARD = "application/vnd.microsoft.card.adaptive"
_STYLES: dict[Mood, str] = {
    "critical": "attention", "high": "attention", "medium": "warning", "low": "accent", "info": "emphasis",
    "clear": "good",
}  # fmt: skip


def build(message: Message, _secret: str | None, _now: float) -> Post:
    """Build the request."""
    return json_post(fit(build_digest(message), _lay_out, lambda card: len(msgspec.json.encode(card)) <= _MOST_BYTES))


def classify(reply: Reply) -> Verdict:
    """200 and 202: accepted, not yet posted."""
    return judge_status(reply, success=reply.status in {200, 202})


def _lay_out(digest: Digest) -> dict[str, Any]:
    title = _text(_escape(digest.title), weight="Bolder", size="Medium")
    body = [{"type": "Container", "style": _STYLES[digest.mood], "bleed": True, "items": [title]}, _facts(digest)]
    body += [block for section in digest.sections for block in _say(section)]
    body.append(_text(" · ".join(f"{name} {_escape(text)}" for name, text in digest.anchors), isSubtle=True))
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": body,
    }
    if digest.link:
        card["actions"] = [{"type": "Action.OpenUrl", "title": REPORT, "url": digest.link}]
    return {"type": "message", "attachments": [{"contentType": _CARD, "contentUrl": None, "content": card}]}


def _facts(digest: Digest) -> dict[str, Any]:
    facts = [{"title": name, "value": _escape(text)} for name, text in digest.facts]
    return {"type": "FactSet", "facts": facts}


def _say(section: Section) -> list[dict[str, Any]]:
    lines = "\n".join(f"- {_escape(text)}" for text in section.texts)
    return [_text(section.heading, weight="Bolder", spacing="Medium"), _text(lines, spacing="Small")]


def _escape(text: str) -> str:
    """Entities are decoded, and no backslash is known to stop that."""
    return escape_markup(replace_marks(text, "&"))


def _text(text: str, **looks: Any) -> dict[str, Any]:  # noqa: ANN401  (text or true)
    return {"type": "TextBlock", "text": text, "wrap": True, **looks}
