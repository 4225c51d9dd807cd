"""Answers requests from the state of an estate: routes, parameters, pages and actions, for any front end.

Read from the vendor's API document alone. Whatever that does not describe is refused loudly, with what is known
instead, and recorded in `Estate.refusals`.
"""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from tests.emulator import errors
from tests.emulator.estate import Estate, Kind, Logged
from tests.emulator.functions import Deferred, invoke, invoke_async
from tests.emulator.iam import DOMAIN, Key, assume_agency
from tests.emulator.signature import authenticate
from tests.emulator.wire import Answer, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.emulator.gateway import Gateway

DEFAULT_LIMIT = 20
MAX_LIMIT = 500
MAX_ENDPOINTS = 50
MOST_NAMED = 10
FILTER_STATUSES = ("pendingAcceptance", "accepted", "rejected", "failed")
# The states that each action can leave behind, by the state that it makes.
ACTIONS = {
    "receive": ("accepted", ("pendingAcceptance", "rejected")),
    "reject": ("rejected", ("pendingAcceptance", "accepted")),
}


@dataclass(frozen=True)
class Route:
    """One call of the API: a method, a path and the query parameters that it knows."""

    kind: Kind
    method: str
    template: str
    parameters: tuple[str, ...]
    answer: Callable[[Estate, Call, Key], Answer | Deferred]
    forbidden: str = "APIC.7106"

    def match(self, path: str) -> re.Match[str] | None:
        """The match of a decoded path, with the groups that the template names."""
        return re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.template), path)


@dataclass(frozen=True)
class Call:
    """A request taken apart as far as it goes: what callbacks see and faults are matched against."""

    request: Request
    route: Route | None = None
    project_id: str | None = None
    gateway_id: str | None = None
    query: dict[str, str] = field(default_factory=dict)
    """The decoded query; of a repeated parameter the last."""
    urn: str | None = None
    """Of the function that is to be invoked."""

    @property
    def kind(self) -> Kind | None:
        """Which call of the API it is; None for an unknown route."""
        return self.route.kind if self.route else None

    @property
    def offset(self) -> int | None:
        """Where the page starts; None when that is not an integer."""
        text = self.query.get("offset", "0")
        return max(0, int(text)) if _is_integer(text) else None


@contextmanager
def exchange(estate: Estate, request: Request) -> Iterator[Answer]:
    """The answer to a request, which counts as in flight for as long as the block takes to send it."""
    with estate.in_flight():
        yield answer(estate, request)


def answer(estate: Estate, request: Request) -> Answer:
    """Answer one request, log it, and change the estate if it was an action.

    An answer that takes its time is waited for without the lock: a function that is invoked makes requests itself.
    """
    key: Key | None = None
    with estate.lock:
        call = parse_call(request)
        for callback in list(estate.callbacks):
            callback(call)
        request_id = estate.next_request_id()
        try:
            if not estate.admits() and estate.rate_limit:
                raise errors.throttled(*estate.rate_limit)
            key = authenticate(estate, request)
            if key and key.invocation and estate.functions.count_request(key.invocation):
                found: Answer | Deferred = Answer(0, broken="reset")  # its sender is dead
            else:
                found = _strike_or_answer(estate, call, key or _OWNER)
        except errors.ApiError as error:
            if isinstance(error, errors.RefusalError):
                estate.refusals.append(f"{request.method} {request.path}?{request.query}: {error.message}")
            found = error.answer(request_id)
    done = found if isinstance(found, Answer) else found()
    with estate.lock:
        headers = dict(request.headers)
        estate.requests.append(
            Logged(request.method, request.path, call.query, headers, done.status, key, call.project_id)
        )
        stamps = {"x-request-id": request_id, "Date": format_datetime(estate.server_time(), usegmt=True)}
        return replace(done, headers={**done.headers, **stamps}, delay=done.delay + estate.latency)


def parse_call(request: Request) -> Call:
    """Find the route and take the query apart, without judging either."""
    path = unquote(request.path)
    query = dict(request.pairs)
    for route in ROUTES:
        match = route.match(path)
        if match and route.method == request.method:
            found = match.groupdict()
            return Call(
                request, route, found.get("project_id"), found.get("instance_id"), query, found.get("function_urn")
            )
    return Call(request, query=query)


def _strike_or_answer(estate: Estate, call: Call, key: Key) -> Answer | Deferred:
    for planned in estate.faults:
        if planned.takes(call):
            fault = planned.fault
            try:
                return fault.strike(lambda: _at_once(_honest(estate, call, key)))
            except _Later as later:
                found = later.found
                return lambda: fault.strike(found)
    return _honest(estate, call, key)


class _Later(Exception):
    """A fault asked for an answer that takes its time, and is to strike once that is there."""

    def __init__(self, found: Deferred) -> None:
        self.found = found


def _at_once(found: Answer | Deferred) -> Answer:
    if isinstance(found, Answer):
        return found
    raise _Later(found)


def _honest(estate: Estate, call: Call, key: Key) -> Answer | Deferred:
    route = _known_route(call)
    _check_parameters(call, route)
    if call.project_id is not None and not estate.has_project(call.project_id):
        known = ", ".join([estate.project_id, *(project.id for project in estate.projects)][:MOST_NAMED])
        raise errors.no_such_api(404, f"unknown project {call.project_id!r}; known: {known}")
    if not key.opens(call.project_id):
        raise errors.forbidden(route.forbidden)
    return route.answer(estate, call, key)


def _known_route(call: Call) -> Route:
    if call.route:
        return call.route
    path = unquote(call.request.path)
    methods = [route.method for route in ROUTES if route.match(path)]
    if methods:
        raise errors.no_such_api(405, f"unknown method {call.request.method} of {path}; known: {', '.join(methods)}")
    known = "; ".join(f"{route.method} {route.template}" for route in ROUTES)
    raise errors.no_such_api(404, f"unknown route {call.request.method} {path}; known: {known}")


def _check_parameters(call: Call, route: Route) -> None:
    names = [name for name, _ in call.request.pairs]
    known = ", ".join(route.parameters) or "none"
    for name in names:
        if name not in route.parameters:
            raise errors.bad_parameter(f"unknown query parameter {name!r}; known: {known}")
        if names.count(name) > 1:
            raise errors.bad_parameter(f"query parameter {name!r} is repeated")
    for name in ("offset", "limit", "marker_id"):
        if name in call.query and not _is_integer(call.query[name]):
            raise errors.bad_parameter(f"{name} is {call.query[name]!r}; known: integers")
    status = call.query.get("status", FILTER_STATUSES[0])
    if status not in FILTER_STATUSES:
        raise errors.bad_parameter(f"status is {status!r}; known: {', '.join(FILTER_STATUSES)}")


def _list_instances(estate: Estate, call: Call, _: Key) -> Answer:
    records = [json.dumps(gateway.record) for gateway in estate.gateways if gateway.project_id == call.project_id]
    if call.project_id == estate.project_id:
        records += [json.dumps(r) for r in estate.raw_records]
    offset, limit = _window(estate, call)
    return _page("instances", len(records), records[offset : offset + limit])


def _list_connections(estate: Estate, call: Call, _: Key) -> Answer:
    gateway = _endpoint_service(estate, call)
    wanted: dict[str, Any] = {name: call.query[name] for name in ("id", "status") if name in call.query}
    if "marker_id" in call.query:
        wanted["marker_id"] = int(call.query["marker_id"])
    total, records = gateway.page(wanted, *_window(estate, call))
    return _page("connections", total if gateway.stated_total is None else gateway.stated_total, records)


def _list_permissions(estate: Estate, call: Call, _: Key) -> Answer:
    gateway = _endpoint_service(estate, call)
    records = [json.dumps(record) for record in [*gateway.permission_records, *gateway.raw_permissions]]
    offset, limit = _window(estate, call)
    return _page("permissions", len(records), records[offset : offset + limit])


def _act(estate: Estate, call: Call, _: Key) -> Answer:
    gateway = _endpoint_service(estate, call)
    action, endpoints = _parse_action(call.request.body)
    status, leaves = ACTIONS[action]
    for endpoint in endpoints:
        connection = gateway.get(endpoint)
        if connection is None:
            raise errors.bad_parameter(f"unknown connection {endpoint!r} of gateway {gateway.name}")
        if connection.status not in leaves:
            raise errors.bad_parameter(
                f"cannot {action} connection {endpoint!r}, which is {connection.status}; known: {', '.join(leaves)}"
            )
    changed = [gateway.change(endpoint, status=status).encoded for endpoint in endpoints]
    return _page("connections", len(changed), changed)


def _parse_action(body: bytes) -> tuple[str, list[str]]:
    try:
        document = json.loads(body)
    except ValueError:
        raise errors.bad_parameter("the body is not JSON") from None
    if not isinstance(document, dict) or set(document) != {"action", "endpoints"}:
        raise errors.bad_parameter("the body must be an object with exactly: action, endpoints")
    action, endpoints = document["action"], document["endpoints"]
    if not isinstance(action, str) or action not in ACTIONS:
        raise errors.bad_parameter(f"action is {action!r}; known: {', '.join(ACTIONS)}")
    if not isinstance(endpoints, list) or not all(isinstance(endpoint, str) for endpoint in endpoints):
        raise errors.bad_parameter("endpoints must be a list of connection ids")
    if not 1 <= len(endpoints) <= MAX_ENDPOINTS or len(set(endpoints)) < len(endpoints):
        raise errors.bad_parameter(f"endpoints has {len(endpoints)} ids; known: 1 to {MAX_ENDPOINTS} different ones")
    return action, endpoints


def _endpoint_service(estate: Estate, call: Call) -> Gateway:
    for gateway in estate.gateways:
        if gateway.id == call.gateway_id and gateway.project_id == call.project_id:
            if not gateway.endpoint_service:
                raise errors.not_found("APIC.7314")
            return gateway
    raise errors.not_found("APIC.7302")


def _window(estate: Estate, call: Call) -> tuple[int, int]:
    """Offset and limit after the documented conversions, and the server's own cap."""
    limit = int(call.query.get("limit", DEFAULT_LIMIT))
    limit = DEFAULT_LIMIT if limit <= 0 else min(limit, MAX_LIMIT)
    return call.offset or 0, limit if estate.page_cap is None else min(limit, estate.page_cap)


def _page(name: str, total: int, records: list[str]) -> Answer:
    body = f'{{"total": {total}, "size": {len(records)}, "{name}": [{", ".join(records)}]}}'
    return Answer(200, {"Content-Type": "application/json"}, body.encode())


def _is_integer(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]{1,18}", text) is not None


_INSTANCES = "/v2/{project_id}/apigw/instances"
_ENDPOINT = _INSTANCES + "/{instance_id}/vpc-endpoint"
_PAGING = ("offset", "limit")
_FUNCTION = "/v2/{project_id}/fgs/functions/{function_urn}"
_OWNER = Key("", "", domain=DOMAIN)
"""Who comes with the estate's token."""
ROUTES = (
    Route("instances", "GET", _INSTANCES, _PAGING, _list_instances),
    Route("connections", "GET", f"{_ENDPOINT}/connections", (*_PAGING, "id", "marker_id", "status"), _list_connections),
    Route("permissions", "GET", f"{_ENDPOINT}/permissions", _PAGING, _list_permissions),
    Route("action", "POST", f"{_ENDPOINT}/connections/action", (), _act),
    Route("securitytokens", "POST", "/v3.0/OS-CREDENTIAL/securitytokens", (), assume_agency),
    Route("invocations", "POST", f"{_FUNCTION}/invocations", (), invoke, "FSS.0403"),
    Route("invocations-async", "POST", f"{_FUNCTION}/invocations-async", (), invoke_async, "FSS.0403"),
)
