"""Makes text safe to show: secrets taken out, control characters and direction overrides made visible."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import category
from urllib.parse import quote, quote_plus, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHORTEST_SECRET = 4
_SHORTEST_PIECE = 16
# Needless escapes, which could hide a secret.
_ESCAPE = re.compile(rb"\\u00([2-7][0-9a-fA-F])")
# Control, format (zero width, direction), surrogate, private use; line and paragraph separators.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def printable(text: str) -> str:
    r"""Show invisible characters as escapes such as `\x1b` or `\u202e`: a name must not move the cursor or lie."""
    if text.isprintable():
        return text
    return "".join(_escape(character) if category(character) in _UNSEEN else character for character in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def shorten(text: str, length: int) -> str:
    """Cut text to at most `length` characters, the last one an ellipsis where something was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"


def describe_defect(error: BaseException) -> str:
    """Name an unexpected error and the innermost line of ours; not its text, which may hold anything."""
    home = Path(__file__).parent
    files = [(Path(frame.f_code.co_filename), line) for frame, line in traceback.walk_tb(error.__traceback__)]
    places = [f"{path.name}:{line}" for path, line in files if path.is_relative_to(home)]
    return f"internal error ({type(error).__name__} in {places[-1] if places else '?'}); please report this defect"


class Redactor:
    """Replaces every known secret in a text, also where a server or library quoted it or a part of it."""

    def __init__(self, secrets: Iterable[str]) -> None:
        secrets = [secret for secret in secrets if len(secret) >= _SHORTEST_SECRET]
        self._whole = [secret.encode() for secret in secrets]
        forms = {written for secret in secrets for part in _parts(secret) for written in _spellings(part)}
        longest_first = sorted((form for form in forms if len(form) >= _SHORTEST_SECRET), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE) if longest_first else None

    def __call__(self, text: str) -> str:
        return self._pattern.sub("***", text) if self._pattern else text

    def body(self, body: bytes) -> bytes:
        """The same for JSON that a server sent. A quick look in most cases, as there are many pages."""
        plain = _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), body) if b"\\" in body else body
        if not any(secret in plain.replace(b"\\/", b"/") for secret in self._whole):
            return body
        # Latin-1 gives every byte back as it came, and all that is replaced is ASCII.
        return self(plain.replace(b"\\/", b"/").decode("latin-1")).encode("latin-1")


def _parts(secret: str) -> list[str]:
    """A secret, the path and query of a URL (libraries name them without the host), and whatever long pieces it has."""
    pieces = [piece for piece in re.split(r"[^A-Za-z0-9+-]", secret) if len(piece) >= _SHORTEST_PIECE]
    if "://" not in secret:
        return [secret, *pieces]
    url = urlsplit(secret)
    return [secret, url.path, url.query, *pieces]


def _spellings(text: str) -> set[str]:
    """A text as it is, as URLs have it, and as JSON may have it."""
    return {text, quote(text), quote(text, safe=""), quote_plus(text), text.replace("/", "\\/")}
