"""Makes a digest fit into what a service takes: texts are shortened first, then lines left out and counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from audit.text import shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from audit.render.chat.digest import Digest

Form = TypeVar("Form")
# Longest line and longest headline, step by step; lines are left out before the last step.
_STEPS = ((600, 600), (300, 300), (160, 250), (100, 250), (70, 250))
_LAST_STEP = (40, 80)
TOO_LONG = ("Report", "its link is too long for this chat")


def units(text: str) -> int:
    """Measure a text as most services do: an emoji counts two, so that it is never more than they count."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def octets(text: str) -> int:
    """Measure a text in bytes of UTF-8."""
    return len(text.encode("utf-8", "surrogatepass"))


def cut(text: str, most: int, form: Callable[[str], str] = str, measure: Callable[[str], int] = units) -> str:
    """Return the form of as much of a text as measures at most `most` in it; no escape is cut in two."""
    lower, upper = 1, len(text)
    if measure(form(text)) <= most:
        return form(text)
    while lower < upper:
        middle = (lower + upper + 1) // 2
        if measure(form(shorten(text, middle))) <= most:
            lower = middle
        else:
            upper = middle - 1
    return form(shorten(text, lower))


def fit(digest: Digest, lay_out: Callable[[Digest], Form], fits: Callable[[Form], bool], most_link: int = 2000) -> Form:
    """Lay out as much of a digest as fits; a link longer than `most_link` is left out, and said so."""
    if len(digest.link) > most_link:
        digest = _without_link(digest)
    form = None
    for smaller in _ever_smaller(digest):
        form = lay_out(smaller)
        if fits(form):
            return form
    raise AssertionError("a digest without lines fits every service")


def _ever_smaller(digest: Digest) -> Iterator[Digest]:
    for step in _STEPS:
        digest = _shortened(digest, *step)
        yield digest
    while any(section.lines for section in digest.sections):
        digest = _with_less(digest)
        yield digest
    digest = _shortened(digest, *_LAST_STEP)
    yield digest
    if digest.link:
        yield _without_link(digest)


def _shortened(digest: Digest, line: int, headline: int) -> Digest:
    return replace(
        digest,
        headline=shorten(digest.headline, headline),
        sections=tuple(
            replace(section, lines=tuple(shorten(text, line) for text in section.lines)) for section in digest.sections
        ),
        facts=tuple((name, shorten(text, line)) for name, text in digest.facts),
        anchors=tuple((name, shorten(text, line)) for name, text in digest.anchors),
    )


def _with_less(digest: Digest) -> Digest:
    """Leave out the last line of the longest section, of the last one of those: findings go last."""
    longest = max(range(len(digest.sections)), key=lambda number: (len(digest.sections[number].lines), number))
    sections = list(digest.sections)
    section = sections[longest]
    sections[longest] = replace(section, lines=section.lines[:-1], left_out=section.left_out + 1)
    return replace(digest, sections=tuple(sections))


def _without_link(digest: Digest) -> Digest:
    return replace(digest, link="", anchors=(*digest.anchors, TOO_LONG))
