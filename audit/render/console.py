"""What a person reads on a terminal: pure lines for pipes and logs, a table where `rich` can draw one."""

from __future__ import annotations

import csv
import io
from typing import IO, TYPE_CHECKING

import msgspec

from audit.model import SEVERITIES, STATUSES
from audit.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from audit.model import Coverage, Finding
    from audit.outcome import Outcome

_COLOURS = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "cyan", "info": "dim"}
_CSV_FIELDS = (
    "uid", "rule_id", "title", "severity", "status", "resolution", "subject", "gateway_id", "gateway_name", "region",
    "project_id", "connection", "message", "remediation", "first_seen", "last_seen", "resolved_at", "occurrences",
    "run_id",
)  # fmt: skip


def by_weight(findings: Iterable[Finding]) -> list[Finding]:
    """Order for reading: open before closed, worst first, then new before known."""

    def weight(finding: Finding) -> tuple[bool, int, int, str, str]:
        place = finding.gateway.name if finding.gateway else ""
        novelty = STATUSES.index(finding.status)
        return (not finding.is_open, -SEVERITIES.index(finding.severity), novelty, place, finding.uid)

    return sorted(findings, key=weight)


def head_lines(outcome: Outcome) -> list[str]:
    """Say what was read and what was not, before anything about findings: partial truth comes first."""
    coverage = [entry for entry in outcome.summary.coverage if entry.state != "out_of_scope"]
    gateways = [entry for entry in coverage if entry.gateway_id is not None]
    read = [entry for entry in gateways if entry.state == "complete"]
    connections = sum(entry.connections for entry in gateways)
    lines = [
        f"run       {outcome.summary.run_id}",
        f"coverage  {len(read)} of {_count(len(gateways), 'gateway')} read completely, {_count(connections, 'connection')}",
    ]
    lines += [f"          {_gap(entry)}" for entry in coverage if entry.state != "complete"]
    by_status = {status: count for status, count in outcome.summary.counts.by_status.items() if count}
    said = ", ".join(f"{count} {status}" for status, count in by_status.items()) or "none"
    carried = f"; {outcome.summary.counts.carried} out of scope carried over" if outcome.summary.counts.carried else ""
    return [*lines, f"findings  {said}{carried}"]


def tail_lines(outcome: Outcome, location: str) -> list[str]:
    """Say where the evidence is, who was told, what else went wrong, and what the exit code means."""
    summary = outcome.summary
    lines = []
    if summary.manifest:
        lines.append(f"recorded  {printable(location)} (sha256 {summary.manifest.sha256[:12]})")
    for delivery in summary.deliveries:
        detail = f": {printable(delivery.detail)}" if delivery.detail else ""
        lines.append(f"receiver  {delivery.receiver}: {delivery.outcome}{detail}")
    lines += [f"problem   {printable(problem)}" for problem in summary.problems]
    return [*lines, f"exit code {summary.exit_code}: {outcome.reason}"]


def left_out_line(outcome: Outcome) -> list[str]:
    """Count the open findings that are not among those shown."""
    shown = sum(1 for finding in outcome.worst if finding.is_open)
    left_out = sum(outcome.summary.counts.by_severity.values()) - shown
    return [f"+{left_out} more; `python -m audit findings` shows all"] if left_out > 0 else []


def finding_lines(findings: Iterable[Finding]) -> list[str]:
    """One line each, for pipes: severity, status, gateway, connection, what is wrong, tab-separated."""
    return [
        "\t".join([f.severity, _state(f), *map(printable, (_gateway(f), f.connection or "-", f.message))])
        for f in findings
    ]


def print_table(findings: Sequence[Finding], stream: IO[str]) -> None:
    """Draw a table as wide as the terminal."""
    from rich.console import Console  # noqa: PLC0415  (only where somebody looks)
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("severity", "status", "gateway"):
        table.add_column(title, no_wrap=title != "gateway")
    table.add_column("finding", overflow="fold", ratio=1)
    for finding in findings:
        # Text, not str: names must not be read as markup.
        what = Text(printable(finding.message))
        what.append(f"\n{printable(finding.connection or '-')}  since {finding.first_seen}", style="dim")
        severity = Text(finding.severity, style=_COLOURS[finding.severity] if finding.is_open else "dim")
        table.add_row(severity, Text(_state(finding)), Text(printable(_gateway(finding))), what)
    Console(file=stream, highlight=False).print(table)


def findings_csv(findings: Iterable[Finding]) -> str:
    """A table for spreadsheets; a cell that a spreadsheet would take for a formula is quoted with an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_FIELDS)
    for finding in findings:
        fields = msgspec.to_builtins(finding)
        gateway = fields.pop("gateway") or {}
        fields |= {"gateway_id": gateway.get("id"), "gateway_name": gateway.get("name")}
        fields |= {"region": gateway.get("region"), "project_id": gateway.get("project_id")}
        writer.writerow([_cell(fields[name]) for name in _CSV_FIELDS])
    return text.getvalue()


def _cell(value: object) -> str:
    text = "" if value is None else printable(str(value))
    return f"'{text}" if text[:1] in {"=", "+", "-", "@"} else text


def _gap(entry: Coverage) -> str:
    name = entry.name or entry.gateway_id or "list of gateways"
    ident = f" ({entry.gateway_id})" if entry.name and entry.gateway_id else ""
    return printable(f"{entry.state.replace('_', ' ')}: {name}{ident}: {entry.reason}")


def _gateway(finding: Finding) -> str:
    if finding.gateway is None:
        return "-"
    return finding.gateway.name or finding.gateway.id


def _state(finding: Finding) -> str:
    return f"{finding.status} ({finding.resolution})" if finding.resolution else finding.status


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def error_console() -> Console:
    """A console on stderr, for progress."""
    from rich.console import Console  # noqa: PLC0415

    return Console(stderr=True)
