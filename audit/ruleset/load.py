"""Reads rule files and the policy file; everything that is wrong in all of them is reported in one go."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from audit.errors import OptionsError, UsageError
from audit.ruleset.parse import Rule, parse_rule
from audit.ruleset.policy import Policy, parse_policy
from audit.ruleset.problems import Place, nearest, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

POLICY_NAME = "policy.json"
_LARGEST_FILE = 8_388_608


class RuleSet(msgspec.Struct, frozen=True):
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
    beside = rules_dir / POLICY_NAME
    if policy_file is None and _is_there(beside):
        policy_file = beside
    rules = {path.stem: _load_rule(path, problems) for path in _rule_files(rules_dir, policy_file, problems)}
    policy = _load_policy(policy_file, beside, rules, problems)
    if problems:
        raise UsageError(problems)
    return RuleSet(tuple(filter(None, rules.values())), policy)


def _is_there(path: Path) -> bool:
    """Whether there is anything: a broken link that was taken for no policy would lose every list and waiver."""
    try:
        return path.is_symlink() or path.exists()
    except OSError:
        return True  # reading it says what is wrong


def _rule_files(rules_dir: Path, policy_file: Path | None, problems: list[str]) -> list[Path]:
    place = Place(str(rules_dir), problems)
    try:
        files = sorted(path for path in rules_dir.iterdir() if path.suffix.lower() == ".json")
    except OSError as error:
        place.note(f"the rules cannot be read: {error.strerror}")
        return []
    for path in files:
        if path.suffix != ".json":
            Place(str(path), problems).note('the name of a rule ends in ".json", in lower case')
    policy = policy_file and policy_file.absolute()
    files = [path for path in files if path.name != POLICY_NAME and path.absolute() != policy]
    if not files:
        place.note("there is no rule (*.json) in this directory")
    return files


def _load_rule(path: Path, problems: list[str]) -> Rule | None:
    place = Place(str(path), problems)
    value, sha = _read(path, place)
    return None if value is None else parse_rule(value, place, path.stem, sha)


def _load_policy(path: Path | None, beside: Path, rules: Mapping[str, Rule | None], problems: list[str]) -> Policy:
    if path is None:
        return parse_policy({}, Place(str(beside), problems), rules)
    place = Place(str(path), problems)
    value, sha = _read(path, place)
    return Policy() if value is None else parse_policy(value, place, rules, sha)


def _read(path: Path, place: Place) -> tuple[dict[str, Any] | None, str]:
    """Read the JSON object in a file; also returns the SHA-256 of its bytes."""
    try:
        # Anything else, a pipe say, might never end.
        if path.exists() and not path.is_file():
            place.note("cannot be read: it is no regular file")
            return None, ""
        with path.open("rb") as file:
            text = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        place.note(f"cannot be read: {error.strerror}")
        return None, ""
    if len(text) > _LARGEST_FILE:
        place.note(f"has more than {_LARGEST_FILE:,} bytes")
        return None, ""
    return parse_json(text, place), sha256(text).hexdigest()
