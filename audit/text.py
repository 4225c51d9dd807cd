"""Makes text safe to show: secrets taken out, control characters and direction overrides made visible."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHORTEST_SECRET = 4
# C0, DEL, C1, zero-width and direction marks, line and paragraph separators, lone surrogates.
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Show invisible characters as escapes such as `\\x1b` or `\\u202e`: a name must not move the cursor or lie."""
    return _INVISIBLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def shorten(text: str, length: int) -> str:
    """Cut text to at most `length` characters, the last one an ellipsis where something was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"


class Redactor:
    """Replaces every known secret in a text, also where a server or library quoted it for a URL."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms: set[str] = set()
        for secret in secrets:
            parts = urlsplit(secret) if "://" in secret else None
            # Of a secret URL the path and query hold the token; libraries like to name them without the host.
            for form in (secret, *([parts.path, parts.query] if parts else [])):
                forms |= {form, quote(form), quote(form, safe=""), quote_plus(form)}
        longest_first = sorted((form for form in forms if len(form) >= _SHORTEST_SECRET), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, text: str) -> str:
        return self._pattern.sub("***", text) if self._pattern else text
