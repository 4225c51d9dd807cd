"""Receivers as the settings name them: every mistake in one line, and no secret in any."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from audit.notify import Wishes
from audit.receivers import Receiver, parse_receivers
from audit.ruleset.problems import Place

SOC: dict[str, Any] = {"name": "soc", "kind": "generic", "url": "https://chat.example/t0ken"}
KNOWN = "generic, slack, teams, feishu, dingtalk, wecom, welink, discord"


def parse(value: Any, **settings: str) -> tuple[tuple[Receiver, ...], list[str]]:
    problems: list[str] = []
    text = value if isinstance(value, str) else json.dumps(value)
    found = parse_receivers(text, Place("AUDIT_RECEIVERS", problems), lambda name: settings.get(name, ""))
    return found, [problem.removeprefix("AUDIT_RECEIVERS") for problem in problems]


def test_a_receiver_says_what_it_wants_to_hear():
    """Defaults are careful ones; values may stand in other settings."""
    full = {
        **SOC, "name": "night", "url": "env:NIGHT_URL", "secret": "env:NIGHT_SECRET", "min_severity": "high",
        "repeat_interval": "P1D", "heartbeat": "P7D", "send_resolved": False,
    }  # fmt: skip
    found, problems = parse([SOC, full], NIGHT_URL="https://night.example/x", NIGHT_SECRET="whsec_c2VjcmV0")
    assert problems == []
    assert found == (
        Receiver("soc", "generic", "https://chat.example/t0ken"),
        Receiver(
            "night",
            "generic",
            "https://night.example/x",
            "whsec_c2VjcmV0",
            Wishes("high", timedelta(days=1), timedelta(days=7), send_resolved=False),
        ),
    )


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("{", ' is not JSON; a list such as [{"name": "soc", "url": "https://..."}] is wanted'),
        ({}, ": an array of receivers is wanted, not an empty object"),
        ([5], "#/0: an object is wanted, not a whole number"),
        ([{"name": "soc", "kind": "generic"}], '#/0: "url" is missing'),
        ([{**SOC, "nmae": "x"}], '#/0/nmae: unknown key "nmae"; did you mean "name"?'),
        ([{**SOC, "name": "Soc"}], "#/0/name: 1 to 40 of a-z, 0-9 and - are wanted"),
        ([{**SOC, "name": "default"}], '#/0/name: the name "default" is taken'),
        ([SOC, SOC], '#/1/name: the name "soc" is taken'),
        ([{**SOC, "kind": "genric"}], '#/0/kind: "genric" is none of ' + KNOWN + '; did you mean "generic"?'),
        ([{**SOC, "url": "http://chat.example/t0ken"}], "#/0/url: must be https (http is for loopback only)"),
        ([{**SOC, "url": 5}], "#/0/url: a URL is wanted, not a whole number"),
        ([{**SOC, "url": ""}], "#/0/url: a URL is wanted, not an empty text"),
        ([{**SOC, "url": None}], "#/0/url: a URL is wanted, not null"),
        ([{**SOC, "url": "env:NOWHERE"}], "#/0/url: the setting NOWHERE is not set"),
        ([{**SOC, "kind": 5}], "#/0/kind: the name of a kind is wanted, not a whole number"),
        ([{**SOC, "kind": "slack"}], "#/0/url: is not at hooks.slack.com, where slack is"),
        ([{**SOC, "kind": "teams"}], "#/0/url: is not at *.logic.azure.com or *.api.powerplatform.com, where teams is"),
        ([{"name": "soc", "url": "https://chat.example/t0ken"}], '#/0: "kind" is missing, '
         "as the host of the URL does not tell it; known: " + KNOWN),
        ([{"name": "soc", "url": "https://discord.com/t0ken", "secret": "t0ken"}],
         "#/0/secret: cannot be used: discord knows no signing; what protects it is its URL"),
        ([{**SOC, "secret": "t0ken"}], '#/0/secret: cannot be used: it must begin with "whsec_", followed by base64'),
        ([{**SOC, "min_severity": "hihg"}], ('#/0/min_severity: "hihg" is none of info, low, medium, high, critical; '
         'did you mean "high"?')),
        ([{**SOC, "repeat_interval": "1d"}], ('#/0/repeat_interval: "1d" is not a duration such as "PT24H" or "P7D" '
         "(days, hours, minutes, seconds)")),
        ([{**SOC, "heartbeat": 7}], '#/0/heartbeat: a duration such as "P1D" is wanted, not a whole number'),
        ([{**SOC, "send_resolved": "no"}], "#/0/send_resolved: true or false is wanted, not a text"),
    ],
)  # fmt: skip
def test_one_mistake_is_one_line_without_secrets(value, problem):
    """Where, what, and the nearest right word."""
    _, problems = parse(value)
    assert [line.removeprefix(":") if line.startswith(": is not JSON") else line for line in problems] == [problem]
    assert "t0ken" not in "".join(problems).replace(problem, "")


def test_the_host_tells_the_kind():
    """A kind that is named wins where it fits; values from other settings count as well."""
    found, problems = parse(
        [
            {"name": "a", "url": "https://hooks.slack.com/services/x"},
            {"name": "b", "url": "env:LARK", "secret": "any text"},
            {"name": "c", "url": "https://OAPI.DINGTALK.COM/robot/send?access_token=x", "kind": "dingtalk"},
            {"name": "d", "url": "http://127.0.0.1:8080/x", "kind": "wecom"},
        ],
        LARK="https://open.larksuite.com/open-apis/bot/v2/hook/x",
    )
    assert problems == []
    assert [receiver.kind for receiver in found] == ["slack", "feishu", "dingtalk", "wecom"]
