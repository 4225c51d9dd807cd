"""One text in Markdown, for the services that take nothing richer (DingTalk, WeCom)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audit.render.chat.digest import REPORT
from audit.render.chat.inert import replace_marks

if TYPE_CHECKING:
    from audit.render.chat.digest import Digest, Section


def lay_out(digest: Digest, title: str, gap: str = "\n") -> str:
    """Write a digest below a title that is markup already; `gap` is what ends a line."""
    facts = [f"**{name}:** {escape(text)}" for name, text in digest.facts]
    anchors = [f"{name} {escape(text)}" for name, text in digest.anchors]
    sections = [_say(section, gap) for section in digest.sections]
    return "\n\n".join([title, gap.join(facts), *sections, gap.join(anchors)])


def escape(text: str) -> str:
    """Take the meaning from every mark that these services know, and from `&`, as entities are marks in disguise."""
    return replace_marks(text, "*_~`<>[]&")


def link_to(url: str) -> str:
    """Write the link to the report; a bracket in it would end it early."""
    return f"[{REPORT}]({url.replace('(', '%28').replace(')', '%29')})"


def _say(section: Section, gap: str) -> str:
    return gap.join([f"**{section.heading}**", *(f"- {escape(text)}" for text in section.texts)])
