"""What rules are held against: connections in their gateway, gateways, changes between two readings, groups. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from audit.model import Connection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence

    from audit.model import EndpointConnection, Gateway, Reading

# What makes a change of the five documented fields beside the id; the rest is derived.
_recorded = attrgetter("marker_id", "created_at", "updated_at", "domain_id", "status")
_NOTHING = Connection("", "", "", None, None, None, None, None, None, None, "")


class Change(msgspec.Struct, frozen=True):
    """What became of one connection between two readings; where it was not or is no more, every field is None."""

    change: Literal["added", "removed", "modified"]
    before: Connection
    after: Connection

    @property
    def key(self) -> str:
        return (self.before if self.change == "removed" else self.after).key


# A group of connections: the fields that make it, and `count`, `oldest` and `newest`.
Group: TypeAlias = "dict[str, Any]"
# Groups by the values that make them.
Groups: TypeAlias = "MutableMapping[tuple[Any, ...], Group]"


class Scene(msgspec.Struct, frozen=True):
    """One gateway as rules see it; without an earlier reading there are no `changes`."""

    gateway: Gateway
    connections: Sequence[Connection] = ()
    changes: Sequence[Change] = ()


def observe(
    gateway: Gateway, records: Iterable[EndpointConnection], previous: Mapping[str, Connection], run_id: str
) -> list[Connection]:
    """Place records in their gateway, sorted by key, each with the time since when it has had its status.

    `previous` holds the last known reading of this gateway by connection key. At first sight that time is
    `updated_at`; while the status stays, the earliest known one is kept, so that an unrelated update does not
    restart the clock.
    """
    region, project_id, gateway_id = gateway.key
    connections = []
    for record in records:
        since = record.updated_at
        before = previous.get(record.id) if record.id is not None else None
        if before is not None and before.status == record.status and before.status_since is not None:
            since = before.status_since if since is None else min(since, before.status_since)
        connections.append(
            Connection(
                region,
                project_id,
                gateway_id,
                record.id,
                record.marker_id,
                record.created_at,
                record.updated_at,
                record.domain_id,
                record.status,
                since,
                run_id,
            )
        )
    connections.sort(key=lambda connection: connection.id or connection.key)
    return connections


def describe(reading: Reading) -> Gateway:
    """Complete a gateway by what its reading tells of it."""
    statuses = Counter(record.status for record in reading.connections)
    return msgspec.structs.replace(
        reading.gateway,
        permissions=reading.permissions,
        connections=len(reading.connections),
        accepted=statuses["accepted"],
        pending=statuses["pendingAcceptance"],
    )


def compare(before: Mapping[str, Connection], now: Iterable[Connection], *, is_whole: bool) -> Iterator[Change]:
    """Yield what changed since an earlier reading; only a whole one shows what was removed."""
    seen = set()
    for connection in now:
        key = connection.key
        past = before.get(key)
        seen.add(key)  # more than one may be without an id and alike in all they have
        if past is None:
            yield Change("added", _NOTHING, connection)
        elif _recorded(past) != _recorded(connection):
            yield Change("modified", past, connection)
    for key, connection in before.items() if is_whole else ():
        if key not in seen:
            yield Change("removed", connection, _NOTHING)


def count_groups(keys: Sequence[str], connections: Iterable[Connection], gateway: Gateway, groups: Groups) -> None:
    """Count connections of one gateway into `groups`; one in which a field of `keys` is null belongs to none."""
    own = [key for key in keys if not key.startswith("gateway.")]
    shared = {key: getattr(gateway, key.removeprefix("gateway.")) for key in keys if key not in own}
    read = attrgetter(*own) if own else lambda _connection: ()
    created: dict[Any, list[str | None]] = defaultdict(list)
    for connection in connections:
        created[read(connection)].append(connection.created_at)
    for found, times in created.items():
        values = {**shared, **dict(zip(own, (found,) if len(own) == 1 else found, strict=True))}
        if None in values.values():
            continue
        empty = {**{key: values[key] for key in keys}, "count": 0, "oldest": None, "newest": None}
        group = groups.setdefault(tuple(values.values()), empty)
        group["count"] += len(times)
        group["oldest"] = min(filter(None, (*times, group["oldest"])), default=None)
        group["newest"] = max(filter(None, (*times, group["newest"])), default=None)
