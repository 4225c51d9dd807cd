"""Collects what is wrong in the files that a person wrote, each as `file#/pointer: what; nearest right word`."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """Suggest the known word that is meant, as the tail of a message; "" where none is near."""
    close = difflib.get_close_matches(word.lower(), {name.lower(): name for name in known}, n=1, cutoff=0.6)
    return f'; did you mean "{next(name for name in known if name.lower() == close[0])}"?' if close else ""


@dataclass(frozen=True)
class Place:
    """Where in a file something stands; `problems` is shared by all places of one check."""

    file: str
    problems: list[str]
    pointer: str = ""

    def at(self, *steps: str | int) -> Place:
        """Go down by keys and positions (JSON pointer, RFC 6901)."""
        escaped = (str(step).replace("~", "~0").replace("/", "~1") for step in steps)
        return Place(self.file, self.problems, "".join([self.pointer, *(f"/{step}" for step in escaped)]))

    def note(self, what: str) -> None:
        self.problems.append(f"{self.file}#{self.pointer}: {what}" if self.pointer else f"{self.file}: {what}")

    def check_keys(self, value: dict[str, Any], known: Iterable[str], word: str, required: Iterable[str] = ()) -> None:
        """Note every unknown and every missing key; `word` says what a key is here, e.g. "condition"."""
        known = list(known)
        for key in value:
            if key not in known:
                tail = nearest(key, known) or f"; known: {', '.join(known)}"
                self.at(key).note(f'unknown {word} "{key}"{tail}')
        for key in required:
            if key not in value:
                self.note(f'"{key}" is missing')


class _Repeated(ValueError):
    """An object has a key twice: the first one would be lost without a word."""


def parse_json(text: bytes, place: Place) -> Any:  # noqa: ANN401  (any JSON)
    """Read a JSON file; notes the problem and returns None where it is none (or a key stands in it twice)."""
    try:
        return json.loads(text.decode("utf-8-sig"), object_pairs_hook=_object, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        place.note(f"not UTF-8 at byte {error.start}")
    except json.JSONDecodeError as error:
        place.note(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}")
    except _Repeated as error:
        place.note(str(error))
    except (ValueError, RecursionError) as error:
        place.note(f"not JSON: {error}")
    return None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Repeated(f'the key "{twice}" stands twice in one object')
    return members


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_KINDS = {
    dict: "an object",
    list: "an array",
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def kind_of(value: object) -> str:
    """Name the kind of a JSON value: "an object", "a text"."""
    return _KINDS[type(value)]
