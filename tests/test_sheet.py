"""Findings for a spreadsheet."""

import csv
import io
from typing import Any
from unicodedata import category

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.model import Finding, GatewayRef
from audit.render.sheet import COLUMNS, HEADER, render_rows
from tests.builders import finding
from tests.world import World

FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20"
HOSTILE = st.text(st.sampled_from([*FORMULA, *'a,;"\t\r\n \\\x00\x1b\u3000\u200b\u202e\u2028\ud800网']))


def rows_of(*findings: Finding) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(HEADER + render_rows(findings), newline=""), strict=True))


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("  =1", "'  =1"),
        ("\uff1d1", "'\uff1d1"),
        ("\uff0b1", "'\uff0b1"),
        ("\uff0d1", "'\uff0d1"),
        ("\uff201", "'\uff201"),
        ("\u3000=1", "'\u3000=1"),
        ("\t=1", r"\t=1"),
        ("\r=1", r"\r=1"),
        ("\n=1", r"\n=1"),
        ("a=1", "a=1"),
        ("a;=1", "a;'=1"),
        ("a; @b;-c", "a;' @b;'-c"),
        ("a;b", "a;b"),
        ("", ""),
    ],
)
def test_no_cell_is_a_formula(value, cell):
    (row,) = rows_of(finding(gateway=GatewayRef("g1", value, "", "p1"), message=value))
    assert (row["gateway_name"], row["message"]) == (cell, cell)


def test_what_cannot_be_seen_is_shown_as_escapes():
    (row,) = rows_of(finding(message="\x1b[2J\u202egpj\nnext\ttab\x00\u200b"))
    assert row["message"] == r"\x1b[2J\u202egpj\nnext\ttab\x00\u200b"


def test_what_needs_quotes_has_them_and_what_is_not_there_is_empty():
    (row,) = rows_of(finding(message='says "a, b"', gateway=None, connection=None))
    assert (row["message"], row["gateway_id"], row["connection"], row["resolved_at"]) == ('says "a, b"', "", "", "")


def test_each_column_holds_its_own_field():
    """A row is a list by place; every place is checked."""
    text = {name: f"the {name}" for name in COLUMNS}
    gateway = GatewayRef(*(text[name] for name in ("gateway_id", "gateway_name", "region", "project_id")))
    plain: dict[str, Any] = {name: text[name] for name in COLUMNS if name in Finding.__struct_fields__}
    extra: dict[str, Any] = {
        "gateway": gateway,
        "group": {"domain_id": "d1"},
        "waiver": {"id": "w1", "until": 1},
        "occurrences": 7,
    }
    (row,) = rows_of(Finding(**{**plain, **extra, "expected": {}, "actual": {}, "controls": {}}))
    assert row == {**text, "group": '{"domain_id":"d1"}', "waiver": '{"id":"w1","until":1}', "occurrences": "7"}


def test_no_column_is_exempt():
    """Whoever wrote it: a rule, a policy, a gateway's owner or another account."""
    texts: dict[str, Any] = dict.fromkeys(Finding.__struct_fields__, "=1")
    odd = {"gateway": GatewayRef("=1", "=1", "=1", "=1"), "group": None, "waiver": None}
    (row,) = rows_of(Finding(**{**texts, **odd}))
    assert row == {name: "" if name in odd else "'=1" for name in COLUMNS}
    (row,) = rows_of(finding(title="plain"))
    assert not [cell for cell in row.values() if cell.startswith("'")]
    nothing: dict[str, Any] = {**dict.fromkeys(texts, ""), "gateway": None, "group": None, "waiver": None}
    (row,) = rows_of(Finding(**{**nothing, "uid": "=1"}))
    assert row["uid"] == "'=1"


def test_rows_are_as_rfc_4180_wants_them():
    """Lines end in CRLF; a cell has quotes where it holds a comma or a quote, and these are doubled."""
    text = render_rows([finding(message='a "b", c', title="plain")])
    assert text.endswith("\r\n")
    assert ',"a ""b"", c",' in text
    assert ",plain," in text
    assert HEADER.startswith("uid,rule_id,title,severity,status,")
    assert HEADER.endswith(",run_id\r\n")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.tuples(*[HOSTILE] * 8), HOSTILE)
def test_whatever_names_hold_a_row_is_one_line_of_plain_text(texts, key):
    title, message, remediation, connection, *names = texts
    group = {"marker": key.replace("\ud800", ""), "none": None}
    hostile = finding(title=title, message=message, remediation=remediation, gateway=GatewayRef(*names), group=group)
    text = render_rows([hostile, finding(connection_id=connection.replace("\ud800", ""))])
    assert text.encode()
    assert text.count("\n") == text.count("\r\n") == 2
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert [len(row) for row in rows] == [len(COLUMNS)] * 2
    cells = [cell for row in rows for cell in row]
    assert not [cell for cell in cells for part in cell.split(";") if part.lstrip().startswith(tuple(FORMULA))]
    assert not [cell for cell in cells for sign in cell if category(sign) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    assert text == written.getvalue()


def test_a_run_stores_a_sheet_of_its_findings_that_excel_reads_as_utf_8(world: World):
    world.estate.add_gateway("网关").add_connections(700, status="failed")
    world.estate.add_gateway("=1").add_connections(2, status="failed")
    world.run()
    (path,) = world.store.rglob("findings.csv")
    stored = path.read_bytes()
    assert stored.startswith(b"\xef\xbb\xbfuid,")
    assert stored.count(b"\xef\xbb\xbf") == stored.count(b"uid,rule_id") == 1
    rows = list(csv.DictReader(io.StringIO(stored.decode("utf-8-sig"), newline="")))
    assert [row["uid"] for row in rows] == [line["uid"] for line in world.lines("findings.ndjson.gz")]
    assert {row["gateway_name"] for row in rows} == {"网关", "'=1"}


def test_a_run_without_findings_stores_the_header(world: World):
    world.run()
    (path,) = world.store.rglob("findings.csv")
    assert path.read_text("utf-8-sig").splitlines() == [",".join(COLUMNS)]
