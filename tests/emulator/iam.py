"""Who may read what: keys, agencies, and the call that trades a caller's key for an agency's temporary one.

Read from the vendor's document of "Obtaining Temporary Access Keys and Security Tokens of an Agency" (iam_04_0101).
The statuses are documented; the wording of the errors, and 404 for an unknown agency, are not.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from tests.emulator import errors
from tests.emulator.wire import Answer, json_answer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.emulator.api import Call
    from tests.emulator.estate import Estate

DOMAIN = "emulator-home"
SHORTEST, LONGEST = 900, 86400


@dataclass(frozen=True)
class Key:
    """An access key and what it opens. Temporary ones have a security token and an end."""

    access: str
    secret: str
    security_token: str | None = None
    domain: str = DOMAIN
    """Name of the account that it acts for: agencies trust accounts."""
    project_ids: frozenset[str] | None = None
    """The projects that it may use; None is all of the estate's."""
    expires_at: datetime | None = None
    agency: str | None = None
    """Name of the agency that it was issued for."""
    invocation: str | None = None
    """Request id of the function invocation that it came from, by however many agencies."""

    def opens(self, project_id: str | None) -> bool:
        """Whether it may use a project; a call without one is not its business."""
        return project_id is None or self.project_ids is None or project_id in self.project_ids


@dataclass
class Agency:
    """What an account lets others do in its name."""

    name: str
    domain: str
    domain_id: str
    project_ids: set[str]
    trusts: set[str]
    """Names of the accounts that may assume it."""


class Iam:
    """The keys and agencies of an estate; change them under the estate's lock or before it is served."""

    def __init__(self, estate: Estate) -> None:
        self._estate = estate
        self.agencies: list[Agency] = []
        self.keys: dict[str, Key] = {}
        """By access key, all but the estate's own, the expired ones too."""
        self.lifetime: timedelta | None = None
        """How long keys issued from now on live, whatever was asked for."""

    def add_agency(
        self, domain: str, name: str, project_ids: Iterable[str], trusts: Iterable[str] = (DOMAIN,)
    ) -> Agency:
        """Let the accounts that are trusted get keys for these projects."""
        domain_id = uuid.uuid5(uuid.NAMESPACE_URL, f"domain {domain}").hex
        agency = Agency(name, domain, domain_id, set(project_ids), set(trusts))
        with self._estate.lock:
            self.agencies.append(agency)
        return agency

    def add_key(self, project_ids: Iterable[str] | None = None, domain: str = DOMAIN) -> Key:
        """A permanent key for these projects, or for all."""
        return self._keep(temporary=False, domain=domain, project_ids=_frozen(project_ids))

    def issue(self, seconds: float = LONGEST, **of: Any) -> Key:
        """A temporary key; `of` are fields of `Key`."""
        lifetime = timedelta(seconds=seconds) if self.lifetime is None else self.lifetime
        return self._keep(temporary=True, expires_at=self._estate.server_time() + lifetime, **of)

    def expire(self, access: str | None = None) -> None:
        """End a temporary key, or all of them, now."""
        with self._estate.lock:
            for key in list(self.keys.values()):
                if key.expires_at and access in (None, key.access):
                    self.keys[key.access] = replace(key, expires_at=self._estate.server_time())

    def find(self, access: str) -> Key | None:
        """The key of this name."""
        own = self._estate
        if access == own.access_key:
            return Key(own.access_key, own.secret_key, own.security_token, project_ids=own.opens)
        return self.keys.get(access)

    def _keep(self, *, temporary: bool, **of: Any) -> Key:
        with self._estate.lock:
            identity = self._estate.name_for(f"key {len(self.keys)}")
            secret, token = (uuid.uuid5(identity, word).hex for word in ("secret", "token"))
            access = ("HSTA" if temporary else "HPUA") + identity.hex[:16].upper()
            key = Key(access, f"{secret}00000000", f"emulator-{token}" if temporary else None, **of)
            self.keys[access] = key
            return key


def assume_agency(estate: Estate, call: Call, caller: Key) -> Answer:
    """Answer `POST /v3.0/OS-CREDENTIAL/securitytokens` with a key for what the agency may read."""
    asked, seconds = _parse(call.request.body)
    found = [a for a in estate.iam.agencies if all(getattr(a, name) == value for name, value in asked.items())]
    if not found:
        where = asked.get("domain") or asked.get("domain_id")
        raise errors.iam(404, f"Could not find agency: {asked['name']} of {where}.")
    agency = found[0]
    if caller.domain not in agency.trusts:
        raise errors.iam(403, f"You are not authorized to perform the requested action: agency {agency.name}.")
    key = estate.iam.issue(
        seconds,
        domain=agency.domain,
        project_ids=frozenset(agency.project_ids),
        agency=agency.name,
        invocation=caller.invocation,
    )
    names = {"access": key.access, "secret": key.secret, "securitytoken": key.security_token}
    return json_answer(201, {"credential": {**names, "expires_at": _wire_time(key.expires_at)}})


def _parse(body: bytes) -> tuple[dict[str, str], int]:
    """The wanted fields of an agency, and the wanted seconds."""
    try:
        identity = json.loads(body)["auth"]["identity"]
        role = identity["assume_role"]
        if identity["methods"] != ["assume_role"]:
            raise errors.iam_refusal(f"methods is {identity['methods']!r}; known: ['assume_role']")
        role = dict(role)
    except (ValueError, KeyError, TypeError) as error:
        raise errors.iam_refusal(f"not {{'auth': {{'identity': {{'methods', 'assume_role'}}}}}}: {error!r}") from None
    seconds = role.pop("duration_seconds", SHORTEST)
    if type(seconds) is not int or not SHORTEST <= seconds <= LONGEST:
        raise errors.iam_refusal(f"duration_seconds is {seconds!r}; known: {SHORTEST} to {LONGEST}")
    fields = {"agency_name": "name", "domain_name": "domain", "domain_id": "domain_id"}
    if not role.keys() <= fields.keys() or not all(isinstance(value, str) for value in role.values()):
        raise errors.iam_refusal(f"assume_role has {role!r}; known: texts named {', '.join(fields)}")
    if "agency_name" not in role or len(role) < 2:
        raise errors.iam_refusal("assume_role must have agency_name, and domain_name or domain_id")
    return {fields[name]: value for name, value in role.items()}, seconds


def _wire_time(moment: datetime | None) -> str | None:
    """UTC to the millisecond, written as microseconds."""
    if moment is None:
        return None
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}000Z"


def _frozen(project_ids: Iterable[str] | None) -> frozenset[str] | None:
    return None if project_ids is None else frozenset(project_ids)
