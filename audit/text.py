"""Makes text safe to show: secrets taken out, control characters and direction overrides made visible."""

from __future__ import annotations

import re
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import category
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHORTEST_SECRET = 4
_SHORTEST_SEGMENT = 8
_SHORTEST_PIECE = 16
# Parts of a URL that are no secret. Of a query: what switches something, or is a word of our own messages; any other
# word might be a password. Of a path: names as people give them; a token is drawn at random and has digits or both
# cases, and the rare one that has not is still taken out with its path.
_SWITCH = re.compile(
    "true|false|none|null|json|text|html|markdown|manual|info|warning|error|medium|high|critical", re.IGNORECASE
)
_NAME = re.compile(r"[a-z._-]+|[A-Z._-]+")
# Needless escapes, which could hide a secret.
_ESCAPE = re.compile(rb"\\u00([2-7][0-9a-fA-F])")
_ANY_ESCAPE = re.compile(r"\\(?:u00|x)([0-9a-f]{2})|\\([\\/\"'bfnrt])", re.IGNORECASE)
_DEEPEST = 3
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


def count(number: int, thing: str) -> str:
    """Say a number of things: "1 gateway", "2 gateways"."""
    return f"{number} {thing}{'s' * (number != 1)}"


def describe_defect(error: BaseException) -> str:
    """Name an unexpected error and the innermost line of ours; not its text, which may hold anything."""
    home = Path(__file__).parent
    files = [(Path(frame.f_code.co_filename), line) for frame, line in traceback.walk_tb(error.__traceback__)]
    places = [f"{path.name}:{line}" for path, line in files if path.is_relative_to(home)]
    return f"internal error ({type(error).__name__} in {places[-1] if places else '?'}); please report this defect"


class Redactor:
    """Replaces every known secret in a text, also where a server or library quoted it or a part of it."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets: tuple[str, ...] = ()
        self._learning = threading.Lock()
        self.learn(secrets)

    def learn(self, secrets: Iterable[str]) -> None:
        """Replace these from now on too; safe to call from several threads."""
        with self._learning:
            self._secrets += tuple(secret for secret in secrets if len(secret) >= _SHORTEST_SECRET)
            self._whole = [secret.encode() for secret in self._secrets]
            self._pattern = self._compile()

    def _compile(self) -> re.Pattern[str] | None:
        forms: dict[str, str] = {}
        for secret in self._secrets:
            for word in map(_decode, _words(secret)):
                forms[word] = rf"(?<![a-z0-9]){re.escape(word)}(?![a-z0-9])"
            for part in _parts(secret):
                forms |= {form: re.escape(form) for form in (part, _decode(part), part.replace(" ", "+"))}
        longest_first = (forms[form] for form in sorted(forms, key=len, reverse=True) if len(form) >= _SHORTEST_SECRET)
        return re.compile("|".join(longest_first), re.IGNORECASE) if self._secrets else None

    def __call__(self, text: str) -> str:
        """Return a text as it came where it holds no secret; decoded, where escapes of JSON, URLs or HTML hide one."""
        if not self._pattern:
            return text
        plain = _decode(text)
        safe = self._pattern.sub("***", plain)
        return safe if safe != plain else self._pattern.sub("***", text)

    def body(self, body: bytes) -> bytes:
        """The same for JSON that a server sent. A quick look in most cases, as there are many pages."""
        plain = _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), body) if b"\\" in body else body
        if not self._pattern or not any(secret in plain.replace(b"\\/", b"/") for secret in self._whole):
            return body
        # Latin-1 gives every byte back as it came, and all that is replaced is ASCII.
        return self._pattern.sub("***", plain.replace(b"\\/", b"/").decode("latin-1")).encode("latin-1")


def _decode(text: str) -> str:
    """Take the escapes from a text, also from one that was escaped more than once."""
    for _ in range(_DEEPEST):
        plain = _ANY_ESCAPE.sub(_meant, text) if "\\" in text else text
        if "&" in plain:
            from html import unescape  # noqa: PLC0415  (rarely needed, and slow to load)

            plain = unescape(plain)
        plain = unquote(plain)
        if plain == text:
            break
        text = plain
    return text


def _meant(found: re.Match[str]) -> str:
    if found[1]:
        return chr(int(found[1], 16))
    return found[2] if found[2] in "\\/\"'" else " "


def _parts(secret: str) -> list[str]:
    """A secret, the path and query of a URL (libraries name them without the host), and whatever long pieces it has."""
    pieces = [piece for piece in re.split(r"[^A-Za-z0-9+-]", secret) if len(piece) >= _SHORTEST_PIECE]
    if "://" not in secret:
        return [secret, *pieces]
    url = urlsplit(secret)
    return [secret, url.path, url.query, *pieces]


def _words(secret: str) -> set[str]:
    """What may be a token in a URL: values of its query, segments of its path; taken out where they stand alone.

    Inside of other words they are left alone, as the short ones would be found everywhere.
    """
    if "://" not in secret:
        return set()
    url = urlsplit(secret)
    values = {pair.partition("=")[2] or pair for pair in url.query.split("&")}
    segments = {text for text in url.path.split("/") if len(text) >= _SHORTEST_SEGMENT and not _NAME.fullmatch(text)}
    return segments | {value for value in values if not _SWITCH.fullmatch(value)}
