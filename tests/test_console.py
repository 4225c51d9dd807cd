"""What a person reads on a terminal."""

import os
from typing import Any

import pytest

from audit.archive import Counts, RuleUsed, RunScope
from audit.model import Coverage, Finding, GatewayRef
from audit.outcome import Delivery, ManifestRef, Outcome, Summary
from audit.render import past
from audit.render.console import by_weight, coverage_lines, render_findings, render_outcome, run_lines
from tests.report_sample import build_run

HOSTILE = "\x1b[2J[red]x[/red] :smile: \u202egpj\nnext\ttab"
SHOWN = r"\x1b[2J[red]x[/red] :smile: \u202egpj\nnext\ttab"


def build_finding(**changes: Any) -> Finding:
    fields: dict[str, Any] = {
        "uid": "f" * 64,
        "rule_id": "pending-too-long",
        "title": "No connection may wait",
        "severity": "medium",
        "status": "new",
        "resolution": None,
        "subject": "connection",
        "gateway": GatewayRef("g1", "billing", "cn-north-4", "p1"),
        "connection": "76ad893c-6a1e-4055-8019-fe9c9bd3204d",
        "group": None,
        "message": "pending for 49 h; at most 24 h allowed",
        "expected": {},
        "actual": {},
        "remediation": "Accept or reject it.",
        "controls": {},
        "waiver": None,
        "first_seen": "2026-03-01T08:00:00Z",
        "last_seen": "2026-03-03T08:00:00Z",
        "resolved_at": None,
        "occurrences": 3,
        "run_id": "20260303T080000Z-000001",
    }
    return Finding(**{**fields, **changes})


def build_outcome(findings=(), *, manifest=None, deliveries=(), coverage=(), open_count=0, reason="clean") -> Outcome:
    counts = Counts({"new": open_count, "resolved": 0}, {"medium": open_count}, 0)
    summary = Summary("r1", 0, counts, list(coverage), manifest, None, list(deliveries), [])
    return Outcome(summary, reason, tuple(findings), ())


def cover(state, name="billing", gateway_id: "str | None" = "g1", reason="", connections=0) -> Coverage:
    return Coverage("cn-north-4", "p1", gateway_id, name, state, reason, connections, None)


def test_a_finding_for_a_pipe_is_one_line_of_six_tab_separated_columns():
    assert render_findings([build_finding()], table=False) == (
        "medium\tnew\tpending-too-long\tbilling\t76ad893c-6a1e-4055-8019-fe9c9bd3204d\t"
        "pending for 49 h; at most 24 h allowed\n"
    )


def test_hostile_names_are_shown_as_escapes_and_break_no_line():
    finding = build_finding(gateway=GatewayRef("g1", HOSTILE, "", "p1"), connection=HOSTILE, message=HOSTILE)
    (line,) = render_findings([finding], table=False).splitlines()
    assert line.split("\t")[3:] == [SHOWN, SHOWN, SHOWN]


def test_a_gateway_without_a_name_is_shown_by_its_id_and_none_by_a_dash():
    nameless, none = build_finding(gateway=GatewayRef("g1", "", "", "p1")), build_finding(gateway=None, connection=None)
    lines = render_findings([nameless, none], table=False).splitlines()
    assert [line.split("\t")[3:5] for line in lines] == [["g1", nameless.connection], ["-", "-"]]


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_the_terminal_and_shows_everything(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    finding = build_finding(rule_id="only-approved-domains-accepted", status="unverified", severity="critical")
    drawn = render_findings([finding], table=True)
    assert max(map(len, drawn.splitlines())) <= columns
    for part in ("critical", "unverified", "billing", str(finding.connection), finding.rule_id, finding.message):
        assert part in drawn  # in one piece: nothing is broken within a word
    assert "since 2026-03-01" in drawn


def test_a_dumb_terminal_has_a_width_too(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((50, 24)))
    assert max(map(len, render_findings([build_finding()], table=True).splitlines())) <= 50


def test_the_table_takes_names_neither_for_markup_nor_for_escapes(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    drawn = render_findings([build_finding(gateway=GatewayRef("g1", HOSTILE, "", "p1"), message=HOSTILE)], table=True)
    assert drawn.count(SHOWN) == 2
    assert "\x1b" not in drawn


def test_a_very_long_name_is_folded_and_not_cut(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    drawn = render_findings([build_finding(gateway=GatewayRef("g1", "n" * 200, "", "p1"))], table=True)
    assert drawn.count("n" * 20) >= 8
    assert "…" not in drawn


def test_a_resolution_is_said_in_words():
    finding = build_finding(status="resolved", resolution="resource_deleted", resolved_at="2026-03-03T08:00:00Z")
    assert "\tresolved (resource deleted)\t" in render_findings([finding], table=False)
    assert "resource deleted" in render_findings([finding], table=True)


def test_no_findings_are_no_lines_and_no_empty_table():
    assert render_findings([], table=False) == render_findings([], table=True) == ""


def test_open_findings_come_first_the_worst_of_them_on_top():
    closed = build_finding(uid="1", severity="critical", status="resolved", resolution="fixed")
    low, known, new = (
        build_finding(uid="2", severity="low"),
        build_finding(uid="3", severity="high", status="ongoing"),
        build_finding(uid="4", severity="high"),
    )
    assert by_weight([closed, low, known, new]) == [new, known, low, closed]


def test_coverage_names_every_gap_with_its_reason_and_counts_only_what_was_in_scope():
    lines = coverage_lines(
        [
            cover("complete", connections=3),
            cover("partial", HOSTILE, "g2", "would not hold still"),
            cover("not_covered", "", None, "the list of gateways could not be read"),
            cover("out_of_scope", "other", "g4"),
        ]
    )
    assert lines == [
        "coverage  1 of 2 gateways read completely, 3 connections",
        f"          partial: {SHOWN} (g2): would not hold still",
        "          not covered: list of gateways of cn-north-4 p1: the list of gateways could not be read",
    ]


def test_counts_say_what_there_is_and_what_was_only_carried_over():
    counts = Counts({"new": 0, "ongoing": 2, "resolved": 1}, {"high": 2}, 4)
    assert run_lines("r1", [], counts)[-1] == "findings  2 ongoing, 1 resolved; 4 out of scope carried over"


def test_the_outcome_says_where_the_evidence_is_and_who_was_told():
    outcome = build_outcome(
        manifest=ManifestRef("k", "a" * 64), deliveries=[Delivery("default", "failed", "HTTP 500 \x1b[0m")]
    )
    text = render_outcome(outcome, "/store/k", ["something odd"], table=False)
    assert text.splitlines()[-4:] == [
        "recorded  /store/k (sha256 aaaaaaaaaaaa)",
        r"receiver  default: failed: HTTP 500 \x1b[0m",
        "problem   something odd",
        "exit code 0: clean",
    ]


def test_on_a_terminal_every_line_of_an_outcome_fits_and_what_is_to_be_copied_stays_whole(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    path, problem = f"/store/{'run-' * 14}k", "rule r1 was not evaluated: " + "it-broke-down " * 9
    outcome = build_outcome(
        manifest=ManifestRef("k", "a" * 64), deliveries=[Delivery("default", "delivered", "11 new; " * 12)]
    )
    lines = render_outcome(outcome, path, [problem], table=True).splitlines()
    assert max(map(len, lines)) < 80
    assert any(path in line for line in lines)
    assert sum(line.count("it-broke-down") for line in lines) == 9


def test_an_outcome_that_was_not_recorded_says_so():
    assert "\nrecorded  nothing\n" in render_outcome(build_outcome(), "", [], table=False)


def test_open_findings_that_are_not_shown_are_counted():
    assert "\n+6 more; " in render_outcome(build_outcome([build_finding()], open_count=7), "", [], table=False)
    assert "more;" not in render_outcome(build_outcome([build_finding()], open_count=1), "", [], table=False)


def test_a_past_run_is_told_with_its_scope_and_no_name_in_a_reason_moves_the_cursor():
    rule = RuleUsed("r1", "ab" * 32, "it broke down on gateway \x1b[2Jshop: internal error")
    run = build_run([], rules=[rule], scope=RunScope(["g1"], ["r1"]))
    text = past.render_report(run, "cd" * 32, [], table=False)
    assert "scope     g1; r1\n" in text
    assert "r1 (not evaluated: it broke down on gateway \\x1b[2Jshop: internal error)" in text
    assert "\x1b" not in text
