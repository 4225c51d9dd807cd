"""README's "Deploy" does what it says: its commands are run as they stand, by a shell, in a copy of the sources.

Only hosts differ, and what goes with them (`hosts`, `settings`). Three programs are not what they are elsewhere:
`obsutil` and `s` only note how they were called, and this file does what they would do; `.venv` is the tests' own
Python, so that nothing is installed.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.emulator import serve
from tests.emulator.chat import ChatService, chat
from tests.emulator.samples import SAMPLE_POLICY, build_sample
from tests.emulator.wire import Request
from tests.runtime import function
from tests.seaweed import AK, SK, Obs, forward, obs_on
from tests.test_template import parse_in_python, user_data_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.emulator import ApigServer

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
(SECTION,) = re.findall(r"(?ms)^<!-- deploy:.*?-->$(.*?)^<!-- /deploy -->$", README)
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"(?ms)^ *```sh\n(.*?)^ *```$", SECTION)]
NEEDED = ("bash", "make", "curl")
CALLED = "called"
NOTES_ITS_CALL = f'#!/bin/sh\necho "$(basename "$0") $*" >> "$STAND_INS/{CALLED}"\n'


class Deployment(NamedTuple):
    """What is there when all commands have been run. `printed`: by those of the last step."""

    root: Path
    service: ChatService
    answer: Any
    printed: str


class Person:
    """Works through the section: types its commands into one shell, and does by hand what it tells to do by hand."""

    def __init__(self, root: Path, server: ApigServer, obs: Obs, service: ChatService) -> None:
        self.root, self.server, self.obs, self.service = root, server, obs, service
        self._stand_ins = root.parent / "stand-ins"
        self._exported = root.parent / "exported"
        not_theirs = ("AUDIT_", "HUAWEICLOUD_", "FGS_", "MAKE")
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith(not_theirs)}
        self._environment |= {"AUDIT_OBS_ENDPOINT": obs.origin, "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
        self._environment |= {"STAND_INS": str(self._stand_ins)}
        self._environment["PATH"] = f"{self._stand_ins}{os.pathsep}{os.environ['PATH']}"
        self._exported.touch()
        self._stand_ins.mkdir()
        python = f'#!/bin/sh\n[ "$1 $2" = "-m venv" ] || exec {shlex.quote(sys.executable)} "$@"\n'
        (root / ".venv/bin").mkdir(parents=True)
        for path, text in {
            self._stand_ins / "obsutil": NOTES_ITS_CALL,
            self._stand_ins / "s": NOTES_ITS_CALL,
            self._stand_ins / "python3": python,
            root / ".venv/bin/python": python,
            root / ".venv/bin/pip": NOTES_ITS_CALL,
        }.items():
            path.write_text(text)
            path.chmod(0o755)

    def type(self, commands: str) -> str:
        """Have commands carried out, up to the first one that fails; returns what they print."""
        script = f"set -euo pipefail\n. {self._exported}\n{commands}\nexport -p > {self._exported}"
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.root, env=self._environment, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def fill_in_policy(self) -> None:
        """An editor's work."""
        path = self.root / "rules/policy.json"
        lists = json.loads(SAMPLE_POLICY.read_text())["lists"]
        path.write_text(exactly_once(path.read_text(), {'"approved-domains": []': json.dumps(lists)[1:-1]}))

    def exported(self) -> dict[str, str]:
        """The shell's variables."""
        return dict(line.split("=", 1) for line in self.type("env -0").split("\0") if line)

    def calls(self) -> list[str]:
        """How the stand-ins were called since the last time."""
        path = self._stand_ins / CALLED
        calls = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return calls


def exactly_once(text: str, changes: Mapping[str, str]) -> str:
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def deployed(
    built: Path, image: Path, python: str, s3_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """Everything was typed. Where `built` cannot be had, `make package` would fail."""
    if missing := [name for name in NEEDED if not shutil.which(name)]:
        pytest.skip(f"{', '.join(missing)} is not on this machine")
    directory = tmp_path_factory.mktemp("deploy")
    with ExitStack() as stack:
        estate = build_sample(datetime.now(timezone.utc), 2)
        server = stack.enter_context(serve(estate))
        service = stack.enter_context(chat("feishu"))
        obs = stack.enter_context(obs_on(s3_port))
        left_out = shutil.ignore_patterns(".git", ".venv", "out", "dist", "tests", "__pycache__", ".*_cache")
        root = Path(shutil.copytree(ROOT, directory / "sources", ignore=left_out))
        person = Person(root, server, obs, service)
        person.fill_in_policy()
        for commands in exactly_once("\0".join(BLOCKS), hosts(person) | secrets(person)).split("\0"):
            printed = person.type(commands)
            for call in person.calls():
                stand_in_for(call, person, stack, image, python)
        yield Deployment(root, service, json.loads((root / "answer.json").read_text()), printed)


def hosts(person: Person) -> dict[str, str]:
    """Where the commands lead."""
    return {
        "https://functiongraph.$AUDIT_REGION.myhuaweicloud.com": person.server.url,
        "https://open.feishu.cn": person.service.origin,
    }


def secrets(person: Person) -> dict[str, str]:
    """What only the reader knows."""
    return {
        "FGS_TOKEN=...": f"FGS_TOKEN={person.server.estate.token}",
        "HUAWEICLOUD_SDK_AK=...": f"HUAWEICLOUD_SDK_AK={AK}",
        "HUAWEICLOUD_SDK_SK=...": f"HUAWEICLOUD_SDK_SK={SK}",
    }


def settings(person: Person) -> dict[str, str]:
    """What a reader with other hosts takes out of comments in template.yml; the kind, as no host tells it here."""
    return {
        "# AUDIT_APIG_ENDPOINT: https://apig.cn-north-4.myhuaweicloud.com": f"AUDIT_APIG_ENDPOINT: {person.server.url}",
        "# AUDIT_OBS_ENDPOINT: https://obs.cn-north-4.myhuaweicloud.com": f"AUDIT_OBS_ENDPOINT: {person.obs.origin}",
        "# AUDIT_WEBHOOK_KIND: generic": f"AUDIT_WEBHOOK_KIND: {person.service.kind}",
    }


def stand_in_for(call: str, person: Person, stack: ExitStack, image: Path, python: str) -> None:
    """Do what a program would have done that is not here."""
    program, *arguments = call.split()
    if program == "obsutil":
        action, place, where = arguments
        assert (action, where) == ("mb", f"-location={person.exported()['AUDIT_REGION']}")
        made = forward(person.obs.port, Request("PUT", f"/{place.removeprefix('obs://')}"))
        assert made.status == 200, made
    elif program == "s":
        assert arguments == ["deploy", "-t", "template.yml"]
        deploy(person, stack, image, python)
    else:
        assert (program, arguments[0], arguments[-1]) == ("pip", "install", "requirements.txt"), call


def deploy(person: Person, stack: ExitStack, image: Path, python: str) -> None:
    """Register the function of template.yml with the emulator, to be run from the folder that it names."""
    template = exactly_once((person.root / "template.yml").read_text(), settings(person))
    props = parse_in_python(template, person.exported())
    wanted = props["function"]
    assert wanted["agencyName"] == "apig-vpcep-audit"
    uploaded = shutil.make_archive(str(person.root.parent / "uploaded"), "zip", person.root / wanted["code"]["codeUri"])
    (person.root.parent / "function").mkdir()
    instance = stack.enter_context(function(Path(uploaded), image, python, person.root.parent / "function"))
    initializer, handler = (wanted[key].removeprefix("handler.") for key in ("initializerHandler", "handler"))
    user_data = user_data_of(props)

    def run(event: Any, context: Any) -> Any:
        key = {"ak": context.getSecurityAccessKey(), "sk": context.getSecuritySecretKey()}
        around = {**key, "token": context.getSecurityToken(), "project_id": context.getProjectID()}
        person.obs.keys[key["ak"]] = (key["sk"], around["token"])
        instance.invoke(None, entry=initializer, user_data=user_data, **around)
        return instance.invoke(event, entry=handler, seconds=wanted["timeout"], user_data=user_data, **around)

    estate = person.server.estate
    estate.project_id = person.exported()["FGS_PROJECT_ID"]
    estate.functions.add(
        wanted["functionName"], run, package=wanted["package"], region=props["region"], user_data=user_data
    )


def test_every_command_of_the_section_is_run():
    """None stands in a block of another kind, where it would be passed over."""
    assert len(BLOCKS) == SECTION.count("```") / 2 >= 5


def test_the_console_is_told_what_the_template_says():
    """Who deploys by hand gets the same function."""
    props = parse_in_python((ROOT / "template.yml").read_text(), {})
    wanted = props["function"]
    quoted = [wanted["handler"], wanted["initializerHandler"], props["trigger"]["eventData"]["schedule"]]
    said = [f"`{text}`" for text in [*quoted, *wanted["environmentVariables"], *wanted["encryptedUserData"]]]
    said += [f"with {wanted['initializerTimeout']} s", f"{wanted['memorySize']} MB", f"{wanted['timeout']} s"]
    by_console = SECTION.partition("By console: ")[2].partition("\n\n")[0]
    assert [text for text in [*said, wanted["runtime"].replace("Python", "Python ")] if text not in by_console] == []


def test_the_first_run_reads_everything_and_is_recorded(deployed):
    """And judges by the policy that was filled in."""
    answer = deployed.answer
    assert "errorMessage" not in answer, answer
    assert answer["exit_code"] == 1
    assert {entry["state"] for entry in answer["coverage"]} == {"complete"}
    assert answer["manifest"]["key"].endswith("/manifest.json")
    assert "not configured" not in json.dumps(answer["problems"])


def test_the_first_message_arrives_and_names_the_evidence(deployed):
    """Once, and the answer says so."""
    (delivery,) = deployed.service.deliveries
    assert delivery.problem is None
    (told,) = deployed.answer["deliveries"]
    assert told["outcome"] == "delivered"
    message = json.dumps(delivery.json(), ensure_ascii=False)
    assert deployed.answer["run_id"] in message
    assert deployed.answer["manifest"]["sha256"][:12] in message
    assert told["detail"] in message


def test_the_evidence_can_be_read_with_ones_own_key(deployed):
    """It is what the function found, sound, and there is a page of it."""
    found = [line.split("\t") for line in deployed.printed.splitlines() if "\t" in line]
    assert len(found) == sum(deployed.answer["counts"]["by_status"].values()) > 5
    assert {line[1] for line in found} == {"new"}
    assert "only-approved-domains-accepted" in {line[2] for line in found}
    assert f"{deployed.answer['run_id']}  manifest sha256 {deployed.answer['manifest']['sha256']}" in deployed.printed
    assert deployed.printed.endswith("sound: every object and manifest is as its run left it\n")
    assert deployed.answer["run_id"] in (deployed.root / "report.html").read_text()
