"""What a person reads on a terminal: pure lines for pipes and logs, a table where `rich` can draw one."""

from __future__ import annotations

import shutil
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Any

from audit.model import SEVERITIES, STATUSES
from audit.render.naming import name_coverage, name_findings
from audit.text import count, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from audit.archive import Counts
    from audit.model import Coverage, Finding, Reading
    from audit.outcome import Outcome

_COLOURS = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "cyan", "info": "dim"}


def by_weight(findings: Iterable[Finding]) -> list[Finding]:
    """Order for reading: open before closed, worst first, then new before known."""

    def weight(finding: Finding) -> tuple[bool, int, int, str, str]:
        place = finding.gateway.name if finding.gateway else ""
        novelty = STATUSES.index(finding.status)
        return (not finding.is_open, -SEVERITIES.index(finding.severity), novelty, place, finding.uid)

    return sorted(findings, key=weight)


def coverage_lines(coverage: Iterable[Coverage]) -> list[str]:
    """Say what was read and what was not."""
    entries = [entry for entry in coverage if entry.state != "out_of_scope"]
    gateways = [entry for entry in entries if entry.gateway_id is not None]
    read = sum(1 for entry in gateways if entry.state == "complete")
    connections = count(sum(entry.connections for entry in gateways), "connection")
    lines = [f"coverage  {read} of {count(len(gateways), 'gateway')} read completely, {connections}"]
    gaps = (f"{e.state.replace('_', ' ')}: {name_entry(e)}: {e.reason}" for e in entries if e.state != "complete")
    lines += [f"          {printable(gap)}" for gap in gaps]
    unjudged: Counter[tuple[str, tuple[str, ...]]] = Counter()
    for told in (entry.not_evaluated for entry in gateways):
        unjudged.update((why, tuple(rule for rule in told if told[rule] == why)) for why in set(told.values()))
    lines += [
        f"          not evaluated on {count(number, 'gateway')}, {why}: {', '.join(rules)}"
        for (why, rules), number in sorted(unjudged.items())
    ]
    return lines


def run_lines(run_id: str, coverage: Iterable[Coverage], counts: Counts) -> list[str]:
    """Say what was read and what was not, before anything about findings: partial truth comes first."""
    said = ", ".join(f"{number} {status}" for status, number in counts.by_status.items() if number) or "none"
    carried = f"; {counts.carried} out of scope carried over" if counts.carried else ""
    return [f"run       {run_id}", *coverage_lines(coverage), f"findings  {said}{carried}"]


def render_outcome(outcome: Outcome, location: str, problems: Iterable[str], *, table: bool) -> str:
    """Say what was read and found, where the evidence is, who was told, `problems`, and what the exit code means."""
    summary, show = outcome.summary, fit if table else list
    lines = show(run_lines(summary.run_id, name_coverage(summary.coverage, outcome.targets), summary.counts))
    shown = [finding for finding in name_findings(outcome.worst, outcome.targets) if finding.status != "waived"]
    if shown:
        left_out = sum(summary.counts.by_severity.values()) - sum(finding.is_open for finding in shown)
        more = f"+{left_out} more; `python -m audit findings` shows all\n" if left_out else ""
        lines += ["", render_findings(shown, table=table) + more]
    manifest = summary.manifest
    end = [f"recorded  {printable(location)} (sha256 {manifest.sha256[:12]})" if manifest else "recorded  nothing"]
    if manifest and summary.report:
        end.append(f"report    {printable(location.removesuffix(manifest.key) + summary.report)}")
    for delivery in summary.deliveries:
        detail = f": {printable(delivery.detail)}" if delivery.detail else ""
        end.append(f"receiver  {delivery.receiver}: {delivery.outcome}{detail}")
    end += [f"problem   {printable(problem)}" for problem in problems]
    end.append(f"exit code {summary.exit_code}: {outcome.reason}")
    return "\n".join([*lines, *show(end), ""])


def render_start(outcome: Outcome, problems: Iterable[str]) -> str:
    """Say which shards were not started, and what the exit code means."""
    lines = [f"problem   {printable(problem)}" for problem in problems]
    return "\n".join([*lines, f"exit code {outcome.summary.exit_code}: {outcome.reason}\n"])


def fit(lines: Iterable[str]) -> list[str]:
    """Break lines to fit the terminal, but no name, id or path in them: these are there to be copied."""
    width = max(40, shutil.get_terminal_size().columns - 1)
    wrapper = textwrap.TextWrapper(width, subsequent_indent=" " * 12, break_long_words=False, break_on_hyphens=False)
    return [part for line in lines for part in wrapper.wrap(line) or [line]]


def render_findings(findings: Sequence[Finding], *, table: bool) -> str:
    """Draw a table, or for pipes a line each: severity, status, rule, gateway, connection, what is wrong."""
    if table and findings:
        return _draw_table(findings)
    return "".join(line_of(finding, state(finding)) for finding in findings)


def line_of(finding: Finding, status: str) -> str:
    """Write a line for pipes."""
    cells = (finding.severity, status, finding.rule_id, place(finding), about(finding) or "-", finding.message)
    return "\t".join(map(printable, cells)) + "\n"


def _draw_table(findings: Iterable[Finding]) -> str:
    """Draw as wide as the terminal; what a finding is about stands below what is wrong."""
    from rich.console import Console  # noqa: PLC0415  (only where somebody looks)
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("severity", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("finding", overflow="fold")
    for finding in findings:
        # Text, not str: names must not be read as markup.
        what = Text(f"{printable(finding.message)}\n{printable(place(finding))}")
        since = f"since {finding.first_seen[:10]}"
        for detail in filter(None, (about(finding), finding.rule_id, since, _resolution(finding))):
            what.append(f"  {printable(detail)}", style="dim")
        style = _COLOURS[finding.severity] if finding.is_open else "dim"
        table.add_row(Text(finding.severity, style=style), finding.status, what)
    console = Console(highlight=False)
    with console.capture() as drawn:
        # By itself it takes a dumb terminal to have 80 columns.
        console.print(table, width=shutil.get_terminal_size().columns)
    return drawn.get()


class ProgressBar:
    """A bar on stderr, for a terminal. Logs appear above it."""

    def __init__(self) -> None:
        from rich import progress  # noqa: PLC0415
        from rich.console import Console  # noqa: PLC0415

        columns = (progress.BarColumn(), progress.MofNCompleteColumn(), progress.TimeElapsedColumn())
        self._bar = progress.Progress(
            "reading gateways", *columns, console=Console(stderr=True), transient=True, redirect_stdout=False
        )
        self._task = self._bar.add_task("", total=None)
        self._bar.start()

    def start(self, gateways: int) -> None:
        self._bar.update(self._task, total=gateways)

    def advance(self, _reading: Reading) -> None:
        self._bar.advance(self._task)

    def stop(self) -> None:
        self._bar.stop()


def render_check(results: Iterable[Mapping[str, Any]], failed: int) -> str:
    """Say what came of each rule's own tests: its `id`, number of `cases`, those `failing`, lists `not_configured`."""
    lines = []
    for result in results:
        lines.append(f"{'FAIL' if result['failing'] else 'ok  '}  {result['id']}: {count(result['cases'], 'case')}")
        lines += [f"      {printable(problem)}" for problem in result["failing"]]
        if result["not_configured"]:
            lines.append(f"      not configured: list {', '.join(result['not_configured'])} is empty in the policy")
    rules = sum(1 for line in lines if not line.startswith(" "))
    return "\n".join([*lines, f"{count(rules, 'rule')}, {failed} failed\n"])


def name_entry(entry: Coverage) -> str:
    """Name a gateway with its id, or the list of gateways with whose it is."""
    if entry.gateway_id is None:
        return f"list of gateways of {entry.name or f'{entry.region} {entry.project_id}'}"
    return f"{entry.name} ({entry.gateway_id})" if entry.name else entry.gateway_id


def place(finding: Finding) -> str:
    """Name the gateway that a finding is about."""
    if finding.gateway is None:
        return "-"
    return finding.gateway.name or finding.gateway.id


def about(finding: Finding) -> str:
    """Name what in a gateway a finding is about: a connection, or a group by what makes it."""
    return name_subject(finding.connection, finding.group)


def name_subject(connection: str | None, group: Mapping[str, Any] | None) -> str:
    """Name a connection, or a group by what makes it beside its gateway; "" for neither."""
    keys = {name: value for name, value in (group or {}).items() if name != "gateway.id"}
    return connection or ", ".join(f"{name} {value}" for name, value in keys.items())


def state(finding: Finding) -> str:
    """Name a finding's status, and where it is resolved, why."""
    return f"{finding.status} ({_resolution(finding)})" if finding.resolution else finding.status


def _resolution(finding: Finding) -> str:
    return (finding.resolution or "").replace("_", " ")
