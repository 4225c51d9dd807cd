"""Decides which gateways of a target to read: by its list of them, which is read first and alone, and what was known.

A gateway that was known is never dropped without a proof that it is gone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

import msgspec

from audit.errors import ApiError
from audit.model import Coverage, EndpointConnection, Gateway, Reading
from audit.paging import Page, read_list

if TYPE_CHECKING:
    from collections.abc import Collection

    from audit.archive import StoredRun

_USABLE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Api(Protocol):
    """What collecting needs of a client for one project in one region. Its methods raise ApiError."""

    region: str
    project_id: str

    def list_gateways(self, offset: int = 0) -> Page[Gateway]: ...

    def list_connections(
        self, gateway_id: str, offset: int = 0, *, connection_id: str | None = None
    ) -> Page[EndpointConnection]: ...

    def list_permissions(self, gateway_id: str, offset: int = 0) -> Page[str]: ...

    def close(self, why: str = "") -> None:
        """Send nothing more and let every waiting request fail; `why` is what their errors say."""


class Step(msgspec.Struct, frozen=True):
    """What to do about one gateway: nothing where `decided`, else to read it, or if unlisted, see if it still is."""

    gateway: Gateway
    decided: Reading | None = None
    listed: bool = True


class Plan(msgspec.Struct, frozen=True):
    """The gateways of one target in sorted order, and what there is to say about the list of gateways itself.

    `run`: where they were read already, the run that has their connections.
    """

    steps: tuple[Step, ...]
    coverage: tuple[Coverage, ...] = ()
    run: StoredRun | None = None


def plan_reading(api: Api, wanted: Collection[str], known: Collection[Gateway], *, owned: bool = True) -> Plan:
    """List the gateways, once and alone: a wrong key then fails once, not in every worker.

    `wanted`: ids of the gateways in scope, empty for all; `owned` where each of them must be here. `known`: gateways
    that the previous run knew of; they are never dropped without a proof that they are gone.
    """
    try:
        listing = read_list(api.list_gateways, lambda gateway: gateway.id or None)
    except ApiError as error:
        return plan_unread(api, wanted if owned else (), known, str(error), error.request_id)

    listed = {gateway.id: gateway for gateway in listing.items}
    steps = [_step(gateway, wanted) for gid, gateway in listed.items() if gid]
    steps += _unlisted(known, listed, wanted, listing.unstable)
    names = listed.keys() | {gateway.id for gateway in known}
    strangers = [gid for gid in wanted if gid not in names] if owned else []
    steps += [decide(_unnamed(api, gid), wanted, "no such gateway in this project") for gid in strangers]
    coverage = []
    if listing.unstable:
        coverage.append(_about_list(api, "partial", listing.unstable))
    if "" in listed:
        coverage.append(_about_list(api, "not_covered", "it holds a gateway without an id"))
    return Plan(sort_steps(steps), tuple(coverage))


def plan_known(
    api: Api,
    wanted: Collection[str],
    readings: Collection[Reading],
    known: Collection[Gateway],
    about_list: tuple[Coverage, ...],
    run: StoredRun,
) -> Plan:
    """Plan nothing but to see whether gateways still are that `run`, which read the others, did not list."""
    steps = [_decide_as(reading, wanted) for reading in readings]
    listed = {reading.gateway.id for reading in readings}
    steps += _unlisted(known, listed, wanted, "; ".join(entry.reason for entry in about_list))
    strangers = set(wanted) - listed - {gateway.id for gateway in known}
    steps += [decide(_unnamed(api, gid), wanted, "the last run of its shard did not look for it") for gid in strangers]
    return Plan(sort_steps(steps), about_list, run)


def plan_unread(
    api: Api, wanted: Collection[str], known: Collection[Gateway], why: str, request_id: str | None = None
) -> Plan:
    """Plan nothing, as it is not known which gateways there are: what was known of them is not covered."""
    missing = {gateway.id: gateway for gateway in known}
    missing |= {gid: _unnamed(api, gid) for gid in wanted if gid not in missing}
    steps = [decide(g, wanted, f"the list of gateways could not be read: {why}") for g in missing.values()]
    return Plan(sort_steps(steps), (_about_list(api, "not_covered", why, request_id),))


def _step(gateway: Gateway, wanted: Collection[str], *, listed: bool = True) -> Step:
    if wanted and gateway.id not in wanted:
        return Step(gateway, Reading(gateway, "out_of_scope"))
    if not _USABLE_ID.fullmatch(gateway.id):
        return Step(gateway, Reading(gateway, "not_covered", reason="its id cannot be used in a request"))
    return Step(gateway, listed=listed)


def _unlisted(
    known: Collection[Gateway], listed: Collection[str], wanted: Collection[str], unstable: str
) -> list[Step]:
    """Judge gateways that the previous run knew and that are not listed now; `unstable` says why that proves nothing.

    What has an unusable id was never read, so there is nothing to know about it once it is not listed.
    """
    missing = [gateway for gateway in known if gateway.id not in listed and _USABLE_ID.fullmatch(gateway.id)]
    if unstable:
        why = "not seen in the list of gateways, which is not known to be whole"
        return [decide(gateway, wanted, why) for gateway in missing]
    return [_step(gateway, wanted, listed=False) for gateway in missing]


def decide(gateway: Gateway, wanted: Collection[str], reason: str) -> Step:
    """Read nothing: where the gateway is wanted it is not covered, and `reason` says why."""
    return _decide_as(Reading(gateway, "not_covered", reason=reason), wanted)


def _decide_as(reading: Reading, wanted: Collection[str]) -> Step:
    gateway = reading.gateway
    is_wanted = not wanted or gateway.id in wanted
    return Step(gateway, reading if is_wanted else Reading(gateway, "out_of_scope"))


def _unnamed(api: Api, gateway_id: str) -> Gateway:
    return Gateway(api.region, api.project_id, gateway_id, "")


def sort_steps(steps: list[Step]) -> tuple[Step, ...]:
    """Put steps into the order in which gateways are read and written."""
    return tuple(sorted(steps, key=lambda step: step.gateway.key))


def _about_list(api: Api, state: str, reason: str, request_id: str | None = None) -> Coverage:
    return Coverage(api.region, api.project_id, None, "", state, reason, 0, request_id)  # type: ignore[arg-type]
