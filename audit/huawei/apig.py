"""The API Gateway service (APIG), as far as an audit reads it: gateways, their VPC endpoint connections, permissions.

Source: vendor's API reference, "Querying VPC Endpoint Connections" (updated 2023-11-30), "Querying Gateways",
"Querying the Whitelist Records of a VPC Endpoint Service". Not tried against the live service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from audit.model import EndpointConnection, Gateway
from audit.paging import PAGE_LIMIT, Page
from audit.times import canonical_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from audit.huawei.transport import Transport

# What to grant, first in an identity policy (IAM 5.0), then in a role policy (1.1). Source: vendor's "Permissions and
# supported actions"; that the role actions suffice, and the name of the first, are not proved against the live cloud.
LIST_GATEWAYS = "apig:instance:list (identity policy) or apig:instances:list (role policy)"
LIST_CONNECTIONS = "apig:instance:listVpcEndpoint (identity policy) or apig:instances:get (role policy)"
LIST_PERMISSIONS = "apig:instance:listVpcEndpointPermission (identity policy) or apig:instances:get (role policy)"

# Status values that the API can filter by; a connection can have two more.
STATUS_FILTERS = ("pendingAcceptance", "accepted", "rejected", "failed")


def endpoint_of(region: str) -> str:
    """Where the API of a region answers; the European region lives under its own top level domain."""
    domain = "myhuaweicloud.eu" if region == "eu-west-101" else "myhuaweicloud.com"
    return f"https://apig.{region}.{domain}"


class Apig:
    """Reads one project in one region. Every method makes one request (and its retries) and raises ApiError."""

    def __init__(self, transport: Transport, region: str, project_id: str) -> None:
        self._transport = transport
        self.region = region
        self.project_id = project_id
        self._instances = f"/v2/{quote(project_id, safe='')}/apigw/instances"

    def list_gateways(self, offset: int = 0, limit: int = PAGE_LIMIT) -> Page[Gateway]:
        """List gateways in any state."""

        def decode(body: bytes) -> Page[Gateway]:
            return decode_gateways(body, self.region, self.project_id)

        return self._get(self._instances, {"offset": offset, "limit": limit}, decode, LIST_GATEWAYS)

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
        return self._get(f"{self._endpoint(gateway_id)}/connections", params, decode_connections, LIST_CONNECTIONS)

    def list_permissions(self, gateway_id: str, offset: int = 0, limit: int = PAGE_LIMIT) -> Page[str]:
        """List who may connect to a gateway: `iam:domain::<domain_id>`, or `*` for everyone."""
        params: dict[str, str | int] = {"offset": offset, "limit": limit}
        return self._get(f"{self._endpoint(gateway_id)}/permissions", params, decode_permissions, LIST_PERMISSIONS)

    def close(self) -> None:
        """Send nothing more and let every waiting request fail."""
        self._transport.close()

    def _endpoint(self, gateway_id: str) -> str:
        return f"{self._instances}/{quote(gateway_id, safe='')}/vpc-endpoint"

    def _get(
        self, path: str, params: dict[str, str | int], decode: Callable[[bytes], Page[Any]], permission: str
    ) -> Page[Any]:
        page, _request_id = self._transport.get(path, params, decode, permission=permission)
        return page


class _ConnectionsAnswer(msgspec.Struct):
    total: int
    connections: list[EndpointConnection] | None
    size: int | None = None


class _LooseAnswer(msgspec.Struct):
    """An answer whose records are looked at one by one, as some may not be what the vendor's document says."""

    total: int
    connections: list[dict[str, Any]] | None
    size: int | None = None


class _GatewaysAnswer(msgspec.Struct):
    total: int
    instances: list[dict[str, Any]] | None
    size: int | None = None


class _Permission(msgspec.Struct):
    permission: str


class _PermissionsAnswer(msgspec.Struct):
    total: int
    permissions: list[_Permission] | None
    size: int | None = None


_decode_strict = msgspec.json.Decoder(_ConnectionsAnswer).decode
_decode_loose = msgspec.json.Decoder(_LooseAnswer).decode
_decode_gateways = msgspec.json.Decoder(_GatewaysAnswer).decode
_decode_permissions = msgspec.json.Decoder(_PermissionsAnswer).decode


def decode_connections(body: bytes) -> Page[EndpointConnection]:
    """Read an answer; ValueError where it is no list of records.

    A documented field of a record that is absent, of another type or unreadable becomes None. Unknown fields are
    ignored.
    """
    try:
        answer = _decode_strict(body)
    except msgspec.ValidationError:
        loose = _decode_loose(body)
        records = None if loose.connections is None else [_salvage(record) for record in loose.connections]
        answer = _ConnectionsAnswer(loose.total, records, loose.size)
    return Page(*_sizes(answer.total, answer.size, answer.connections), tuple(map(_tidy, answer.connections or ())))


def _tidy(record: EndpointConnection) -> EndpointConnection:
    """Write timestamps canonically; an id without a character is no id."""
    created, updated = record.created_at, record.updated_at
    new_created = created and canonical_time(created)
    new_updated = updated and canonical_time(updated)
    if new_created is created and new_updated is updated and record.id != "":
        return record
    return msgspec.structs.replace(
        record, id=record.id or None, created_at=new_created or None, updated_at=new_updated or None
    )


def _salvage(record: dict[str, Any]) -> EndpointConnection:
    """Keep of a malformed record the fields that are what they should be."""
    kept: dict[str, Any] = {}
    for field in msgspec.structs.fields(EndpointConnection):
        try:
            kept[field.name] = msgspec.convert(record.get(field.name), field.type)
        except msgspec.ValidationError:
            kept[field.name] = None
    return EndpointConnection(**kept)


def decode_gateways(body: bytes, region: str, project_id: str) -> Page[Gateway]:
    """Read an answer; ValueError where it is no list of records. A gateway without a usable id has the id ""."""
    answer = _decode_gateways(body)

    def text(record: dict[str, Any], field: str) -> str:
        value = record.get(field)
        return value if isinstance(value, str) else ""

    gateways = tuple(
        Gateway(region, project_id, text(record, "id"), text(record, "instance_name"), text(record, "status") or None)
        for record in answer.instances or ()
    )
    return Page(*_sizes(answer.total, answer.size, answer.instances), gateways)


def decode_permissions(body: bytes) -> Page[str]:
    """Read an answer; ValueError where it is no list of permissions."""
    answer = _decode_permissions(body)
    permissions = tuple(record.permission for record in answer.permissions or ())
    return Page(*_sizes(answer.total, answer.size, answer.permissions), permissions)


def _sizes(total: int, size: int | None, records: list[Any] | None) -> tuple[int, int | None]:
    if total < 0:
        raise ValueError(f"total is {total}")
    if records is None and total:
        raise ValueError(f"total is {total}, and the list is null")
    return total, size
