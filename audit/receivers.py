"""Who is told, and what each of them wants to hear; read from the settings, as JSON."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from audit.model import SEVERITIES
from audit.notify import Wishes
from audit.render.kinds import KINDS, LOOPBACK, find_kind, host_problem, secret_problem
from audit.ruleset.problems import Node, Place, none_of
from audit.times import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta

REFERENCE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
_NAME = re.compile(r"[a-z0-9-]{1,40}")
_KEYS: Mapping[str, Any] = {
    "name": "",
    "kind": None,
    "url": None,
    "secret": None,
    "min_severity": "low",
    "repeat_interval": None,
    "heartbeat": None,
    "send_resolved": True,
}
_TEXTS = {"kind": "the name of a kind", "url": "a URL", "secret": "a text"}


@dataclass(frozen=True)
class Receiver:
    """Where messages go. `url` and `secret` are secrets."""

    name: str
    kind: str
    url: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)
    wishes: Wishes = field(default_factory=Wishes)

    @property
    def url_hash(self) -> str:
        return sha256(self.url.encode()).hexdigest()

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every text that must never be shown."""
        return (self.url, self.secret) if self.secret else (self.url,)


def parse_receivers(text: str, place: Place, lookup: Callable[[str], str]) -> tuple[Receiver, ...]:
    """Read a JSON list of receivers, noting every problem; `lookup` finds what `"env:NAME"` stands for, "" if nothing.

    No problem repeats a URL or a secret.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        place.note('is not JSON; a list such as [{"name": "soc", "url": "https://..."}] is wanted')
        return ()
    receivers = [_parse_receiver(node, lookup) for node in Node(value, place).items("an array of receivers")]
    seen: set[str] = {"default"}
    for number, receiver in enumerate(receivers):
        if receiver.name in seen:
            place.note(f'the name "{receiver.name}" is taken', f"/{number}/name")
        seen.add(receiver.name)
    return tuple(receivers)


def _parse_receiver(node: Node, lookup: Callable[[str], str]) -> Receiver:
    members = node.members(_KEYS, ("name", "url"))
    given = {key: look_up(member, lookup) for key, member in members.items()}
    name = given["name"].value
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        given["name"].note("1 to 40 of a-z, 0-9 and - are wanted")
    wrong = [key for key, what in _TEXTS.items() if not _is_text(given[key], what)]
    kind, url, secret = ("" if key in wrong else given[key].value or "" for key in _TEXTS)
    if not url and "url" not in wrong:
        given["url"].want("a URL")
    elif not wrong:
        kind, problems = check_wire(kind, url, secret)
        for key, problem in problems.items():
            if key in node.value:
                given[key].note(problem)
            else:
                node.note(f'"{key}" {problem}')
    given["min_severity"].choose(SEVERITIES)
    if not isinstance(given["send_resolved"].value, bool):
        given["send_resolved"].want("true or false")
    wishes = Wishes(
        given["min_severity"].value,
        _duration(given["repeat_interval"]),
        _duration(given["heartbeat"]),
        given["send_resolved"].value is not False,
    )
    return Receiver(str(name), kind, url, secret or None, wishes)


def _is_text(node: Node, what: str) -> bool:
    """Whether it is a text or absent; notes where it is something else."""
    right = node.value is None or isinstance(node.value, str)
    if not right:
        node.want(what)
    return right


def look_up(node: Node, lookup: Callable[[str], str]) -> Node:
    """Replace `"env:NAME"` by the value of that setting."""
    named = REFERENCE.fullmatch(node.value) if isinstance(node.value, str) else None
    if named is None:
        return node
    found = lookup(named[1])
    if not found:
        node.note(f"the setting {named[1]} is not set")
    # What a missing value would be wrong for besides is not said.
    return Node(found, node.place if found else Place("", []), node.pointer)


def _duration(node: Node) -> timedelta | None:
    if node.value is None:
        return None
    if not isinstance(node.value, str):
        node.want('a duration such as "P1D"')
        return None
    try:
        return parse_duration(node.value)
    except ValueError as error:
        node.note(str(error))
        return None


def check_wire(kind: str, url: str, secret: str) -> tuple[str, dict[str, str]]:
    """Complete the kind of a receiver by the host of its URL, and say what is wrong with which of the three.

    "" stands for what is not given. No problem repeats the URL or the secret.
    """
    if problem := url_problem(url):
        return kind, {"url": problem, **_kind_problems(kind)}
    host = (urlsplit(url).hostname or "").lower().rstrip(".")
    if not kind and not (kind := find_kind(host)):
        return "", {"kind": f"is missing, as the host of the URL does not tell it; known: {', '.join(KINDS)}"}
    if problems := _kind_problems(kind):
        return kind, problems
    wrong = {"url": host_problem(kind, host), "secret": secret_problem(kind, secret) if secret else ""}
    return kind, {what: problem for what, problem in wrong.items() if problem}


def _kind_problems(kind: str) -> dict[str, str]:
    """Say that a kind is unknown; nothing is said of one that is not given."""
    return {"kind": none_of(kind, KINDS)} if kind and kind not in KINDS else {}


def url_problem(value: str, *, bare: bool = False) -> str:
    """Say what is wrong with a URL without repeating it, as it may be a secret; "" where nothing is."""
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return "is not a URL"
    if not re.fullmatch(r"[!-~]+", value) or parts.scheme not in {"https", "http"} or not parts.hostname or port == 0:
        return "is not a URL such as https://host/path"
    if parts.username is not None or parts.fragment:
        return "must hold neither a user name nor a fragment"
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        return "must be https (http is for loopback only)"
    if bare and (parts.path.rstrip("/") or parts.query):
        return "must be a scheme and a host only, without path or query"
    return ""
