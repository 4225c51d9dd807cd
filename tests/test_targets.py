"""The list of targets: what it may say, and one clear line for each thing that is wrong with it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from audit.errors import UsageError
from audit.settings import Settings, Surroundings, load_settings
from audit.targets import Agency, Credentials, Target

KEYS = {"HUAWEICLOUD_SDK_AK": "ak-of-the-test", "HUAWEICLOUD_SDK_SK": "sk-of-the-test"}
WITHOUT: Any = dict.fromkeys(KEYS, "")
OWN = Credentials("own-ak", "own-sk", "own-token")
ONE = {"region": "cn-north-4", "project_id": "p1"}
OTHER = {"region": "cn-north-4", "project_id": "p2"}
KEYED = {"ak": "env:HK_AK", "sk": "env:HK_SK"}
HELD: Any = {"HK_AK": "hk-ak", "HK_SK": "hk-sk"}
SECRET = "AKIASECRETOFTHETEST"


def load(*targets: Any, around: Surroundings | None = None, flags: Any = None, **more: Any) -> Settings:
    environment = {"AUDIT_TARGETS": json.dumps(targets), "AUDIT_STORE": "out", **KEYS, **more}
    return load_settings({n: v for n, v in environment.items() if v}, around or Surroundings(), flags or {})


def problems_of(*targets: Any, flags: Any = None, **more: Any) -> list[str]:
    with pytest.raises(UsageError) as caught:
        load(*targets, flags=flags, **more)
    return list(caught.value.problems)


def test_what_a_target_says_is_read_and_what_it_does_not_say_is_filled_in():
    full = {
        "region": "eu-west-101",
        "project_id": "p9",
        "name": "shop-eu",
        "endpoint": "https://apig.example.com/",
        "gateways": ["g1", "g2"],
        "credentials": {"agency": "apig-audit", "domain": "retail-account"},
    }
    assert load(full, ONE).targets == (
        Target("cn-north-4-p1", "cn-north-4", "p1", "https://apig.cn-north-4.myhuaweicloud.com"),
        Target(
            "shop-eu",
            "eu-west-101",
            "p9",
            "https://apig.example.com",
            ("g1", "g2"),
            Agency("apig-audit", "retail-account"),
        ),
    )
    keyed = load({**ONE, "credentials": KEYED}, **HELD)
    assert keyed.targets[0].credentials == Credentials("hk-ak", "hk-sk")
    assert {"hk-ak", "hk-sk"} <= set(keyed.secrets)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (7, ": an object is wanted, not a whole number"),
        ({"project_id": "p1"}, ': "region" is missing'),
        ({"region": "eu"}, ': "project_id" is missing'),
        ({**ONE, "region": None}, '/region: a region such as "cn-north-4" is wanted, not null'),
        ({**ONE, "region": "CN"}, '/region: "CN" is not a region such as "cn-north-4"'),
        ({**ONE, "region": "eu.evil.example"}, '/region: "eu.evil.example" is not a region such as "cn-north-4"'),
        ({**ONE, "project_id": ""}, "/project_id: a project id is wanted, not an empty text"),
        ({**ONE, "project_id": "../p"}, '/project_id: "../p" is not a project id'),
        ({**ONE, "name": "../up"}, '/name: "../up" is not 1 to 100 of a-z, 0-9 and -'),
        ({**ONE, "name": ["x"]}, "/name: 1 to 100 of a-z, 0-9 and - is wanted, not an array"),
        ({**ONE, "endpoint": "http://apig.example.com"}, "/endpoint: must be https (http is for loopback only)"),
        (
            {**ONE, "endpoint": "https://h/v2"},
            "/endpoint: must be a scheme and a host only, without path or query",
        ),
        ({**ONE, "gateways": []}, "/gateways: an array of gateway ids is wanted, not an empty array"),
        ({**ONE, "gateways": ["g1", "g 2"]}, '/gateways/1: "g 2" is not a gateway id'),
        ({**ONE, "gatways": ["g1"]}, '/gatways: unknown key "gatways"; did you mean "gateways"?'),
        ({**ONE, "credentials": SECRET}, "/credentials: an object is wanted, not a text"),
        ({**ONE, "credentials": {"agency": "a"}}, '/credentials: "domain" is missing'),
        (
            {**ONE, "credentials": {"agency": "a b", "domain": "d"}},
            '/credentials/agency: "a b" is not the name of an agency',
        ),
        ({**ONE, "credentials": {"agency": "a", "domain": "d", "ak": SECRET}}, '/credentials/ak: unknown key "ak"'),
        ({**ONE, "credentials": {"ak": "env:HK_AK"}}, '/credentials: "sk" is missing'),
        (
            {**ONE, "credentials": {"ak": SECRET, "sk": "env:HK_SK"}},
            '/credentials/ak: write "env:NAME", and the key into the setting NAME',
        ),
        (
            {**ONE, "credentials": {"ak": "env:HK_AK", "sk": None}},
            '/credentials/sk: write "env:NAME", and the key into the setting NAME',
        ),
        (
            {**ONE, "credentials": {"ak": "env:HK_AK", "sk": "env:NOWHERE"}},
            "/credentials/sk: the setting NOWHERE is not set",
        ),
        (
            {**ONE, "credentials": {"ak": "env:HK_AK", "sk": "env:BROKEN"}},
            "/credentials/sk: the setting holds a blank or a character that no HTTP header can carry",
        ),
    ],
)
def test_what_is_wrong_is_named_in_one_line_with_its_place(target: Any, said: str):
    (problem,) = problems_of(target, BROKEN=f"{SECRET} {SECRET}", **HELD)
    assert problem.startswith(f"AUDIT_TARGETS#/0{said}")
    assert SECRET not in problem


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "cn-north-4",
            'AUDIT_TARGETS: is not JSON; a list such as [{"region": "cn-north-4", "project_id": "..."}] is wanted',
        ),
        ("[" * 9999, 'AUDIT_TARGETS: is not JSON; a list such as [{"region": "cn-north-4", "project_id": "..."}] is'),
        ("[]", "AUDIT_TARGETS: an array of targets is wanted, not an empty array"),
        ("{}", "AUDIT_TARGETS: an array of targets is wanted, not an empty object"),
    ],
)
def test_what_is_no_list_of_targets_is_said(text: str, said: str):
    (problem,) = problems_of(AUDIT_TARGETS=text)
    assert problem.startswith(said)


def test_the_same_project_twice_and_a_name_that_is_taken():
    assert problems_of(ONE, OTHER, {**ONE, "name": "again"}) == [
        "AUDIT_TARGETS#/2: project p1 in cn-north-4 stands there already"
    ]
    assert problems_of(ONE, {**OTHER, "name": "cn-north-4-p1"}) == [
        'AUDIT_TARGETS#/1/name: the name "cn-north-4-p1" is taken'
    ]
    assert len(load(ONE, {**ONE, "region": "eu-west-101"}).targets) == 2


def test_all_problems_are_said_at_once():
    wrong = [{**ONE, "gateways": "g"}, {"region": "EU"}]
    assert problems_of(*wrong, AUDIT_REGION="cn-north-4", AUDIT_CONCURRENCY="0") == [
        "AUDIT_REGION is set beside AUDIT_TARGETS, where each target says it for itself: remove it",
        "AUDIT_TARGETS#/0/gateways: an array of gateway ids is wanted, not a text",
        'AUDIT_TARGETS#/1: "project_id" is missing',
        'AUDIT_TARGETS#/1/region: "EU" is not a region such as "cn-north-4"',
        "AUDIT_CONCURRENCY must be a whole number from 1 to 256, not '0'",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [("REGION", "eu"), ("PROJECT_ID", "p"), ("GATEWAYS", "g1"), ("APIG_ENDPOINT", "https://apig.example.com")],
)
def test_settings_of_one_target_do_not_stand_beside_many(name: str, value: str):
    tail = "is set beside AUDIT_TARGETS, where each target says it for itself: remove it"
    assert problems_of(ONE, **{f"AUDIT_{name}": value}) == [f"AUDIT_{name} {tail}"]
    if name != "GATEWAYS":
        assert problems_of(ONE, flags={name: value}) == [f"--{name.lower().replace('_', '-')} {tail}"]


def test_the_flag_gateways_limits_a_run_over_many_targets():
    settings = load(ONE, OTHER, flags={"GATEWAYS": "g1,g2"})
    assert settings.gateways == ("g1", "g2")
    assert {target.gateways for target in settings.targets} == {()}


def test_a_token_is_for_one_project():
    assert load(ONE, AUDIT_TOKEN="t", **WITHOUT).credentials.token == "t"
    said = ["AUDIT_TOKEN is good for one project; set HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK for many targets"]
    assert problems_of(ONE, OTHER, AUDIT_TOKEN="t", **WITHOUT) == said
    borrowed = {**ONE, "credentials": {"agency": "a", "domain": "d"}}
    assert problems_of(borrowed, AUDIT_TOKEN="t", **WITHOUT) == said


def test_credentials_of_the_runs_own_are_missed_only_where_they_are_needed():
    keyed = {**ONE, "credentials": KEYED}
    assert load(keyed, **WITHOUT, **HELD).credentials == Credentials()
    missing = ["credentials are missing: set HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK, or AUDIT_TOKEN"]
    assert problems_of(keyed, OTHER, **WITHOUT, **HELD) == missing
    assert problems_of({**OTHER, "credentials": {"agency": "a", "domain": "d"}}, **WITHOUT) == missing
    in_obs: Any = {"AUDIT_STORE": "obs://bucket/apig", "AUDIT_OBS_ENDPOINT": "https://obs.example.com"}
    assert problems_of(keyed, **WITHOUT, **HELD, **in_obs) == missing


def test_credentials_of_the_runs_own_are_there_even_where_no_target_needs_them():
    """OBS and FunctionGraph may, and they are secrets all the same."""
    keyed = {**ONE, "credentials": KEYED}
    assert "sk-of-the-test" in load(keyed, **HELD).secrets
    around = Surroundings(store="", keys=OWN)
    assert load(keyed, around=around, **WITHOUT, **HELD).credentials == OWN


def test_a_store_in_obs_needs_an_endpoint_where_no_region_is_the_runs_own():
    assert problems_of(ONE, AUDIT_STORE="obs://bucket/apig") == ["AUDIT_STORE is in OBS: set AUDIT_OBS_ENDPOINT"]
    store = load(ONE, AUDIT_STORE="obs://bucket/apig", AUDIT_OBS_ENDPOINT="https://obs.example.com").store
    assert str(store / "shards/t1/") == "obs://bucket/apig/shards/t1"
