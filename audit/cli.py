"""The front door on a terminal: words and flags in, human text on stdout, logs on stderr, an exit code."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec

from audit import __version__
from audit.errors import AuditError, OptionsError, UsageError
from audit.model import SEVERITIES
from audit.outcome import NEVER
from audit.render import console
from audit.ruleset.cases import failing_cases
from audit.ruleset.load import load_rule_set
from audit.settings import RULES_BESIDE_HANDLER, SETTINGS, Surroundings, load_settings, load_store, parse_options
from audit.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.progress import TaskID

    from audit.model import Finding, Reading
    from audit.outcome import Outcome
    from audit.settings import Setting

_RUN_EXAMPLES = """\
examples:
  python -m audit run --region cn-north-4 --project-id 0f5181caba0024e72f89c0045e707b91
  python -m audit run --gateways g1,g2 --rules pending-too-long --dry-run
  python -m audit run --fail-on high --format json

exit codes:
  0  clean, or nothing as severe as --fail-on
  1  findings at or above --fail-on
  2  settings, rules, policy or options are wrong; nothing was read
  3  something in scope was not covered (wins over 1)
  4  nothing was covered, or the run could not be recorded, or the previous state is unreadable

Each setting is a variable AUDIT_<NAME> too. Secrets have variables only: AUDIT_TOKEN, AUDIT_WEBHOOK_URL,
AUDIT_WEBHOOK_SECRET, HUAWEICLOUD_SDK_AK, HUAWEICLOUD_SDK_SK, HUAWEICLOUD_SDK_SECURITY_TOKEN.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code; whatever goes wrong ends in one clear message on stderr."""
    try:
        options = build_parser().parse_args(arguments)
        verb: int = options.verb(options)
        sys.stdout.flush()
    except UsageError as error:
        for problem in error.problems:
            _complain(problem)
        return 2
    except AuditError as error:
        _complain(str(error))
        return 4
    except KeyboardInterrupt:
        _complain("interrupted; this run is not recorded")
        return 130
    except BrokenPipeError:
        # Whoever read our output has enough; Python must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        # A defect of ours. Its text may hold anything, so only its kind and place are shown.
        logging.getLogger("audit").debug("internal error", exc_info=True)
        _complain(f"internal error ({type(error).__name__} in {_place_of(error)}); this is a defect, please report it")
        return 4
    return verb


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m audit",
        description="Audits who is connected to API gateways on Huawei Cloud, and keeps the evidence.",
    )
    parser.add_argument("--version", action="version", version=f"apig-vpcep-audit {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_run(verbs)
    _add_findings(verbs)
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

    def error(self, message: str) -> NoReturn:
        raise OptionsError([f"{message} (see {self.prog} --help)"])


_Verbs = argparse._SubParsersAction  # noqa: SLF001  (argparse gives it no public name)


def _add_run(verbs: _Verbs[_Parser]) -> None:
    parser = verbs.add_parser("run", help="read all gateways, judge, record, notify", epilog=_RUN_EXAMPLES)
    scope = parser.add_argument_group("what to do")
    scope.add_argument("--rules", metavar="ID,ID", help="only these rules (default: all)")
    scope.add_argument("--dry-run", action="store_true", help="read and judge, but write nothing and tell no one")
    scope.add_argument("--no-notify", action="store_true", help="tell no one")
    scope.add_argument("--mode", help="label of the run, 1 to 32 of a-z, 0-9 and - (default: manual)")
    scope.add_argument(
        "--fail-on",
        choices=[*SEVERITIES, NEVER],
        default="low",
        help="least severity of findings that makes the exit code 1 (default: low)",
    )
    scope.add_argument("--format", choices=["table", "json"], default="table", help="json prints the summary only")
    settings = parser.add_argument_group("settings")
    for setting in SETTINGS:
        if not setting.secret:
            _add_setting(settings, setting)
    parser.set_defaults(verb=_run)


def _add_setting(group: argparse._ArgumentGroup, setting: Setting) -> None:
    text = f"{setting.meaning} (default: {setting.default})".replace("`", "").replace("%", "%%")
    group.add_argument(setting.flag, dest=f"setting_{setting.name}", metavar=setting.name, help=text)


def _add_findings(verbs: _Verbs[_Parser]) -> None:
    parser = verbs.add_parser(
        "findings",
        help="show the latest run's findings",
        epilog="example:\n  python -m audit findings --store ./out --format csv > findings.csv",
    )
    parser.add_argument("--format", choices=["table", "json", "csv"], default="table")
    _add_setting(parser.add_argument_group("settings"), next(s for s in SETTINGS if s.name == "STORE"))
    parser.set_defaults(verb=_findings)


def _add_rules(verbs: _Verbs[_Parser]) -> None:
    parser = verbs.add_parser("rules", help="check rules and their own tests")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = actions.add_parser(
        "check",
        help="load every rule and the policy, and run the tests inside the rules",
        epilog="example:\n  python -m audit rules check ./my-rules",
    )
    check.add_argument("directory", nargs="?", metavar="DIR", help="directory of rules (default: the ones shipped)")
    check.add_argument("--policy", metavar="FILE", help="policy file (default: policy.json in DIR, if there)")
    check.set_defaults(verb=_check_rules)


def _run(options: argparse.Namespace) -> int:
    from audit.compose import perform  # noqa: PLC0415  (what it brings along is needed by this verb only)

    chosen = {"dry_run": options.dry_run, "notify": not options.no_notify}
    if options.rules is not None:
        chosen["rules"] = _names(options.rules, "--rules")
    if options.mode is not None:
        chosen["mode"] = options.mode
    run_options = parse_options(chosen)
    settings = load_settings(os.environ, Surroundings(), _setting_flags(options))
    progress = _progress()
    try:
        outcome = perform(settings, run_options, mode="manual", fail_on=options.fail_on, progress=progress)
    finally:
        progress.stop()
    if options.format == "json":
        print(msgspec.json.encode(outcome.summary).decode())
    else:
        _print_outcome(outcome, settings.store)
    for problem in outcome.summary.problems:
        _complain(problem)
    return outcome.summary.exit_code


def _names(text: str, flag: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise OptionsError([f"{flag} holds an empty name; separate names by one comma"])
    return names


def _setting_flags(options: argparse.Namespace) -> dict[str, str]:
    """Collect the settings given as flags. An empty one is a mistake, as it would silently mean the default."""
    flags: dict[str, str] = {}
    for setting in SETTINGS:
        value = getattr(options, f"setting_{setting.name}", None)
        if value is not None and not value.strip():
            raise OptionsError([f"{setting.flag} is given without a value"])
        if value is not None:
            flags[setting.name] = value
    return flags


def _print_outcome(outcome: Outcome, store: Path) -> None:
    location = str(store / outcome.summary.manifest.key) if outcome.summary.manifest else ""
    _print_lines(console.head_lines(outcome))
    if outcome.worst:
        print()
        _print_findings(outcome.worst)
        _print_lines(console.left_out_line(outcome))
        print()
    _print_lines(console.tail_lines(outcome, location))


def _print_lines(lines: Sequence[str]) -> None:
    for line in lines:
        print(line)


def _print_findings(findings: Sequence[Finding]) -> None:
    if sys.stdout.isatty():
        console.print_table(findings, sys.stdout)
    else:
        _print_lines(console.finding_lines(findings))


def _findings(options: argparse.Namespace) -> int:
    from audit.compose import open_archive  # noqa: PLC0415

    store = load_store(os.environ, Surroundings(), _setting_flags(options))
    run = open_archive(store).latest()
    if run is None:
        raise UsageError([f"{store}: no run is recorded there; python -m audit run records one"])
    findings = console.by_weight(run.findings())
    if options.format == "json":
        print(msgspec.json.encode(findings).decode())
    elif options.format == "csv":
        print(console.findings_csv(findings), end="")
    else:
        _print_findings(findings)
        print(f"{len(findings)} findings in all states; run {run.manifest.run_id}")
    return 0


def _check_rules(options: argparse.Namespace) -> int:
    directory = Path(options.directory) if options.directory else RULES_BESIDE_HANDLER
    rule_set = load_rule_set(directory, Path(options.policy) if options.policy else None)
    failed = 0
    for rule in rule_set.rules:
        problems = failing_cases(rule)
        failed += bool(problems)
        print(f"{'FAIL' if problems else 'ok  '}  {rule.id}: {len(rule.cases)} cases")
        for problem in problems:
            print(f"      {printable(problem)}")
    print(f"{len(rule_set.rules)} rules, {failed} failed")
    return 2 if failed else 0


class _Progress:
    """A bar on stderr, and only where a person watches."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        self._bar = Progress(
            TextColumn("reading gateways"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console.error_console(),
            transient=True,
        )
        self._task: TaskID | None = None

    def start(self, gateways: int) -> None:
        self._task = self._bar.add_task("gateways", total=gateways)
        self._bar.start()

    def advance(self, _reading: Reading) -> None:
        if self._task is not None:
            self._bar.advance(self._task)

    def stop(self) -> None:
        self._bar.stop()


class _NoProgress:
    def start(self, gateways: int) -> None: ...

    def advance(self, reading: Reading) -> None: ...

    def stop(self) -> None: ...


def _progress() -> _Progress | _NoProgress:
    return _Progress() if sys.stderr.isatty() else _NoProgress()


def _complain(text: str) -> None:
    print(f"audit: {printable(text)}", file=sys.stderr)


def _place_of(error: BaseException) -> str:
    """Name the innermost line of ours that an error went through."""
    place, trace = "?", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if "audit" in Path(code.co_filename).parts:
            place = f"{Path(code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
