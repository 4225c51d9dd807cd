"""The emulated estate: the gateways and the server's own state, all changeable while it is served.

Every mutation takes the estate's one lock, which also guards each answer. Nothing here knows of HTTP.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter, deque
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from threading import RLock
from typing import TYPE_CHECKING, Any, Literal

from tests.emulator.faults import Fault, Planned
from tests.emulator.functions import Functions
from tests.emulator.gateway import Gateway
from tests.emulator.iam import DOMAIN, Iam

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.emulator.api import Call
    from tests.emulator.iam import Agency, Key

Kind = Literal[
    "instances", "connections", "permissions", "action", "securitytokens", "invocations", "invocations-async"
]

PROJECT_ID = "8a2f36c5d1b94e0f9c7d5b3e1a604f28"
REGION = "cn-north-4"
ACCESS_KEY = "EMULATORACCESSKEY001"
SECRET_KEY = "emulator-secret-key-which-opens-nothing0"
TOKEN = "emulator-token"


def utc_now() -> datetime:
    """The real time."""
    return datetime.now(timezone.utc)


@dataclass(frozen=True)
class Logged:
    """One answered request; `headers` have lower-case names, `status` is 0 when the connection was reset.

    `key` is what signed it, if the signature held: `key.agency` and `key.invocation` tell where it came from.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    status: int
    key: Key | None = None
    project_id: str | None = None


@dataclass(frozen=True)
class Project:
    """A project beside the estate's own, and the agency with which it is read, if it needs one."""

    id: str
    region: str
    name: str
    agency: Agency | None = None


class Estate:
    """The whole emulated service: a project of its own and any others, any number of gateways, keys and functions.

    The plain attributes may be set at any time, also while requests are answered.
    """

    def __init__(
        self,
        project_id: str = PROJECT_ID,
        now: datetime | Callable[[], datetime] | None = None,
        *,
        seed: str = "estate",
        access_key: str = ACCESS_KEY,
        secret_key: str = SECRET_KEY,
        security_token: str | None = None,
        token: str = TOKEN,
    ) -> None:
        self.project_id = project_id
        self.access_key = access_key
        self.secret_key = secret_key
        self.security_token = security_token
        self.token = token
        """Opens everything."""
        self.opens: frozenset[str] | None = None
        """The projects that its own keys open; None is all."""
        self.clock_skew = timedelta()
        """How far the server's clock (the `Date` header, the age of signatures) is ahead of the real time."""
        self.lock_key_after: int | None = None
        """After so many failed signatures the access key is refused for five minutes; None never locks it."""
        self.page_cap: int | None = None
        """The most records that a page has, whatever was asked for."""
        self.rate_limit: tuple[int, float] | None = None
        """The most requests in so many seconds; the rest gets 429."""
        self.latency = 0.0
        """Seconds added to each answer."""
        self.gateways: list[Gateway] = []
        self.projects: list[Project] = []
        """The projects beside its own."""
        self.elsewhere: dict[str, str] = {}
        """By region, the endpoint that `targets` names in place of the common one: see `broken`."""
        self.iam = Iam(self)
        self.functions = Functions(self)
        self.raw_records: list[Any] = []
        """Any JSON values, served verbatim after the gateways of its own project."""
        self.requests: list[Logged] = []
        self.refusals: list[str] = []
        """Why requests were not understood; a test of a client asserts that there are none."""
        self.failed_signatures = 0
        self.failures_of: Counter[str] = Counter()
        """Failed signatures by access key."""
        self.locked_until: dict[str, datetime] = {}
        """By access key."""
        self.peak_in_flight = 0
        self.lock = RLock()
        self.callbacks: list[Callable[[Call], object]] = []
        self.faults: list[Planned] = []
        self._now = now
        self._namespace = uuid.uuid5(uuid.NAMESPACE_URL, seed)
        self._counter = 0
        self._request_counter = 0
        self._in_flight = 0
        self._recent: deque[float] = deque()

    def now(self) -> datetime:
        """The time used for new and changed connections; signatures and `Date` go by `server_time`."""
        if self._now is None:
            return utc_now().replace(microsecond=0)
        return self._now() if callable(self._now) else self._now

    def server_time(self) -> datetime:
        """The server's idea of the real time."""
        return utc_now() + self.clock_skew

    def next_id(self) -> tuple[int, str]:
        """A number and an id, the same in every run."""
        self._counter += 1
        return self._counter, str(uuid.uuid5(self._namespace, str(self._counter)))

    def next_request_id(self) -> str:
        """An id for a request, counted apart, so that requests do not change the ids of what is added later."""
        self._request_counter += 1
        return self.name_for(f"request {self._request_counter}").hex

    def name_for(self, text: str) -> uuid.UUID:
        """What stands for a text in this estate, the same in every run."""
        return uuid.uuid5(self._namespace, text)

    def add_project(
        self, project_id: str, region: str = REGION, name: str = "", domain: str = DOMAIN, agency: str | None = None
    ) -> Project:
        """Add a project. The agency of account `domain`, if one is named, may read it, and is made if new."""
        with self.lock:
            found = None
            if agency is not None:
                known = [a for a in self.iam.agencies if (a.domain, a.name) == (domain, agency)]
                found = known[0] if known else self.iam.add_agency(domain, agency, ())
                found.project_ids.add(project_id)
            project = Project(project_id, region, name or project_id, found)
            self.projects.append(project)
            return project

    def has_project(self, project_id: str | None) -> bool:
        """Whether there is such a project."""
        return project_id == self.project_id or any(project.id == project_id for project in self.projects)

    def targets(self, endpoint: str) -> list[dict[str, Any]]:
        """The projects beside its own as entries of `AUDIT_TARGETS`."""
        return [
            {
                "name": project.name,
                "region": project.region,
                "project_id": project.id,
                "endpoint": self.elsewhere.get(project.region, endpoint),
                **(
                    {"credentials": {"agency": project.agency.name, "domain": project.agency.domain}}
                    if project.agency
                    else {}
                ),
            }
            for project in self.projects
        ]

    def add_gateway(
        self,
        name: str,
        permissions: list[str] | None = None,
        endpoint_service: bool = True,
        status: str = "Running",
        gateway_id: str | None = None,
        created_at: datetime | None = None,
        spec: str = "PROFESSIONAL",
        eip_address: str = "",
        project: Project | None = None,
    ) -> Gateway:
        """Append a gateway, by default a year old and in the estate's own project.

        Without an endpoint service its connections answer 404 APIC.7314.
        """
        with self.lock:
            gateway = Gateway(
                estate=self,
                id=gateway_id or self.next_id()[1].replace("-", ""),
                name=name,
                status=status,
                endpoint_service=endpoint_service,
                created_at=created_at or self.now() - timedelta(days=365),
                permissions=list(permissions or []),
                spec=spec,
                eip_address=eip_address,
                project=project,
            )
            self.gateways.append(gateway)
            return gateway

    def remove_gateway(self, gateway_id: str) -> None:
        """Take a gateway away. Raises KeyError if there is none."""
        with self.lock:
            self.gateways.remove(self.gateway(gateway_id))

    def gateway(self, key: str) -> Gateway:
        """The gateway with this id or, failing that, this name. Raises KeyError."""
        with self.lock:
            for attribute in ("id", "name"):
                for gateway in self.gateways:
                    if getattr(gateway, attribute) == key:
                        return gateway
        raise KeyError(key)

    def before_request(self, callback: Callable[[Call], object]) -> None:
        """Have `callback` called with each request before it is answered, in the server's thread, under the lock."""
        self.callbacks.append(callback)

    def fail(
        self,
        fault: Fault,
        gateway: Gateway | str | None = None,
        kind: Kind | None = None,
        offset: int | None = None,
        times: int | None = 1,
        after: int = 0,
        project: Project | str | None = None,
    ) -> Planned:
        """Let `fault` strike the next matching requests; of several the one planned first.

        None matches everything; `times=None` is forever; `after` lets so many matching requests pass first.
        """
        found = self.gateway(gateway) if isinstance(gateway, str) else gateway
        project_id = project.id if isinstance(project, Project) else project
        planned = Planned(fault, None if found is None else found.id, kind, offset, times, after, project_id)
        with self.lock:
            self.faults.append(planned)
        return planned

    def heal(self) -> None:
        """Forget the faults that are still planned."""
        with self.lock:
            self.faults.clear()

    def admits(self) -> bool:
        """Whether the rate limit lets one more request through; counts it if so."""
        if self.rate_limit is None:
            return True
        limit, seconds = self.rate_limit
        moment = time.monotonic()
        while self._recent and self._recent[0] <= moment - seconds:
            self._recent.popleft()
        if len(self._recent) >= limit:
            return False
        self._recent.append(moment)
        return True

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """Counts a request as being answered while the block runs."""
        with self.lock:
            self._in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self._in_flight)
        try:
            yield
        finally:
            with self.lock:
                self._in_flight -= 1

    def environment(self, endpoint: str) -> dict[str, str]:
        """The settings of a process that is to read at `endpoint` the estate's own project, or the others if any."""
        one = {"AUDIT_APIG_ENDPOINT": endpoint, "AUDIT_PROJECT_ID": self.project_id}
        settings = {
            **({"AUDIT_TARGETS": json.dumps(self.targets(endpoint))} if self.projects else one),
            "HUAWEICLOUD_SDK_AK": self.access_key,
            "HUAWEICLOUD_SDK_SK": self.secret_key,
        }
        if self.security_token is not None:
            settings["HUAWEICLOUD_SDK_SECURITY_TOKEN"] = self.security_token
        return settings
