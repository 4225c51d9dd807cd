"""template.yml is what the deployment tool and its component understand, and speaks of settings and code that exist.

It is read in two ways: by Serverless Devs itself, which hands it to a component that only writes it down (skipped where
node, npm or their registry are missing), and by a few lines of Python that do the same.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml

from audit.errors import UsageError
from audit.huawei.function import parse_event
from audit.options import parse_options
from audit.receivers import REFERENCE
from audit.settings import PREFIX, SETTINGS, Settings, Surroundings, load_settings
from audit.targets import Credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Parse = Callable[[str, Mapping[str, str]], dict[str, Any]]

ROOT = Path(__file__).parents[1]
TEMPLATE = (ROOT / "template.yml").read_text()
SCHEMA = json.loads((ROOT / "tests/fgs/component.schema.json").read_text())
# The command itself: it has a parser of its own for edition 1.0.0, which @serverless-devs/parse-spec leaves as it is.
TOOL = "@serverless-devs/s@3.1.10"
LISTENER = """
module.exports = class {
  deploy(inputs) { require("fs").writeFileSync(process.env.HEARD, JSON.stringify(inputs.props)); return {}; }
};
"""
SLACK = "https://hooks.slack.com/services/T0/B0/x"
SHELL = {
    "AUDIT_REGION": "cn-north-4",
    "AUDIT_STORE": "obs://my-evidence/apig",
    "AUDIT_WEBHOOK_URL": "https://siem.example.com/hook",
    "AUDIT_WEBHOOK_SECRET": "whsec_c2VjcmV0IG9mIHRoZSB0ZXN0",
    "FGS_AGENCY": "apig-vpcep-audit",
    "SOC_URL": SLACK,
}
# A token instead of the agency's keys is refused in the function.
ELSEWHERE = {"TOKEN"}


def switch_on(template: str) -> str:
    """Take the comments away from all that is optional."""
    return re.sub(r"^( +)# ((?:AUDIT_\w+|SOC_URL|funcVpc|  \w+Id):)", r"\1\2", template, flags=re.MULTILINE)


COMPLETE = switch_on(TEMPLATE)


def parse_in_python(template: str, shell: Mapping[str, str]) -> dict[str, Any]:
    """Fill in variables as the tool does: one that is not set stays as it is written."""
    filled = re.sub(r"\$\{env\((\w+)\)\}", lambda found: shell.get(found[1], found[0]), template)
    props: dict[str, Any] = yaml.safe_load(filled)["services"]["audit"]["props"]
    return props


@pytest.fixture(scope="session")
def tool(pytestconfig: pytest.Config) -> Path:
    """The tool's program, installed once and kept in pytest's cache."""
    node, npm = shutil.which("node"), shutil.which("npm")
    cache = getattr(pytestconfig, "cache", None)
    if not (node and npm and cache):
        pytest.skip("there is no node, npm or pytest cache to run Serverless Devs with")
    directory: Path = cache.mkdir(re.sub(r"\W+", "-", TOOL))
    program = directory / "node_modules/@serverless-devs/s/bin/s"
    if not program.exists():
        command = [npm, "install", "--prefix", str(directory), "--no-audit", "--no-fund", "--fetch-retries=0"]
        try:
            done = subprocess.run([*command, "--ignore-scripts", TOOL], capture_output=True, timeout=60, check=False)
        except subprocess.TimeoutExpired:
            done = None
        if done is None or done.returncode:
            shutil.rmtree(directory)
            pytest.skip(f"npm cannot install {TOOL} now")
    return program


@pytest.fixture(params=["python", "serverless devs"])
def parse(request: pytest.FixtureRequest, tmp_path: Path) -> Parse:
    if request.param == "python":
        return parse_in_python
    program = request.getfixturevalue("tool")

    def parse_with_tool(template: str, shell: Mapping[str, str]) -> dict[str, Any]:
        component, home, heard = tmp_path / "component", tmp_path / "home", tmp_path / "heard.json"
        for directory in (component, home / ".s"):
            directory.mkdir(parents=True, exist_ok=True)
        (component / "index.js").write_text(LISTENER)
        (component / "package.json").write_text('{"main": "index.js"}')
        (home / ".s/set-config.yml").write_text("analysis: disable\n")  # it reports each use otherwise
        path = tmp_path / "template.yml"
        path.write_text(template.replace("component: fgs", f"component: {component}"))
        environment = {
            "PATH": os.environ["PATH"],
            "HEARD": str(heard),
            "serverless_devs_config_home": str(home),
            "default_serverless_devs_key": "{}",
            **shell,
        }
        command = ["node", str(program), "deploy", "-t", str(path)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, input="", capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        props: dict[str, Any] = json.loads(heard.read_text())
        return props

    return parse_with_tool


def user_data_of(props: Mapping[str, Any]) -> dict[str, str]:
    return {**props["function"].get("environmentVariables", {}), **props["function"]["encryptedUserData"]}


def load(props: Mapping[str, Any]) -> Settings:
    """Load the settings as the function does."""
    around = Surroundings(project_id="p", store="", most_time=580, keys=Credentials("ak", "sk", "token"))
    return load_settings(user_data_of(props), around, {})


@pytest.mark.parametrize(
    ("template", "shell", "receivers"),
    [(TEMPLATE, {**SHELL, "AUDIT_WEBHOOK_URL": SLACK}, ["default"]), (COMPLETE, SHELL, ["default", "soc"])],
    ids=["as it stands", "with all that is optional"],
)
def test_the_template_is_what_the_component_reads(parse, template, shell, receivers):
    """Every key, and settings that the function accepts."""
    props = parse(template, shell)
    jsonschema.validate({"component": "fgs", "props": props}, SCHEMA, jsonschema.Draft202012Validator)
    settings = load(props)
    assert str(settings.store) == SHELL["AUDIT_STORE"]
    assert [each.name for each in settings.receivers] == receivers
    assert parse_in_python(template, shell) == props


def test_a_variable_that_is_not_set_is_named_by_the_function(parse):
    """The tool leaves it as it is written: a directory for AUDIT_STORE, and a signing secret that anyone knows."""
    props = parse(COMPLETE, {})
    with pytest.raises(UsageError) as caught:
        load(props)
    named = {problem.partition(" is ${env")[0] for problem in caught.value.problems if " is ${env(" in problem}
    assert named == SHELL.keys() - {"FGS_AGENCY"}


# Which README offers in its place: they exclude what the template sets.
OF_MANY_TARGETS = {
    f"{PREFIX}{name}" for name in ("TARGETS", "IAM_ENDPOINT", "FUNCTION_URN", "FUNCTION_ENDPOINT", "SHARD_MAX_AGE")
}


def test_every_setting_is_offered_and_no_other():
    """Once each; secrets among the encrypted ones only, and no more than the platform takes."""
    function = parse_in_python(COMPLETE, SHELL)["function"]
    plain, encrypted = function["environmentVariables"], function["encryptedUserData"]
    assert not plain.keys() & encrypted.keys()
    referred = set(REFERENCE.findall(encrypted["AUDIT_RECEIVERS"]))
    assert referred == {"SOC_URL"}
    of_one_target = {PREFIX + each.name for each in SETTINGS if not each.secret} - OF_MANY_TARGETS
    assert plain.keys() == of_one_target
    assert encrypted.keys() - referred == {PREFIX + each.name for each in SETTINGS if each.secret} - {"AUDIT_TOKEN"}
    assert len(plain) + len(encrypted) <= 20
    assert len(json.dumps(plain)) + len(json.dumps(encrypted)) <= 4096


def names_in(template: str) -> set[str]:
    return set(re.findall(r"\$\{env\((\w+)\)\}", json.dumps(yaml.safe_load(template))))


def test_what_the_shell_must_set_is_in_the_readme():
    """And a name that begins with AUDIT_ is a setting: another one would stop the command line in the same shell."""
    readme = (ROOT / "README.md").read_text()
    assert [name for name in names_in(TEMPLATE) if f"`{name}`" not in readme] == []
    assert names_in(COMPLETE) == SHELL.keys()
    assert {name for name in SHELL if name.startswith(PREFIX)} <= {PREFIX + each.name for each in SETTINGS}


def test_handler_and_initializer_are_there():
    """Under the names that the platform is told."""
    function = parse_in_python(TEMPLATE, SHELL)["function"]
    for name in (function["handler"], function["initializerHandler"]):
        module, _, attribute = name.partition(".")
        assert callable(getattr(importlib.import_module(module), attribute))


def test_the_runtime_is_the_one_that_the_package_is_built_for():
    """Compiled packages fit one Python only."""
    runtime = parse_in_python(TEMPLATE, SHELL)["function"]["runtime"]
    (version,) = re.findall(r"^PYTHON_VERSION := (\d+\.\d+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert runtime == f"Python{version}"


def test_a_run_ends_before_the_next_begins():
    """And the timer's run options are options."""
    props = parse_in_python(TEMPLATE, SHELL)
    event_data = props["trigger"]["eventData"]
    second, minute, *rest = parse_cron(event_data["schedule"])
    assert (second, rest[0]) == ("0", "*"), "hourly"
    assert props["function"]["timeout"] < 3600
    assert int(minute) % 5, "chat services throttle on the hour, and others choose round minutes"
    invocation = parse_event({"trigger_type": "TIMER", "user_event": event_data["userEvent"]})
    assert parse_options(invocation.options) == parse_options({})


_NUMBERS = r"\d{1,2}(?:-\d{1,2})?(?:/\d{1,2})?"
_FIELD = rf"(?:\*(?:/\d{{1,2}})?|{_NUMBERS}(?:,{_NUMBERS})*)"
_NAMES = r"(?:JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC)"
_DAYS = r"(?:MON|TUE|WED|THU|FRI|SAT|SUN)"
CRON = re.compile(
    rf"(?:CRON_TZ=[A-Z][A-Za-z_]+(?:/[A-Z][A-Za-z_]+)* )?"
    rf"({_FIELD}) ({_FIELD}) ({_FIELD}) (\?|{_FIELD}) ({_FIELD}|{_NAMES}) (\?|{_FIELD}|{_DAYS}(?:-{_DAYS})?)"
)


def parse_cron(text: str) -> tuple[str, ...]:
    """Take a schedule of the platform apart: six fields from seconds to day of week, after a zone perhaps."""
    found = CRON.fullmatch(text)
    assert found, text
    return found.groups()


@pytest.mark.parametrize("text", ["7 * * * ?", "0 7 * * *", "0 7 * * * ? 2026", "TZ=UTC 0 7 * * * ?", "0 x * * * ?"])
def test_what_is_no_schedule_of_the_platform_is_refused(text):
    """Five fields, seven, and other zones."""
    assert CRON.fullmatch(text) is None


def test_the_schedules_in_comments_are_schedules():
    """A deployer copies them."""
    found = re.findall(r"CRON_TZ=.*", TEMPLATE)
    assert found
    assert all(map(parse_cron, found))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("concurreny", "concurency"),
        ("timeout: 600", "timeout: 901"),
        ("memorySize: 128", "memorySize: 100"),
        ("codeUri: ./dist/code", "codeUri: ."),
        ("scheduleType: Cron", "scheduleType: cron"),
        ("initializerTimeout: 30", ""),
        ('userEvent: "{}"', "userEvent: {}"),
    ],
)
def test_a_template_that_the_component_would_misread_is_refused(old, new):
    """The schema can fail."""
    assert old in TEMPLATE
    props = parse_in_python(TEMPLATE.replace(old, new), SHELL)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"component": "fgs", "props": props}, SCHEMA, jsonschema.Draft202012Validator)
