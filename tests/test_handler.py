"""The function's front door: every kind of event, and every way to fail."""

import base64
import json
import logging
import os
from datetime import timedelta
from typing import Any

import pytest

import handler as front_door
from audit.huawei.function import MARGIN_SECONDS, environment_of, parse_event, surroundings_of
from handler import RunFailed, handler, initializer
from tests.emulator import Body, Estate, Forbidden, receive, serve
from tests.emulator.connection import DOMAIN_ID

SUMMARY = {"run_id", "exit_code", "counts", "coverage", "manifest", "report", "deliveries", "problems"}


class Context:
    """The platform's context, with nothing but the documented methods that are used here."""

    def __init__(self, estate: Estate, user_data: dict[str, str], seconds: float = 60.0) -> None:
        self.estate, self.user_data, self.seconds = estate, user_data, seconds

    def getUserData(self, key: str) -> "str | None":  # noqa: N802
        return self.user_data.get(key)

    def getSecurityAccessKey(self) -> str:  # noqa: N802
        return self.estate.access_key

    def getSecuritySecretKey(self) -> str:  # noqa: N802
        return self.estate.secret_key

    def getSecurityToken(self) -> "str | None":  # noqa: N802
        return self.estate.security_token

    def getProjectID(self) -> str:  # noqa: N802
        return self.estate.project_id

    def getRemainingTimeInMilliSeconds(self) -> int:  # noqa: N802
        return int(self.seconds * 1000)


def timer(user_event: str = "", version: str = "v1.0") -> dict[str, Any]:
    return {
        "version": version,
        "time": "2026-11-22T08:15:00+08:00",
        "trigger_type": "TIMER",
        "trigger_name": "nightly",
        "user_event": user_event,
    }


def http(body: "str | None" = "", *, encoded: bool = False) -> dict[str, Any]:
    if encoded and body is not None:
        body = base64.b64encode(body.encode()).decode()
    return {
        "body": body,
        "requestContext": {"apiId": "a", "requestId": "r", "stage": "RELEASE"},
        "queryStringParameters": {},
        "httpMethod": "POST",
        "pathParameters": {},
        "headers": {"content-type": "application/json"},
        "path": "/audit",
        "isBase64Encoded": encoded,
    }


def answer_of(event: object, context: Context) -> tuple[int, str, dict[str, Any]]:
    """Status, content type and body of an HTTP answer, which has the four keys that the platform wants."""
    answer = handler(event, context)
    assert set(answer) == {"statusCode", "isBase64Encoded", "headers", "body"}
    assert answer["isBase64Encoded"] is False
    return answer["statusCode"], answer["headers"]["Content-Type"], json.loads(answer["body"])


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for name in os.environ:
        if name.startswith(("AUDIT_", "HUAWEICLOUD_SDK_")):
            monkeypatch.delenv(name)
    yield
    log = logging.getLogger("audit")
    log.handlers.clear()
    log.propagate = True


@pytest.fixture
def estate():
    estate = Estate(security_token="security-token-of-the-test")
    estate.add_gateway("billing").add_connection(status="pendingAcceptance", age=timedelta(hours=48))
    return estate


@pytest.fixture
def context(estate, tmp_path):
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"lists": {"approved-domains": [DOMAIN_ID]}}))
    with serve(estate) as served:
        user_data = {"AUDIT_APIG_ENDPOINT": served.url, "AUDIT_POLICY": str(policy)}
        yield Context(estate, {**user_data, "AUDIT_STORE": (tmp_path / "out").as_uri()})


def manifest_of(summary: dict[str, Any], context: Context) -> dict[str, Any]:
    store = context.user_data["AUDIT_STORE"].removeprefix("file://")
    with open(f"{store}/{summary['manifest']['key']}", "rb") as stored:  # noqa: PTH123
        manifest: dict[str, Any] = json.load(stored)
    return manifest


@pytest.mark.parametrize("version", ["v1.0", "v2.0"])
@pytest.mark.parametrize("user_event", ["", " ", "{}"])
def test_a_timer_makes_a_full_scheduled_run_with_the_agencys_keys(version, user_event, context, estate):
    summary = handler(timer(user_event, version), context)
    assert set(summary) == SUMMARY
    assert (summary["exit_code"], summary["counts"]["by_severity"]["medium"]) == (1, 1)
    assert manifest_of(summary, context)["mode"] == "scheduled"
    assert estate.refusals == []
    assert estate.requests[0].headers["x-security-token"] == "security-token-of-the-test"


def test_a_timers_user_event_holds_run_options(context):
    summary = handler(timer('{"mode": "weekly", "rules": ["no-failed-connections"]}'), context)
    assert (summary["exit_code"], manifest_of(summary, context)["mode"]) == (0, "weekly")


@pytest.mark.parametrize("event", [{}, None])
def test_by_hand_an_empty_event_is_a_full_manual_run(event, context):
    summary = handler(event, context)
    assert (summary["exit_code"], manifest_of(summary, context)["mode"]) == (1, "manual")


def test_by_hand_the_event_is_the_run_options(context):
    summary = handler({"dry_run": True, "gateways": [context.estate.gateways[0].id]}, context)
    assert (summary["manifest"], summary["exit_code"]) == (None, 1)


def test_the_result_is_plain_json(context):
    result = handler({}, context)
    assert json.loads(json.dumps(result)) == result


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("body", ["", "{}", '{"mode": "\\u0061pi"}'])
def test_over_http_the_summary_is_answered(body, encoded, context):
    status, content_type, summary = answer_of(http(body, encoded=encoded), context)
    assert (status, content_type, set(summary)) == (200, "application/json", SUMMARY)
    assert manifest_of(summary, context)["mode"] == ("api" if "mode" in body else "manual")


def test_over_http_no_body_at_all_is_a_full_run(context):
    assert answer_of(http(None), context)[0] == 200


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (http('{"dryrun": true}'), 'unknown run option "dryrun"; did you mean "dry_run"?'),
        (http('{"dryrun": true}', encoded=True), 'unknown run option "dryrun"; did you mean "dry_run"?'),
        (http('{"rules": ["pending"]}'), 'there is no rule "pending"'),
        (http("[1]"), "run options are a JSON object, not an array"),
        (http("null"), "run options are a JSON object, not null"),
        (http("dry_run=1"), 'the request body is not JSON; run options are a JSON object such as {"dry_run": true}'),
        (http("[" * 100_000), "the request body is not JSON"),
        ({**http("?"), "isBase64Encoded": True}, "the request body is not base64 of UTF-8 text"),
        ({**http("/w=="), "isBase64Encoded": True}, "the request body is not base64 of UTF-8 text"),
    ],
)
def test_over_http_bad_options_are_400_with_every_problem_before_anything_is_read(event, said, context, estate):
    status, content_type, problem = answer_of(event, context)
    assert (status, content_type) == (400, "application/problem+json")
    assert (problem["type"], problem["title"], problem["status"]) == ("about:blank", "bad run options", 400)
    assert problem["problems"][0].startswith(said)
    assert problem["detail"] == "\n".join(problem["problems"])
    assert estate.requests == []


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"dryrun": True}, 'unknown run option "dryrun"; did you mean "dry_run"?'),
        ({"trigger_type": "SMN"}, 'unknown run option "trigger_type"'),
        ([1], "run options are a JSON object, not an array"),
        (timer("nightly"), "user_event is not JSON"),
        (timer("[1]"), "run options are a JSON object, not an array"),
    ],
)
def test_bad_options_fail_the_invocation_before_anything_is_read(event, said, context, estate):
    with pytest.raises(RunFailed) as failed:
        handler(event, context)
    assert str(failed.value).startswith(said)
    assert estate.requests == []


def test_wrong_settings_fail_the_invocation_with_all_problems_on_one_line(context, estate):
    del context.user_data["AUDIT_STORE"]
    context.user_data["AUDIT_TIME_LIMIT"] = "soon"
    with pytest.raises(RunFailed, match=r"^AUDIT_STORE is missing; in the function .*; AUDIT_TIME_LIMIT must be") as e:
        handler(timer(), context)
    assert "\n" not in str(e.value)
    assert estate.requests == []


def test_over_http_wrong_settings_are_500_with_every_problem(context, estate):
    del context.user_data["AUDIT_STORE"]
    context.user_data["AUDIT_POLICY"] = "obs://b/p"
    status, content_type, problem = answer_of(http(), context)
    assert (status, content_type, problem["status"]) == (500, "application/problem+json", 500)
    assert problem["title"] == "wrong settings, rules or policy"
    assert [text.split()[0] for text in problem["problems"]] == ["AUDIT_POLICY", "AUDIT_STORE"]
    assert estate.requests == []


def test_a_misspelt_setting_in_the_environment_is_a_problem_here_too(context, monkeypatch):
    monkeypatch.setenv("AUDIT_WEBHOOK", "https://h")
    with pytest.raises(RunFailed, match="AUDIT_WEBHOOK is not a setting"):
        handler({}, context)


def test_a_run_that_covered_nothing_fails_after_it_was_recorded(context, estate, tmp_path):
    estate.fail(Forbidden(), kind="connections", times=None)
    with pytest.raises(RunFailed, match=r"^run 2\d+T\d+Z-[0-9a-f]{6}: nothing was covered; HTTP 403 APIC.7106 "):
        handler(timer(), context)
    assert (tmp_path / "out/latest.json").exists()


def test_over_http_a_failed_run_is_500_with_its_summary(context, estate):
    estate.fail(Forbidden(), kind="connections", times=None)
    status, content_type, problem = answer_of(http(), context)
    assert (status, content_type, problem["title"]) == (500, "application/problem+json", "the run failed")
    assert (problem["summary"]["exit_code"], problem["summary"]["coverage"][0]["state"]) == (4, "not_covered")


def test_a_run_that_could_not_be_recorded_fails(context, tmp_path):
    (tmp_path / "out").write_text("a file in the way")
    with pytest.raises(RunFailed, match=r"the run could not be recorded; .*out"):
        handler(timer(), context)


def test_lost_coverage_is_no_failed_invocation(context, estate):
    estate.fail(Forbidden(), gateway=estate.add_gateway("locked"), times=None)
    assert handler(timer(), context)["exit_code"] == 3
    assert answer_of(http(), context)[0] == 200


def stumble(*_arguments: object, **_more: object) -> None:
    raise KeyError("secret")


def test_a_defect_of_ours_is_named_without_its_text(context, monkeypatch):
    monkeypatch.setattr(front_door, "perform", stumble)
    with pytest.raises(RunFailed, match=r"^internal error \(KeyError in ") as failed:
        handler(timer(), context)
    assert failed.value.__suppress_context__  # or the platform would log the other text after all
    status, content_type, problem = answer_of(http(), context)
    assert (status, content_type, problem["title"]) == (500, "application/problem+json", "the run failed")
    assert "secret" not in f"{failed.value}{problem}"


def test_secrets_that_a_server_echoes_are_in_no_answer_and_no_failure(context, estate):
    echo = f"{estate.secret_key} {estate.access_key} {estate.security_token}"
    error = json.dumps({"error_code": "APIC.7106", "error_msg": echo}).encode()
    estate.fail(Body(403, error), kind="connections", times=None)
    with pytest.raises(RunFailed) as failed:
        handler({}, context)
    for said in (str(failed.value), json.dumps(answer_of(http(), context))):
        assert "***" in said
        assert not [secret for secret in echo.split() if secret in said]


def test_the_receiver_of_the_user_data_is_told(context):
    with receive(secret=None) as listening:
        context.user_data |= {"AUDIT_WEBHOOK_URL": listening.url, "AUDIT_WEBHOOK_KIND": "generic"}
        assert [item["outcome"] for item in handler(timer(), context)["deliveries"]] == ["delivered"]
    assert len(listening.deliveries) == 1


def test_user_data_wins_over_the_environment_which_fills_what_it_leaves_open(context):
    context.user_data = {"AUDIT_STORE": "user data", "AUDIT_REGION": ""}
    environment = {"AUDIT_STORE": "environment", "AUDIT_REGION": "environment", "PATH": "/bin"}
    assert environment_of(context, environment) == {
        "AUDIT_STORE": "user data",
        "AUDIT_REGION": "environment",
        "PATH": "/bin",
    }


@pytest.mark.parametrize(("seconds", "limit"), [(259200.0, 259200.0 - MARGIN_SECONDS), (30.0, 10.0), (5.0, 1.0)])
def test_a_run_has_the_time_that_is_left_less_a_margin_and_never_none(seconds, limit, context):
    context.seconds = seconds
    around = surroundings_of(context)
    assert around.time_limit == around.most_time == limit


def test_the_kind_of_an_event_decides_mode_and_answer():
    kinds = {(parse_event(event).mode, parse_event(event).http) for event in ({}, None, timer(), http())}
    assert kinds == {("manual", False), ("scheduled", False), ("manual", True)}


def test_the_initializer_judges_nothing(context):
    context.user_data = {}
    initializer(context)
