"""One endpoint connection and its documented record."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

STATUSES = ("pendingAcceptance", "creating", "accepted", "rejected", "failed", "deleting")
DOMAIN_ID = "b70fde8e849b4e76a61dd8aa0ec05c81"


def wire_time(moment: datetime) -> str:
    """UTC in the documented format, to the second."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Connection:
    """One endpoint connection at one moment; a change makes a new one."""

    id: str
    marker_id: int
    created_at: datetime
    updated_at: datetime
    domain_id: str
    status: str

    @property
    def record(self) -> dict[str, Any]:
        """The documented record."""
        return {
            "id": self.id,
            "marker_id": self.marker_id,
            "created_at": wire_time(self.created_at),
            "updated_at": wire_time(self.updated_at),
            "domain_id": self.domain_id,
            "status": self.status,
        }

    @cached_property
    def encoded(self) -> str:
        """The record as JSON text, made once: pages are joined from these."""
        return json.dumps(self.record)
