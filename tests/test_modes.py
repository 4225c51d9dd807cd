"""Fan-out, shards and summaries by every front door: the terminal, a timer, an event by hand, API Gateway."""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any

import pytest

from audit.cli import main
from handler import RunFailed, handler
from tests.emulator import serve
from tests.test_handler import Context, http, timer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.lands import Lands

    Terminal = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith(("AUDIT_", "HUAWEICLOUD_SDK_")):
            monkeypatch.delenv(name)
    yield
    log = logging.getLogger("audit")
    log.handlers.clear()
    log.propagate = True


@pytest.fixture
def terminal(lands: Lands, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    def run(*arguments: str, **more: str) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            for name, value in {**lands.environment(), **more}.items():
                patch.setenv(name, value)
            code = main(["run", *arguments])
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def context(lands: Lands) -> Context:
    user_data = {name: value for name, value in lands.environment().items() if name.startswith("AUDIT_")}
    return Context(lands.estates[0], user_data)


def test_shards_and_a_summary_on_a_terminal(lands: Lands, terminal: Terminal, tmp_path: Path) -> None:
    for target in lands.targets():
        code, out, err = terminal("--mode", "shard", "--target", target["name"])
        assert (code, err) == (1, "")
        assert f"{tmp_path}/store/shards/{target['name']}/runs/" in out
    code, out, err = terminal("--mode", "summarize", "--format", "json")
    summary = json.loads(out)
    assert (code, err) == (1, "")
    assert {entry["state"] for entry in summary["coverage"]} == {"complete"}
    assert [delivery["outcome"] for delivery in summary["deliveries"]] == ["delivered"]
    assert lands.manifest()["mode"] == "summarize"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--mode", "shard"), 'run option "mode": a shard needs the option "target"'),
        (("--target", "t0"), 'run option "target": cannot be given without the mode "shard"'),
        (("--mode", "nightly", "--target", "t0"), 'run option "target": cannot be given without the mode "shard"'),
        (("--mode", "shard", "--target", "t9"), 'unknown target "t9"; known: t2, t0, t3, t1'),
        (("--mode", "shard", "--target", "t0", "--rules", "a"), 'run option "rules": cannot be given beside the mode'),
        (("--mode", "shard", "--target", "t0", "--no-notify"), 'run option "notify": cannot be given beside the mode'),
        (("--mode", "summarize", "--target", "t0"), 'run option "target": cannot be given beside the mode "summarize"'),
        (("--mode", "fan-out", "--dry-run"), 'run option "dry_run": cannot be given beside the mode "fan-out"'),
        (("--mode", "fan-out"), "AUDIT_FUNCTION_URN is missing"),
        (("--mode", "summarize", "--gateways", "g"), "--gateways cannot be given beside --mode"),
        (("--mode", "shard", "--target", "t0", "--gateways", "g"), "--gateways cannot be given beside --mode"),
        (("--mode", "fan-out", "--gateways", "g"), "--gateways cannot be given beside --mode"),
    ],
)
def test_what_does_not_go_together_is_one_line_and_exit_code_2(
    terminal: Terminal, lands: Lands, arguments: tuple[str, ...], said: str
) -> None:
    code, out, err = terminal(*arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert said in err
    assert not [request for estate in lands.estates for request in estate.requests]


def test_the_flag_gateways_limits_a_run_over_many_targets(terminal: Terminal, lands: Lands) -> None:
    wanted = lands.estates[1].gateways[2].id
    code, out, _ = terminal("--gateways", wanted, "--format", "json")
    read = [entry["gateway_id"] for entry in json.loads(out)["coverage"] if entry["state"] != "out_of_scope"]
    assert (code, read) == (1, [wanted])


def test_a_dry_run_of_a_shard_or_a_summary_writes_nothing(terminal: Terminal, lands: Lands, tmp_path: Path) -> None:
    assert terminal("--mode", "shard", "--target", "t0", "--dry-run")[0] == 1
    assert not (tmp_path / "store").exists()
    lands.run_shards()
    before = {path for path in (tmp_path / "store").rglob("*") if path.is_file()}
    assert terminal("--mode", "summarize", "--dry-run")[0] == 1
    assert {path for path in (tmp_path / "store").rglob("*") if path.is_file()} == before
    assert lands.receiver.deliveries == []


def test_a_timer_starts_shards_and_another_one_sums_up(lands: Lands, context: Context) -> None:
    started: list[Any] = []
    with serve(lands.estates[0]) as server:
        function = lands.estates[0].functions.add("apig-audit", lambda event, _: started.append(event))
        context.user_data |= {"AUDIT_FUNCTION_URN": function.urn, "AUDIT_FUNCTION_ENDPOINT": server.url}
        summary = handler(timer('{"mode": "fan-out"}'), context)
        lands.estates[0].functions.drain()
    assert (summary["exit_code"], summary["coverage"], summary["manifest"]) == (0, [], None)
    assert sorted(event["target"] for event in started) == ["t0", "t1", "t2", "t3"]
    for event in started:
        assert handler(event, context)["exit_code"] == 1
    assert handler(timer('{"mode": "summarize"}'), context)["exit_code"] == 1
    assert len(lands.receiver.deliveries) == 1


def test_api_gateway_may_ask_for_them_too(lands: Lands, context: Context) -> None:
    answer = handler(http('{"mode": "shard"}'), context)
    assert answer["statusCode"] == 400
    assert json.loads(answer["body"])["problems"] == [
        'run option "mode": a shard needs the option "target", the name of the target that it reads'
    ]
    answer = handler(http('{"mode": "fan-out"}'), context)
    assert (answer["statusCode"], "AUDIT_FUNCTION_URN is missing" in answer["body"]) == (500, True)
    assert handler(http('{"mode": "shard", "target": "t0"}'), context)["statusCode"] == 200
    lands.run_shards()
    answer = handler(http('{"mode": "summarize"}'), context)
    assert (answer["statusCode"], json.loads(answer["body"])["exit_code"]) == (200, 1)


def test_a_summary_before_any_shard_fails_and_names_each(context: Context) -> None:
    with pytest.raises(RunFailed) as caught:
        handler({"mode": "summarize"}, context)
    assert all(f"shard t{number} has left no run yet" in str(caught.value) for number in range(4))
