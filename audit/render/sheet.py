"""Findings for a spreadsheet: `findings.csv` of a run, and `findings --format csv`. Pure; keeps no row.

RFC 4180: a header, commas, CRLF. No cell is a formula, and what cannot be seen is shown as an escape.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from audit.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from audit.model import Finding

COLUMNS = (
    "uid", "rule_id", "title", "severity", "status", "resolution", "subject", "gateway_id", "gateway_name", "region",
    "project_id", "connection", "group", "message", "remediation", "waiver", "first_seen", "last_seen", "resolved_at",
    "occurrences", "run_id",
)  # fmt: skip
# Excel takes a file without it for the local code page and garbles names; readers of a pipe would take it for text.
BOM = "\ufeff"
HEADER = ",".join(COLUMNS) + "\r\n"
# What makes a formula at the start of a cell, the second four in an East Asian spreadsheet; a tab or CR before it is
# escaped. A semicolon starts a cell as well: where the comma is the decimal mark, Excel separates by it.
_FORMULA = re.compile(r";([\s\"]*[=+\-@\uff1d\uff0b\uff0d\uff20])")


def render_rows(findings: Iterable[Finding]) -> str:
    """Render a row for each finding, without the header."""
    return "".join(map(_row, findings))


def _row(finding: Finding) -> str:
    f, gateway = finding, finding.gateway
    place = (gateway.id, gateway.name, gateway.region, gateway.project_id) if gateway else ("", "", "", "")
    cells = [
        f.uid, f.rule_id, f.title, f.severity, f.status, f.resolution or "", f.subject, *place, f.connection or "",
        _json(f.group), f.message, f.remediation, _json(f.waiver), f.first_seen, f.last_seen, f.resolved_at or "",
        str(f.occurrences), f.run_id,
    ]  # fmt: skip
    # One look at the whole row, as there is hardly ever something to do.
    whole = ";" + ";".join(cells)
    if not whole.isprintable() or _FORMULA.search(whole):
        cells = [_show(cell) for cell in cells]
    # By hand, as the csv module takes three times as long. No line break is left that would need quotes.
    return ",".join([_quote(cell) if "," in cell or '"' in cell else cell for cell in cells]) + "\r\n"


def _show(text: str) -> str:
    """Show a text as text: an apostrophe tells a spreadsheet that it is no formula."""
    return _FORMULA.sub(r";'\1", ";" + printable(text))[1:]


def _quote(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


def _json(value: dict[str, Any] | None) -> str:
    return msgspec.json.encode(value).decode() if value else ""
