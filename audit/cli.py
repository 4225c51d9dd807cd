"""The front door on a terminal: words and flags in, human text on stdout, logs on stderr, an exit code."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn

import msgspec

from audit import __version__
from audit.archive import RUN_ID, shard_folder
from audit.errors import AuditError, DeliveryError, OptionsError, StateError, StoreError, UsageError
from audit.history import compare_runs, find_run, run_at, runs_between
from audit.model import SEVERITIES
from audit.options import FAN_OUT, OPTIONS, parse_options
from audit.outcome import NEVER
from audit.rehearse import choose_receiver, preview, send_test
from audit.render import console, past, sheet
from audit.render.kinds import KINDS
from audit.render.naming import name_coverage, name_findings
from audit.render.report import render_report
from audit.ruleset.cases import failing_cases
from audit.ruleset.describe import explain_rule
from audit.ruleset.problems import nearest
from audit.settings import SETTINGS, Surroundings, load_receivers, load_rule_places, load_settings, load_store
from audit.text import describe_defect, printable
from audit.times import format_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from audit.archive import Archive, StoredRun
    from audit.ruleset.load import RuleSet

# What it takes to reach a place in OBS, besides keys.
_OBS_SETTINGS = ("REGION", "OBS_ENDPOINT", "OBS_KMS_KEY")
_INTERRUPTED = "interrupted; `python -m audit findings` shows the latest run that was recorded"

_RUN_EXAMPLES = """\
examples:
  python -m audit run --region cn-north-4 --project-id 0f5181caba0024e72f89c0045e707b91
  python -m audit run --gateways g1,g2 --rules pending-too-long --dry-run
  python -m audit run --fail-on high --format json

exit codes:
  0  clean, or nothing as severe as --fail-on
  1  findings at or above --fail-on
  2  settings, rules, policy or options are wrong; nothing was read
  3  something in scope was not covered, or a rule broke down (wins over 1)
  4  nothing was covered, or the run could not be recorded, or the previous state is unreadable
  130  interrupted

Each setting is a variable AUDIT_<NAME> too. Secrets have variables only: AUDIT_TOKEN, AUDIT_WEBHOOK_URL,
AUDIT_WEBHOOK_SECRET, HUAWEICLOUD_SDK_AK, HUAWEICLOUD_SDK_SK, HUAWEICLOUD_SDK_SECURITY_TOKEN.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code; whatever goes wrong ends in one clear message on stderr."""
    try:
        options = build_parser().parse_args(arguments)
        code, text = options.verb(options)
        return _print(text) or int(code)
    except UsageError as error:
        _complain(*error.problems)
        return 2
    except AuditError as error:
        _complain(str(error))
        return 4
    except KeyboardInterrupt:
        _complain(_INTERRUPTED)
        return 130
    except Exception as error:
        logging.getLogger("audit").debug("internal error", exc_info=True)
        _complain(describe_defect(error))
        return 4


def _print(text: str) -> int:
    """Print a verb's result, in UTF-8 whatever the locale is; returns 0, or the exit code where nobody takes it."""
    rest = memoryview(text.encode())
    try:
        # By hand, as an unbuffered stdout (PYTHONUNBUFFERED) forgets what a full disk did not take.
        while rest and sys.stdout:
            rest = rest[sys.stdout.buffer.write(rest) :]
        print(end="", flush=True)
    except OSError as error:
        _give_up(1)
        if isinstance(error, BrokenPipeError):
            return 141  # whoever read our output has enough
        _complain(f"the result cannot be printed: {error.strerror}")
        return 4
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Describe every verb and flag; a parsed verb is a function that returns the exit code and what to print."""
    parser = _Parser(
        prog="python -m audit",
        description="Audits who is connected to API gateways on Huawei Cloud, and keeps the evidence.",
        epilog="example:\n  python -m audit run --region cn-north-4 --project-id 0f5181caba0024e72f89c0045e707b91",
    )
    parser.add_argument("--version", action="version", version=f"apig-vpcep-audit {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_run(verbs)
    _add_findings(verbs)
    _add_report(verbs)
    _add_verify(verbs)
    _add_replay(verbs)
    _add_notify(verbs)
    _add_rules(verbs)
    return parser


class _Parser(argparse.ArgumentParser):
    """Says wrong usage in one line, as everything else that is wrong is said."""

    def __init__(self, **keywords: object) -> None:
        super().__init__(
            **keywords,  # type: ignore[arg-type]
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        """Refuse unknown flags without repeating what follows them: it may be a secret."""
        options, unknown = super().parse_known_args(args, namespace)
        flags = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        if unknown:
            self.error("; ".join(map(self._refuse, flags)) or f"one word too many: {unknown[0]}")
        return options, unknown

    def _refuse(self, flag: str) -> str:
        for setting in SETTINGS:
            if setting.secret and setting.flag == flag:
                return f"{flag} is no flag, as flags show in the list of processes: set AUDIT_{setting.name}"
        return f"unknown flag {flag}{nearest(flag, self._option_string_actions)}"

    def error(self, message: str) -> NoReturn:
        raise OptionsError([f"{message} (see {self.prog} --help)"])


_Verbs = argparse._SubParsersAction  # noqa: SLF001  (argparse gives it no public name)


def _add_run(verbs: _Verbs[_Parser]) -> None:
    parser = verbs.add_parser("run", help="read all gateways, judge, record, notify", epilog=_RUN_EXAMPLES)
    # Absent unless given, and named as in an event: parse_options knows the rest.
    scope = parser.add_argument_group("what to do", argument_default=argparse.SUPPRESS)
    scope.add_argument("--rules", type=_words, metavar="ID,ID", help="only these rules (default: all)")
    scope.add_argument("--dry-run", action="store_true", help="read and judge, but write nothing and tell no one")
    scope.add_argument("--no-notify", action="store_false", dest="notify", help="tell no one")
    scope.add_argument(
        "--mode",
        help="label of the run, 1 to 32 of a-z, 0-9 and - (default: manual); fan-out starts this function for each "
        "target, shard reads one, summarize judges and tells what shards read",
    )
    scope.add_argument("--target", metavar="NAME", help="the target that --mode shard reads")
    result = parser.add_argument_group("what comes out")
    result.add_argument(
        "--fail-on",
        choices=[*SEVERITIES, NEVER],
        default="low",
        help="least severity of findings that makes the exit code 1 (default: low)",
    )
    result.add_argument("--format", choices=["table", "json"], default="table", help="json prints the summary only")
    _add_settings(parser, *(setting.name for setting in SETTINGS if not setting.secret))
    parser.set_defaults(verb=_run)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _add_settings(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add the flags of settings, each kept under its setting's name."""
    group = parser.add_argument_group("settings", argument_default=argparse.SUPPRESS)
    for setting in SETTINGS:
        if setting.name in names:
            text = f"{setting.meaning} (default: {setting.default})".replace("`", "").replace("%", "%%")
            group.add_argument(setting.flag, dest=setting.name, metavar=setting.name, help=text)


def _add_findings(verbs: _Verbs[_Parser]) -> None:
    parser = verbs.add_parser(
        "findings",
        help="show a run's findings, or what changed since another one",
        epilog="examples:\n  python -m audit findings --store ./out --format csv > findings.csv\n"
        "  python -m audit findings --since 2026-11-22",
    )
    parser.add_argument("--run", default="", help="this run instead of the latest one")
    parser.add_argument("--since", metavar="WHEN", help="what changed since a day or a time, or since a run")
    parser.add_argument("--format", choices=["table", "json", "csv"], default="table")
    _add_settings(parser, "STORE", *_OBS_SETTINGS)
    parser.set_defaults(verb=_findings)


def _add_report(verbs: _Verbs[_Parser]) -> None:
    parser = verbs.add_parser(
        "report",
        help="show what a past run read, found and left as evidence",
        epilog="examples:\n  python -m audit report 20261122T081500Z-7f3a9c\n"
        "  python -m audit report --format html --out report.html",
    )
    parser.add_argument("run", nargs="?", default="", metavar="RUN", help="default: the latest one")
    parser.add_argument("--format", choices=["text", "html"], default="text")
    parser.add_argument("--out", metavar="FILE", help="write it there instead of printing it")
    _add_settings(parser, "STORE", *_OBS_SETTINGS)
    parser.set_defaults(verb=_report)


def _add_verify(verbs: _Verbs[_Parser]) -> None:
    parser = verbs.add_parser(
        "verify",
        help="check that nothing in the chain of runs was changed or is missing",
        epilog="example:\n  python -m audit verify --store ./out\n\nexit codes:\n  0  sound\n  1  broken\n  2  usage",
    )
    parser.add_argument("--run", help="hash the objects of this run only, not those of all runs")
    parser.add_argument("--all", action="store_true", help="hash the objects of abandoned runs too")
    parser.add_argument("--repair", action="store_true", help="point latest.json at the newest sound run first")
    parser.add_argument("--format", choices=["text", "json"], default="text")
    _add_settings(parser, "STORE", *_OBS_SETTINGS)
    parser.set_defaults(verb=_verify)


def _add_replay(verbs: _Verbs[_Parser]) -> None:
    parser = verbs.add_parser(
        "replay",
        help="hold past readings against other rules: what would these have found?",
        epilog="example:\n  python -m audit replay --from 20261022T081500Z-7f3a9c --rules-dir ./my-rules",
    )
    parser.add_argument("--from", required=True, dest="first", metavar="RUN", help="the first run to judge again")
    parser.add_argument("--to", default="", dest="last", metavar="RUN", help="the last one (default: the latest)")
    parser.add_argument("--out", metavar="FILE", help="write every difference there, a JSON object a line")
    parser.add_argument("--format", choices=["table", "json"], default="table")
    _add_settings(parser, "STORE", "RULES_DIR", "POLICY", *_OBS_SETTINGS)
    parser.set_defaults(verb=_replay)


def _add_notify(verbs: _Verbs[_Parser]) -> None:
    parser = verbs.add_parser(
        "notify",
        help="show the message that a receiver would get, or send a test message",
        epilog="examples:\n  python -m audit notify --preview slack\n  python -m audit notify --test soc\n\n"
        "exit codes:\n  0  shown, or taken\n  1  refused\n  2  usage",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--preview", metavar="KIND", help=f"print a run's first message to one of {', '.join(KINDS)}")
    what.add_argument("--test", nargs="?", const="", metavar="NAME", help="send a test to a receiver of the settings")
    parser.add_argument("--run", default="", help="with --preview: this run instead of the latest one")
    _add_settings(parser, "STORE", *_OBS_SETTINGS)
    parser.set_defaults(verb=_notify)


def _add_rules(verbs: _Verbs[_Parser]) -> None:
    examples = "examples:\n  python -m audit rules check ./my-rules\n  python -m audit rules explain pending-too-long"
    parser = verbs.add_parser("rules", help="check rules and their own tests, explain a rule", epilog=examples)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = actions.add_parser(
        "check",
        help="load every rule and the policy, and run the tests inside the rules",
        epilog="example:\n  python -m audit rules check ./my-rules\n\nexit codes:\n  0  sound\n  2  something is wrong",
    )
    check.add_argument(
        "RULES_DIR",
        nargs="?",
        metavar="DIR",
        default=argparse.SUPPRESS,
        help="default: AUDIT_RULES_DIR, or those shipped",
    )
    check.add_argument("--format", choices=["text", "json"], default="text")
    _add_settings(check, "POLICY", *_OBS_SETTINGS)
    check.set_defaults(verb=_check_rules)
    explain = actions.add_parser(
        "explain",
        help="say a rule in English, with the values in force and where they come from",
        epilog="example:\n  python -m audit rules explain pending-too-long --policy ./policy.json",
    )
    explain.add_argument("rule", metavar="RULE", help="the rule's id")
    _add_settings(explain, "RULES_DIR", "POLICY", *_OBS_SETTINGS)
    explain.set_defaults(verb=_explain_rule)


def _setting_flags(options: argparse.Namespace) -> dict[str, str]:
    names = {setting.name for setting in SETTINGS}
    return {name: value for name, value in vars(options).items() if name in names}


def _run(options: argparse.Namespace) -> tuple[int, str]:
    from audit.compose import perform  # noqa: PLC0415  (what it brings along is needed by this verb only)

    run_options = parse_options({name: value for name, value in vars(options).items() if name in OPTIONS})
    settings = load_settings(os.environ, Surroundings(), _setting_flags(options))
    with _watching() as progress:
        outcome = perform(settings, run_options, mode="manual", fail_on=options.fail_on, progress=progress)
    summary = outcome.summary
    _complain(*summary.problems)
    if options.format == "json":
        return summary.exit_code, _json(summary)
    # On one terminal with stderr the problems stand there already.
    problems = [] if _is_terminal(sys.stdout, sys.stderr) else summary.problems
    if run_options.mode == FAN_OUT:
        return summary.exit_code, console.render_start(outcome, problems)
    store = settings.store / shard_folder(run_options.target) if run_options.target else settings.store
    location = str(store / summary.manifest.key) if summary.manifest else ""
    return summary.exit_code, console.render_outcome(outcome, location, problems, table=_is_terminal(sys.stdout))


@contextmanager
def _watching() -> Iterator[console.ProgressBar | None]:
    """Show progress on a terminal, and let Ctrl-C end the process at once.

    Python would wait for workers, and those for answers. Nothing is lost by it: what is not committed does not count.
    """
    bar = console.ProgressBar() if _is_terminal(sys.stderr) else None

    def stop() -> None:
        if bar:
            bar.stop()

    def leave(_number: int, _frame: FrameType | None) -> NoReturn:
        stop()
        _complain(_INTERRUPTED)
        os._exit(130)

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # as in a shell's background job
        signal.signal(signal.SIGINT, leave)
    try:
        yield bar
    finally:
        signal.signal(signal.SIGINT, before)
        stop()


def _open_archive(options: argparse.Namespace) -> Archive:
    from audit.compose import open_archive  # noqa: PLC0415

    return open_archive(load_store(os.environ, Surroundings(), _setting_flags(options)))


def _load_rules(flags: dict[str, str]) -> RuleSet:
    from audit.compose import load_rules  # noqa: PLC0415

    return load_rules(*load_rule_places(os.environ, flags))


def _findings(options: argparse.Namespace) -> tuple[int, str]:
    archive = _open_archive(options)
    run = find_run(archive, options.run)
    if options.since is not None:
        return _differences(options, archive, run)
    findings = console.by_weight(run.findings())
    if options.format == "json":
        return 0, _json(findings)
    if options.format == "csv":
        return 0, sheet.HEADER + sheet.render_rows(findings)
    manifest = run.manifest
    coverage = name_coverage(manifest.coverage, manifest.scope.names)
    lines = console.run_lines(manifest.run_id, coverage, manifest.counts)
    _note(*(console.fit(lines) if _is_terminal(sys.stderr) else lines))
    named = list(name_findings(findings, manifest.scope.names))
    return 0, console.render_findings(named, table=_is_terminal(sys.stdout))


def _differences(options: argparse.Namespace, archive: Archive, run: StoredRun) -> tuple[int, str]:
    if options.format == "csv":
        raise OptionsError(["--since shows changes; it has the formats table and json"])
    then = find_run(archive, options.since) if RUN_ID.fullmatch(options.since) else run_at(archive, options.since)
    if then.manifest.now > run.manifest.now:
        raise OptionsError([f"--since names a run that is later than run {run.manifest.run_id}"])
    changed = list(compare_runs(then, run))
    if options.format == "json":
        return 0, _json([{"then": then or None, "finding": finding} for then, finding in changed])
    _note(
        f"from run  {then.manifest.run_id} ({then.manifest.now})",
        f"to run    {run.manifest.run_id} ({run.manifest.now})",
    )
    return 0, past.render_differences(changed, run.manifest.scope.names)


def _report(options: argparse.Namespace) -> tuple[int, str]:
    run = find_run(_open_archive(options), options.run)
    if options.format == "html":
        text = b"".join(render_report(run.manifest, run.findings()))
    else:
        table = _is_terminal(sys.stdout) and options.out is None
        findings = console.by_weight(run.findings())
        text = past.render_report(run.manifest, run.sha256, findings, table=table).encode()
    if options.out is None:
        return 0, text.decode()
    _write_out(options.out, text)
    return 0, ""


def _write_out(path: str, text: bytes) -> None:
    try:
        Path(path).write_bytes(text)
    except OSError as error:
        raise OptionsError([f"--out {path}: cannot be written: {error.strerror}"]) from None


def _verify(options: argparse.Namespace) -> tuple[int, str]:
    from audit.verify import Verifier  # noqa: PLC0415

    store = _open_archive(options).store
    if options.run is not None and not RUN_ID.fullmatch(options.run):
        raise OptionsError([f'--run "{options.run}": no run id such as 20261122T081500Z-7f3a9c'])
    try:
        if options.repair:
            repaired = Verifier(store).repair()
            done = f"latest.json points to run {repaired} now" if repaired else "there was nothing to repair"
            _note(f"audit: {done}")
        found = Verifier(store).verify(options.run or "", everything=options.all)
    except (StateError, StoreError) as error:
        _complain(str(error))
        return 1, ""
    if not (found.runs or found.problems or found.abandoned):
        raise UsageError([f"{store.url}: no run is recorded there, so that there is nothing to verify"])
    code = 1 if found.problems else 0
    return code, _json(found) if options.format == "json" else past.render_verification(found, options.run or "")


def _replay(options: argparse.Namespace) -> tuple[int, str]:
    from audit.replay import replay  # noqa: PLC0415

    flags = _setting_flags(options)
    rule_set = _load_rules(flags)
    pairs = runs_between(_open_archive(options), options.first, options.last)
    results = [replay(run, before, rule_set) for run, before in pairs]
    if options.out is not None:
        lines = [msgspec.json.encode(line) + b"\n" for result in results for line in result.lines()]
        _write_out(options.out, b"".join(lines))
    if options.format == "json":
        return 0, _json([result.summary() for result in results])
    return 0, past.render_replay(results)


def _notify(options: argparse.Namespace) -> tuple[int, str]:
    from audit.compose import open_sender  # noqa: PLC0415

    now = datetime.now(timezone.utc)
    if options.test is None:
        return 0, preview(_open_archive(options), options.run, options.preview, now.timestamp())
    if options.run:
        raise OptionsError(["--run goes with --preview; a test is about no run"])
    receiver = choose_receiver(load_receivers(os.environ), options.test)
    try:
        return 0, send_test(open_sender(receiver), receiver, format_time(now))
    except DeliveryError as error:
        _complain(f"receiver {receiver.name} ({receiver.kind}): {error}")
        return 1, ""


def _check_rules(options: argparse.Namespace) -> tuple[int, str]:
    try:
        rule_set = _load_rules(_setting_flags(options))
    except UsageError as error:
        if options.format == "text":
            raise
        return 2, _json({"rules": [], "failed": 0, "problems": error.problems})
    results = [
        {
            "id": rule.id,
            "cases": len(rule.cases),
            "failing": failing_cases(rule),
            "not_configured": rule_set.empty_lists_of(rule),
        }
        for rule in rule_set.rules
    ]
    failed = sum(1 for result in results if result["failing"])
    code = 2 if failed else 0
    if options.format == "json":
        return code, _json({"rules": results, "failed": failed, "problems": []})
    return code, console.render_check(results, failed)


def _explain_rule(options: argparse.Namespace) -> tuple[int, str]:
    rule_set = _load_rules(_setting_flags(options))
    (rule,) = rule_set.select([options.rule])
    text = explain_rule(rule, rule_set, format_time(datetime.now(timezone.utc)))
    return 0, "\n".join([*console.fit(text.splitlines()), ""]) if _is_terminal(sys.stdout) else text


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode() + "\n"


def _is_terminal(*streams: IO[str] | None) -> bool:
    return all(stream is not None and stream.isatty() for stream in streams)


def _note(*lines: str) -> None:
    try:
        for line in lines:
            print(line, file=sys.stderr, flush=True)
    except OSError:
        _give_up(2)


def _give_up(stream: int) -> None:
    """Leave off a stream that nobody takes, so that Python does not stumble over it again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def _complain(*problems: str) -> None:
    _note(*(f"audit: {printable(problem)}" for problem in problems))
