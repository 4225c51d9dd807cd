"""What a run reads, and with which credentials: projects in regions, from one setting as JSON or from several."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from audit.huawei.apig import endpoint_of
from audit.receivers import look_up, url_problem
from audit.ruleset.problems import Node, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
REGION = re.compile(r"[a-z0-9-]{1,64}")
_NAME = re.compile(r"[a-z0-9-]{1,100}")
# Names of agencies and accounts may hold more, but nothing that JSON or a log would trip over.
_NAMED = re.compile(r"[^\s\"\\]{1,64}")
_KEYS: Mapping[str, Any] = {
    "name": None,
    "region": None,
    "project_id": None,
    "endpoint": None,
    "gateways": None,
    "credentials": None,
}
_AGENCY = {"agency", "domain"}


@dataclass(frozen=True)
class Credentials:
    """An access key (temporary ones with `security_token`) or a token. Nothing here is ever printed."""

    ak: str = field(default="", repr=False)
    sk: str = field(default="", repr=False)
    security_token: str | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        return tuple(text for text in (self.ak, self.sk, self.security_token, self.token) if text)


class Agency(msgspec.Struct, frozen=True):
    """An agency of another account (`domain` is that account's name), whose keys are borrowed."""

    name: str
    domain: str


class Target(msgspec.Struct, frozen=True):
    """A project in a region. Empty `gateways` mean all. `credentials`: None for the run's own.

    `name` is for people, and names the shard that reads it.
    """

    name: str
    region: str
    project_id: str
    endpoint: str
    gateways: tuple[str, ...] = ()
    credentials: Credentials | Agency | None = None


def parse_targets(text: str, place: Place, lookup: Callable[[str], str]) -> tuple[Target, ...]:
    """Read a JSON list of targets, noting every problem; `lookup` finds what `"env:NAME"` stands for, "" if nothing.

    They come back in the order in which they are read: by region and project.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        place.note('is not JSON; a list such as [{"region": "cn-north-4", "project_id": "..."}] is wanted')
        return ()
    targets = [_parse_target(node, lookup) for node in Node(value, place).items("an array of targets")]
    places: set[tuple[str, str]] = set()
    names: set[str] = set()
    for number, target in enumerate(targets):
        where = (target.region, target.project_id)
        if all(where) and where in places:
            place.note(f"project {target.project_id} in {target.region} stands there already", f"/{number}")
        elif target.name in names:
            place.note(f'the name "{target.name}" is taken', f"/{number}/name")
        places.add(where)
        names.add(target.name)
    return tuple(sorted(targets, key=lambda target: (target.region, target.project_id)))


def _parse_target(node: Node, lookup: Callable[[str], str]) -> Target:
    given = node.members(_KEYS, ("region", "project_id"))
    region = _match(given["region"], REGION, 'a region such as "cn-north-4"')
    project_id = _match(given["project_id"], ID, "a project id")
    name = _match(given["name"], _NAME, "1 to 100 of a-z, 0-9 and -")
    endpoint = _match(given["endpoint"], re.compile(".+"), "a base URL").rstrip("/")
    if endpoint:
        given["endpoint"].note_any(url_problem(endpoint, bare=True))
    default = re.sub(r"[^a-z0-9-]", "-", f"{region}-{project_id}".lower())
    return Target(
        name or default,
        region,
        project_id,
        endpoint or endpoint_of(region),
        _gateways(given["gateways"]),
        _credentials(given["credentials"], lookup),
    )


def _match(node: Node, pattern: re.Pattern[str], what: str) -> str:
    """Return a text that is what it should be; notes where it is not, "" then and where it is absent."""
    if isinstance(node.value, str) and pattern.fullmatch(node.value):
        return node.value
    if isinstance(node.value, str) and node.value:
        node.note(f'"{node.value}" is not {what}')
    else:
        node.want(what)
    return ""


def _gateways(node: Node) -> tuple[str, ...]:
    if node.value is None:
        return ()
    return tuple(filter(None, (_match(item, ID, "a gateway id") for item in node.items("an array of gateway ids"))))


def _credentials(node: Node, lookup: Callable[[str], str]) -> Credentials | Agency | None:
    if node.value is None:
        return None
    if isinstance(node.value, dict) and not _AGENCY.isdisjoint(node.value):
        given = node.members(dict.fromkeys(_AGENCY), sorted(_AGENCY))
        return Agency(
            _match(given["agency"], _NAMED, "the name of an agency"),
            _match(given["domain"], _NAMED, "the name of an account"),
        )
    given = node.members({"ak": None, "sk": None}, ("ak", "sk"))
    return Credentials(*(_secret(given[key], lookup) for key in ("ak", "sk")))


def _secret(node: Node, lookup: Callable[[str], str]) -> str:
    """Return what a named setting holds. A key as such would stand in a setting that is shown to everyone."""
    found = look_up(node, lookup)
    if found is node:
        node.note('write "env:NAME", and the key into the setting NAME')
        return ""
    if found.value and not re.fullmatch(r"[!-~]+", found.value):
        node.note("the setting holds a blank or a character that no HTTP header can carry")
    return str(found.value or "")
