"""Makes names from outside harmless: whatever they hold, they ping no one, form no link and start no markup.

Nothing is dropped: what would act is replaced by what looks like it, or broken up in a way that people know.
"""

from __future__ import annotations

import re

from audit.text import printable

# What a chat client makes a link of: a scheme, or a dot before a letter, as in a host name.
_SCHEME = re.compile(r":(?=//)")
_DOT = re.compile(r"(?<=\w)\.(?=[^\W\d_])")
# Marks of emphasis at the edge of a word; inside one, as in domain_id, they mean nothing.
_EDGE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
# How far behind an ASCII character its full-width form stands in Unicode.
_FULL_WIDTH = 0xFEE0
_MARKUP = re.compile(r"([\\`*_~|<>\[\]()#])")


def inert(text: str) -> str:
    """Show what is invisible, and break up links and mentions, for every kind of chat.

    Also where a service is told by other means to ping no one and to make no links: one mistake of ours or of theirs
    is then not enough.
    """
    text = _DOT.sub("[.]", _SCHEME.sub("[:]", printable(text)))
    return text.replace("@", "\uff20")


def replace_marks(text: str, marks: str) -> str:
    """Replace marks by full-width ones, for services that document no way to escape them; `_` not inside a word."""
    text = _EDGE.sub("\uff3f", text) if "_" in marks else text
    return text.translate({ord(mark): ord(mark) + _FULL_WIDTH for mark in marks if mark != "_"})


def escape_markup(text: str) -> str:
    """Put a backslash before every mark, for services that take Markdown's own escapes."""
    return _MARKUP.sub(r"\\\1", text)
