"""What the README says is what the code does."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import get_args

import pytest

from audit import __version__
from audit.cli import build_parser
from audit.model import STATUSES, CoverageState
from audit.settings import SETTINGS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def settings_table() -> str:
    rows = [f"| `AUDIT_{s.name}` | {s.meaning}{' (secret)' if s.secret else ''} | {s.default} |" for s in SETTINGS]
    return "\n".join(["| name | meaning | default |", "|---|---|---|", *rows])


def test_the_table_of_settings_is_the_codes():
    """To renew it, print settings_table()."""
    found = re.search(r"<!-- settings:.*?-->\n(.*?)\n<!-- /settings -->", README, re.DOTALL)
    assert found
    assert found[1] == settings_table()


def verbs() -> dict[str, argparse.ArgumentParser]:
    """Every command of the command line with its parser."""

    def walk(name: str, parser: argparse.ArgumentParser):
        inner = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        if not inner:
            yield name, parser
        for action in inner:
            for word, child in action.choices.items():
                yield from walk(f"{name} {word}", child)

    return dict(walk("python -m audit", build_parser()))


def test_the_table_of_commands_is_the_parsers():
    """Every verb has a row that names every flag that is not a setting."""
    rows = dict(
        re.findall(r"^\| `(python -m audit[a-z ]*?)(?: \[DIR\]| \[RUN\]| RULE)?` \|(.*)$", README, re.MULTILINE)
    )
    parsers = verbs()
    assert rows.keys() == parsers.keys()
    settings = {setting.flag for setting in SETTINGS}
    for name, parser in parsers.items():
        flags = {flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")}
        assert set(re.findall(r"--[a-z-]+", rows[name])) == flags - settings - {"--help"}, name


@pytest.mark.parametrize("name", sorted(verbs()))
def test_every_verb_has_help_with_an_example(name):
    """And the example is one of its own commands."""
    text = verbs()[name].format_help()
    assert "example" in text
    assert f"  {name}" in text.split("example", 1)[1]


def test_every_setting_without_secret_has_a_flag():
    """And no secret has one."""
    flags = {flag for action in verbs()["python -m audit run"]._actions for flag in action.option_strings}
    assert {s.flag for s in SETTINGS if not s.secret} <= flags
    assert not {s.flag for s in SETTINGS if s.secret} & flags


def test_every_file_that_is_linked_or_named_exists():
    """Paths in the README lead somewhere."""
    linked = set(re.findall(r"\]\(([\w./-]+)\)", README))
    named = set(re.findall(r"`((?:audit|rules|tests)/[\w./-]*)`", README))
    for name in linked | named:
        assert (ROOT / name).exists(), name


def test_every_make_target_exists():
    """As `make help` lists them."""
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`?make ([a-z]+)`?", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_changelog_speaks_of_this_version():
    """An operator finds what changed."""
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_exit_codes_in_readme_and_help_agree():
    """The same five codes in the same order."""
    help_text = verbs()["python -m audit run"].format_help()
    assert re.findall(r"^  ([0-4])  ", help_text, re.MULTILINE) == ["0", "1", "2", "3", "4"]
    assert re.findall(r"^\| ([0-4]) \|", README, re.MULTILINE) == ["0", "1", "2", "3", "4"]


def test_every_symptom_in_the_readme_is_what_the_product_says():
    """An operator searches for the words that were shown."""
    found = re.search(r"<!-- symptoms:.*?-->\n\|.*?\n\|-.*?\n(.*?)\n\n", README, re.DOTALL)
    assert found
    symptoms = re.findall(r"^\| `(.+?)` \|", found[1], re.MULTILINE)
    assert len(symptoms) > 5
    sources = "".join(path.read_text() for path in sorted((ROOT / "audit").rglob("*.py")))
    assert [symptom for symptom in symptoms if symptom not in sources] == []


def test_every_link_within_the_readme_leads_to_a_heading():
    """As GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors


def test_every_state_and_status_says_what_to_do():
    """And no other stands there."""
    states = re.search(r"### Coverage\n\n\| state .*?\n\n", README, re.DOTALL)
    statuses = re.search(r"   \| status .*?\n\n", README, re.DOTALL)
    assert states
    assert statuses
    assert re.findall(r"^\| `(\w+)` \| .+ \| .+ \|$", states[0], re.MULTILINE) == list(get_args(CoverageState))
    assert sorted(re.findall(r"^   \| `(\w+)` \| .+ \| .+ \|$", statuses[0], re.MULTILINE)) == sorted(STATUSES)
