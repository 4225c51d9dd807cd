"""Reads JSON that a person wrote and collects what is wrong with it, each as `file#/pointer: what; nearest right word`.

One mistake is one line: what a mistake makes unreadable reads as if it were not there.
"""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any

import msgspec

from audit.text import printable, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Far above what a person writes, far below what Python's own recursion allows.
_DEEPEST = 40
_SHORTEST_START = 3
_LONGEST_PROBLEM = 2_000


def nearest(word: str, known: Iterable[str]) -> str:
    """Suggest the known word that is meant, as the tail of a message; "" where none is near."""
    meant = _closest(word, known)
    return "" if meant is None else f'; did you mean "{meant}"?'


def unknown(what: str, word: str, known: Iterable[str]) -> str:
    """Say that a word is unknown: `what` is the kind of word, e.g. "condition"."""
    return f'unknown {what} "{word}"{nearest(word, known) or "; known: " + (", ".join(known) or "none")}'


def _closest(word: str, known: Iterable[str]) -> str | None:
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    # "pending" for "pendingAcceptance" is too short for difflib.
    close += [name for name in by_lower if len(word) >= _SHORTEST_START and name.startswith(word.lower())]
    # "name" for "gateway.name", and the other way round.
    close += [name for name in by_lower if name.rpartition(".")[2] == word.lower().rpartition(".")[2]]
    return by_lower[close[0]] if close else None


class Place(msgspec.Struct, frozen=True):
    """A file under check; `problems` is shared by all files of one check."""

    file: str
    problems: list[str]

    def note(self, what: str, pointer: str = "") -> None:
        self.problems.append(printable(shorten(f"{self.file}{pointer and '#'}{pointer}: {what}", _LONGEST_PROBLEM)))


class Node(msgspec.Struct, frozen=True):
    """A JSON value and where it stands: a file and a JSON pointer (RFC 6901)."""

    value: Any
    place: Place
    pointer: str = ""

    def note(self, what: str) -> None:
        self.place.note(what, self.pointer)

    def note_any(self, problem: str) -> None:
        """Note a problem where there is one ("" is none)."""
        if problem:
            self.note(problem)

    def want(self, what: str) -> None:
        """Note that something else is wanted here."""
        self.note(f"{what} is wanted, not {kind_of(self.value)}")

    def at(self, key: str | int, value: object) -> Node:
        step = str(key).replace("~", "~0").replace("/", "~1")
        return Node(value, self.place, f"{self.pointer}/{step}")

    def entries(self, what: str = "an object") -> dict[str, Node]:
        """Return the members of an object that may have any keys; notes where it is no object."""
        if self._is_a(dict, what):
            return {key: self.at(key, value) for key, value in self.value.items()}
        return {}

    def members(self, known: Mapping[str, Any], required: Iterable[str] = ()) -> dict[str, Node]:
        """Return the members of an object, all of `known`: absent ones as given there, and no more is said about them.

        A misspelt key is noted and stands for the one that is meant.
        """
        members = self.entries()
        for key in [key for key in members if key not in known]:
            node = members.pop(key)
            node.note(unknown("key", key, known))
            members.setdefault(_closest(key, known) or key, node)
        for key in required:
            if key not in members and isinstance(self.value, dict):
                self.note(f'"{key}" is missing')
        nowhere = Place(self.place.file, [])
        return {key: Node(default, nowhere) for key, default in known.items()} | members

    def items(self, what: str) -> list[Node]:
        """Return the items of an array with at least one; notes where it is something else."""
        if not self._is_a(list, what):
            return []
        if not self.value:
            self.want(what)
        return [self.at(number, value) for number, value in enumerate(self.value)]

    def text(self) -> str:
        """Return a text that says something; notes where it is none."""
        if isinstance(self.value, str) and any(sign.isprintable() and not sign.isspace() for sign in self.value):
            return self.value
        if isinstance(self.value, str) and self.value:
            self.note("a text that says something is wanted")
        else:
            self.want("a text")
        return ""

    def texts(self) -> tuple[str, ...]:
        """Return an array of texts, each once and without blanks around it; notes what is otherwise."""
        if not self._is_a(list, "an array of texts"):
            return ()
        seen: set[str] = set()
        for number, text in enumerate(self.value):
            if not isinstance(text, str) or not text or text != text.strip():
                self.at(number, text).note("a text without blanks around it is wanted")
            elif text in seen:
                self.at(number, text).note(f'"{text}" stands twice in this list')
            else:
                seen.add(text)
        return tuple(text for text in self.value if isinstance(text, str))

    def choose(self, known: Iterable[str]) -> None:
        """Note where it is none of the known words."""
        if not isinstance(self.value, str):
            self.want(f"one of {', '.join(known)}")
        elif self.value not in known:
            self.note(none_of(self.value, known))

    def _is_a(self, kind: type, what: str) -> bool:
        if not isinstance(self.value, kind):
            self.want(what)
            return False
        if self.pointer.count("/") > _DEEPEST:
            self.note(f"nested deeper than {_DEEPEST} levels")
            return False
        return True


def none_of(word: str, known: Iterable[str]) -> str:
    """Say that a word is none of those that can stand here."""
    return f'"{word}" is none of {", ".join(known)}{nearest(word, known)}'


def parse_json(text: bytes, place: Place) -> dict[str, Any] | None:
    """Read a file that holds a JSON object; notes the problem and returns None where it does not."""
    if not text.strip():
        place.note("the file is empty")
        return None
    try:
        value = json.loads(text.decode("utf-8-sig"), object_pairs_hook=_object, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        place.note(f"not UTF-8 at byte {error.start}")
    except UnicodeEncodeError:
        place.note("not JSON: one of its \\u escapes is half a character")
    except json.JSONDecodeError as error:
        what = "a comma too many before" if error.doc[: error.pos].rstrip().endswith(",") else f"{error.msg} at"
        place.note(f"not JSON: {what} line {error.lineno}, column {error.colno}")
    except _WrongError as error:
        place.note(f"cannot be read: {error}")
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else "a number in it has too many digits"
        place.note(f"cannot be read: {why}")
    else:
        if isinstance(value, dict):
            return value
        place.note(f"the file holds {kind_of(value)}; an object is wanted")
    return None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):  # the first one would be lost without a word
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _WrongError(f'the key "{twice}" stands twice in one object')
    return members


def _no_constant(name: str) -> None:
    raise _WrongError(f"{name} is not JSON")


class _WrongError(ValueError):
    """What JSON takes and a person cannot mean."""


_KINDS = {
    dict: "an object",
    list: "an array",
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a decimal number",
    type(None): "null",
}


def kind_of(value: object) -> str:
    """Name the kind of a JSON value: "an object", "an empty text"."""
    kind = _KINDS.get(type(value), "something that is not JSON")
    return f"an empty {kind.split()[-1]}" if value in ("", [], {}) else kind
