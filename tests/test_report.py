"""report.html: what an auditor opens. Everything that can be said of the text; the rest in a real browser."""

from __future__ import annotations

import re
import subprocess
import sys
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from unicodedata import category

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.archive import FINDINGS, RunScope
from audit.model import NARROWED, TURNED_OFF, GatewayRef
from audit.render.report import MOST_SHOWN, render_report
from audit.ruleset.language import TRUE
from audit.ruleset.parse import WAIVER_EXPIRED
from audit.ruleset.policy import Waiver
from audit.text import printable
from tests.browser import CHROMIUM, Browser
from tests.builders import RUN_ID, finding
from tests.report_sample import RULES, WAIVER, build_coverage, build_findings, build_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from audit.archive import Manifest
    from audit.model import Finding

HOSTILE = "<img src=x onerror=alert(1)>\"'`</script><script>alert(2)</script>\x1b[2J\u202egpj.exe {{ 7*7 }}"
VOID = {"meta", "link", "input", "br", "rect", "line"}


class Outline(HTMLParser):
    """Reads a page strictly: what is opened is closed, ids are unique. Keeps tags with attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []
        ids = [attributes["id"] for _, attributes in self.tags if "id" in attributes]
        assert len(ids) == len(set(ids))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(findings: list[Finding], run: Manifest | None = None, **known: Any) -> str:
    return b"".join(render_report(run or build_run(findings), findings, **known)).decode()


def outline_of(findings: list[Finding], run: Manifest | None = None, **known: Any) -> Outline:
    return Outline(page_of(findings, run, **known))


def rows_of(outline: Outline) -> list[dict[str, str | None]]:
    return [row for row in outline.all("tr") if "data-severity" in row]


# What the page is


@pytest.mark.parametrize("number", [0, 12])
def test_its_policy_names_the_one_style_and_the_one_script_by_hash_and_nothing_else(number):
    text = page_of(build_findings(number))
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    (style,), (script,) = (re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL) for tag in ("style", "script"))
    hashes = ["sha256-" + b64encode(sha256(part.encode()).digest()).decode() for part in (style, script)]
    assert policy == (
        f"default-src 'none'; style-src '{hashes[0]}'; script-src '{hashes[1]}'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def test_it_refers_to_nothing_outside_itself():
    outline = outline_of(build_findings(60), build_run(build_findings(60), gaps=True))
    for tag, attributes in outline.tags:
        assert not {"src", "srcset", "action", "formaction", "data", "style", "ping", "xlink:href"} & attributes.keys()
        assert not [name for name in attributes if name.startswith("on")], tag
        assert (attributes.get("href") or "#").startswith("#") or attributes["href"] == "data:,"
    assert not re.search(r"@import|url\(", page_of([]))


def test_its_landmarks_headings_and_tables_are_in_order():
    outline = outline_of(build_findings(12))
    assert [len(outline.all(tag)) for tag in ("header", "main", "footer", "h1")] == [1, 1, 1, 1]
    ids = {attributes.get("id") for _, attributes in outline.tags}
    assert {attributes["aria-labelledby"] for attributes in outline.all("section")} <= ids
    assert all("scope" in attributes for attributes in outline.all("th"))
    assert [a["aria-live"] for a in outline.all("span") if "aria-live" in a] == ["polite"]
    assert outline.all("html") == [{"lang": "en"}]


# What it says first


def test_the_first_line_says_that_the_truth_is_partial_and_the_gaps_come_before_the_findings():
    text = outline_of(build_findings(12), build_run(build_findings(12), gaps=True)).text
    said = "Partial: 1 gateway not fully covered, 1 rule not evaluated, 1 gateway with nothing to compare yet"
    assert text.startswith(f"{said} · {RUN_ID} {said}")  # the title, then the first line
    places = [text.index(words) for words in ("Not covered", "apig:instance:listVpcEndpoint", "Findings by severity")]
    assert places == sorted(places)
    assert "no-open-door everywhere: not configured: list approved-domains is empty in the policy" in text
    assert "newly-accepted on 1 gateway (reports): no earlier reading to compare with" in text


def test_clean_is_said_where_all_was_read_and_judged_only():
    said = [outline_of([], build_run([], gaps=gaps)).text for gaps in (False, True)]
    assert "Clean." in said[0]
    assert "Nothing in scope was left out" in said[0]
    assert "Clean." not in said[1]
    assert "Nothing found in what could be judged." in said[1]
    limited = outline_of([], build_run([], scope=RunScope(["g1"], []))).text
    assert "Clean in what was in scope." in limited
    assert limited.startswith("Complete in what was in scope: limited to some gateways")
    assert outline_of([], build_run([], coverage=[])).text.startswith("There is no gateway to judge")


def test_a_rule_that_the_policy_turns_off_is_not_passed_over():
    rule_id = RULES.rules[3].id
    whole = build_coverage(gaps=False)
    off = [msgspec.structs.replace(entry, not_evaluated={rule_id: TURNED_OFF}) for entry in whole]
    total = len(RULES.rules)
    for coverage, gateways, where, number in (
        ([*off[:1], *whole[1:]], "1 gateway", "on 6 of 7 gateways", total),
        (off, "7 gateways", f"no : {TURNED_OFF}", total - 1),
    ):
        text = outline_of([], build_run([], coverage=coverage)).text
        assert text.startswith(f"Complete in what was in scope: {gateways} with rules turned off by the policy")
        assert "Clean in what was in scope." in text
        assert f"{rule_id} no title on record, as it has no finding {where}" in text
        assert f"Rules evaluated {number} of {total}" in text


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ([("r", "p")] * 2, "r p Scope"),
        (
            [(f"r{number}", f"p{number}") for number in range(50)],
            "r0, r1 and 48 more regions p0, p1 and 48 more projects",
        ),
    ],
)
def test_many_regions_and_projects_are_named_in_short(places, said):
    whole = build_coverage(gaps=False)[0]
    coverage = [msgspec.structs.replace(whole, region=region, project_id=project) for region, project in places]
    assert f"Region and project {said}" in outline_of([], build_run([], coverage=coverage)).text


@pytest.mark.parametrize(
    ("gateways", "rules", "said"),
    [
        ([], [], "Scope all gateways; all rules Mode"),
        (["g1"], ["r1", "r2"], "Scope g1; r1, r2 Mode"),
        ([f"g{number}" for number in range(500)], [], "Scope g0, g1 and 498 more gateways; all rules Mode"),
    ],
)
def test_the_scope_is_named_in_short(gateways, rules, said):
    assert said in outline_of([], build_run([], scope=RunScope(gateways, rules))).text


def test_a_rule_that_the_limits_of_a_run_leave_out_is_no_gap():
    used = [msgspec.structs.replace(rule, not_evaluated=NARROWED) for rule in build_run([]).rules[:1]]
    run = build_run([], rules=[*used, *build_run([]).rules[1:]], scope=RunScope(["g1"], []))
    text = outline_of([], run).text
    assert text.startswith("Complete in what was in scope: limited to some gateways")
    assert f"{used[0].id} everywhere: {NARROWED}" in text


def test_a_list_of_gateways_that_could_not_be_read_is_a_gap():
    whole = build_coverage(gaps=False)[0]
    about = msgspec.structs.replace(whole, gateway_id=None, name="", state="not_covered", reason="HTTP 503")
    text = outline_of([], build_run([], coverage=[about])).text
    assert text.startswith("Partial: the list of gateways not fully read")
    assert "list of gateways of cn-north-4 p1 not covered HTTP 503" in text


# Findings


def test_findings_stand_open_before_closed_and_worst_first():
    rows = [(row["data-status"], row["data-severity"]) for row in rows_of(outline_of(build_findings(200)))]
    closed = ["waived", "resolved"]
    kinds = [closed.index(str(status)) + 1 if status in closed else 0 for status, _ in rows]
    assert (len(rows), kinds) == (200, sorted(kinds))
    weights = [["critical", "high", "medium", "low", "info"].index(str(word)) for _, word in rows[: kinds.count(0)]]
    assert weights == sorted(weights)


def test_a_finding_tells_its_story():
    (found,) = [finding(status="waived", waiver=WAIVER, controls={"ISO 27001:2022": ["A.5.15"]}, occurrences=3)]
    text = outline_of([found]).text
    for words in (
        "a message", "First seen 2026-11-20 08:15 UTC , 48 h before this run; seen in 3 runs",
        "Last seen 2026-11-21 08:15 UTC (as run 20261121T081500Z-000001 left it)", "Expected {}", "Actual {}",
        "Remedy do something", "ISO 27001:2022: A.5.15", "reason: partner moves to the new account", found.uid,
    ):  # fmt: skip
        assert words in text


def test_beyond_the_limit_the_worst_are_shown_and_where_the_rest_is():
    findings = build_findings(MOST_SHOWN + 500)
    outline = outline_of(findings)
    assert len(rows_of(outline)) == MOST_SHOWN
    assert "The worst 2,000 of 2,500 findings are shown. All of them are beside this page" in outline.text
    assert FINDINGS in outline.text
    left_out = sum(found.status != "resolved" for found in findings) - MOST_SHOWN
    assert left_out > 0
    assert "resolved" not in {row["data-status"] for row in rows_of(outline)}


def test_no_more_findings_are_held_than_are_shown():
    """Memory is bounded by the page, not by the estate."""
    alive: list[int] = []
    peak = 0

    class Counted(list[int]):
        def __del__(self) -> None:
            alive.pop()

    def stream() -> Iterator[Finding]:
        nonlocal peak
        for index in range(MOST_SHOWN + 3000):
            alive.append(1)
            yield finding(connection_id=f"c{index}", actual=Counted([index]))
            peak = max(peak, len(alive))

    for _ in render_report(build_run([]), stream()):
        pass
    assert peak <= MOST_SHOWN + 10


def test_waivers_that_have_expired_or_soon_will_are_listed_with_what_they_cover():
    covered = finding(status="waived", waiver=WAIVER)
    gone = {"id": "w-old", "reason": "freeze", "approved_by": "me", "expires": "2026-11-20T00:00:00Z"}
    needed = finding(WAIVER_EXPIRED, gateway=None, subject="policy", actual={**gone, "rule": "r1", "findings": 7})
    far = Waiver("w-far", "r1", TRUE, "later", "me", "", "2027-11-20T00:00:00Z")
    for known in ([], [far]):
        text = outline_of([covered, needed], waivers=known).text
        assert "w-old expired 56 h 15 min ago , 2026-11-20 00:00 UTC r1 freeze me 7 open again" in text
        assert "w-partner-move SEC-1187 in 3 days, 2026-11-25 08:15 UTC r1" in text
        assert "w-far" not in text
    assert "Waivers that have expired" not in outline_of([]).text


def test_of_a_past_run_the_titles_of_rules_are_those_that_its_findings_tell():
    rule = RULES.rules[0]
    found = finding(rule.id, title=rule.title, severity="critical")
    text = outline_of([found]).text
    assert f"{rule.id} C critical {rule.title} yes" in text
    assert f"{RULES.rules[1].id} no title on record, as it has no finding" in text
    assert RULES.rules[1].title in outline_of([found], rules=RULES.rules).text


def test_the_chain_of_evidence_is_named():
    text = outline_of([]).text
    for item in build_run([]).objects:
        assert f"{item.key} {item.bytes:,} {item.sha256}" in text
    assert f"20261121T081500Z-0a1b2c, sha256 of its manifest {'f0' * 32}" in text
    assert f"python -m audit verify --run {RUN_ID}" in text
    assert "none: this is the first run" in outline_of([], build_run([], parent=None)).text


def test_the_trend_has_its_numbers_as_text():
    findings = build_findings(12)
    outline = outline_of(findings, build_run(findings, runs=24))
    (drawing,) = outline.all("svg")
    assert drawing["role"] == "img"
    assert "24 runs" in outline.text
    assert str(drawing["aria-label"]).startswith("Open findings by severity, a bar a run: 14 at 2026-10-30T08:15:00Z")
    assert "no trend yet" in outline_of([], build_run([], runs=1)).text
    outline_of([], build_run([], runs=0))


# Hostile input


def hostile_page(name: str) -> str:
    whole = build_coverage(gaps=False)[0]
    ref = GatewayRef(name, name, name, name)
    texts: dict[str, Any] = {"expected": {name: name}, "actual": [name], "controls": {name: [name]}, "gateway": ref}
    words: dict[str, Any] = dict.fromkeys(("message", "title", "remediation", "connection"), name)
    waiver = {"id": name, "reason": name, "approved_by": name, "ticket": name, "expires": "2026-11-20T00:00:00Z"}
    found = [
        finding(**texts, **words, rule_id=name),
        finding(connection_id="c2", group={name: name}, status="waived", waiver=waiver),
    ]
    gap = msgspec.structs.replace(whole, name=name, state="partial", reason=name, request_id=name)
    entry = msgspec.structs.replace(whole, name=name, region=name, not_evaluated={name: name})
    return page_of(found, build_run(found, coverage=[gap, entry], mode=name, scope=RunScope([name], [name])))


def test_hostile_names_are_inert_and_seen():
    text = hostile_page(HOSTILE)
    outline = Outline(text)
    assert not outline.all("img")
    assert len(outline.all("script")) == 1
    assert not {"\x1b", "\u202e"} & set(text)
    assert printable(HOSTILE) in outline.text
    assert "{{ 7*7 }}" in outline.text


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=40))
def test_no_name_changes_what_the_page_is_made_of(name):
    plain, odd = (Outline(hostile_page(text)) for text in ("x", f"x{name}"))
    assert [tag for tag, _ in odd.tags] == [tag for tag, _ in plain.tags]
    assert not {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"} & set(map(category, odd.text))


def test_a_name_without_end_is_cut():
    assert len(hostile_page("a" * 1_000_000)) < 200_000


def test_jinja_is_not_loaded_until_a_page_is_written():
    code = "import sys, handler, audit.cli, audit.render.report; sys.exit('jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# In a browser

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Pages with no, some, and too many findings."""
    directory = tmp_path_factory.mktemp("pages")
    written = {}
    for number in (0, 12, 2500):
        findings = build_findings(number)
        run = build_run(findings, gaps=number > 0)
        written[number] = directory / f"{number}.html"
        written[number].write_text(page_of(findings, run, rules=RULES.rules), encoding="utf-8")
    return written


CHOOSE = """((name, value) => {
  const field = document.forms[0].elements[name];
  field.value = value;
  field.dispatchEvent(new Event("input", {bubbles: true}));
})"""
SHOWN = "[...document.querySelectorAll('#table tbody tr:not([hidden])')]"
# The first cell's badge and the like are drawn over a colour of their own.
CONTRAST = """(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = (c) => c.slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => { for (; node; node = node.parentElement) {
    const c = parse(getComputedStyle(node).backgroundColor); if (c.length === 3 || c[3] > 0) return c; }
    return [255, 255, 255]; };
  const low = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; node = walker.nextNode();) {
    const of = node.parentElement;
    if (!node.data.trim() || !of.checkVisibility() || of.closest("svg, script")) continue;
    const [a, b] = [light(parse(getComputedStyle(of).color)), light(ground(of))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) low.push(of.className + ": " + node.data.trim().slice(0, 30));
  }
  return [...new Set(low)];
})()"""


@needs_browser
@pytest.mark.parametrize("number", [0, 12, 2500])
@pytest.mark.parametrize("look", ["light", "dark", "phone", "tablet", "print", "plain"])
def test_it_looks_as_it_should(browser, pages, number, look, tmp_path):
    """No request, no complaint, nothing to scroll sideways, every text readable; pictures are in the test's folder."""
    page = browser.open(
        pages[number].as_uri(),
        width={"phone": 390, "tablet": 820, "print": 700}.get(look, 1280),
        dark=look in {"dark", "print"},
        scripts=look != "plain",
        media="print" if look == "print" else "",
    )
    page.shoot(tmp_path / f"{number}-{look}.png")
    assert page.requests == [pages[number].as_uri()]
    assert page.problems == []
    if look != "plain":
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
        assert page.run(CONTRAST) == []


@needs_browser
def test_filters_narrow_the_table_and_stand_in_the_url(browser, pages):
    page = browser.open(pages[12].as_uri())
    assert page.run(f"{SHOWN}.length") == 12
    page.run(f"{CHOOSE}('status', 'open')")
    page.wait("location.hash === '#status=open'")
    assert page.run("document.getElementById('count').textContent") == "9 of 12 findings shown"
    page.run(f"{CHOOSE}('severity', 'high')")
    page.wait("location.hash === '#severity=high&status=open'")
    assert page.run(f"{SHOWN}.map(row => row.dataset.severity)") == ["high", "high"]
    page.run(f"{CHOOSE}('q', 'COUNT 00000007')")
    page.wait("location.hash.startsWith('#q=COUNT+00000007')")
    assert page.run(f"{SHOWN}.length") == 1
    page.run(f"{CHOOSE}('q', 'nothing like it')")
    page.wait("!document.getElementById('none').hidden")
    page.run("document.forms[0].elements[5].click()")
    page.wait(f"{SHOWN}.length === 12 && location.hash === ''")
    assert page.problems == []


@needs_browser
def test_the_url_brings_the_view_back(browser, pages):
    rule = build_findings(1)[0].rule_id
    for state, test in {
        "severity=low&status=resolved": "row.dataset.severity === 'low' && row.dataset.status === 'resolved'",
        f"rule={rule}": f"row.dataset.rule === '{rule}'",
        "gateway=05d66704ddb534683445c19ae2d1a5b": "row.dataset.name === 'reports'",
    }.items():
        page = browser.open(f"{pages[12].as_uri()}#{state}")
        assert page.run(f"{SHOWN}.length > 0 && {SHOWN}.length < 12 && {SHOWN}.every(row => {test})"), state
    page.run("location.hash = 'severity=nonsense&gateway=%22%3E'")
    page.wait(f"{SHOWN}.length === 12")


@needs_browser
def test_a_number_of_the_matrix_leads_to_its_findings(browser, pages):
    page = browser.open(pages[12].as_uri())
    page.run("document.querySelector('.matrix .sum a').click()")
    page.wait(f"{SHOWN}.length === 1 && {SHOWN}[0].dataset.severity === 'critical'")
    assert page.run("document.forms[0].elements.status.value") == "open"


@needs_browser
def test_a_click_on_a_heading_sorts_and_the_url_remembers(browser, pages):
    page = browser.open(pages[12].as_uri())
    order = f"{SHOWN}.map(row => row.dataset.first).join()"
    worst_first = page.run(order)
    click = "document.querySelector('th[data-sort=first] button').click()"
    for hash_, direction, backwards in (("#sort=first", "ascending", ""), ("#sort=-first", "descending", ".reverse()")):
        page.run(click)
        assert page.run("location.hash") == hash_
        assert page.run("document.querySelector('th[data-sort=first]').getAttribute('aria-sort')") == direction
        assert page.run(order) == page.run(f"{SHOWN}.map(row => row.dataset.first).sort(){backwards}.join()")
    again = browser.open(f"{pages[12].as_uri()}#sort=-first")
    assert again.run(order) == page.run(order)
    page.run(click)
    assert page.run(order) == worst_first


@needs_browser
def test_the_keyboard_is_enough(browser, pages):
    """The first stop skips to the findings; stories open with Enter, and focus is seen."""
    page = browser.open(pages[12].as_uri())
    page.press("Tab", 9)
    assert page.run("document.activeElement.textContent") == "Skip to the findings"
    page.press("Enter", 13)
    page.wait("document.activeElement.id === 'findings'")
    page.run("document.querySelector('#table summary').focus()")
    page.press("Enter", 13)
    page.wait("document.querySelector('#table details').open")
    page.press("Tab", 9)
    assert page.run("document.activeElement.tagName") == "SUMMARY"
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.run("document.getElementById('all').click()")
    assert page.run("document.querySelectorAll('#table details[open]').length") == 12


@needs_browser
def test_without_scripts_everything_is_there_and_nothing_is_dead(browser, pages):
    page = browser.open(pages[12].as_uri(), scripts=False)
    tree = page.call("DOMSnapshot.captureSnapshot", computedStyles=["display"])
    words = " ".join(tree["strings"])
    assert "12 findings shown" in words
    assert "Remedy" in words
    text = pages[12].read_text()
    assert '<form id="filters" role="search" aria-label="Findings" hidden>' in text
    assert text.count("<button") == text.count("hidden>Expand") + text.count('type="reset"')


@needs_browser
def test_hostile_names_do_nothing_in_a_browser(browser, tmp_path):
    path = tmp_path / "hostile.html"
    path.write_text(hostile_page(HOSTILE), encoding="utf-8")
    page = browser.open(path.as_uri())
    assert (page.problems, page.requests) == ([], [path.as_uri()])
    assert page.run("document.images.length") == 0
    page.run(f"{CHOOSE}('gateway', document.forms[0].elements.gateway.options[1].value)")
    page.wait("location.hash !== ''")
    assert page.run(f"{SHOWN}.length") == 1


@needs_browser
@pytest.mark.parametrize("width", [390, 800, 1280])
def test_a_name_without_a_space_widens_no_page(browser, tmp_path, width):
    path = tmp_path / "long.html"
    path.write_text(hostile_page("g" * 500), encoding="utf-8")
    page = browser.open(path.as_uri(), width=width)
    assert page.run("document.documentElement.scrollWidth") == width
    assert page.run("[...document.querySelectorAll('th button')].every((button) => button.offsetHeight < 30)")


@needs_browser
def test_the_table_is_a_table_to_a_screen_reader_on_a_phone_too(browser, pages):
    for width in (390, 1280):
        page = browser.open(pages[12].as_uri(), width=width)
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        roles = [node["role"]["value"] for node in nodes if not node["ignored"]]
        assert roles.count("table") >= 3
        assert {"banner", "main", "contentinfo", "search", "status"} <= set(roles)
        names = [n["name"]["value"] for n in nodes if n["role"]["value"] == "table" and n.get("name")]
        assert "Findings" in names
