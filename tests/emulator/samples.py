"""Estates with names, and estates from files. Each is a function of when it was born and of how far its story went.

Timestamps are relative to the birth, so that an estate is the same in every process that knows both.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.emulator.connection import STATUSES
from tests.emulator.estate import Estate
from tests.emulator.faults import Forbidden

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.emulator.gateway import Gateway

HERE = Path(__file__).parent
SAMPLE_POLICY = HERE / "sample-policy.json"

# The accounts of the sample: the first three are approved by its policy, the others are not.
RETAIL = "b70fde8e849b4e76a61dd8aa0ec05c81"
LOGISTICS = "3f1c9a52d07e4b68a4e5b9d21c6f8037"
FINANCE = "c5d8e7416b2f49a0935c1f7ad84e60b2"
AGENCY = "0e9b47d3a85c4f21b6d07c92e3f1a854"
RESELLER = "e41a6c0b59d84f37a2c6158be7d03f96"


@dataclass(frozen=True)
class Sample:
    """An estate to be built, and the policy that goes with it."""

    name: str
    build: Callable[[datetime, int], Estate]
    policy: Path | None = None


class SampleError(Exception):
    """An estate that is unknown or a file that is not one; the message names what is known."""


def build_documented(born: datetime, step: int) -> Estate:
    """The estate of the vendor's example response: asked with `limit=1`, it answers the documented body."""
    estate = Estate(now=born)
    gateway = estate.add_gateway("example")
    gateway.add_connection(
        status="accepted",
        domain_id="b70fde8e849b4e76a61dd8aa0ec05c81",
        connection_id="76ad893c-6a1e-4055-8019-fe9c9bd3204d",
        marker_id=167960098,
        created_at=datetime(2021, 4, 29, 2, 12, 44, tzinfo=timezone.utc),
        updated_at=datetime(2021, 4, 29, 2, 12, 45, tzinfo=timezone.utc),
    )
    gateway.add_connection(status="pendingAcceptance")
    return estate


def build_empty(born: datetime, step: int) -> Estate:
    """A project without gateways."""
    return Estate(now=born)


def build_large(born: datetime, step: int) -> Estate:
    """50 gateways with 2,000 connections each, all accepted and approved."""
    estate = Estate(now=born)
    for number in range(50):
        gateway = estate.add_gateway(f"gateway-{number:02}", permissions=[f"iam:domain::{RETAIL}"])
        gateway.add_connections(2000, domain_id=RETAIL, age=timedelta(days=30))
    return estate


REGIONS = ("cn-north-4", "cn-east-3", "ap-southeast-1", "eu-west-101", "la-north-2")


def build_landscape(born: datetime, step: int, projects: int = 50, gateways: int = 20, connections: int = 4) -> Estate:
    """Projects in five regions and, five at a time, of one account, whose agency alone may read them.

    On every gateway the last connection waits for acceptance, of every tenth gateway for too long.
    """
    estate = Estate(now=born)
    estate.opens = frozenset([estate.project_id])
    for number in range(projects):
        project = estate.add_project(
            uuid.uuid5(uuid.NAMESPACE_URL, f"landscape {number}").hex,
            region=REGIONS[number % len(REGIONS)],
            name=f"project-{number:02}",
            domain=f"account-{number // len(REGIONS):02}",
            agency="apig-audit",
        )
        for place in range(gateways):
            gateway = estate.add_gateway(
                f"{project.name}-gateway-{place:02}", permissions=[_permission(RETAIL)], project=project
            )
            gateway.add_connections(connections - 1, domain_id=RETAIL, age=timedelta(days=30))
            age = timedelta(hours=49 if place % 10 == 0 else 3)
            gateway.add_connection(status="pendingAcceptance", domain_id=RETAIL, age=age)
    return estate


def build_sample(born: datetime, step: int) -> Estate:
    """Seven gateways on which something of everything is wrong; steps 1 and 2 put some right and get some wrong."""
    estate = Estate(now=born)
    _add_billing(estate)
    _add_partner_api(estate)
    _add_orders(estate)
    _add_legacy(estate, readable=step >= 2)
    estate.add_gateway("sandbox", spec="BASIC")
    estate.add_gateway("analytics", endpoint_service=False, spec="BASIC")
    _add_idp_edge(estate)
    for change in (_first_step, _second_step)[:step]:
        change(estate)
    return estate


def _add_billing(estate: Estate) -> None:
    approved = [RETAIL, LOGISTICS, FINANCE]
    billing = estate.add_gateway("billing-prod", permissions=[_permission(domain) for domain in approved])
    for number in range(612):
        billing.add_connection(domain_id=approved[number % 3], age=timedelta(days=30, hours=number))
    billing.add_connection(status="pendingAcceptance", domain_id=LOGISTICS, age=timedelta(hours=49))
    billing.add_connection(status="pendingAcceptance", domain_id=RETAIL, age=timedelta(hours=3))
    billing.add_connection(status="creating", domain_id=RETAIL, age=timedelta(minutes=2))
    billing.add_connection(status="deleting", domain_id=FINANCE, age=timedelta(days=90))


def _add_partner_api(estate: Estate) -> None:
    partner = estate.add_gateway("partner-api", permissions=[_permission(RETAIL), _permission(AGENCY)])
    partner.add_connections(4, domain_id=RETAIL, age=timedelta(days=12))
    partner.add_connection(domain_id=AGENCY, age=timedelta(days=5))
    partner.add_connection(status="rejected", domain_id=RESELLER, age=timedelta(days=6))
    partner.add_connection(status="pendingAcceptance", domain_id=RETAIL, age=timedelta(hours=30))


def _add_orders(estate: Estate) -> None:
    orders = estate.add_gateway("orders-prod", permissions=[_permission(LOGISTICS)])
    orders.add_connections(9, domain_id=LOGISTICS, age=timedelta(days=45))
    orders.add_connection(status="failed", domain_id=LOGISTICS, age=timedelta(hours=20))
    orders.add_connection(status="pendingAcceptance", domain_id=LOGISTICS, age=timedelta(hours=5))


def _add_legacy(estate: Estate, *, readable: bool) -> None:
    legacy = estate.add_gateway("legacy-gateway", permissions=["*"], spec="BASIC")
    legacy.add_connections(3, domain_id=RETAIL, age=timedelta(days=400))
    legacy.add_connection(domain_id=RESELLER, age=timedelta(days=380))
    if not readable:
        for kind in ("connections", "permissions"):
            estate.fail(Forbidden(), gateway=legacy, kind=kind, times=None)


def _add_idp_edge(estate: Estate) -> None:
    edge = estate.add_gateway("idp-edge", permissions=["*"], spec="ENTERPRISE")
    edge.add_connections(2, domain_id=FINANCE, age=timedelta(days=60))
    edge.add_connection(domain_id=RESELLER, age=timedelta(days=2))


def _first_step(estate: Estate) -> None:
    """An old pending is accepted, an unapproved account is gone, and another one is let in."""
    billing, partner, orders = (estate.gateway(name) for name in ("billing-prod", "partner-api", "orders-prod"))
    billing.change(_only(billing, LOGISTICS, "pendingAcceptance"), status="accepted")
    partner.remove(_only(partner, AGENCY, "accepted"))
    orders.add_connection(domain_id=AGENCY, age=timedelta())


def _second_step(estate: Estate) -> None:
    """The failed connection is gone and a pending is rejected; the unreadable gateway shows what it had all along."""
    orders, partner = (estate.gateway(name) for name in ("orders-prod", "partner-api"))
    orders.remove(_only(orders, LOGISTICS, "failed"))
    partner.change(_only(partner, RETAIL, "pendingAcceptance"), status="rejected")


def _only(gateway: Gateway, domain_id: str, status: str) -> str:
    (found,) = [c.id for c in gateway.connections if (c.domain_id, c.status) == (domain_id, status)]
    return found


def _permission(domain_id: str) -> str:
    return f"iam:domain::{domain_id}"


NAMED = {
    sample.name: sample
    for sample in (
        Sample("sample", build_sample, SAMPLE_POLICY),
        Sample("documented", build_documented),
        Sample("empty", build_empty),
        Sample("large", build_large, SAMPLE_POLICY),
        Sample("landscape", build_landscape, SAMPLE_POLICY),
    )
}


def find_sample(name: str) -> Sample:
    """The sample of this name or, for a name that ends in `.json`, from that file. Raises `SampleError`."""
    if name.endswith(".json"):
        return load_sample(Path(name))
    if name not in NAMED:
        raise SampleError(f"unknown estate {name!r}; known: {', '.join(NAMED)}, or a FILE.json")
    return NAMED[name]


def load_sample(path: Path) -> Sample:
    """The sample that a file describes. Raises `SampleError`.

    The form, in which all but the names of the gateways and ids of the projects may be left out; `policy` is
    relative to the file, and a gateway without `project` is in `project_id`::

        {"project_id": "...", "policy": "policy.json",
         "projects": [{"id": "...", "region": "...", "name": "...", "domain": "...", "agency": "...",
                       "error": "APIC.7106"}],
         "gateways": [
          {"name": "billing", "project": "...", "id": "...", "status": "Running", "endpoint_service": true,
           "spec": "BASIC",
           "permissions": ["iam:domain::..."], "error": "APIC.7106",
           "connections": [{"status": "accepted", "domain_id": "...", "age_hours": 49, "count": 600,
                            "id": "...", "marker_id": 1}]}]}
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SampleError(f"cannot read estate {path}: {error}") from error

    def build(born: datetime, step: int) -> Estate:
        return _parse_estate(document, born, str(path))

    build(datetime.now(timezone.utc), 0)
    policy = path.parent / document["policy"] if "policy" in document else None
    return Sample(path.stem, build, policy)


def _parse_estate(document: Any, born: datetime, where: str) -> Estate:
    _check(document, ("project_id", "policy", "projects", "gateways"), where)
    for name in ("project_id", "policy"):
        if not isinstance(document.get(name, ""), str):
            raise SampleError(f"{where}: {name} is not a string")
    estate = Estate(now=born, **{name: document[name] for name in ("project_id",) if name in document})
    for index, item in enumerate(_list_in(document, "projects", where)):
        _parse_project(estate, item, f"{where}: projects[{index}]")
    for index, item in enumerate(_list_in(document, "gateways", where)):
        _parse_gateway(estate, item, f"{where}: gateways[{index}]")
    return estate


def _parse_project(estate: Estate, item: Any, where: str) -> None:
    plain = ("region", "name", "domain", "agency")
    _check(item, (*plain, "id", "error"), where)
    if not isinstance(item.get("id"), str):
        raise SampleError(f"{where}: has no id")
    project = estate.add_project(item["id"], **{name: item[name] for name in plain if name in item})
    if "error" in item:
        estate.fail(Forbidden(item["error"]), project=project, times=None)


def _parse_gateway(estate: Estate, item: Any, where: str) -> None:
    plain = ("name", "status", "endpoint_service", "permissions", "spec")
    _check(item, (*plain, "id", "project", "error", "connections"), where)
    if "name" not in item:
        raise SampleError(f"{where}: has no name")
    projects = {project.id: project for project in estate.projects}
    if item.get("project") not in (None, *projects):
        raise SampleError(f"{where}: project is {item['project']!r}; known: {', '.join(projects) or 'none'}")
    gateway = estate.add_gateway(
        gateway_id=item.get("id"),
        project=projects.get(item.get("project")),
        **{name: item[name] for name in plain if name in item},
    )
    if "error" in item:
        estate.fail(Forbidden(item["error"]), gateway=gateway, times=None)
    for index, connection in enumerate(_list_in(item, "connections", where)):
        _parse_connections(gateway, connection, f"{where}.connections[{index}]")


def _parse_connections(gateway: Gateway, item: Any, where: str) -> None:
    _check(item, ("status", "domain_id", "age_hours", "count", "id", "marker_id"), where)
    if item.get("status", "accepted") not in STATUSES:
        raise SampleError(f"{where}: status is {item['status']!r}; known: {', '.join(STATUSES)}")
    like = {name: item[name] for name in ("status", "domain_id", "marker_id") if name in item}
    try:
        age = timedelta(hours=item.get("age_hours", 1))
        gateway.add_connections(item.get("count", 1), age=age, connection_id=item.get("id"), **like)
    except (TypeError, ValueError) as error:
        raise SampleError(f"{where}: {error}") from error


def _list_in(item: dict[str, Any], name: str, where: str) -> list[Any]:
    found = item.get(name, [])
    if not isinstance(found, list):
        raise SampleError(f"{where}: {name} is not a list")
    return found


def _check(item: Any, known: tuple[str, ...], where: str) -> None:
    if not isinstance(item, dict):
        raise SampleError(f"{where}: is not an object")
    unknown = sorted(set(item) - set(known))
    if unknown:
        raise SampleError(f"{where}: unknown {', '.join(unknown)}; known: {', '.join(known)}")
