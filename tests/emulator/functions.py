"""Functions and their invocations: synchronous ones are answered, asynchronous ones delivered at least once.

Read from the vendor's documents of "Executing a Function Synchronously" and "... Asynchronously" (functiongraph_06_0125
and 0126) and of the quotas. How often, when and whether an accepted event is run is the function's `plan`.
The status of a failed synchronous invocation and the code of an event that is too large are not documented.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import BoundedSemaphore, Event, Thread
from typing import TYPE_CHECKING, Any, Literal

from tests.emulator import errors
from tests.emulator.runtime import Context, describe
from tests.emulator.wire import Answer, json_answer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.emulator.api import Call
    from tests.emulator.estate import Estate, Project
    from tests.emulator.iam import Key

Handler = Callable[[Any, Context], Any]
Deferred = Callable[[], Answer]
"""An answer that takes its time."""
Outcome = Literal["waiting", "running", "succeeded", "failed", "killed", "timed out", "dropped"]

ROOT = Path(__file__).parents[2]
MOST_EVENT = 6 * 1024 * 1024
MOST_ASYNC_EVENT = 256 * 1024
MOST_RESULT = 6 * 1024 * 1024
AT_ONCE = 8
"""Asynchronous runs at the same time; synchronous ones come on top."""
PATIENCE = 5.0


@dataclass(frozen=True)
class Run:
    """One delivery of an accepted event."""

    delay: float = 0.0
    """Seconds between acceptance and start."""
    dies_at_request: int | None = None
    """SIGKILL comes with its n-th request to the emulator, counted from 1; from there on all are lost.

    Needs a process of its own.
    """


Plan = Callable[[int], Sequence[Run]]
"""How the n-th accepted event, counted from 0, is run: twice is a duplicate, never is a drop."""


def once(_: int) -> Sequence[Run]:
    """Every event once, at once."""
    return (Run(),)


def scripted(*deliveries: Sequence[Run]) -> Plan:
    """The first events as told, all later ones once."""
    return lambda number: deliveries[number] if number < len(deliveries) else once(number)


def seeded(seed: int, *, duplicates: float = 0, drops: float = 0, deaths: float = 0, delay: float = 0) -> Plan:
    """Chances from 0 to 1 and the most seconds of delay; the n-th event always fares the same.

    A run that dies is followed by another, as a platform redelivers what was not finished.
    """

    def plan(number: int) -> Sequence[Run]:
        chance = random.Random(f"{seed}/{number}")
        dropped, doubled, dies = (chance.random() < most for most in (drops, duplicates, deaths))
        first = Run(chance.uniform(0, delay), chance.randint(1, 5) if dies else None)
        again = [Run(first.delay + chance.uniform(0, delay)) for _ in range(dies + doubled)]
        return [] if dropped else [first, *again]

    return plan


@dataclass(eq=False)
class Invocation:
    """One run of one event, or an event that was dropped. Changes until it is finished."""

    request_id: str
    """The same for all runs of an event."""
    event: Any
    asynchronous: bool
    run: int = 1
    """Which of the runs of its event it is."""
    outcome: Outcome = "waiting"
    result: Any = None
    error: dict[str, str] | None = None
    """`errorMessage` and `errorType`."""
    log: str = ""
    """What a process of its own wrote."""
    key: Key | None = None
    requests: int = 0
    """How many requests it made to the emulator, by its own key and by what agencies issued for that."""
    dies_at_request: int | None = None
    process: subprocess.Popen[str] | None = None

    @property
    def id(self) -> str:
        """Names this run: `Key.invocation` of the keys that it uses."""
        return f"{self.request_id}/{self.run}"

    def kill(self) -> None:
        """End it with SIGKILL. Raises ValueError if it does not run in a process of its own."""
        if self.process is None:
            raise ValueError(f"invocation {self.id} has no process: it is {self.outcome}, or its handler a callable")
        self.process.kill()


@dataclass(eq=False)
class Function:
    """A function as configured; the plain attributes may be set at any time, and hold from the next run on."""

    urn: str
    name: str
    project_id: str
    handler: Handler | str
    """A callable runs in a thread; `MODULE:HANDLER` in a process of its own."""
    user_data: dict[str, str]
    project_ids: frozenset[str] | None
    """What its keys open; None is what the estate's own open."""
    timeout: float
    """Seconds; only a process is ended by them."""
    memory: int
    plan: Plan
    invocations: list[Invocation] = field(default_factory=list)
    accepted: int = 0
    """Asynchronous events so far."""


class Functions:
    """The functions of an estate, and the threads and processes that run them."""

    def __init__(self, estate: Estate) -> None:
        self._estate = estate
        self._by_urn: dict[str, Function] = {}
        self._runs: dict[str, Invocation] = {}
        """By id, those that began; requests of the dead may still arrive."""
        self._threads: list[Thread] = []
        self._slots = BoundedSemaphore(AT_ONCE)
        self._stopping = Event()

    def add(
        self,
        name: str,
        handler: Handler | str,
        *,
        user_data: Mapping[str, str] | None = None,
        project: Project | None = None,
        region: str | None = None,
        package: str = "default",
        project_ids: Iterable[str] | None = None,
        timeout: float = 900,
        memory: int = 512,
        plan: Plan = once,
    ) -> Function:
        """Deploy a function, by default in the estate's own project with keys like the estate's own."""
        project_id = project.id if project else self._estate.project_id
        region = region or (project.region if project else "cn-north-4")
        function = Function(
            urn=f"urn:fss:{region}:{project_id}:function:{package}:{name}:latest",
            name=name,
            project_id=project_id,
            handler=handler,
            user_data=dict(user_data or {}),
            project_ids=None if project_ids is None else frozenset(project_ids),
            timeout=timeout,
            memory=memory,
            plan=plan,
        )
        with self._estate.lock:
            self._by_urn[function.urn] = function
        return function

    def find(self, urn: str) -> Function | None:
        """The function of a URN; there are no other versions than `latest`, which may be left out."""
        return self._by_urn.get(urn) or self._by_urn.get(f"{urn}:latest")

    @property
    def all(self) -> list[Function]:
        """The functions in the order added."""
        return list(self._by_urn.values())

    def drain(self, seconds: float = 30.0) -> None:
        """Wait until all that was accepted is finished, and what that invoked. Raises TimeoutError."""
        until = time.monotonic() + seconds
        while threads := [thread for thread in self._threads if thread.is_alive()]:
            threads[0].join(max(0.0, until - time.monotonic()))
            if threads[0].is_alive():
                left = [i.id for f in self.all for i in f.invocations if i.outcome in {"waiting", "running"}]
                raise TimeoutError(f"after {seconds:g} seconds these invocations are not finished: {', '.join(left)}")

    def stop(self) -> None:
        """Forget what waits, kill the processes, and wait for the threads. Raises TimeoutError."""
        self._stopping.set()
        with self._estate.lock:
            runs = list(self._runs.values())
        for invocation in runs:
            if invocation.process:
                invocation.process.kill()
        try:
            self.drain(PATIENCE)
        finally:
            self._stopping = Event()

    def count_request(self, invocation_id: str) -> bool:
        """Note a request of a run; whether the run dies of it, or is dead already and was sending several at once."""
        invocation = self._runs.get(invocation_id)
        if invocation is None:
            return False
        invocation.requests += 1
        if invocation.dies_at_request is None or invocation.requests < invocation.dies_at_request:
            return False
        invocation.kill()
        return True

    def accept(self, function: Function, request_id: str, body: bytes) -> None:
        """Plan the runs of an asynchronous event. Called under the estate's lock."""
        runs = function.plan(function.accepted)
        function.accepted += 1
        if not runs:
            function.invocations.append(Invocation(request_id, json.loads(body), True, outcome="dropped"))
        for number, run in enumerate(runs, 1):
            if run.dies_at_request and not isinstance(function.handler, str):
                raise ValueError(f"a run of {function.name} cannot die: its handler is not given as MODULE:HANDLER")
            invocation = Invocation(request_id, json.loads(body), True, number, dies_at_request=run.dies_at_request)
            function.invocations.append(invocation)
            thread = Thread(target=self._deliver, args=(function, invocation, run.delay, self._stopping), daemon=True)
            self._threads = [t for t in self._threads if t.is_alive()] + [thread]
            thread.start()

    def run(self, function: Function, invocation: Invocation) -> None:
        """Run a handler to its end, which the invocation tells afterwards. Not to be called under the lock."""
        estate = self._estate
        with estate.lock:
            opens = estate.opens if function.project_ids is None else function.project_ids
            key = estate.iam.issue(project_ids=opens, invocation=invocation.id)
            invocation.key, invocation.outcome = key, "running"
            self._runs[invocation.id] = invocation
        values = {
            "access": key.access,
            "secret": key.secret,
            "security_token": key.security_token,
            "token": estate.token,
            "user_data": dict(function.user_data),
            "project_id": function.project_id,
            "request_id": invocation.request_id,
            "ends": time.time() + function.timeout,
            "name": function.name,
            "version": "latest",
            "memory": function.memory,
        }
        # What a handler does to its event is not to show in the record.
        event = json.loads(json.dumps(invocation.event))
        if callable(function.handler):
            found = _run_here(function.handler, event, values)
        else:
            found = self._run_apart(function, function.handler, invocation, {"event": event, "context": values})
        with estate.lock:
            if found[0] == "succeeded" and len(json.dumps(found[1])) > MOST_RESULT:
                found = ("failed", None, {"errorMessage": "the result is too large", "errorType": "ResultTooLarge"})
            invocation.outcome, invocation.result, invocation.error = found

    def _deliver(self, function: Function, invocation: Invocation, delay: float, stopping: Event) -> None:
        stopping.wait(delay)
        while not stopping.is_set():
            if self._slots.acquire(timeout=0.05):
                try:
                    self.run(function, invocation)
                finally:
                    self._slots.release()
                return

    def _run_apart(
        self, function: Function, handler: str, invocation: Invocation, given: dict[str, Any]
    ) -> tuple[Outcome, Any, dict[str, str] | None]:
        with self._estate.lock:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.emulator.runtime", handler],
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            invocation.process = process
            if self._stopping.is_set():
                process.kill()
        late = False
        try:
            printed, invocation.log = process.communicate(json.dumps(given), function.timeout)
        except subprocess.TimeoutExpired:
            late = True
            process.kill()
            printed, invocation.log = process.communicate()
        if process.returncode == 0 and not late:
            answer = json.loads(printed)
            return ("failed", None, answer["error"]) if "error" in answer else ("succeeded", answer["result"], None)
        why = f"timed out after {function.timeout:g} seconds" if late else f"exited with {process.returncode}"
        error = {"errorMessage": f"the runtime {why}", "errorType": "TimedOut" if late else "RuntimeExited"}
        return "timed out" if late else "killed", None, error


def invoke(estate: Estate, call: Call, _: Key) -> Deferred:
    """Answer `POST .../invocations` with the handler's result, once there is one."""
    function, body = _admit(estate, call, MOST_EVENT)
    invocation = Invocation(str(estate.name_for(f"sync {_count(estate)}")), json.loads(body), asynchronous=False)
    function.invocations.append(invocation)

    def wait() -> Answer:
        estate.functions.run(function, invocation)
        failed = invocation.error is not None
        headers = {
            "X-Cff-Request-Id": invocation.request_id,
            "X-Is-Func-Err": str(failed).lower(),
            "X-Cff-Response-Version": "v0",
        }
        return json_answer(500 if failed else 200, invocation.error or invocation.result, headers)

    return wait


def invoke_async(estate: Estate, call: Call, _: Key) -> Answer:
    """Answer `POST .../invocations-async` with 202 and a request id."""
    function, body = _admit(estate, call, MOST_ASYNC_EVENT)
    request_id = str(estate.name_for(f"async {_count(estate)}"))
    estate.functions.accept(function, request_id, body)
    return json_answer(202, {"request_id": request_id})


def _admit(estate: Estate, call: Call, most: int) -> tuple[Function, bytes]:
    function = estate.functions.find(call.urn or "")
    if function is None or function.project_id != call.project_id:
        raise errors.not_found("FSS.1051")
    body = call.request.body
    if len(body) > most:
        raise errors.bad_event(f"the event has {len(body)} bytes; known: up to {most}", 413)
    try:
        json.loads(body)
    except ValueError:
        raise errors.bad_event("the event is not JSON") from None
    if call.request.headers.get("x-cff-request-version", "v0") != "v0":
        raise errors.bad_event("header X-Cff-Request-Version is not v0, which is all that is known here")
    return function, body


def _count(estate: Estate) -> int:
    return sum(len(function.invocations) for function in estate.functions.all)


def _run_here(handler: Handler, event: Any, values: dict[str, Any]) -> tuple[Outcome, Any, dict[str, str] | None]:
    try:
        result = handler(event, Context(values))
        return "succeeded", json.loads(json.dumps(result)), None
    except Exception as error:  # noqa: BLE001 - the platform answers for whatever a handler raises
        return "failed", None, describe(error)
    except BaseException as error:  # noqa: BLE001 - a handler that is ended in the middle, as a test may do
        return "killed", None, describe(error)


def _environment() -> dict[str, str]:
    """Of a process that is to have no settings and credentials but what the context gives."""
    mine = {n: v for n, v in os.environ.items() if not n.startswith(("AUDIT_", "HUAWEICLOUD_SDK_"))}
    loopback = {name: ",".join(filter(None, [mine.get(name), "127.0.0.1"])) for name in ("no_proxy", "NO_PROXY")}
    return {**mine, **loopback, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
