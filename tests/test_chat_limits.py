"""What does not fit is shortened or counted, and no name does harm, whatever it is and however long."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any
from unicodedata import category

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from msgspec.structs import replace

from audit.extent import Extent
from audit.model import Coverage, GatewayRef
from audit.notify import Message
from audit.render.chat.digest import REPORT, build_digest
from audit.render.chat.fit import cut, octets, units
from audit.render.chat.inert import escape_markup, inert, replace_marks
from audit.render.kinds import KINDS
from tests.builders import NOW_TEXT, RUN_ID, finding
from tests.chat_cases import SITUATIONS
from tests.emulator.chat import CHAT_KINDS
from tests.emulator.services import texts_in
from tests.test_chat_golden import check, request

NOW = 1755828000.0
SECRETS = {"feishu": "test-secret", "dingtalk": "SECtest"}
HARM = [
    "@everyone", "<!here>", "<@U0123>", "<@&1>", "<#1>", "<at id=all></at>", "<at>Bob</at>",
    "[x](https://evil.example)", "![x](http://evil.example/p.png)", "<https://evil.example|ok>", "<https://evil.example>",
    "https://evil.example", "www.evil.example", "evil.example", "x@evil.example", "://", ":", "//", ".",
    "`", "```", "*", "**", "_", "__", "~~", "||", "|", "\\", "\\\\", "\n", "\r\n", "\n# ", "\n- ", "> ", "#", "1. ",
    "]", "[", "(", ")", "<", ">", "&", "&lt;", "</font>", '<font color="info">', '"', "'", "{}", "%s", "  ", "@all",
    "&commat;all", "&#60;at id=all&#62;", "&lt;@all&gt;", "&#x5b;x&rsqb;&lpar;https&colon;//evil.example)", "&amp;lt;",
    "-", "\x1b[2J", "\x00", "\u202e", "\u200b", "\u2028", "\ufeff", "\U000e0041", "é", "漢", "😀",
    "\U0001f468\u200d\U0001f469", "a" * 60,
]  # fmt: skip
NAMES = st.lists(st.sampled_from(HARM), max_size=12).map("".join)
# A name of up to 10,000 characters and more; not made by hypothesis, which would print it.
TIMES = st.sampled_from([1, 1, 1, 1000])
# What a service or its form demands, and the link to the report: addresses that are no text from outside.
ADDRESSES = {"url", "$schema", "singleURL", "contentType"}
REPORT_URL = "https://evidence.example.com/r.html?x=(1)"


def hostile(name: str, number: int = 1000, left_out: int = 7, gaps: int = 0, link: str = REPORT_URL) -> Message:
    """A message of so many findings about gateways, groups and connections of this name, and of gaps and problems."""
    findings = [
        finding(
            "r1",
            f"{name}{each}",
            severity="high",
            gateway=GatewayRef("g", name, "cn-north-4", "p1"),
            message=f"is {name}",
        )
        for each in range(number)
    ]
    extent = Extent(
        [Coverage("r", "p", f"g{each}", name, "not_covered", name, 0, None) for each in range(gaps)],
        idle=frozenset(f"rule-{each}" for each in range(gaps)),
    )
    before = SITUATIONS["first-findings"]
    assert before.standing is not None
    return replace(
        before,
        headline="1007 open (1007 high)",
        findings=findings,
        left_out=left_out,
        open_by_severity={"high": number + left_out},
        problems=[name] * gaps,
        standing=replace(before.standing, extent=extent, report_url=link),
    )


def payload(kind: str, message: Message) -> Any:
    """The body, once its service took it."""
    post = KINDS[kind].build(message, SECRETS.get(kind), NOW)
    check(kind, request(kind, post))
    return json.loads(post.body)


def without_addresses(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_addresses(inner) for name, inner in value.items() if name not in ADDRESSES}
    return [without_addresses(inner) for inner in value] if isinstance(value, list) else value


def said(kind: str, body: Any) -> list[str]:
    """Every text that is shown, but for the link to the report."""
    texts = texts_in(without_addresses(body))
    own = REPORT_URL.replace("(", "%28").replace(")", "%29")
    return [text.replace(f"[{REPORT}]({own})", "").replace(REPORT_URL, "") for text in texts]


@settings(max_examples=60, deadline=None)
@given(NAMES, TIMES)
def test_a_thousand_findings_fit_and_each_is_shown_or_counted(name, times):
    """Every kind: limits kept, as its service holds; nothing is dropped in silence."""
    message = hostile(name * times)
    for kind in CHAT_KINDS:
        text = "\n".join(said(kind, payload(kind, message)))
        shown = len(re.findall(r"🟠 high new", text))
        counted = re.findall(r"\+(\d+)(?: more, see the report|, )", text)
        assert len(counted) == 1, (kind, text)
        assert shown + int(counted[0]) == 1007, kind


@settings(max_examples=80, deadline=None)
@given(NAMES, TIMES, st.sampled_from([1, 3, 100]))
def test_no_name_pings_links_or_marks_up(name, times, gaps):
    """Every kind: no mention, no link, no markup, nothing invisible, whatever a name holds."""
    assert_inert(hostile(name * times, number=3, gaps=gaps))


@pytest.mark.parametrize("bit", HARM)
def test_no_bit_does_harm_alone(bit):
    """Each is at the beginning of some line."""
    assert_inert(hostile(bit, number=1, gaps=1))
    assert_inert(hostile(bit * 10_000, number=1, gaps=1))


@pytest.mark.parametrize("bit", ["x", "漢", "&", "*", "😀"])
def test_everything_at_its_longest_fits_in_all(bit):
    """Every section full: what a service takes in all counts too, not only part by part."""
    message = hostile(bit * 5_000, number=30, gaps=30)
    sizes = {kind: len(KINDS[kind].build(message, SECRETS.get(kind), NOW).body) for kind in CHAT_KINDS}
    for kind in CHAT_KINDS:
        payload(kind, message)
    assert sizes["teams"] <= 20_000
    assert sizes["feishu"] <= 20_000


def assert_inert(message: Message) -> None:
    for kind in CHAT_KINDS:
        for text in said(kind, payload(kind, message)):
            assert "@" not in text, kind
            assert "://" not in text, kind
            assert not re.search(r"\w\.[a-z]", text), kind
            assert not [sign for sign in text if sign != "\n" and category(sign) in {"Cc", "Cf", "Co", "Zl", "Zp"}], (
                kind
            )
            assert_no_markup(kind, text)


def assert_no_markup(kind: str, text: str) -> None:
    if kind == "slack":
        assert not re.search(r"[<>`~]|&(?!amp;|lt;|gt;)", text)
        # Bold is what stands in our own headings alone.
        assert all(re.fullmatch(r"\*[A-Za-z ]+\*", line) for line in text.split("\n") if "*" in line)
        assert not re.search(r"(?<![^\W_])_\w|\w_(?![^\W_])", text)
    elif kind == "feishu":
        assert not re.search(r"[<>]", text)
    elif kind in {"dingtalk", "wecom"}:
        assert "&" not in text
        text = re.sub(r'^(### )<font color="\w+">(.*)</font>$', r"\1\2", text, flags=re.MULTILINE)
        assert not re.search(r"[<>`~\[\]]", text)
        assert_inert_markdown(text)
    elif kind in {"teams", "discord"}:
        assert kind == "discord" or "&" not in text
        assert_inert_markdown(text)


def assert_inert_markdown(text: str) -> None:
    """As a CommonMark parser reads it: text, lists, headings and the bold of our own headings."""
    inline = [child for token in MarkdownIt("commonmark").parse(text) for child in token.children or []]
    kinds = {token.type for token in inline}
    assert kinds <= {"text", "text_special", "softbreak", "hardbreak", "strong_open", "strong_close"}, kinds
    blocks = [token.type for token in MarkdownIt("commonmark").parse(text)]
    assert not set(blocks) & {"html_block", "fence", "code_block", "blockquote_open", "ordered_list_open", "hr"}, blocks
    assert blocks.count("heading_open") == text.startswith("### "), blocks
    for before, token in pairwise(inline):
        if before.type == "strong_open":
            assert re.fullmatch(r"[A-Za-z ]+:?", token.content)


@pytest.mark.parametrize("length", [0, 100, 250, 1499, 1501, 2999, 20_000])
@pytest.mark.parametrize("kind", CHAT_KINDS)
def test_a_link_is_whole_or_left_out_in_words(kind, length):
    """A presigned one can be long; half of it would lead nowhere."""
    link = f"https://e.example/{'x' * length}"
    text = json.dumps(payload(kind, hostile("n", number=30, gaps=30, link=link)))
    assert (link in text) != ("its link is too long for this chat" in text)
    assert "xxx" not in text.replace(link, "")


@pytest.mark.parametrize("length", [0, 600, 100_000])
@pytest.mark.parametrize("number", [600, 5_000])
@pytest.mark.parametrize("kind", CHAT_KINDS)
def test_rules_that_were_not_evaluated_fit_or_are_counted(kind, number, length):
    """However many, with the reason of each among the problems, and beside a link without end."""
    message = hostile("n", number=1, left_out=0, link=f"https://e.example/{'x' * length}")
    assert message.standing is not None
    names = [f"a-rule-with-a-name-of-some-length-{each:04}" for each in range(number)]
    reasons = [f"rule {name} was not evaluated: not configured: list l is empty in the policy" for name in names]
    extent = replace(message.standing.extent, idle=frozenset(names))
    message = replace(message, standing=replace(message.standing, extent=extent), problems=reasons)
    text = "\n".join(said(kind, payload(kind, message)))
    counted = re.findall(r"\+(\d+)(?: more, see the report|, )", text)
    assert len(set(re.findall(r"some-length-\d{4}", text))) + int(counted[0]) == number
    assert "Problems" not in text


@pytest.mark.parametrize("kind", CHAT_KINDS)
@pytest.mark.parametrize("text", ["x" * 20_000, "&<>" * 9_000, "*_[]" * 9_000, "漢" * 9_000, "😀" * 9_000])
def test_a_run_that_could_do_nothing_is_told_however_long_its_reason(kind, text):
    """There is no standing then, and the trouble is the headline."""
    message = Message("d", "soc", RUN_ID, NOW_TEXT, f"audit failed: {text}", {}, {}, (), 0, (text,), None)
    whole = "\n".join(said(kind, payload(kind, message)))
    assert "audit failed" in whole
    assert "🔴" in whole
    assert "none was recorded" in whole


@pytest.mark.parametrize("kind", CHAT_KINDS)
def test_a_receiver_that_hears_of_nothing_but_a_clean_estate_gets_a_message_too(kind):
    """A form without lines is still one that its service takes."""
    before = SITUATIONS["all-resolved"]
    message = replace(before, headline="clean", changes={}, findings=(), problems=())
    assert "apig-vpcep-audit 🟢 clean" in "\n".join(said(kind, payload(kind, message)))


@pytest.mark.parametrize("gaps", [0, 1, 40])
def test_order_and_lengths_of_a_digest(gaps):
    """Findings come first; long lists are cut and counted."""
    digest = build_digest(hostile("n", number=12, left_out=0, gaps=gaps))
    found = {section.heading: (len(section.lines), section.left_out) for section in digest.sections}
    expected = {"Findings": (10, 2)}
    if gaps:
        expected |= {
            "Not covered": (min(gaps, 5), max(0, gaps - 5)),
            "Rules not evaluated": (min(gaps, 5), max(0, gaps - 5)),
            "Problems": (min(gaps, 3), max(0, gaps - 3)),
        }
    assert list(found.items()) == list(expected.items())


@pytest.mark.parametrize(
    ("severities", "gap", "mood"),
    [
        ({}, False, "clear"),
        ({}, True, "medium"),
        ({"low": 1}, False, "low"),
        ({"low": 1}, True, "medium"),
        ({"critical": 1, "low": 2}, True, "critical"),
        ({"info": 1}, False, "info"),
    ],
)
def test_mood(severities, gap, mood):
    """The worst severity; a gap is as bad as medium."""
    message = replace(hostile("n", number=0, left_out=0, gaps=int(gap)), open_by_severity=severities)
    assert build_digest(message).mood == mood


@pytest.mark.parametrize(
    "bad", ["javascript:alert(1)", "file:///x", "https://e.example/\u202e", "https://e.example/a\nb", "/x"]
)
def test_only_a_web_address_becomes_a_link(bad):
    """Everything else is shown as text."""
    digest = build_digest(hostile("n", link=bad))
    assert digest.link == ""
    assert ("Report", inert(bad)) in digest.anchors


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("domain_id d1; 2.5 h (v1.2)", "domain_id d1; 2.5 h (v1.2)"),
        ("https://a.b/c", "https[:]//a[.]b/c"),
        ("a@b", "a\uff20b"),
        ("a\u202eb\n", "a\\u202eb\\n"),
    ],
)
def test_inert(text, shown):
    """What is harmless stays as it is."""
    assert inert(text) == shown


def test_marks():
    """A backslash where that is an escape, a look-alike where nothing is; underscores inside words mean nothing."""
    assert escape_markup("a_b*[x](y)\\") == "a\\_b\\*\\[x\\]\\(y\\)\\\\"
    assert replace_marks("a_b _x_ __y__ *z*", "_*") == "a_b \uff3fx\uff3f \uff3f\uff3fy\uff3f\uff3f \uff0az\uff0a"
    assert replace_marks("*_", "<>") == "*_"


@given(st.text(max_size=60), st.integers(5, 40))
def test_cut_never_passes_the_limit_nor_splits_an_escape(text, most):
    """Measured as it will be sent."""
    for measure in (units, octets):
        assert measure(cut(text, most, measure=measure)) <= most
    made = cut(text, most, escape_markup)
    assert units(made) <= most
    assert not re.search(r"(?<!\\)(\\\\)*\\(?![\\`*_~|<>\[\]()#])", made)
