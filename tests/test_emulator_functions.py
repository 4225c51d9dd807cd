"""What the emulator promises of functions: their context, their answers, and delivery at least once."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from requests.exceptions import ChunkedEncodingError

from tests.emulator import Estate, Forbidden, Key, Run, Throttled, Truncated, once, scripted, seeded, serve
from tests.emulator.functions import MOST_ASYNC_EVENT
from tests.emulator.runtime import Context
from tests.emulator_client import assume, invoke, issued, read

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
ROOT = Path(__file__).parents[1]
DOCUMENTED = """getSecurityAccessKey getSecuritySecretKey getSecurityToken getToken getUserData getProjectID
getRequestID getRemainingTimeInMilliSeconds getFunctionName getVersion getMemorySize getLogger"""


def echo(event: Any, context: Any) -> Any:
    """For a process of its own."""
    print("said on standard output")
    return {"event": event, "pid": os.getpid(), "setting": context.getUserData("SETTING"), "env": dict(os.environ)}


def fail(event: Any, context: Any) -> Any:
    raise LookupError(f"no {event['what']}")


def wait_long(event: Any, context: Any) -> None:
    time.sleep(60)


def read_signed(event: Any, context: Any) -> int:
    """Lists the gateways with the context's keys; for a process of its own."""
    server: Any = SimpleNamespace(url=context.getUserData("URL"))
    for _ in range(event["times"]):
        assert read(server, context.getProjectID(), key_of(context)).status_code == 200
    return int(event["times"])


def key_of(context: Any) -> Key:
    return Key(context.getSecurityAccessKey(), context.getSecuritySecretKey(), context.getSecurityToken())


@pytest.fixture
def estate():
    return Estate()


@pytest.fixture
def server(estate):
    with serve(estate) as server:
        yield server


def test_handlers_result_is_the_answer(server, estate):
    function = estate.functions.add("audit", lambda event, context: {"got": event})

    reply = invoke(server, function, {"a": [1, "ü"]}, wait=True)

    assert (reply.status_code, reply.json()) == (200, {"got": {"a": [1, "ü"]}})
    (invocation,) = function.invocations
    assert reply.headers["X-Cff-Request-Id"] == invocation.request_id
    assert reply.headers["X-Is-Func-Err"] == "false"
    assert (invocation.outcome, invocation.event, invocation.asynchronous) == ("succeeded", {"a": [1, "ü"]}, False)
    assert invocation.result == {"got": {"a": [1, "ü"]}}


@pytest.mark.parametrize("handler", [fail, "tests.test_emulator_functions:fail"])
def test_uncaught_exception_is_answered_as_documented(server, estate, handler):
    function = estate.functions.add("audit", handler)

    reply = invoke(server, function, {"what": "luck"}, wait=True)

    assert reply.status_code == 500
    assert reply.json() == {"errorMessage": "no luck", "errorType": "LookupError"}
    assert reply.headers["X-Is-Func-Err"] == "true"
    assert (function.invocations[0].outcome, function.invocations[0].error) == ("failed", reply.json())


def test_result_that_is_not_json_is_the_functions_error(server, estate):
    reply = invoke(server, estate.functions.add("audit", lambda event, context: {1, 2}), {}, wait=True)

    assert (reply.status_code, reply.json()["errorType"]) == (500, "TypeError")


def test_context_has_the_documented_methods_and_no_others(server, estate):
    seen: list[Any] = []
    function = estate.functions.add(
        "audit", lambda event, context: seen.append(context), user_data={"A": "1"}, timeout=60, memory=256
    )
    invoke(server, function, {}, wait=True)

    (context,) = seen
    assert [name for name in vars(Context) if not name.startswith("_")] == DOCUMENTED.split()
    assert (context.getUserData("A"), context.getUserData("B")) == ("1", None)
    assert (context.getFunctionName(), context.getVersion(), context.getMemorySize()) == ("audit", "latest", 256)
    assert (context.getProjectID(), context.getRequestID()) == (estate.project_id, function.invocations[0].request_id)
    assert 50_000 < context.getRemainingTimeInMilliSeconds() <= 60_000
    assert context.getToken() == estate.token
    context.getLogger().info("can be called")


def test_keys_of_the_context_open_what_the_function_may(server, estate):
    estate.add_project("p-shop", domain="shop", agency="reader")
    estate.add_project("p-other")
    seen: list[int] = []

    def work(event, context):
        key = key_of(context)
        more = issued(assume(server, "reader", key, domain_name="shop"))
        for project_id, with_key in [(estate.project_id, key), ("p-shop", key), ("p-shop", more)]:
            seen.append(read(server, project_id, with_key).status_code)

    function = estate.functions.add("audit", work, project_ids=[estate.project_id])
    assert invoke(server, function, {}).status_code == 202
    estate.functions.drain()

    assert seen == [200, 403, 200]
    (invocation,) = function.invocations
    assert invocation.requests == 4
    assert [log.key.invocation for log in estate.requests[1:] if log.key] == [invocation.id] * 4


@pytest.mark.parametrize("wait", [True, False])
def test_functions_invoke_functions(server, estate, wait):
    """Nothing is locked while a function runs."""
    worker = estate.functions.add("worker", lambda event, context: event["n"] * 2)

    def share_out(event, context):
        replies = [invoke(server, worker, {"n": n}, wait=wait, key=key_of(context)) for n in range(3)]
        return [reply.json() for reply in replies]

    coordinator = estate.functions.add("coordinator", share_out)
    reply = invoke(server, coordinator, {}, wait=True)
    estate.functions.drain()

    assert not wait or reply.json() == [0, 2, 4]
    assert sorted(i.result for i in worker.invocations) == [0, 2, 4]


def test_signature_covers_every_byte_of_the_event(server, estate):
    function = estate.functions.add("audit", lambda event, context: event)
    event = {"targets": ["a", "b"]}
    body = json.dumps(event).encode()

    for place in range(len(body)):
        changed = bytearray(body)
        changed[place] ^= 1
        assert invoke(server, function, event, sent=bytes(changed)).status_code == 401, changed
    assert invoke(server, function, event).status_code == 202
    estate.functions.drain()
    assert [i.event for i in function.invocations] == [event]


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize(
    "urn",
    [
        "urn:fss:cn-north-4:{p}:function:default:other:latest",
        "urn:fss:cn-north-4:{p}:function:default:audit:v1",
        "urn:fss:eu-west-101:{p}:function:default:audit:latest",
        "audit",
    ],
)
def test_unknown_function_is_not_found(server, estate, urn, wait):
    estate.functions.add("audit", lambda event, context: None)

    reply = invoke(server, urn.format(p=estate.project_id), {}, wait=wait)

    assert reply.status_code == 404
    assert reply.json() == {"error_code": "FSS.1051", "error_msg": "Not found the function"}


def test_version_may_be_left_out(server, estate):
    function = estate.functions.add("audit", lambda event, context: 7)

    assert invoke(server, function.urn.removesuffix(":latest"), {}, wait=True).json() == 7


def test_keys_of_another_project_may_not_invoke(server, estate):
    function = estate.functions.add("audit", lambda event, context: 7)
    estate.add_project("p-other")

    refused = invoke(server, function, {}, key=estate.iam.add_key(["p-other"]))
    estate.fail(Forbidden("FSS.0403"), kind="invocations-async")
    struck = invoke(server, function, {})

    for reply in (refused, struck):
        assert (reply.status_code, reply.json()["error_code"]) == (403, "FSS.0403")
    assert function.invocations == []


def test_faults_strike_invocations_too(server, estate):
    """The request may be lost, or the answer to what was done."""
    function = estate.functions.add("audit", lambda event, context: event)
    estate.fail(Throttled(1), kind="invocations")
    estate.fail(Truncated(), kind="invocations")
    estate.fail(Truncated(), kind="invocations-async")

    assert invoke(server, function, 1, wait=True).status_code == 429
    for wait in (True, False):
        with pytest.raises(ChunkedEncodingError, match="more expected"):
            invoke(server, function, 2, wait=wait)
    estate.functions.drain()
    assert [(i.event, i.outcome) for i in function.invocations] == [(2, "succeeded")] * 2


def test_too_large_an_event_is_refused_when_nobody_waits(server, estate):
    function = estate.functions.add("audit", lambda event, context: len(event))
    most = "x" * (MOST_ASYNC_EVENT - 2)

    assert invoke(server, function, most).status_code == 202
    assert invoke(server, function, most + "x").status_code == 413
    assert invoke(server, function, most + "x", wait=True).json() == MOST_ASYNC_EVENT - 1


def test_what_is_not_documented_is_refused(server, estate):
    function = estate.functions.add("audit", lambda event, context: None)

    assert invoke(server, function, {}, headers={"X-Cff-Request-Version": "v1"}).status_code == 400
    assert invoke(server, function, {}, sent=b"").status_code == 401
    assert len(estate.refusals) == 1


def test_handler_in_a_process_of_its_own(server, estate, monkeypatch):
    monkeypatch.setenv("AUDIT_STORE", "mine")
    monkeypatch.setenv("HUAWEICLOUD_SDK_AK", "mine")
    function = estate.functions.add("audit", "tests.test_emulator_functions:echo", user_data={"SETTING": "1"})

    found = invoke(server, function, {"a": 1}, wait=True).json()

    assert (found["event"], found["setting"]) == ({"a": 1}, "1")
    assert found["pid"] != os.getpid()
    assert not {"AUDIT_STORE", "HUAWEICLOUD_SDK_AK"} & found["env"].keys()
    assert "said on standard output" in function.invocations[0].log


def test_plan_duplicates_delays_and_drops(server, estate):
    ran: list[tuple[int, str]] = []
    plan = scripted([Run(), Run(delay=0.3)], [], [Run(delay=0.15)])
    function = estate.functions.add("audit", lambda event, context: ran.append((event, context.getRequestID())))
    function.plan = plan

    accepted = [invoke(server, function, n).json()["request_id"] for n in range(4)]
    estate.functions.drain()

    assert sorted(ran[:2]) == [(0, accepted[0]), (3, accepted[3])]
    assert ran[2:] == [(2, accepted[2]), (0, accepted[0])]
    told = sorted((i.event, i.run, i.outcome) for i in function.invocations)
    assert told == [
        (0, 1, "succeeded"),
        (0, 2, "succeeded"),
        (1, 1, "dropped"),
        (2, 1, "succeeded"),
        (3, 1, "succeeded"),
    ]


def test_run_dies_at_the_request_that_the_plan_says(server, estate):
    function = estate.functions.add(
        "audit",
        "tests.test_emulator_functions:read_signed",
        user_data={"URL": server.url},
        plan=scripted([Run(dies_at_request=3), Run(delay=0.1)]),
    )
    invoke(server, function, {"times": 4})
    estate.functions.drain()

    killed, whole = function.invocations
    assert (killed.outcome, killed.requests, killed.error) == (
        "killed",
        3,
        {"errorMessage": "the runtime exited with -9", "errorType": "RuntimeExited"},
    )
    assert (whole.outcome, whole.result, whole.request_id) == ("succeeded", 4, killed.request_id)
    assert [log.status for log in estate.requests if log.key and log.key.invocation == killed.id] == [200, 200, 0]


def test_test_may_kill_a_run_itself(server, estate):
    function = estate.functions.add("audit", "tests.test_emulator_functions:wait_long")
    invoke(server, function, {})
    while not (function.invocations and function.invocations[0].process):
        time.sleep(0.01)
    function.invocations[0].kill()
    estate.functions.drain()

    assert function.invocations[0].outcome == "killed"


def test_only_a_process_can_be_killed(estate):
    function = estate.functions.add("audit", echo, plan=scripted([Run(dies_at_request=1)]))

    with pytest.raises(ValueError, match="its handler is not given as MODULE:HANDLER"):
        estate.functions.accept(function, "r", b"{}")


def test_handler_that_ends_like_a_death_is_told_apart(server, estate):
    def die(event, context):
        raise KeyboardInterrupt

    function = estate.functions.add("audit", die)

    assert invoke(server, function, {}, wait=True).status_code == 500
    assert function.invocations[0].outcome == "killed"


def test_timeout_ends_a_process(server, estate):
    function = estate.functions.add("audit", "tests.test_emulator_functions:wait_long", timeout=0.5)

    reply = invoke(server, function, {}, wait=True)

    assert (reply.status_code, reply.json()["errorType"]) == (500, "TimedOut")
    assert function.invocations[0].outcome == "timed out"


def test_drain_names_what_does_not_end(server, estate):
    ended = threading.Event()
    function = estate.functions.add("audit", lambda event, context: ended.wait(10))
    invoke(server, function, {})

    with pytest.raises(TimeoutError, match="/1"):
        estate.functions.drain(0.1)
    ended.set()
    estate.functions.drain()


def test_server_stops_with_runs_that_wait_or_run(estate):
    with serve(estate) as server:
        function = estate.functions.add(
            "audit", "tests.test_emulator_functions:wait_long", plan=scripted([Run()], [Run(delay=60)])
        )
        invoke(server, function, {})
        invoke(server, function, {})
        while not function.invocations[0].process:
            time.sleep(0.01)

    assert [i.outcome for i in function.invocations] == ["killed", "waiting"]
    assert not [t for t in threading.enumerate() if "deliver" in t.name]


def test_seeded_plan_is_a_function_of_its_seed():
    def fates(seed: int) -> list[list[Run]]:
        plan = seeded(seed, duplicates=0.3, drops=0.2, deaths=0.3, delay=1)
        return [list(plan(n)) for n in range(200)]

    assert fates(1) == fates(1) != fates(2)
    counts = {len(runs) for runs in fates(1)}
    assert counts == {0, 1, 2, 3}
    assert all(
        len(runs) > 1 and runs[-1].dies_at_request is None for runs in fates(1) if runs and runs[0].dies_at_request
    )
    assert seeded(1)(0) == [Run()] == list(once(0))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--function", "nope:handler"], "No module named 'nope'"),
        (["--function", "json:nope"], "has no attribute 'nope'"),
        (["--agency", "shop"], "is not DOMAIN/NAME=PROJECT_ID,..."),
        (["--user-data", "NO_SUCH_NAME"], "has no value, neither here nor in the environment"),
        (["--delivery", "chance=1"], "is not seed=N"),
        (["--delivery", "seed=1,luck=1"], "is not seed=N"),
    ],
)
def test_wrong_arguments_are_explained(arguments, said):
    result = command(*arguments)

    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_command_line_serves_a_function_and_tells_what_became_of_it():
    code = """if True:
        import os, requests
        url, headers = os.environ["EMULATOR_FUNCTION_URL"], {"X-Auth-Token": "emulator-token"}
        print(requests.post(url, json={"a": 1}, headers=headers).json()["setting"])
        print(requests.post(url + "-async", json={}, headers=headers).status_code)
    """
    result = command(
        "--estate", "empty", "--function", "tests.test_emulator_functions:echo", "--user-data", "SETTING=mine",
        "--delivery", "seed=1,duplicates=1", "--agency", "shop/reader=p", "--", sys.executable, "-c", code,
    )  # fmt: skip

    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[:2] == ["mine", "202"]
    assert result.stderr.count("of audit succeeded") == 3


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {n: v for n, v in os.environ.items() if not n.startswith("AUDIT_")}
    return subprocess.run(
        [sys.executable, "-m", "tests.emulator", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
