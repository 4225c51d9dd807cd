"""The API Gateway service (APIG), as far as an audit reads it: gateways, their VPC endpoint connections, permissions.

Source: vendor's API reference, "Querying VPC Endpoint Connections" (updated 2023-11-30), "Querying Gateways",
"Querying the Whitelist Records of a VPC Endpoint Service". Not tried against the live service.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import msgspec

from audit.huawei.permissions import LIST_CONNECTIONS, LIST_GATEWAYS, LIST_PERMISSIONS
from audit.model import EndpointConnection, Gateway
from audit.paging import PAGE_LIMIT, Page
from audit.times import canonical_time

if TYPE_CHECKING:
    from audit.huawei.transport import Transport

# No list is longer; a larger `total` is nonsense, and must not make anyone plan for so many pages.
MOST_ITEMS = 10_000_000

# Status values that the API can filter by; a connection can have two more.
STATUS_FILTERS = ("pendingAcceptance", "accepted", "rejected", "failed")


def endpoint_of(region: str, service: str = "apig") -> str:
    """Where a service of a region answers; the European region lives under its own top level domain."""
    domain = "myhuaweicloud.eu" if region == "eu-west-101" else "myhuaweicloud.com"
    return f"https://{service}.{region}.{domain}"


class Apig:
    """Reads one project in one region. Every method makes one request (and its retries) and raises ApiError."""

    def __init__(self, transport: Transport, region: str, project_id: str) -> None:
        self._transport = transport
        self.region = region
        self.project_id = project_id
        self._instances = f"/v2/{quote(project_id, safe='')}/apigw/instances"

    def list_gateways(self, offset: int = 0, limit: int = PAGE_LIMIT) -> Page[Gateway]:
        """List gateways in any state."""
        decode = partial(decode_gateways, region=self.region, project_id=self.project_id)
        return self._transport.get(
            self._instances, {"offset": offset, "limit": limit}, decode, permission=LIST_GATEWAYS
        )

    def list_connections(
        self,
        gateway_id: str,
        offset: int = 0,
        limit: int = PAGE_LIMIT,
        *,
        connection_id: str | None = None,
        marker_id: int | None = None,
        status: str | None = None,
    ) -> Page[EndpointConnection]:
        """List the VPC endpoint connections of a gateway; each filter that is given must match.

        The API filters by four of the six statuses only (STATUS_FILTERS), so an audit reads without that filter.
        """
        params: dict[str, str | int] = {"offset": offset, "limit": limit}
        filters = {"id": connection_id, "marker_id": marker_id, "status": status}
        params |= {name: value for name, value in filters.items() if value is not None}
        path = f"{self._endpoint(gateway_id)}/connections"
        return self._transport.get(path, params, decode_connections, permission=LIST_CONNECTIONS)

    def list_permissions(self, gateway_id: str, offset: int = 0, limit: int = PAGE_LIMIT) -> Page[str]:
        """List who may connect to a gateway: `iam:domain::<domain_id>`, or `*` for everyone."""
        path, params = f"{self._endpoint(gateway_id)}/permissions", {"offset": offset, "limit": limit}
        return self._transport.get(path, params, decode_permissions, permission=LIST_PERMISSIONS)

    def close(self, why: str = "") -> None:
        """Send nothing more and let every waiting request fail; `why` is what their errors say."""
        self._transport.close(why)

    def _endpoint(self, gateway_id: str) -> str:
        return f"{self._instances}/{quote(gateway_id, safe='')}/vpc-endpoint"


class _ConnectionsAnswer(msgspec.Struct):
    total: int
    connections: list[EndpointConnection]
    size: int | None = None


Value = TypeVar("Value")
_Record = dict[str, msgspec.Raw]
_decode_strict = msgspec.json.Decoder(_ConnectionsAnswer).decode
_FIELDS: dict[str, Any] = {field.name: field.type for field in msgspec.structs.fields(EndpointConnection)}


def decode_connections(body: bytes) -> Page[EndpointConnection]:
    """Read an answer; ValueError where it is no list of records.

    A documented field of a record that is absent, of another type or unreadable becomes None. Unknown fields are
    ignored.
    """
    try:
        answer = _decode_strict(body)
        total, size, connections = answer.total, answer.size, answer.connections
    except msgspec.ValidationError:
        total, size, records = _decode_records(body, "connections")
        connections = [_salvage(record) for record in records]
    return Page(_count(total), size, tuple(map(_tidy, connections)))


def _tidy(record: EndpointConnection) -> EndpointConnection:
    """Write timestamps canonically; an id without a character is no id."""
    created, updated = record.created_at, record.updated_at
    new_created = None if created is None else canonical_time(created)
    new_updated = None if updated is None else canonical_time(updated)
    if new_created is created and new_updated is updated and record.id != "":
        return record
    return msgspec.structs.replace(record, id=record.id or None, created_at=new_created, updated_at=new_updated)


def _salvage(record: _Record) -> EndpointConnection:
    """Keep of a malformed record the fields that are what they should be."""
    return EndpointConnection(**{name: _field(record, name, kind) for name, kind in _FIELDS.items()})


def decode_gateways(body: bytes, region: str, project_id: str) -> Page[Gateway]:
    """Read an answer; ValueError where it is no list of records. A gateway without a usable id has the id ""."""
    total, size, records = _decode_records(body, "instances")
    gateways = (
        Gateway(
            region,
            project_id,
            _field(record, "id", str) or "",
            _field(record, "instance_name", str) or "",
            _field(record, "status", str) or None,
        )
        for record in records
    )
    return Page(total, size, tuple(gateways))


def decode_permissions(body: bytes) -> Page[str]:
    """Read an answer; ValueError where it is no list of permissions."""
    total, size, records = _decode_records(body, "permissions")
    return Page(total, size, tuple(msgspec.json.decode(record.get("permission", b""), type=str) for record in records))


def _decode_records(body: bytes, name: str) -> tuple[int, int | None, list[_Record]]:
    """Take an answer apart without reading the records, as some may not be what the vendor's document says."""
    answer = msgspec.json.decode(body, type=_Record)
    if not answer.keys() >= {"total", name}:
        raise ValueError(f"it has no `total` or no `{name}`")
    total = _count(msgspec.json.decode(answer["total"], type=int))
    size = msgspec.json.decode(answer.get("size", b"null"), type=int | None)
    records = msgspec.json.decode(answer[name], type=list[_Record] | None)
    if records is None and total:
        raise ValueError(f"`total` is {total}, and `{name}` is null")
    return total, size, records or []


def _count(total: int) -> int:
    if not 0 <= total <= MOST_ITEMS:
        raise ValueError(f"`total` is {total}")
    return total


def _field(record: _Record, name: str, kind: type[Value]) -> Value | None:
    """Return a field's value, None where it is absent or of another kind."""
    try:
        return msgspec.json.decode(record.get(name, b"null"), type=kind)
    except msgspec.DecodeError:
        return None
