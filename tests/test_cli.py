"""The terminal: every verb, flag and exit code, by real runs against the emulator."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from audit.cli import main
from tests.emulator import Answer, Body, Estate, Forbidden, Slow, Unauthorized, receive, serve
from tests.emulator.connection import DOMAIN_ID
from tests.emulator.receiver import SECRET

ROOT = Path(__file__).parents[1]
STRANGER = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
OURS = ("HUAWEICLOUD_SDK_", "AUDIT_", "PYTHON", "COLUMNS", "NO_COLOR", "LC_")


class Ran(NamedTuple):
    """What a process said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def summary(self):
        return json.loads(self.out)


class Terminal:
    """Runs the command line against an estate, with a store and a policy of its own."""

    def __init__(self, directory: Path, settings: dict[str, str]) -> None:
        self.directory = directory
        self.store = directory / "out"
        policy = directory / "policy.json"
        policy.write_text(json.dumps({"lists": {"approved-domains": [DOMAIN_ID]}}))
        self.settings = {"AUDIT_STORE": str(self.store), "AUDIT_POLICY": str(policy), **settings}

    @property
    def environment(self) -> dict[str, str]:
        others = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        return {**others, **{name: value for name, value in self.settings.items() if value}}

    def stored(self) -> list[str]:
        return sorted(path.name for path in self.store.rglob("*") if path.is_file())


class InProcess(Terminal):
    """Calls `main`, which is faster."""

    def __init__(self, directory, settings, monkeypatch, capsys) -> None:
        super().__init__(directory, settings)
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str, **changes: str) -> Ran:
        self.settings.update(changes)
        with self._monkeypatch.context() as patch:
            for name in os.environ.keys() - self.environment.keys():
                patch.delenv(name)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            code = main(arguments)
        return Ran(code, *self._capsys.readouterr())


class Process(Terminal):
    """Starts real processes."""

    def start(
        self, *arguments: str, program: Sequence[str] = ("-m", "audit"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) -> "subprocess.Popen[str]":
        command = [sys.executable, "-W", "error", *program, *arguments]
        return subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=stdout, stderr=stderr, text=True)

    def __call__(self, *arguments: str) -> Ran:
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=20)
        return Ran(process.returncode, out, err)


@pytest.fixture
def estate():
    return Estate()


@pytest.fixture
def server(estate):
    with serve(estate) as served:
        yield served


@pytest.fixture
def audit(server, tmp_path, monkeypatch, capsys):
    yield InProcess(tmp_path, server.environment(), monkeypatch, capsys)
    log = logging.getLogger("audit")  # its handler writes to the captured stderr, which ends here
    log.handlers.clear()
    log.propagate = True


@pytest.fixture
def process(server, tmp_path):
    return Process(tmp_path, server.environment())


@pytest.fixture
def receiver(audit):
    with receive() as listening:
        audit.settings |= {
            "AUDIT_WEBHOOK_URL": listening.url,
            "AUDIT_WEBHOOK_KIND": "generic",
            "AUDIT_WEBHOOK_SECRET": SECRET,
        }
        yield listening


@pytest.fixture
def findings(estate):
    """One finding of severity medium: a connection that waited for two days."""
    return estate.add_gateway("billing").add_connection(status="pendingAcceptance", age=timedelta(hours=48))


# Exit codes


def test_0_clean(estate, audit):
    estate.add_gateway("billing", permissions=[f"iam:domain::{DOMAIN_ID}"]).add_connection()
    first = audit("run")
    assert (first.code, first.err) == (0, "")
    assert "          not evaluated on 1 gateway, no earlier reading to compare with: " in first.out
    assert first.out.endswith("exit code 0: nothing found in what could be judged\n")
    ran = audit("run")
    assert (ran.code, ran.err) == (0, "")
    assert "coverage  1 of 1 gateway read completely, 1 connection\nfindings" in ran.out
    assert ran.out.endswith("exit code 0: clean\n")


def test_0_and_said_out_loud_where_there_is_no_gateway(audit):
    ran = audit("run")
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "exit code 0: there is no gateway to judge")


def test_1_findings(findings, audit):
    ran = audit("run")
    assert ran.code == 1
    line = f"medium\tnew\tpending-too-long\tbilling\t{findings.id}\tpending for 48 h; at most 24 h allowed\n"
    assert line in ran.out
    assert audit("run").code == 1  # ongoing


@pytest.mark.parametrize(("floor", "code"), [("info", 1), ("medium", 1), ("high", 0), ("critical", 0), ("never", 0)])
def test_1_only_for_findings_as_severe_as_asked(floor, code, findings, audit):
    ran = audit("run", "--fail-on", floor)
    assert ran.code == code
    assert "exit code 0: no finding is as severe as --fail-on asks" in ran.out or code == 1


@pytest.mark.parametrize(
    ("arguments", "changes", "said"),
    [
        ((), {"AUDIT_APIG_ENDPOINT": "http://example.com"}, "AUDIT_APIG_ENDPOINT must be https"),
        ((), {"HUAWEICLOUD_SDK_SK": ""}, "HUAWEICLOUD_SDK_SK is missing"),
        ((), {"AUDIT_WEBHOK_URL": "https://h"}, 'AUDIT_WEBHOK_URL is not a setting; did you mean "AUDIT_WEBHOOK_URL"?'),
        ((), {"AUDIT_POLICY": "/nowhere/p.json"}, "/nowhere/p.json: cannot be read: No such file or directory"),
        ((), {"AUDIT_RULES_DIR": "/nowhere"}, "/nowhere: the rules cannot be read: No such file or directory"),
        (("--rules-dir", str(ROOT / "tests")), {"AUDIT_POLICY": ""}, "there is no rule (*.json) in this directory"),
        (("--rules", "pending-to-long"), {}, 'there is no rule "pending-to-long"; did you mean "pending-too-long"?'),
        (("--rules", "a,"), {}, 'run option "rules": an array of rule ids'),
        (("--mode", "A B"), {}, 'run option "mode": 1 to 32 of'),
        (("--gateways", ""), {}, "--gateways is given without a value"),
        (("--time-limit", "soon"), {}, "--time-limit must be a whole number from 1 to 259200, not 'soon'"),
        (("--fail-on", "awful"), {}, "argument --fail-on: invalid choice: 'awful'"),
        (("--format", "xml"), {}, "argument --format: invalid choice: 'xml'"),
        (("--dryrun",), {}, 'unknown flag --dryrun; did you mean "--dry-run"? (see python -m audit run --help)'),
        (("--dry",), {}, "unknown flag --dry"),
        (("everything",), {}, "one word too many: everything"),
    ],
)
def test_2_before_anything_is_read_or_written(arguments, changes, said, estate, audit):
    ran = audit("run", *arguments, **changes)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert all(line.startswith("audit: ") for line in ran.err.splitlines())
    assert (estate.requests, audit.stored()) == ([], [])


def test_2_names_every_mistake_on_a_line_of_its_own(audit):
    ran = audit("run", AUDIT_CONCURRENCY="x", AUDIT_TIME_LIMIT="x", AUDIT_PROJECT_ID="")
    assert [line.split()[1] for line in ran.err.splitlines()] == [
        "AUDIT_PROJECT_ID",
        "AUDIT_CONCURRENCY",
        "AUDIT_TIME_LIMIT",
    ]


def test_2_for_an_unknown_verb_and_for_none(audit):
    assert audit("rnu").code == audit().code == audit("rules").code == audit("rules", "chek").code == 2
    assert "'rnu'" in audit("rnu").err


def test_3_where_one_gateway_could_not_be_read_which_wins_over_findings(findings, estate, audit):
    estate.fail(Forbidden(), gateway=estate.add_gateway("locked"), times=None)
    ran = audit("run")
    assert (ran.code, ran.out.splitlines()[-1]) == (3, "exit code 3: something in scope was not covered")
    assert "not covered: locked (" in ran.out
    assert "HTTP 403" in ran.out
    assert "medium\tnew\t" in ran.out


def test_4_where_no_gateway_could_be_read_and_that_is_recorded(estate, audit):
    estate.fail(Forbidden(), gateway=estate.add_gateway("locked"), times=None)
    ran = audit("run")
    assert (ran.code, ran.out.splitlines()[-1]) == (4, "exit code 4: nothing was covered")
    assert "latest.json" in audit.stored()


def test_4_where_the_key_is_refused_after_a_single_request(estate, audit):
    estate.add_gateway("billing")
    estate.fail(Unauthorized(), times=None)
    ran = audit("run")
    assert (ran.code, len(estate.requests)) == (4, 1)
    assert "HTTP 401 APIC.7102" in ran.out


def test_4_where_the_connection_is_refused(audit):
    with serve(Estate()) as gone:
        endpoint = gone.url
    ran = audit("run", "--time-limit", "8", AUDIT_APIG_ENDPOINT=endpoint)
    assert ran.code == 4
    assert "the connection was refused" in ran.out


def test_4_where_the_store_cannot_be_written(findings, audit):
    audit.store.write_text("a file in the way")
    ran = audit("run")
    assert (ran.code, ran.out.splitlines()[-1]) == (4, "exit code 4: the run could not be recorded")
    assert f"{audit.store}" in ran.err
    assert "recorded  nothing" in ran.out


@pytest.mark.parametrize("garbled", [b"", b"{", b"[]", b"\xff", b'{"run_id": "x", "manifest": "x", "sha256": "x"}'])
def test_4_where_the_previous_state_is_unreadable_which_is_never_taken_for_a_first_run(garbled, findings, audit):
    audit.store.mkdir()
    (audit.store / "latest.json").write_bytes(garbled)
    ran = audit("run")
    assert ran.code == 4
    assert "what the previous run left is unreadable" in ran.err
    assert (audit.store / "latest.json").read_bytes() == garbled


def stumble(*_arguments: object) -> None:
    raise KeyError("secret")


def test_4_for_a_defect_of_ours_named_without_its_text(audit, monkeypatch):
    monkeypatch.setattr("audit.cli.load_settings", stumble)
    ran = audit("run")
    assert (ran.code, ran.out) == (4, "")
    assert ran.err.startswith("audit: internal error (KeyError in cli.py:")
    assert "secret" not in ran.err


def test_a_real_process_ends_with_the_code_of_main(findings, process):
    ran = process("run")
    assert (ran.code, ran.err) == (1, "")
    assert process("run", "--fail-on", "never").code == 0
    assert process("run", "--no").code == 2


# Run options


def test_a_rule_that_could_not_be_evaluated_is_said_on_both_streams(estate, audit):
    ran = audit("run", AUDIT_POLICY="")
    said = "rule only-approved-domains-accepted was not evaluated: not configured: "
    assert f"audit: {said}" in ran.err
    assert f"\nproblem   {said}" in ran.out


def test_a_dry_run_writes_nothing_and_tells_nobody_but_finds_all_the_same(findings, audit, receiver):
    ran = audit("run", "--dry-run")
    assert ran.code == 1
    assert "medium\tnew\t" in ran.out
    assert "recorded  nothing\nreceiver  default: not sent: dry run\n" in ran.out
    assert (audit.stored(), receiver.deliveries) == ([], [])


def test_a_dry_run_knows_the_previous_state_and_leaves_it_alone(findings, audit):
    audit("run")
    before = {path: path.read_bytes() for path in audit.store.rglob("*") if path.is_file()}
    assert "medium\tongoing\t" in audit("run", "--dry-run").out
    assert {path: path.read_bytes() for path in audit.store.rglob("*") if path.is_file()} == before


def test_no_notify_records_and_tells_nobody_so_that_it_stays_due(findings, audit, receiver):
    assert "receiver  default: not sent: not wanted in this run" in audit("run", "--no-notify").out
    assert (receiver.deliveries, "latest.json" in audit.stored()) == ([], True)
    assert "receiver  default: delivered: 1 new" in audit("run").out
    assert len(receiver.deliveries) == 1


def test_a_failed_delivery_is_said_on_both_streams_and_changes_no_code(estate, audit, receiver):
    receiver.answers.append(400)
    ran = audit("run")
    assert ran.code == 0
    assert "receiver  default: failed: HTTP 400" in ran.out
    assert "audit: receiver default: HTTP 400" in ran.err


@pytest.mark.parametrize(("flags", "mode"), [((), "manual"), (("--mode", "nightly-2"), "nightly-2")])
def test_the_label_of_the_run_is_recorded(flags, mode, audit):
    summary = audit("run", "--format", "json", *flags).summary
    assert json.loads((audit.store / summary["manifest"]["key"]).read_text())["mode"] == mode


def test_a_run_can_be_limited_to_gateways_and_rules(findings, estate, audit):
    other = estate.add_gateway("other")
    other.add_connection(domain_id=STRANGER)
    ran = audit("run", "--gateways", other.id, "--rules", "no-failed-connections, only-approved-domains-accepted")
    assert ran.code == 1
    assert [line.split("\t")[2] for line in ran.out.splitlines() if "\t" in line] == ["only-approved-domains-accepted"]
    assert "1 of 1 gateway read" in ran.out


def test_json_is_the_summary_and_nothing_else(findings, audit):
    ran = audit("run", "--format", "json")
    assert set(ran.summary) == {
        "run_id",
        "exit_code",
        "counts",
        "coverage",
        "manifest",
        "report",
        "deliveries",
        "problems",
    }
    assert (ran.code, ran.summary["exit_code"], ran.summary["counts"]["by_severity"]["medium"]) == (1, 1, 1)


def test_every_setting_without_a_secret_has_a_flag_that_wins(estate, audit):
    estate.add_gateway("billing", permissions=[f"iam:domain::{DOMAIN_ID}"]).add_connection()
    right = {name: audit.settings.pop(name) for name in ("AUDIT_APIG_ENDPOINT", "AUDIT_PROJECT_ID", "AUDIT_STORE")}
    flags = {
        "--region": "cn-north-4",
        "--project-id": right["AUDIT_PROJECT_ID"],
        "--gateways": estate.gateways[0].id,
        "--apig-endpoint": right["AUDIT_APIG_ENDPOINT"],
        "--rules-dir": str(ROOT / "rules"),
        "--policy": audit.settings["AUDIT_POLICY"],
        "--store": f"file://{audit.store}",
        "--concurrency": "2",
        "--time-limit": "30",
        "--log-level": "ERROR",
    }
    wrong = {f"AUDIT_{flag[2:].upper().replace('-', '_')}": "?" for flag in flags}
    assert audit("run", *(word for pair in flags.items() for word in pair), **wrong).code == 0


@pytest.mark.parametrize("flag", ["--token", "--webhook-url", "--webhook-secret"])
def test_a_secret_given_as_a_flag_is_refused_and_not_repeated(flag, audit):
    for words in ((flag, "of-the-test"), (f"{flag}=of-the-test",)):
        ran = audit("run", *words)
        assert ran.code == 2
        assert f"{flag} is no flag, as flags show in the list of processes: set AUDIT_" in ran.err
        assert "of-the-test" not in ran.err


# Other verbs


def test_findings_are_shown_as_lines_json_and_csv(findings, audit):
    summary = audit("run", "--format", "json").summary
    lines, data, table = (audit("findings", *words) for words in ((), ("--format", "json"), ("--format", "csv")))
    assert lines.out.startswith(f"medium\tnew\tpending-too-long\tbilling\t{findings.id}\t")
    assert lines.out.count("\n") == 1
    assert f"run       {summary['run_id']}\ncoverage  1 of 1 gateway read completely" in lines.err
    (finding,) = json.loads(data.out)
    assert (finding["connection"], finding["status"], data.err) == (findings.id, "new", "")
    assert [row.count(finding["uid"]) for row in table.out.splitlines()] == [0, 1]


def test_a_gateway_named_like_a_formula_makes_no_formula(findings, estate, audit):
    estate.gateways[0].name = "=cmd|' /C calc'!A0"
    audit("run")
    assert ",'=cmd|' /C calc'!A0," in audit("findings", "--format", "csv").out


def test_the_page_of_a_run_is_named_and_written_again_from_what_is_stored(findings, audit):
    ran = audit("run")
    (stored,) = audit.store.rglob("report.html")
    assert f"\nreport    {stored}\n" in ran.out
    page = audit.directory / "again.html"
    again = audit("report", "--format", "html", "--out", str(page))
    assert (again.code, again.out) == (0, "")
    assert page.read_text().startswith("<!doctype html>")
    assert findings.id in page.read_text()
    assert audit("report", "--format", "html").out == page.read_text()
    audit("report", "--out", str(page))
    assert page.read_text() == audit("report").out
    assert "cannot be written" in audit("report", "--out", str(audit.directory)).err


def test_a_page_of_a_garbled_store_is_not_written(findings, audit):
    audit("run")
    (stored,) = audit.store.rglob("findings.ndjson.gz")
    stored.write_bytes(stored.read_bytes()[:-9])
    ran = audit("report", "--format", "html", "--out", str(audit.directory / "page.html"))
    assert (ran.code, (audit.directory / "page.html").exists()) == (4, False)


def test_the_rules_that_are_shipped_pass_their_own_tests(audit):
    ran = audit("rules", "check")
    assert ran.code == 0
    assert ran.out.endswith("rules, 0 failed\n")
    assert all(line.startswith("ok  ") for line in ran.out.splitlines()[:-1])


def build_rules(directory: Path, **changes) -> Path:
    rule = json.loads((ROOT / "rules/no-failed-connections.json").read_text())
    directory.mkdir()
    (directory / "no-failed-connections.json").write_text(json.dumps({**rule, **changes}))
    return directory


def test_a_rule_that_fails_its_own_test_is_named_with_the_case(audit, tmp_path):
    rules = build_rules(tmp_path / "rules", require={"status": {"not": "accepted"}})
    ran = audit("rules", "check", str(rules), AUDIT_POLICY="")
    assert ran.code == 2
    assert "FAIL  no-failed-connections: 4 cases\n" in ran.out
    assert 'case 0 "failed": expected finding, came out as pass' in ran.out
    assert ran.out.endswith("1 rule, 1 failed\n")


def test_a_rule_with_a_typo_is_an_error_with_its_place(audit, tmp_path):
    rules = build_rules(tmp_path / "rules", requires={})
    ran = audit("rules", "check", AUDIT_RULES_DIR=str(rules), AUDIT_POLICY="")
    assert (ran.code, ran.out) == (2, "")
    assert 'no-failed-connections.json#/requires: unknown key "requires"; did you mean "require"?' in ran.err


def test_checked_rules_as_json(audit, tmp_path):
    """The same, for scripts; what keeps the rules from being read is in it too."""
    rules = build_rules(tmp_path / "rules", require={"status": {"not": "accepted"}})
    ran = audit("rules", "check", str(rules), "--format", "json", AUDIT_POLICY="")
    assert (ran.code, ran.err) == (2, "")
    assert json.loads(ran.out) == {
        "rules": [
            {
                "id": "no-failed-connections",
                "cases": 4,
                "failing": [
                    'case 0 "failed": expected finding, came out as pass',
                    'case 1 "accepted": expected pass, came out as finding',
                ],
                "not_configured": [],
            }
        ],
        "failed": 1,
        "problems": [],
    }
    (rules / "broken.json").write_text("{")
    ran = audit("rules", "check", str(rules), "--format", "json", AUDIT_POLICY="")
    (problem,) = json.loads(ran.out)["problems"]
    assert (ran.code, ran.err) == (2, "")
    assert problem.endswith(
        "broken.json: not JSON: Expecting property name enclosed in double quotes at line 1, column 2"
    )


def test_a_rule_is_explained(audit, tmp_path):
    """In English, with the values in force; a name that is nearly right is set right."""
    ran = audit("rules", "explain", "pending-too-long")
    assert ran.code == 0
    assert "For each connection where status is" in ran.out
    rules = build_rules(tmp_path / "rules", title="\x1b[31mred")
    ran = audit("rules", "explain", "no-failed-connections", "--rules-dir", str(rules), AUDIT_POLICY="")
    assert ran.out.startswith("no-failed-connections: \\x1b[31mred\n")
    ran = audit("rules", "explain", "pending-to-long")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == 'audit: there is no rule "pending-to-long"; did you mean "pending-too-long"?\n'


@pytest.mark.parametrize("words", [(), ("run",), ("findings",), ("rules",), ("rules", "check"), ("rules", "explain")])
def test_every_verb_has_help_with_an_example(words, capsys):
    with pytest.raises(SystemExit) as left:
        main([*words, "--help"])
    assert left.value.code == 0
    assert "python -m audit " + " ".join(words) in capsys.readouterr().out.partition("example")[2]


# What a hostile gateway, server or receiver says


def test_hostile_names_are_shown_as_escapes(findings, estate, audit):
    estate.gateways[0].name = "\x1b[2J[red]\u202egpj\nexit code 0: clean\t"
    estate.fail(Forbidden(), gateway=estate.add_gateway("\x1b[31m\u202e"), times=None)
    for ran in (audit("run"), audit("findings")):
        shown = ran.out + ran.err
        assert r"\x1b[2J[red]\u202egpj\nexit code 0: clean\t" in shown
        assert r"not covered: \x1b[31m\u202e (" in shown
        assert not {"\x1b", "\u202e"} & set(shown)
        assert "exit code 0: clean" not in shown.splitlines()


@pytest.mark.parametrize("kind", ["keys", "token"])
def test_secrets_that_server_and_receiver_echo_appear_nowhere(kind, findings, tmp_path, monkeypatch, capsys):
    estate = Estate(security_token="security-token-of-the-test")
    with ExitStack() as stack:
        server, listening = stack.enter_context(serve(estate)), stack.enter_context(receive())
        settings = server.environment()
        if kind == "token":
            settings = {name: value for name, value in settings.items() if not name.startswith("HUAWEICLOUD")}
            settings["AUDIT_TOKEN"] = estate.token
        settings |= {"AUDIT_WEBHOOK_URL": listening.url, "AUDIT_WEBHOOK_KIND": "generic"}
        settings |= {"AUDIT_WEBHOOK_SECRET": SECRET, "AUDIT_LOG_LEVEL": "DEBUG"}
        audit = InProcess(tmp_path, settings, monkeypatch, capsys)
        secrets = [estate.access_key, estate.secret_key, estate.token, "security-token-of-the-test"]
        secrets = [secret for secret in [*secrets, listening.url, SECRET] if secret in settings.values()]
        echo = " ".join([*secrets, "/hook", SECRET.removeprefix("whsec_")])
        error = json.dumps({"error_code": "APIC.7106", "error_msg": echo}).encode()
        estate.fail(Body(403, error), gateway=estate.add_gateway("liar"), times=None)
        estate.fail(Body(200, json.dumps({"total": echo}).encode()), gateway=estate.add_gateway("fool"), times=1)
        listening.answers += [Answer(400, {"Content-Type": "text/plain"}, echo.encode()), 204]
        said = [part for ran in (audit("run"), audit("run"), audit("findings")) for part in ran[1:]]
    told = [delivery.body.decode() for delivery in listening.deliveries]
    kept = [path.read_bytes().decode("latin-1") for path in audit.store.rglob("*.json")]
    assert len(told) == 2
    assert any("***" in text for text in kept)
    assert any("***" in text for text in said)
    for secret in [*secrets, "/hook", SECRET.removeprefix("whsec_").rstrip("=")]:
        assert not [text for text in [*said, *told, *kept] if secret in text]


# Signals and pipes


@pytest.fixture
def stuck(estate):
    """Three gateways that answer in half a minute."""
    for number in range(3):
        estate.fail(Slow(30), gateway=estate.add_gateway(f"slow-{number}"), times=None)
    return estate


def interrupt(running, estate) -> float:
    """Press Ctrl-C while gateways are read; how long the end took, in seconds."""
    deadline = time.monotonic() + 15
    while estate.peak_in_flight < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    began = time.monotonic()
    running.send_signal(signal.SIGINT)
    running.wait(timeout=20)
    return time.monotonic() - began


def test_ctrl_c_ends_at_once_with_one_line(stuck, process):
    with process.start("run") as running:
        assert interrupt(running, stuck) < 2
        out, err = running.communicate()
    assert (running.returncode, out, process.stored()) == (130, "", [])
    assert err == "audit: interrupted; `python -m audit findings` shows the latest run that was recorded\n"


def test_on_a_terminal_a_bar_is_shown_and_taken_away_again(stuck, process):
    ours, theirs = os.openpty()
    process.settings["TERM"] = "xterm"
    with process.start("run", stderr=theirs) as running:
        os.close(theirs)
        assert interrupt(running, stuck) < 2
    with suppress(OSError):
        shown = ""
        while part := os.read(ours, 65536):
            shown += part.decode()
    os.close(ours)
    assert "reading gateways" in shown
    assert "0/3" in shown
    assert shown.endswith("shows the latest run that was recorded\r\n")
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor, hidden and shown


def test_on_a_terminal_what_stands_above_the_findings_fits_it(findings, estate, process):
    estate.fail(Forbidden(), gateway=estate.gateways[0], times=None)
    process("run")
    ours, theirs = os.openpty()
    process.settings["COLUMNS"] = "80"
    with process.start("findings", stderr=theirs) as showing:
        os.close(theirs)
        showing.communicate()
    lines = os.read(ours, 65536).decode().splitlines()
    os.close(ours)
    assert "not covered" in " ".join(lines)
    assert max(map(len, lines)) < 80


def test_a_run_that_is_told_to_ignore_ctrl_c_ignores_it(estate, process):
    estate.latency = 0.3
    script = "import signal, sys; signal.signal(2, 1); from audit.cli import main; sys.exit(main())"
    with process.start("run", program=["-c", script]) as running:
        while not estate.requests and not estate.peak_in_flight:
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        running.communicate()
    assert running.returncode == 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_whoever_reads_only_the_first_line_gets_no_complaint(unbuffered, estate, process):
    estate.add_gateway("billing").add_connections(2000, status="failed")
    process("run")
    process.settings["PYTHONUNBUFFERED"] = unbuffered
    with process.start("findings", "--format", "csv") as reading:
        assert reading.stdout.readline().startswith("uid,")
        reading.stdout.close()
        assert reading.wait(timeout=20) == 141
        assert reading.stderr.read() == ""


def test_a_stderr_that_nobody_reads_changes_nothing(findings, process):
    process.settings |= {"AUDIT_POLICY": ""}  # which makes it complain
    read, write = os.pipe()
    os.close(read)
    with process.start("run", "--format", "json", stderr=write) as running:
        os.close(write)
        summary = json.loads(running.communicate(timeout=20)[0])
    assert running.returncode == summary["exit_code"] == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_under_stdout_is_said_and_fails(unbuffered, findings, process):
    process.settings["PYTHONUNBUFFERED"] = unbuffered
    with Path("/dev/full").open("w") as full, process.start("run", stdout=full) as running:
        said = running.communicate(timeout=20)[1]
    assert (running.returncode, said) == (4, "audit: the result cannot be printed: No space left on device\n")


def test_names_in_any_script_are_printed_whatever_the_locale_is(findings, estate, process):
    estate.gateways[0].name = "网关"
    process.settings |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
    assert "\t网关\t" in process("run").out
