"""The named estates and `python -m tests.emulator`, run as a user runs it."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.emulator import Estate
from tests.emulator.__main__ import main
from tests.emulator.connection import STATUSES
from tests.emulator.samples import NAMED, SAMPLE_POLICY, SampleError, build_sample, find_sample
from tests.emulator.story import StoryError, load_story, save_story

ROOT = Path(__file__).parents[1]
BORN = datetime(2025, 8, 22, 12, 0, tzinfo=timezone.utc)
APPROVED = set(json.loads(SAMPLE_POLICY.read_text())["lists"]["approved-domains"])
SHOW = "import json, os; print(json.dumps(dict(os.environ)))"
POST = """
import os, sys, time, urllib.request
from tests.emulator.receiver import sign
body, now = b'{"headline": "two findings"}', str(int(time.time()))
signature = "v1," + sign(os.environ["AUDIT_WEBHOOK_SECRET"], "msg_9", now, body)
headers = {"webhook-id": "msg_9", "webhook-timestamp": now, "webhook-signature": signature}
urllib.request.urlopen(urllib.request.Request(os.environ["AUDIT_WEBHOOK_URL"], body, headers)).close()
"""


def emulate(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line with extra environment variables."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUDIT_")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.emulator", *arguments],
        cwd=ROOT,
        env={**environment, **settings},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def snapshot(estate: Estate) -> dict[str, dict[str, Any]]:
    """The records of all connections by gateway and id."""
    return {gateway.name: {c.id: c.record for c in gateway.connections} for gateway in estate.gateways}


@pytest.mark.parametrize("step", range(4))
def test_sample_is_a_function_of_birth_and_step(step):
    assert snapshot(build_sample(BORN, step)) == snapshot(build_sample(BORN, step))


def test_sample_has_something_of_everything():
    estate = build_sample(BORN, 0)
    everything = [c for gateway in estate.gateways for c in gateway.connections]
    waiting = [BORN - c.created_at for c in everything if c.status == "pendingAcceptance"]

    assert len(estate.gateways) == 7
    assert {c.status for c in everything} == set(STATUSES)
    assert max(len(gateway.connections) for gateway in estate.gateways) > 500
    assert min(waiting) < timedelta(hours=24) < max(waiting)
    assert any(c.status == "accepted" and c.domain_id not in APPROVED for c in everything)
    assert {c.domain_id for c in everything} > APPROVED
    assert [gateway.name for gateway in estate.gateways if not gateway.endpoint_service] == ["analytics"]
    assert [len(gateway.connections) for gateway in estate.gateways if gateway.name == "sandbox"] == [0]
    assert {planned.gateway_id for planned in estate.faults} == {estate.gateway("legacy-gateway").id}


def test_sample_never_shows_the_future_or_repeats_a_state():
    states: dict[str, list[dict[str, Any]]] = {}
    for step in range(4):
        for gateway in build_sample(BORN, step).gateways:
            for connection in gateway.connections:
                assert connection.created_at <= connection.updated_at <= BORN
                known = states.setdefault(connection.id, [])
                if connection.record not in known:
                    known.append(connection.record)

    for known in states.values():
        assert len({record["updated_at"] for record in known}) == len(known)


def test_first_step_puts_some_right_and_something_new_wrong():
    before, after = snapshot(build_sample(BORN, 0)), snapshot(build_sample(BORN, 1))
    changed = [
        (name, before[name][key]["status"], record["status"])
        for name, records in after.items()
        for key, record in records.items()
        if key in before[name] and record != before[name][key]
    ]
    gone = [record for name in before for key, record in before[name].items() if key not in after[name]]
    new = [record for name in after for key, record in after[name].items() if key not in before[name]]

    assert changed == [("billing-prod", "pendingAcceptance", "accepted")]
    assert [(r["status"], r["domain_id"] in APPROVED) for r in gone] == [("accepted", False)]
    assert [(r["status"], r["domain_id"] in APPROVED) for r in new] == [("accepted", False)]


def test_second_step_makes_everything_readable_and_later_steps_repeat_it():
    assert build_sample(BORN, 1).faults
    assert build_sample(BORN, 2).faults == []
    assert snapshot(build_sample(BORN, 2)) != snapshot(build_sample(BORN, 1))
    assert snapshot(build_sample(BORN, 9)) == snapshot(build_sample(BORN, 2))


@pytest.mark.parametrize("name", NAMED)
def test_every_named_estate_can_be_built(name):
    find_sample(name).build(BORN, 0)


def test_estate_from_a_file(tmp_path):
    path = tmp_path / "mine.json"
    gateway = {
        "name": "billing",
        "connections": [{"status": "failed", "age_hours": 49, "count": 3}, {"id": "x", "domain_id": "d"}],
    }
    path.write_text(json.dumps({"project_id": "p", "policy": "policy.json", "gateways": [gateway]}))

    sample = find_sample(str(path))
    estate = sample.build(BORN, 0)

    assert sample.policy == tmp_path / "policy.json"
    assert estate.project_id == "p"
    assert [c.status for c in estate.gateway("billing").connections] == ["failed"] * 3 + ["accepted"]
    assert estate.gateway("billing").connections[0].created_at == BORN - timedelta(hours=49)
    assert estate.gateway("billing").connections[3].record["domain_id"] == "d"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot read estate"),
        ("[]", "is not an object"),
        ('{"gateway": []}', "unknown gateway; known: project_id, policy, projects, gateways"),
        ('{"gateways": 7}', "gateways is not a list"),
        ('{"policy": 7}', "policy is not a string"),
        ('{"gateways": [{}]}', r"gateways\[0\]: has no name"),
        ('{"projects": [{}]}', r"projects\[0\]: has no id"),
        ('{"gateways": [{"name": "a", "project": "p"}]}', r"gateways\[0\]: project is 'p'; known: none"),
        ('{"gateways": [{"name": "a", "connections": [{"status": "open"}]}]}', r"connections\[0\]: status is 'open'"),
        ('{"gateways": [{"name": "a", "connections": [{"age_hours": "x"}]}]}', r"connections\[0\]: "),
        ('{"gateways": [{"name": "a", "connections": [{"id": "x", "count": 2}]}]}', "has a connection x already"),
    ],
)
def test_wrong_estate_file_says_where(tmp_path, text, said):
    path = tmp_path / "mine.json"
    path.write_text(text)

    with pytest.raises(SampleError, match=said):
        find_sample(str(path))


def test_projects_from_a_file_and_a_broken_region(tmp_path):
    path = tmp_path / "mine.json"
    projects = [
        {"id": "p1", "region": "r1", "domain": "shop", "agency": "reader"},
        {"id": "p2", "region": "r2", "name": "second", "error": "APIC.7106"},
    ]
    path.write_text(json.dumps({"projects": projects, "gateways": [{"name": "till", "project": "p1"}]}))

    estate = find_sample(str(path)).build(BORN, 0)
    result = emulate("--estate", str(path), "--broken", "r2=refuses", "--", sys.executable, "-c", SHOW)

    assert estate.gateway("till").record["project_id"] == "p1"
    assert [planned.project_id for planned in estate.faults] == ["p2"]
    seen = json.loads(result.stdout.splitlines()[0])
    first, second = json.loads(seen["AUDIT_TARGETS"])
    assert first["credentials"] == {"agency": "reader", "domain": "shop"}
    assert (second["name"], second["region"], second["project_id"]) == ("second", "r2", "p2")
    assert first["endpoint"] != second["endpoint"]


def test_story_goes_one_step_further_each_start(tmp_path):
    path = tmp_path / "state.json"
    first = load_story(path)
    save_story(path, first)
    second = load_story(path)
    save_story(path, second)

    assert [first.step, second.step, load_story(path).step] == [0, 1, 2]
    assert second.born == first.born
    assert list(tmp_path.iterdir()) == [path]
    assert load_story(None).step == 0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"born": "x", "step": 1}', '{"born": "2025-08-22", "step": 1}'])
def test_unreadable_state_file_says_what_to_do(tmp_path, text):
    path = tmp_path / "state.json"
    path.write_text(text)

    with pytest.raises(StoryError, match="delete it to begin anew"):
        load_story(path)


def test_command_gets_the_emulators_settings_and_no_real_credentials():
    result = emulate(
        "--",
        sys.executable,
        "-c",
        SHOW,
        HUAWEICLOUD_SDK_AK="real",
        HUAWEICLOUD_SDK_SK="real",
        HUAWEICLOUD_SDK_SECURITY_TOKEN="real",
        AUDIT_TOKEN="real",
        AUDIT_APIG_ENDPOINT="https://real.example",
        AUDIT_RULES="kept",
    )

    environment, _, rest = result.stdout.partition("\n")
    seen = json.loads(environment)
    assert "real" not in seen.values()
    assert "AUDIT_TOKEN" not in seen
    assert seen["AUDIT_APIG_ENDPOINT"].startswith("http://127.0.0.1:")
    assert seen["AUDIT_WEBHOOK_KIND"] == "generic"
    assert seen["AUDIT_RULES"] == "kept"
    assert seen["AUDIT_POLICY"] == str(SAMPLE_POLICY)
    assert rest == "The webhook receiver got no message: nothing changed.\n"
    assert result.returncode == 0


def test_messages_are_shown_with_their_signature_and_body():
    result = emulate("--", sys.executable, "-c", POST)

    assert result.returncode == 0, result.stderr
    assert "got message 1, answered 204:" in result.stdout
    assert "  webhook-id: msg_9" in result.stdout
    assert "  signature: verified" in result.stdout
    assert '{"headline": "two findings"}' in result.stdout


def test_settings_of_the_user_stay():
    result = emulate(
        "--", sys.executable, "-c", SHOW, AUDIT_WEBHOOK_URL="https://mine.example", AUDIT_POLICY="mine.json"
    )

    seen = json.loads(result.stdout.splitlines()[0])
    assert (seen["AUDIT_WEBHOOK_URL"], seen["AUDIT_POLICY"]) == ("https://mine.example", "mine.json")
    assert "AUDIT_WEBHOOK_SECRET" not in seen
    assert "messages go there" in result.stderr


def test_exit_status_and_state_are_kept(tmp_path):
    state = tmp_path / "state.json"
    exits = [
        emulate("--state", str(state), "--", sys.executable, "-c", f"raise SystemExit({n})").returncode for n in (5, 0)
    ]

    assert exits == [5, 0]
    assert json.loads(state.read_text())["step"] == 1


def test_command_that_is_not_there_exits_127():
    result = emulate("--", "no-such-command")

    assert (result.returncode, result.stdout) == (127, "")
    assert "cannot run no-such-command" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--estate", "nope"],
            "unknown estate 'nope'; known: sample, documented, empty, large, landscape, or a FILE.json",
        ),
        (["--estate", "nope.json"], "cannot read estate nope.json"),
        (["--port", "70000"], "70000 is not a port"),
        (["--state", "/nowhere/state.json", "--", "true"], "No such file or directory"),
        (["--broken", "r1=sulks"], "'r1=sulks' is not REGION=HOW; known: refuses, resets, hangs"),
        (["--bogus"], "unrecognized arguments: --bogus"),
    ],
)
def test_wrong_arguments_are_explained_without_a_traceback(capsys, arguments, said):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)

    assert said in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_alone_it_serves_until_a_signal(number):
    with subprocess.Popen(
        [sys.executable, "-m", "tests.emulator", "--estate", "empty"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        settings = dict(process.stdout.readline().removeprefix("export ").strip().split("=") for _ in range(4))
        reply = requests.get(settings["AUDIT_APIG_ENDPOINT"], timeout=5)
        process.send_signal(number)
        assert process.wait(5) == 0
        assert "Traceback" not in process.stderr.read()
    assert reply.status_code == 401


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_command_and_then_the_emulator(tmp_path, number):
    """Ctrl-C reaches both processes from the terminal; SIGTERM reaches the emulator alone, which passes it on."""
    started = tmp_path / "started"
    code = f"import pathlib, time; pathlib.Path({str(started)!r}).touch(); time.sleep(30)"
    with subprocess.Popen(
        [sys.executable, "-m", "tests.emulator", "--", sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        while not started.exists():
            time.sleep(0.01)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        printed, _ = process.communicate(timeout=5)
    assert process.returncode == 128 + number
    assert printed == "The webhook receiver got no message: nothing changed.\n"
