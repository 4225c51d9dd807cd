"""The package runs where FunctionGraph runs it, and finds there what the sources find here."""

from __future__ import annotations

import base64
import gzip
import json
import re
from contextlib import ExitStack
from datetime import datetime, timezone
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import package
from audit.compose import perform
from audit.options import RunOptions
from audit.settings import Surroundings, load_settings
from tests.emulator import serve
from tests.emulator.chat import ChatService, chat
from tests.emulator.samples import SAMPLE_POLICY, build_sample
from tests.runtime import Function, function, tree_hash
from tests.seaweed import BUCKET, Obs, obs_on
from tests.test_architecture import imports_of
from tests.test_handler import http, timer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.emulator import Estate

TEMPLATE = (package.ROOT / "template.yml").read_text()
MEMORY = 1_000_000 * int(TEMPLATE.partition("memorySize: ")[2].partition("\n")[0])
FOLDER = "runtime"
# When a run was made, and what follows from it.
PASSING = {"run_id", "first_seen", "last_seen", "read_in", "status_since"}


class Story(NamedTuple):
    """What five invocations of one instance, and one of the sources, left behind."""

    estate: Estate
    obs: Obs
    service: ChatService
    instance: Function
    sources: dict[str, list[Any]]
    first_findings: dict[str, list[Any]]
    answers: dict[str, Any]
    hashes: tuple[str, str]
    seen: Any


@pytest.fixture(scope="module")
def story(
    built: Path, image: Path, python: str, s3_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    directory = tmp_path_factory.mktemp("runtime")
    with ExitStack() as stack:
        estate = build_sample(datetime.now(timezone.utc), 0)
        estate.security_token = "security-token-of-the-test"
        server = stack.enter_context(serve(estate))
        service = stack.enter_context(chat("feishu", "secret-of-the-test"))
        obs = stack.enter_context(obs_on(s3_port))
        obs.keys = {estate.access_key: (estate.secret_key, estate.security_token)}
        (directory / "function").mkdir()
        instance = stack.enter_context(function(built / package.ZIP, image, python, directory / "function"))
        sources = run_sources(server.environment(), directory / "sources")
        yield tell(Story(estate, obs, service, instance, sources, {}, {}, ("", ""), None), server.url)


def run_sources(environment: dict[str, str], store: Path) -> dict[str, list[Any]]:
    """Audit the same estate by the sources, into a directory."""
    more = {"AUDIT_REGION": "cn-north-4", "AUDIT_POLICY": str(SAMPLE_POLICY), "AUDIT_STORE": str(store)}
    settings = load_settings({**environment, **more}, Surroundings(), {})
    perform(settings, RunOptions(), mode="scheduled")
    return lines_of(lambda key: (store / key).read_bytes())


def tell(told: Story, url: str) -> Story:
    """Invoke one instance again and again."""
    estate, instance = told.estate, told.instance
    policy = f"obs://{BUCKET}/{FOLDER}/policy.json"
    told.obs.direct("PUT", f"{FOLDER}/policy.json", SAMPLE_POLICY.read_bytes())
    user_data = {
        "AUDIT_REGION": "cn-north-4",
        "AUDIT_APIG_ENDPOINT": url,
        "AUDIT_OBS_ENDPOINT": told.obs.origin,
        "AUDIT_STORE": f"obs://{BUCKET}/{FOLDER}",
        "AUDIT_POLICY": policy,
        "AUDIT_WEBHOOK_URL": told.service.url,
        "AUDIT_WEBHOOK_KIND": "feishu",
        "AUDIT_WEBHOOK_SECRET": str(told.service.secret),
    }
    context: dict[str, Any] = {"user_data": user_data, "project_id": estate.project_id}
    context |= {"ak": estate.access_key, "sk": estate.secret_key, "token": estate.security_token}

    def get(key: str) -> bytes:
        return told.obs.direct("GET", f"{FOLDER}/{key}").body

    before = tree_hash(instance.code)
    answers = {"initializer": instance.invoke(None, entry="initializer", **context)}
    answers["first"] = instance.invoke(timer(), **context)
    assert "errorMessage" not in answers["first"], answers["first"]
    first_findings = lines_of(get)
    answers["warm"] = instance.invoke(timer("{}", "v2.0"), **context)
    answers["by hand"] = instance.invoke({}, **context)
    some = {"dry_run": True, "gateways": [estate.gateways[0].id]}
    answers["with options"] = instance.invoke(some, **context)
    answers["over HTTP"] = instance.invoke(http('{"mode": "api"}', encoded=True), **context)
    answers["over HTTP, wrong"] = instance.invoke(http('{"dryrun": true}', encoded=True), **context)
    estate.latency = 0.6
    answers["late"] = instance.invoke({}, seconds=21, **context)
    hashes = (before, tree_hash(instance.code))
    return told._replace(first_findings=first_findings, answers=answers, hashes=hashes, seen=instance.observe())


def lines_of(get: Any) -> dict[str, list[Any]]:
    """The records of the latest run by name of the object, without what differs from run to run."""
    key = json.loads(get("latest.json"))["manifest"].removesuffix("manifest.json")
    found = {}
    for name in ("gateways", "connections", "findings"):
        lines = gzip.decompress(get(f"{key}{name}.ndjson.gz")).splitlines()
        records = [{k: v for k, v in json.loads(line).items() if k not in PASSING} for line in lines]
        found[name] = sorted(records, key=lambda record: json.dumps(record, sort_keys=True))
    return found


def test_the_template_deploys_what_is_built_here():
    """For the runtime that the package is built for unless told otherwise."""
    assert f"runtime: Python{package.VERSIONS[0]}\n" in TEMPLATE
    assert "codeUri: ./dist/code\n" in TEMPLATE


def test_it_finds_what_the_sources_find(story):
    """The same readings and findings to the letter, recorded in OBS."""
    assert len(story.sources["findings"]) > 5
    assert story.first_findings == story.sources
    assert (story.answers["initializer"], story.answers["first"]["exit_code"]) == (None, 3)
    assert story.estate.refusals == []


def test_the_chat_is_told_once(story):
    """A warm start goes on where the first run ended: nothing is news the second time."""
    assert [d["outcome"] for d in story.answers["first"]["deliveries"]] == ["delivered"]
    assert (story.service.deliveries[0].verified, story.service.deliveries[0].problem) == (True, None)
    new = {name: story.answers[name]["counts"]["by_status"].get("new", 0) for name in ("first", "warm", "by hand")}
    assert new["first"] > 5
    assert (new["warm"], new["by hand"]) == (0, 0)


def test_every_kind_of_event_is_answered(story):
    """As the platform wants it."""
    assert story.answers["with options"]["manifest"] is None
    answer, refused = story.answers["over HTTP"], story.answers["over HTTP, wrong"]
    assert (answer["statusCode"], refused["statusCode"]) == (200, 400)
    assert json.loads(answer["body"])["exit_code"] == 3
    assert 'did you mean "dry_run"' in json.loads(refused["body"])["detail"]


def test_little_time_left_is_an_answer_too(story):
    """Not a process that is cut off: what was not read is lost coverage."""
    answer = story.answers["late"]
    assert "time limit" in json.dumps(answer)
    assert answer.get("exit_code") == 3 or answer["errorType"] == "RunFailed"


def test_it_fits_into_its_memory(story):
    """With the interpreter and everything that was loaded."""
    assert story.seen["peak"] < MEMORY


def test_a_warm_instance_keeps_no_thread_and_no_file(story):
    """Or they would add up until the platform ends it."""
    assert story.seen["threads"] == 1
    assert list(story.instance.tmp.iterdir()) == []


def test_it_writes_nowhere_but_in_tmp(story):
    """The code is what it was; Python's own attempts to keep bytecode there are refused."""
    assert story.hashes[0] == story.hashes[1]
    elsewhere = [path for path in story.seen["written"] if not Path(path).is_relative_to(story.instance.tmp)]
    assert [path for path in elsewhere if "__pycache__" not in path and path != "/dev/null"] == []


def test_it_uses_no_package_of_the_image(story):
    """They are older than what the code was tested with."""
    files = {name: file for name, file in story.seen["modules"].items() if file}
    assert {"requests", "urllib3", "huaweicloudsdkcore", "obs", "jinja2", "idna"} <= files.keys()
    assert {name: file for name, file in files.items() if "/image/" in file} == {}


def test_it_never_wants_what_the_package_leaves_out(story):
    """Nobody looked for it in vain, and what was loaded does not import it in a function that was not called either.

    But for three such functions: drawing on a terminal, and structs and files of kinds that are not used.
    """
    left_out = {
        file.parts[0].removesuffix(".py")
        for each in distributions()
        if package._normalized(each.metadata["Name"]) in package.LEFT_OUT
        for file in each.files or ()
        if file.suffix == ".py" and file.parts[0] != ".."
    }
    assert {"rich", "jsonschema", "bson", "yaml", "attr"} <= left_out
    assert left_out.isdisjoint(name.partition(".")[0] for name in story.seen["missing"])
    loaded = [Path(f) for f in story.seen["modules"].values() if f and f.endswith(".py") and "/code/" in f]
    assert len(loaded) > 100
    wanted = {path: left_out & {name.partition(".")[0] for name in imports_of(path)} for path in loaded}
    assert {path.relative_to(story.instance.code).as_posix(): names for path, names in wanted.items() if names} == {
        "audit/render/console.py": {"rich"},
        "msgspec/_utils.py": {"attrs"},
        "msgspec/yaml.py": {"yaml"},
    }


def test_the_log_has_no_traceback_no_warning_and_no_secret(story):
    """It is what an operator looks at."""
    log = story.instance.log()
    assert not re.search(r"Traceback|Warning", log)
    secrets = (story.estate.secret_key, story.estate.security_token, story.service.secret)
    assert not [secret for secret in secrets if secret in log or base64.b64encode(secret.encode()).decode() in log]
