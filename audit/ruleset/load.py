"""Reads rule files and the policy file; everything that is wrong in all of them is reported in one go."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from audit.errors import OptionsError, UsageError
from audit.ruleset.parse import Rule, parse_rule
from audit.ruleset.policy import Policy, check_lists, parse_policy
from audit.ruleset.problems import Place, nearest, parse_json

if TYPE_CHECKING:
    from collections.abc import Sequence

POLICY_NAME = "policy.json"


@dataclass(frozen=True)
class RuleSet:
    """All rules, sorted by id, with the policy of the site."""

    rules: tuple[Rule, ...]
    policy: Policy

    def select(self, ids: Sequence[str]) -> tuple[Rule, ...]:
        """Return the rules with these ids, all of them where none is named. Raises OptionsError for an unknown one."""
        known = {rule.id: rule for rule in self.rules}
        if unknown := [rule_id for rule_id in ids if rule_id not in known]:
            raise OptionsError([f'there is no rule "{rule_id}"{nearest(rule_id, known)}' for rule_id in unknown])
        return tuple(rule for rule in self.rules if not ids or rule.id in ids)

    def empty_lists_of(self, rule: Rule) -> list[str]:
        """Name the lists that a rule reads and that hold nothing yet: such a rule can say neither yes nor no."""
        return sorted(name for name in rule.lists if not self.policy.lists[name])


def load_rule_set(rules_dir: Path, policy_file: Path | None) -> RuleSet:
    """Load `*.json` of a directory as rules, and the policy: `policy_file`, or `policy.json` among them if there.

    Raises UsageError with every problem of every file.
    """
    problems: list[str] = []
    files = _rule_files(rules_dir, problems)
    loaded = {path.stem: _load_rule(path, problems) for path in files}
    rules = tuple(rule for rule in loaded.values() if rule)
    beside = rules_dir / POLICY_NAME
    if policy_file is None and beside.is_file():
        policy_file = beside
    policy, place = Policy(), Place(str(rules_dir / POLICY_NAME), problems)
    if policy_file is not None:
        place = Place(str(policy_file), problems)
        broken = [rule_id for rule_id, rule in loaded.items() if rule is None]
        text = _read(policy_file, place)
        if text is not None and (value := _parse(text, place)) is not None:
            policy = parse_policy(value, place, rules, broken, sha256(text).hexdigest())
    if not problems:
        check_lists(rules, policy, place)
    if problems:
        raise UsageError(problems)
    return RuleSet(rules, policy)


def _rule_files(rules_dir: Path, problems: list[str]) -> list[Path]:
    try:
        files = sorted(path for path in rules_dir.iterdir() if path.suffix == ".json" and path.name != POLICY_NAME)
    except OSError as error:
        problems.append(f"{rules_dir}: the rules cannot be read: {error.strerror}")
        return []
    if not files:
        problems.append(f"{rules_dir}: there is no rule (*.json) in this directory")
    return files


def _load_rule(path: Path, problems: list[str]) -> Rule | None:
    place = Place(str(path), problems)
    text = _read(path, place)
    if text is None or (value := _parse(text, place)) is None:
        return None
    return parse_rule(value, place, path.stem, sha256(text).hexdigest())


def _read(path: Path, place: Place) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError as error:
        place.note(f"cannot be read: {error.strerror}")
        return None


def _parse(text: bytes, place: Place) -> object:
    noted = len(place.problems)
    value = parse_json(text, place)
    if value is None and len(place.problems) == noted:
        place.note("the file holds null; an object is wanted")
    return value
