"""One gateway: its record, its connections in their order, and how tests change them."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.emulator.connection import DOMAIN_ID, Connection, wire_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.emulator.estate import Estate, Project

# `instance_status` by `status`, as in the vendor's API document of the gateway list.
INSTANCE_STATUS = {
    "Creating": 1,
    "CreateSuccess": 2,
    "CreateFail": 3,
    "Initing": 4,
    "Registering": 5,
    "Running": 6,
    "InitingFailed": 7,
    "RegisterFailed": 8,
    "Installing": 10,
    "InstallFailed": 11,
    "Updating": 12,
    "UpdateFailed": 13,
    "Rollbacking": 20,
    "RollbackSuccess": 21,
    "RollbackFailed": 22,
    "Deleting": 23,
    "DeleteFailed": 24,
    "Unregistering": 25,
    "UnRegisterFailed": 26,
    "CreateTimeout": 27,
    "InitTimeout": 28,
    "RegisterTimeout": 29,
    "InstallTimeout": 30,
    "UpdateTimeout": 31,
    "RollbackTimeout": 32,
    "DeleteTimeout": 33,
    "UnregisterTimeout": 34,
    "Starting": 35,
    "Freezing": 36,
    "Frozen": 37,
    "Restarting": 38,
    "RestartFail": 39,
    "Unhealthy": 40,
    "RestartTimeout": 41,
    "Resizing": 42,
    "ResizeFailed": 43,
    "ResizeTimeout": 44,
}


@dataclass(eq=False)
class Gateway:
    """A gateway and its connections, in a stable order: as added, unless a test inserted at a position.

    The plain attributes may be set at any time. Made by `Estate.add_gateway`.
    """

    estate: Estate = field(repr=False)
    id: str
    name: str
    status: str
    endpoint_service: bool
    created_at: datetime
    permissions: list[str]
    """Permission texts, `iam:domain::<domain_id>` or `*`."""
    spec: str = "PROFESSIONAL"
    eip_address: str = ""
    project: Project | None = None
    """None is the estate's own."""
    raw_records: list[Any] = field(default_factory=list)
    """Any JSON values, served verbatim after the connections."""
    raw_permissions: list[Any] = field(default_factory=list)
    """Any JSON values, served verbatim after the permissions."""
    stated_total: int | None = None
    """What `total` claims in place of the number of matches."""
    _order: list[str] = field(default_factory=list, init=False, repr=False)
    _by_id: dict[str, Connection] = field(default_factory=dict, init=False, repr=False)

    @property
    def connections(self) -> list[Connection]:
        """The connections as they are now."""
        with self.estate.lock:
            return [self._by_id[key] for key in self._order]

    @property
    def project_id(self) -> str:
        """The project that it is in."""
        return self.project.id if self.project else self.estate.project_id

    @property
    def record(self) -> dict[str, Any]:
        """The documented record of the gateway list."""
        return {
            "id": self.id,
            "project_id": self.project_id,
            "instance_name": self.name,
            "status": self.status,
            "instance_status": INSTANCE_STATUS.get(self.status, 0),
            "type": "apig",
            "spec": self.spec,
            "create_time": int(self.created_at.timestamp() * 1000),
            "enterprise_project_id": "0",
            "eip_address": self.eip_address,
        }

    @property
    def permission_records(self) -> list[dict[str, Any]]:
        """The documented records of the permission list."""
        return [
            {
                "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.id}/{permission}")),
                "permission": permission,
                "created_at": wire_time(self.created_at),
            }
            for permission in self.permissions
        ]

    def get(self, connection_id: str) -> Connection | None:
        """The connection as it is now, or None."""
        return self._by_id.get(connection_id)

    def add_connection(
        self,
        status: str = "accepted",
        domain_id: str = DOMAIN_ID,
        age: timedelta = timedelta(hours=1),
        connection_id: str | None = None,
        marker_id: int | None = None,
        created_at: datetime | None = None,
        updated_at: datetime | None = None,
        position: int | None = None,
    ) -> Connection:
        """Add a connection, at the end or at `position` of the list.

        It was created `age` before the estate's now unless `created_at` says otherwise.
        Raises ValueError if the gateway has its id already.
        """
        with self.estate.lock:
            number, made_id = self.estate.next_id()
            created = created_at or self.estate.now() - age
            connection = Connection(
                id=connection_id or made_id,
                marker_id=167_960_098 + number if marker_id is None else marker_id,
                created_at=created,
                updated_at=updated_at or created,
                domain_id=domain_id,
                status=status,
            )
            if connection.id in self._by_id:
                raise ValueError(f"gateway {self.name} has a connection {connection.id} already")
            self._by_id[connection.id] = connection
            self._order.insert(len(self._order) if position is None else position, connection.id)
            return connection

    def add_connections(self, count: int, **like: Any) -> list[Connection]:
        """Append `count` connections, each as `add_connection(**like)` makes them."""
        with self.estate.lock:
            return [self.add_connection(**like) for _ in range(count)]

    def insert(self, position: int, **like: Any) -> Connection:
        """Add a connection at `position` of the list, made as `add_connection(**like)` makes it."""
        return self.add_connection(position=position, **like)

    def change(self, connection_id: str, status: str | None = None, domain_id: str | None = None) -> Connection:
        """Change a connection; `updated_at` moves to now, and by a second at least, so that no state ever recurs."""
        with self.estate.lock:
            old = self._by_id[connection_id]
            new = replace(
                old,
                status=status or old.status,
                domain_id=domain_id or old.domain_id,
                updated_at=max(self.estate.now(), old.updated_at + timedelta(seconds=1)),
            )
            self._by_id[connection_id] = new
            return new

    def remove(self, connection_id: str) -> None:
        """Take a connection off the list. Raises KeyError if it is not on it."""
        with self.estate.lock:
            del self._by_id[connection_id]
            self._order.remove(connection_id)

    def page(self, wanted: Mapping[str, Any], offset: int, limit: int) -> tuple[int, list[str]]:
        """How many records have all the wanted field values, and those of one page as JSON texts."""
        if wanted:
            records: list[Connection | Any] = [c for c in self._candidates(wanted) if _has(c.__dict__, wanted)]
            records += [raw for raw in self.raw_records if isinstance(raw, dict) and _has(raw, wanted)]
            return len(records), [_encoded(record) for record in records[offset : offset + limit]]
        total = len(self._order) + len(self.raw_records)
        texts = [self._by_id[key].encoded for key in self._order[offset : offset + limit]]
        first_raw = max(0, offset - len(self._order))
        texts += [_encoded(raw) for raw in self.raw_records[first_raw : first_raw + limit - len(texts)]]
        return total, texts

    def _candidates(self, wanted: Mapping[str, Any]) -> list[Connection]:
        if "id" in wanted:
            found = self.get(wanted["id"])
            return [found] if found else []
        return self.connections


def _has(fields: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(fields.get(name) == value for name, value in wanted.items())


def _encoded(record: Any) -> str:
    return record.encoded if isinstance(record, Connection) else json.dumps(record)
