"""Settings and run options: what is right, what is wrong, and that every mistake is named at once."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from audit.errors import OptionsError, UsageError
from audit.options import RunOptions, parse_options
from audit.render.kinds import KINDS
from audit.settings import (
    LONGEST_RUN,
    RULES_BESIDE_HANDLER,
    SETTINGS,
    ObsPlace,
    Settings,
    Surroundings,
    load_rule_places,
    load_settings,
    load_store,
)
from audit.targets import Credentials

OBS_NAMES = (
    "; a bucket has 3 to 63 of a-z, 0-9 and -, a prefix has A-Z, a-z, 0-9, - _ . and /, "
    "and no part of it begins with a period"
)
SECRETS = {
    "HUAWEICLOUD_SDK_AK": "ak-of-the-test",
    "HUAWEICLOUD_SDK_SK": "sk-of-the-test",
    "HUAWEICLOUD_SDK_SECURITY_TOKEN": "security-token-of-the-test",
    "AUDIT_TOKEN": "token-of-the-test",
    "AUDIT_WEBHOOK_URL": "https://hooks.example.com/path-of-the-test",
    "AUDIT_WEBHOOK_SECRET": "whsec_c2VjcmV0IG9mIHRoZSB0ZXN0",
}
KEYS = {name: SECRETS[name] for name in ("HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_SK")}
RIGHT = {"AUDIT_REGION": "cn-north-4", "AUDIT_PROJECT_ID": "0f5181caba00", **KEYS}
OWN = Credentials("own-ak", "own-sk", "own-token")
IN_FUNCTION = Surroundings(project_id="own-project", store="", time_limit=40.0, most_time=40.0, keys=OWN)


def load(flags: Any = None, **changes: str) -> Settings:
    return load_settings({**RIGHT, **changes}, Surroundings(), flags or {})


def problems_of(flags: Any = None, *, without: Collection[str] = (), **changes: str) -> list[str]:
    environment = {name: value for name, value in {**RIGHT, **changes}.items() if name not in without}
    with pytest.raises(UsageError) as caught:
        load_settings(environment, Surroundings(), flags or {})
    return list(caught.value.problems)


def test_the_defaults_are_those_of_the_contract():
    settings = load()
    assert settings.targets[0].endpoint == "https://apig.cn-north-4.myhuaweicloud.com"
    assert (settings.targets[0].gateways, settings.policy, settings.receivers) == ((), None, ())
    assert (settings.rules_dir, settings.store) == (RULES_BESIDE_HANDLER, Path("out"))
    assert (settings.concurrency, settings.time_limit, settings.log_level) == (16, 600, "INFO")
    assert settings.credentials == Credentials("ak-of-the-test", "sk-of-the-test")


@pytest.mark.parametrize(
    ("name", "value", "attribute", "read"),
    [
        ("AUDIT_REGION", " eu-west-101 ", "endpoint", "https://apig.eu-west-101.myhuaweicloud.eu"),
        ("AUDIT_PROJECT_ID", "p-1_A", "project_id", "p-1_A"),
        ("AUDIT_GATEWAYS", "g1, g2,g1", "gateways", ("g1", "g2")),
        ("AUDIT_APIG_ENDPOINT", "https://apig.example.com:8443/", "endpoint", "https://apig.example.com:8443"),
        ("AUDIT_APIG_ENDPOINT", "http://127.0.0.1:1", "endpoint", "http://127.0.0.1:1"),
        ("AUDIT_APIG_ENDPOINT", "http://[::1]:1", "endpoint", "http://[::1]:1"),
        ("AUDIT_APIG_ENDPOINT", "http://localhost", "endpoint", "http://localhost"),
        ("AUDIT_RULES_DIR", "my rules", "rules_dir", Path("my rules")),
        ("AUDIT_RULES_DIR", "file:///my/rules", "rules_dir", Path("/my/rules")),
        ("AUDIT_POLICY", "p.json", "policy", Path("p.json")),
        ("AUDIT_POLICY", "file:///p.json", "policy", Path("/p.json")),
        ("AUDIT_STORE", "file:///mnt/my%20evidence", "store", Path("/mnt/my evidence")),
        ("AUDIT_STORE", "./网关", "store", Path("网关")),
        ("AUDIT_CONCURRENCY", "1", "concurrency", 1),
        ("AUDIT_CONCURRENCY", "256", "concurrency", 256),
        ("AUDIT_TIME_LIMIT", "1", "time_limit", 1),
        ("AUDIT_TIME_LIMIT", str(LONGEST_RUN), "time_limit", LONGEST_RUN),
        ("AUDIT_LOG_LEVEL", "debug", "log_level", "DEBUG"),
    ],
)
def test_a_right_value_is_read(name, value, attribute, read):
    settings = load(**{name: value})
    assert getattr(settings, attribute, None) == read or getattr(settings.targets[0], attribute, None) == read


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AUDIT_REGION", "CN North", "AUDIT_REGION is not a region such as \"cn-north-4\": 'CN North'"),
        ("AUDIT_PROJECT_ID", "a/b", "AUDIT_PROJECT_ID is not a project id: 'a/b'"),
        (
            "AUDIT_GATEWAYS",
            "g1,g 2",
            "AUDIT_GATEWAYS holds 'g 2', which is not a gateway id; separate ids by one comma",
        ),
        ("AUDIT_GATEWAYS", "g1,", "AUDIT_GATEWAYS holds '', which is not a gateway id; separate ids by one comma"),
        ("AUDIT_APIG_ENDPOINT", "apig.example.com", "AUDIT_APIG_ENDPOINT is not a URL such as https://host/path"),
        ("AUDIT_APIG_ENDPOINT", "https://h:99999", "AUDIT_APIG_ENDPOINT is not a URL"),
        ("AUDIT_APIG_ENDPOINT", "https://h:0", "AUDIT_APIG_ENDPOINT is not a URL such as https://host/path"),
        ("AUDIT_APIG_ENDPOINT", "https://", "AUDIT_APIG_ENDPOINT is not a URL such as https://host/path"),
        ("AUDIT_APIG_ENDPOINT", "https://h\u00f6st", "AUDIT_APIG_ENDPOINT is not a URL such as https://host/path"),
        ("AUDIT_APIG_ENDPOINT", "ftp://h", "AUDIT_APIG_ENDPOINT is not a URL such as https://host/path"),
        ("AUDIT_APIG_ENDPOINT", "https://u:p@h", "AUDIT_APIG_ENDPOINT must hold neither a user name nor a fragment"),
        (
            "AUDIT_APIG_ENDPOINT",
            "https://h/v2",
            "AUDIT_APIG_ENDPOINT must be a scheme and a host only, without path or query",
        ),
        ("AUDIT_APIG_ENDPOINT", "http://10.0.0.1", "AUDIT_APIG_ENDPOINT must be https (http is for loopback only)"),
        (
            "AUDIT_APIG_ENDPOINT",
            "http://localhost.evil.example",
            "AUDIT_APIG_ENDPOINT must be https (http is for loopback only)",
        ),
        ("AUDIT_STORE", "obs://b/prefix", f"AUDIT_STORE is not \"obs://bucket/prefix\": 'obs://b/prefix'{OBS_NAMES}"),
        ("AUDIT_STORE", "obs://my.bucket", f"AUDIT_STORE is not \"obs://bucket/prefix\": 'obs://my.bucket'{OBS_NAMES}"),
        ("AUDIT_POLICY", "obs://bkt/../p", f"AUDIT_POLICY is not \"obs://bucket/prefix\": 'obs://bkt/../p'{OBS_NAMES}"),
        (
            "AUDIT_POLICY",
            "obs://bkt",
            "AUDIT_POLICY names a bucket; name the object, e.g. obs://bucket/policy.json",
        ),
        ("AUDIT_OBS_ENDPOINT", "obs.example.com", "AUDIT_OBS_ENDPOINT is not a URL such as https://host/path"),
        ("AUDIT_OBS_ENDPOINT", "http://10.0.0.1", "AUDIT_OBS_ENDPOINT must be https (http is for loopback only)"),
        ("AUDIT_OBS_KMS_KEY", "a", "AUDIT_OBS_KMS_KEY is set, but AUDIT_STORE is not in OBS"),
        (
            "AUDIT_STORE",
            "file:relative",
            'AUDIT_STORE must be a path, "file:///path" or "obs://bucket/prefix", not \'file:relative\'',
        ),
        ("AUDIT_STORE", "file:///a%00b", "AUDIT_STORE holds a character that cannot be shown: 'file:///a%00b'"),
        (
            "AUDIT_RULES_DIR",
            "obs://b",
            f"AUDIT_RULES_DIR is not \"obs://bucket/prefix\": 'obs://b'{OBS_NAMES}",
        ),
        (
            "AUDIT_POLICY",
            "file://host/p",
            'AUDIT_POLICY must be a path, "file:///path" or "obs://bucket/prefix", not \'file://host/p\'',
        ),
        ("AUDIT_CONCURRENCY", "0", "AUDIT_CONCURRENCY must be a whole number from 1 to 256, not '0'"),
        ("AUDIT_CONCURRENCY", "257", "AUDIT_CONCURRENCY must be a whole number from 1 to 256, not '257'"),
        ("AUDIT_CONCURRENCY", "\u0664", "AUDIT_CONCURRENCY must be a whole number from 1 to 256, not '\u0664'"),
        ("AUDIT_TIME_LIMIT", "1.5", "AUDIT_TIME_LIMIT must be a whole number from 1 to 259200, not '1.5'"),
        ("AUDIT_TIME_LIMIT", "-1", "AUDIT_TIME_LIMIT must be a whole number from 1 to 259200, not '-1'"),
        ("AUDIT_LOG_LEVEL", "loud", "AUDIT_LOG_LEVEL is not one of DEBUG, INFO, WARNING, ERROR: 'loud'"),
        ("AUDIT_WEBHOOK_KIND", "generic", "AUDIT_WEBHOOK_KIND is set, but AUDIT_WEBHOOK_URL is not"),
        ("AUDIT_WEBHOOK_SECRET", "whsec_YWJj", "AUDIT_WEBHOOK_SECRET is set, but AUDIT_WEBHOOK_URL is not"),
    ],
)
def test_a_wrong_value_is_the_one_problem_and_named_with_the_fix(name, value, said):
    assert problems_of(**{name: value}) == [said]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_an_empty_variable_counts_as_absent(setting):
    name = f"AUDIT_{setting.name}"
    empty = {**RIGHT, "AUDIT_APIG_ENDPOINT": "https://h"} if name == "AUDIT_REGION" else RIGHT
    around = Surroundings(project_id="p1")
    absent = {key: value for key, value in empty.items() if key != name}
    assert load_settings({**empty, name: ""}, around, {}) == load_settings(absent, around, {})
    assert load_settings({**empty, name: " "}, around, {}) == load_settings(absent, around, {})


def test_a_region_is_needed_only_without_an_endpoint():
    settings = load_settings({"AUDIT_APIG_ENDPOINT": "https://h", "AUDIT_PROJECT_ID": "p1", **KEYS}, Surroundings(), {})
    assert (settings.targets[0].region, settings.targets[0].endpoint) == ("", "https://h")
    (problem,) = problems_of(without=["AUDIT_REGION"])
    assert problem.startswith("AUDIT_REGION is missing; set it to the region of the gateways")


def test_a_project_is_needed_where_the_platform_names_none():
    assert problems_of(without=["AUDIT_PROJECT_ID"]) == [
        "AUDIT_PROJECT_ID is missing; the console shows it under My Credentials"
    ]


@pytest.mark.parametrize(
    ("name", "tail"),
    [
        ("AUDIT_WEBHOK_URL", '; did you mean "AUDIT_WEBHOOK_URL"?'),
        ("AUDIT_WEBHOOK", '; did you mean "AUDIT_WEBHOOK_URL"?'),
        ("AUDIT_store", '; did you mean "AUDIT_STORE"?'),
        ("AUDIT_PROJECT", '; did you mean "AUDIT_PROJECT_ID"?'),
        ("AUDIT_LOGLEVEL", '; did you mean "AUDIT_LOG_LEVEL"?'),
    ],
)
def test_a_misspelt_name_is_a_problem_that_names_the_nearest_setting(name, tail):
    assert problems_of(**{name: "some-value"}) == [f"{name} is not a setting{tail}"]


def test_a_name_that_is_near_to_nothing_is_told_what_there_is():
    (problem,) = problems_of(AUDIT_DB_PASSWORD="hunter2")
    assert problem.startswith("AUDIT_DB_PASSWORD is not a setting; known: AUDIT_REGION, AUDIT_PROJECT_ID, ")
    assert "hunter2" not in problem


def test_other_peoples_variables_and_empty_unknown_ones_are_no_business_of_ours():
    assert load(AUDITOR="x", MY_AUDIT_STORE="x", AUDIT_NOTHING="") == load()


def test_all_problems_are_reported_at_once():
    problems = problems_of(
        {"CONCURRENCY": "none", "STORE": " "},
        without=RIGHT.keys() - {"HUAWEICLOUD_SDK_AK"},
        AUDIT_REGIO="x",
        AUDIT_TIME_LIMIT="x",
        AUDIT_LOG_LEVEL="x",
        AUDIT_GATEWAYS="?",
        AUDIT_POLICY="obs://x",
        AUDIT_WEBHOOK_URL="x",
    )
    names = (
        "--store AUDIT_REGIO AUDIT_REGION AUDIT_PROJECT_ID AUDIT_GATEWAYS AUDIT_POLICY AUDIT_WEBHOOK_URL "
        "HUAWEICLOUD_SDK_SK --concurrency AUDIT_TIME_LIMIT AUDIT_LOG_LEVEL"
    )
    assert [problem.partition(" ")[0] for problem in problems] == names.split()


def test_a_flag_wins_over_the_environment_and_is_named_in_its_own_words():
    assert load({"PROJECT_ID": "flagged", "TIME_LIMIT": "7"}).targets[0].project_id == "flagged"
    assert problems_of({"TIME_LIMIT": "x"}, AUDIT_TIME_LIMIT="5") == [
        "--time-limit must be a whole number from 1 to 259200, not 'x'"
    ]


def test_a_flag_without_a_value_is_a_mistake_and_not_the_default():
    assert problems_of({"GATEWAYS": ""}) == ["--gateways is given without a value"]


def test_the_webhook_becomes_one_receiver_named_default():
    (receiver,) = load(
        AUDIT_WEBHOOK_URL=SECRETS["AUDIT_WEBHOOK_URL"],
        AUDIT_WEBHOOK_KIND="generic",
        AUDIT_WEBHOOK_SECRET=SECRETS["AUDIT_WEBHOOK_SECRET"],
    ).receivers
    assert (receiver.name, receiver.kind, receiver.url, receiver.secret) == (
        "default",
        "generic",
        SECRETS["AUDIT_WEBHOOK_URL"],
        SECRETS["AUDIT_WEBHOOK_SECRET"],
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"AUDIT_WEBHOOK_KIND": ""},
            f"AUDIT_WEBHOOK_KIND is missing, as the host of the URL does not tell it; known: {', '.join(KINDS)}",
        ),
        (
            {"AUDIT_WEBHOOK_KIND": "pager"},
            f'AUDIT_WEBHOOK_KIND "pager" is none of {", ".join(KINDS)}',
        ),
        ({"AUDIT_WEBHOOK_KIND": "slack"}, "AUDIT_WEBHOOK_URL is not at hooks.slack.com, where slack is"),
        (
            {"AUDIT_WEBHOOK_URL": "https://hooks.slack.com/services/x"},
            "AUDIT_WEBHOOK_URL is one of slack, not of generic",
        ),
        (
            {
                "AUDIT_WEBHOOK_URL": "https://hooks.slack.com/services/x",
                "AUDIT_WEBHOOK_KIND": "",
                "AUDIT_WEBHOOK_SECRET": "of-the-test",
            },
            "AUDIT_WEBHOOK_SECRET cannot be used: slack knows no signing; what protects it is its URL",
        ),
        ({"AUDIT_WEBHOOK_URL": "http://h/x"}, "AUDIT_WEBHOOK_URL must be https (http is for loopback only)"),
        ({"AUDIT_WEBHOOK_URL": "https://h/a b"}, "AUDIT_WEBHOOK_URL is not a URL such as https://host/path"),
        (
            {"AUDIT_WEBHOOK_SECRET": "YWJj"},
            'AUDIT_WEBHOOK_SECRET cannot be used: it must begin with "whsec_", followed by base64',
        ),
        (
            {"AUDIT_WEBHOOK_SECRET": "whsec_?"},
            'AUDIT_WEBHOOK_SECRET cannot be used: what follows "whsec_" is not base64',
        ),
        ({"AUDIT_WEBHOOK_SECRET": "whsec_"}, 'AUDIT_WEBHOOK_SECRET cannot be used: nothing follows "whsec_"'),
    ],
)
def test_a_wrong_receiver_is_named_without_its_secrets(changes, said):
    assert problems_of(
        **{"AUDIT_WEBHOOK_URL": "https://h/x", "AUDIT_WEBHOOK_KIND": "generic", "AUDIT_WEBHOOK_SECRET": "", **changes}
    ) == [said]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "credentials are missing: set HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK, or AUDIT_TOKEN"),
        (
            {"HUAWEICLOUD_SDK_SECURITY_TOKEN": "s"},
            "credentials are missing: set HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK, or AUDIT_TOKEN",
        ),
        ({"HUAWEICLOUD_SDK_AK": "a"}, "HUAWEICLOUD_SDK_SK is missing; an access key has two parts"),
        ({"HUAWEICLOUD_SDK_SK": "s"}, "HUAWEICLOUD_SDK_AK is missing; an access key has two parts"),
        (
            {**KEYS, "AUDIT_TOKEN": "t"},
            "two kinds of credentials are set: remove AUDIT_TOKEN or HUAWEICLOUD_SDK_*",
        ),
        (
            {"HUAWEICLOUD_SDK_SECURITY_TOKEN": "s", "AUDIT_TOKEN": "t"},
            "two kinds of credentials are set: remove AUDIT_TOKEN or HUAWEICLOUD_SDK_*",
        ),
        ({"AUDIT_TOKEN": "t\nt"}, "AUDIT_TOKEN holds a blank or a character that no HTTP header can carry"),
        (
            {**KEYS, "HUAWEICLOUD_SDK_SK": "sch\u00f6n"},
            "HUAWEICLOUD_SDK_SK holds a blank or a character that no HTTP header can carry",
        ),
    ],
)
def test_credentials_are_of_one_kind_and_whole(keys, said):
    assert problems_of(without=KEYS.keys() - keys.keys(), **keys) == [said]


def test_a_token_alone_and_temporary_keys_are_credentials():
    environment = {"AUDIT_REGION": "r", "AUDIT_PROJECT_ID": "p"}
    assert load_settings({**environment, "AUDIT_TOKEN": "t"}, Surroundings(), {}).credentials == Credentials(token="t")
    assert load(HUAWEICLOUD_SDK_SECURITY_TOKEN="s").credentials.security_token == "s"


def test_the_function_brings_its_project_its_keys_and_its_time_but_must_be_told_the_store():
    environment = {"AUDIT_REGION": "r", "AUDIT_STORE": "file:///mnt"}
    settings = load_settings(environment, IN_FUNCTION, {})
    assert (settings.targets[0].project_id, settings.credentials, settings.time_limit) == ("own-project", OWN, 40)
    with pytest.raises(UsageError, match=r"^AUDIT_STORE is missing; in the function say where runs are kept"):
        load_settings({"AUDIT_REGION": "r"}, IN_FUNCTION, {})


def test_a_time_limit_in_the_function_can_shorten_but_not_lengthen_the_time_left():
    environment = {"AUDIT_REGION": "r", "AUDIT_STORE": "file:///mnt"}
    assert load_settings({**environment, "AUDIT_TIME_LIMIT": "500"}, IN_FUNCTION, {}).time_limit == 40
    assert load_settings({**environment, "AUDIT_TIME_LIMIT": "5"}, IN_FUNCTION, {}).time_limit == 5


@pytest.mark.parametrize("name", ["AUDIT_TOKEN", "HUAWEICLOUD_SDK_AK"])
def test_other_credentials_beside_the_functions_own_are_two_kinds(name):
    environment = {"AUDIT_REGION": "r", "AUDIT_STORE": "file:///mnt", name: "x"}
    with pytest.raises(UsageError, match=f"^{name}: set, but the function has the keys of its agency; remove it$"):
        load_settings(environment, IN_FUNCTION, {})


def test_a_function_without_an_agency_is_told_to_get_one():
    around = Surroundings(project_id="p", store="", keys=Credentials())
    with pytest.raises(UsageError, match=r"^the function has no keys: give it an agency"):
        load_settings({"AUDIT_REGION": "r", "AUDIT_STORE": "file:///mnt"}, around, {})


def test_no_problem_repeats_a_secret():
    spoiled = {name: f"{value}\t?" for name, value in SECRETS.items()}
    for changes in (SECRETS, spoiled, {**SECRETS, "AUDIT_WEBHOOK_URL": "http://h.example/path-of-the-test"}):
        said = "\n".join(problems_of(**changes))
        assert not re.search(r"of-the-test|c2VjcmV0", said)


def test_settings_and_credentials_show_no_secret_when_printed():
    settings = load(
        AUDIT_WEBHOOK_KIND="generic",
        **{name: value for name, value in SECRETS.items() if name != "AUDIT_TOKEN"},
    )
    assert not re.search(r"-of-the-test|c2VjcmV0", repr(settings))
    assert set(settings.secrets) == {value for name, value in SECRETS.items() if name != "AUDIT_TOKEN"}


def test_the_store_alone_is_read_without_keys_but_never_past_a_misspelt_name():
    assert load_store({"AUDIT_STORE": "/evidence"}, Surroundings(), {}) == Path("/evidence")
    with pytest.raises(UsageError, match="AUDIT_STOR is not a setting"):
        load_store({"AUDIT_STOR": "/evidence"}, Surroundings(), {})


def test_rules_and_policy_are_looked_for_where_a_run_would():
    assert load_rule_places({"AUDIT_RULES_DIR": "r", "AUDIT_POLICY": "p"}, {}) == (Path("r"), Path("p"))
    assert load_rule_places({"AUDIT_RULES_DIR": "r"}, {"RULES_DIR": "mine"}) == (Path("mine"), None)
    assert load_rule_places({}, {}) == (RULES_BESIDE_HANDLER, None)


def test_no_option_means_everything():
    assert parse_options({}) == RunOptions((), (), dry_run=False, notify=True, mode="")


def test_every_option_is_read():
    options = {"gateways": ["g1", "g2", "g1"], "rules": ["a", "a"], "dry_run": True, "notify": False, "mode": "nightly"}
    assert parse_options(options) == RunOptions(("g1", "g2"), ("a",), dry_run=True, notify=False, mode="nightly")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([1], "run options are a JSON object, not an array"),
        ("run", "run options are a JSON object, not a text"),
        (None, "run options are a JSON object, not null"),
        ({"dryrun": True}, 'unknown run option "dryrun"; did you mean "dry_run"?'),
        ({"Gateways": []}, 'unknown run option "Gateways"; did you mean "gateways"?'),
        ({"xyz": 1}, 'unknown run option "xyz"; known: gateways, rules, dry_run, notify, mode, target'),
        ({"dry_run": "true"}, 'run option "dry_run": true or false is wanted, not "true"'),
        ({"notify": 0}, 'run option "notify": true or false is wanted, not 0'),
        ({"mode": "Night Run"}, 'run option "mode": 1 to 32 of a-z, 0-9, - is wanted, not "Night Run"'),
        ({"mode": "a" * 33}, f'run option "mode": 1 to 32 of a-z, 0-9, - is wanted, not "{"a" * 33}"'),
        ({"mode": None}, 'run option "mode": 1 to 32 of a-z, 0-9, - is wanted, not null'),
        (
            {"gateways": []},
            'run option "gateways": an array of gateway ids (leave the option out for all) is wanted, not []',
        ),
        (
            {"gateways": "g1"},
            'run option "gateways": an array of gateway ids (leave the option out for all) is wanted, not "g1"',
        ),
        (
            {"gateways": ["g1", "/"]},
            'run option "gateways": an array of gateway ids (leave the option out for all) is wanted, not ["g1", "/"]',
        ),
        (
            {"rules": [{}]},
            'run option "rules": an array of rule ids (leave the option out for all) is wanted, not [{}]',
        ),
    ],
)
def test_a_wrong_option_is_named_with_what_is_wanted(options, said):
    with pytest.raises(OptionsError) as caught:
        parse_options(options)
    assert caught.value.problems == (said,)


def test_all_wrong_options_are_named_at_once():
    with pytest.raises(OptionsError) as caught:
        parse_options({"dry_run": 1, "x": 1, "mode": 1, "rules": 1})
    assert len(caught.value.problems) == 4


def test_a_long_wrong_value_is_cut():
    with pytest.raises(OptionsError) as caught:
        parse_options({"gateways": ["?" * 10_000]})
    assert len(str(caught.value)) < 200


def test_a_place_in_obs_is_read_with_all_that_it_takes_to_get_there():
    """Endpoint of the region unless one is given, keys, and the KMS key."""
    place = load(AUDIT_STORE="obs://my-bucket/a/b/", AUDIT_OBS_KMS_KEY="4f1cd4de-ab64").store
    assert place == ObsPlace("my-bucket", "a/b", "https://obs.cn-north-4.myhuaweicloud.com", "4f1cd4de-ab64")
    assert isinstance(place, ObsPlace)
    assert place.keys() == Credentials("ak-of-the-test", "sk-of-the-test")
    assert (str(place), str(place / "k"), str(place.parent)) == (
        "obs://my-bucket/a/b",
        "obs://my-bucket/a/b/k",
        "obs://my-bucket/a",
    )
    whole = load(AUDIT_RULES_DIR="obs://my-bucket", AUDIT_REGION="eu-west-101").rules_dir
    assert (str(whole), str(whole / "k")) == ("obs://my-bucket", "obs://my-bucket/k")
    assert isinstance(whole, ObsPlace)
    assert whole.endpoint == "https://obs.eu-west-101.myhuaweicloud.eu"
    assert load(AUDIT_POLICY="obs://bkt/p.json", AUDIT_OBS_ENDPOINT="https://o.example/").policy == ObsPlace(
        "bkt", "p.json", "https://o.example"
    )
    assert not any(secret in repr(place) for secret in SECRETS.values())


def test_everything_wrong_with_a_place_in_obs_is_said_at_once():
    """And nothing twice, though several settings are in OBS."""
    problems = problems_of(
        without=("AUDIT_REGION", *KEYS),
        AUDIT_APIG_ENDPOINT="https://apig.example.com",
        AUDIT_TOKEN="token",
        AUDIT_STORE="obs://bucket/x",
        AUDIT_RULES_DIR="obs://bucket/y",
        AUDIT_OBS_KMS_KEY="no key",
    )
    assert problems == [
        text
        for name in ("AUDIT_RULES_DIR", "AUDIT_STORE")
        for text in (
            f"{name} is in OBS: set AUDIT_REGION or AUDIT_OBS_ENDPOINT",
            f"{name} is in OBS, which takes no AUDIT_TOKEN: set HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK",
            *(["AUDIT_OBS_KMS_KEY is not the id of a KMS key: 'no key'"] if name == "AUDIT_RULES_DIR" else []),
        )
    ]


@pytest.mark.parametrize("store", ["obs://Bad_Bucket!/x", "obs://b", "obs:x"])
def test_a_malformed_store_in_obs_is_the_only_mistake(store):
    """It is meant to be in OBS, where a KMS key is right."""
    problems = problems_of(AUDIT_STORE=store, AUDIT_OBS_KMS_KEY="4f1cd4de-ab64")
    assert problems == [f"AUDIT_STORE is not \"obs://bucket/prefix\": '{store}'{OBS_NAMES}"]


def test_looking_at_runs_in_obs_needs_keys():
    """Those in a directory do not."""
    with pytest.raises(UsageError, match="credentials are missing"):
        load_store({"AUDIT_STORE": "obs://bucket/x", "AUDIT_REGION": "r"}, Surroundings(), {})


def test_the_function_renews_its_keys():
    """Whoever asks later gets newer ones."""
    issued = iter(["one", "two"])
    around = Surroundings(project_id="p", store="obs://bucket", keys=OWN, renew=lambda: Credentials(next(issued)))
    place = load_settings({"AUDIT_REGION": "r"}, around, {}).store
    assert isinstance(place, ObsPlace)
    assert [place.keys().ak, place.keys().ak] == ["one", "two"]
