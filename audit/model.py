"""The types that travel down the line; all frozen, none knows where it comes from or where it goes.

An instant is text as in `times`. What is absent in the API's answer, or cannot be read, is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import msgspec

STATUSES = ("new", "ongoing", "reopened", "unverified", "waived", "resolved")
OPEN = frozenset({"new", "ongoing", "reopened", "unverified"})

# How the key of a connection without a usable id begins.
NAMELESS = "sha256:"

# Why a rule about changes is not evaluated on a gateway.
FIRST_READING = "no earlier reading to compare with"
# Why a rule is not evaluated where the policy's override disables it.
TURNED_OFF = "turned off by the policy"
# Why a rule about groups that span gateways is not evaluated at all: more was asked of it than of the run, or was read.
NARROWED = "its groups may span gateways, and this run is limited to some"
NOT_ALL_READ = "not every gateway was read"

Severity = Literal["info", "low", "medium", "high", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "low", "medium", "high", "critical")
CoverageState = Literal["complete", "partial", "not_covered", "out_of_scope"]
FindingStatus = Literal["new", "ongoing", "reopened", "unverified", "waived", "resolved"]
SubjectKind = Literal["connection", "change", "group", "gateway", "policy"]
Resolution = Literal["fixed", "resource_deleted", "rule_removed", "event_over"]


class GatewayKey(NamedTuple):
    """What a gateway is known by, and the order in which gateways are read and written."""

    region: str
    project_id: str
    gateway_id: str


class Gateway(msgspec.Struct, frozen=True):
    """An API gateway (the API says instance). `status` is the API's word, e.g. "Running".

    The list of gateways tells the first five; `permissions` (domain ids, `*` for everyone) and the counts of its
    connections are known once it was read, and None before.
    """

    region: str
    project_id: str
    id: str
    name: str
    status: str | None = None
    permissions: tuple[str, ...] | None = None
    connections: int | None = None
    accepted: int | None = None
    pending: int | None = None

    @property
    def key(self) -> GatewayKey:
        return GatewayKey(self.region, self.project_id, self.id)


# Names that people gave to projects in regions; empty where there is one target only, which nobody needs to be told.
TargetNames: TypeAlias = Mapping[tuple[str, str], str]


# What a finding is named by and where it stands where it is about no single gateway: behind all of them.
ESTATE = GatewayKey("", "", "")
BEHIND_ALL = GatewayKey("\U0010ffff", "", "")


# JSON knows no bounds, NDJSON readers do: an integer beyond 64 bits is malformed.
Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class EndpointConnection(msgspec.Struct, frozen=True):
    """The six fields of a connection in the API's answer (vendor's table "EndpointConnection")."""

    id: str | None = None
    marker_id: Integer | None = None
    created_at: str | None = None
    updated_at: str | None = None
    domain_id: str | None = None
    status: str | None = None


class Connection(msgspec.Struct, frozen=True):
    """A connection in its gateway, as rules see it and as the reading stores it: a line of `connections.ndjson.gz`.

    `status_since`: since when it has had this status, as far as is known. `read_in`: the run that read it.
    """

    region: str
    project_id: str
    gateway_id: str
    id: str | None
    marker_id: Integer | None
    created_at: str | None
    updated_at: str | None
    domain_id: str | None
    status: str | None
    status_since: str | None
    read_in: str

    @property
    def gateway_key(self) -> GatewayKey:
        return GatewayKey(self.region, self.project_id, self.gateway_id)

    @property
    def record(self) -> EndpointConnection:
        """What the API said of it."""
        return EndpointConnection(
            self.id, self.marker_id, self.created_at, self.updated_at, self.domain_id, self.status
        )

    @property
    def key(self) -> str:
        """Its id, or where it has none, a hash of what it does have, so that a finding about it keeps its name."""
        if self.id is not None:
            return self.id
        fields = [self.marker_id, self.created_at, self.updated_at, self.domain_id, self.status]
        return NAMELESS + sha256(msgspec.json.encode(fields)).hexdigest()


class Reading(msgspec.Struct, frozen=True):
    """One gateway as it was read: the unit of work of everything downstream.

    `connections` are all of them where `state` is complete, those that were seen where it is partial.
    `permissions`: domain ids that may ask for a connection, None where nobody asked for them or they could not be read
    (`permissions_refused`: nothing else is missing).
    `gone`: the gateway is proved to exist no more. `request_id` is that of the answer that stopped the reading.
    """

    gateway: Gateway
    state: CoverageState
    connections: tuple[EndpointConnection, ...] = ()
    reason: str = ""
    request_id: str | None = None
    permissions: tuple[str, ...] | None = None
    permissions_refused: bool = False
    gone: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether `connections` are proved to be all, though the gateway's permissions may be unread."""
        return self.state == "complete" or self.permissions_refused


class Coverage(msgspec.Struct, frozen=True):
    """How far one gateway was read; `gateway_id` is None for the list of gateways itself.

    `complete_in`: the run that last read all its connections, None where none did. `not_evaluated`: why rules that
    were asked for could not be evaluated here, by id.
    """

    region: str
    project_id: str
    gateway_id: str | None
    name: str
    state: CoverageState
    reason: str
    connections: int
    request_id: str | None
    complete_in: str | None = None
    not_evaluated: dict[str, str] = {}


class GatewayRef(msgspec.Struct, frozen=True):
    """The gateway that a finding is about."""

    id: str
    name: str
    region: str
    project_id: str


class Finding(msgspec.Struct, frozen=True):
    """One line of `findings.ndjson.gz`; its JSON Schema is `finding.schema.json` beside this file."""

    uid: str
    rule_id: str
    title: str
    severity: Severity
    status: FindingStatus
    resolution: Resolution | None
    subject: SubjectKind
    gateway: GatewayRef | None
    connection: str | None
    group: dict[str, str | int | None] | None
    message: str
    expected: Any
    actual: Any
    remediation: str
    controls: dict[str, list[str]]
    waiver: dict[str, Any] | None
    first_seen: str
    last_seen: str
    resolved_at: str | None
    occurrences: int
    run_id: str

    @property
    def gateway_key(self) -> GatewayKey:
        """The place of the finding in the order of gateways; findings about no single gateway come last."""
        ref = self.gateway
        return BEHIND_ALL if ref is None else GatewayKey(ref.region, ref.project_id, ref.id)

    @property
    def is_open(self) -> bool:
        return self.status in OPEN


def build_uid(rule_id: str, gateway: GatewayKey, subject: str, subject_id: str) -> str:
    """Name a finding for ever: the same rule about the same thing, whatever run, order, name or rule text."""
    parts = ["v1", rule_id, gateway.region, gateway.project_id, gateway.gateway_id, subject, subject_id]
    return sha256(msgspec.json.encode(parts)).hexdigest()
