"""The values of the site: lists and parameters for the rules. Knows no files."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003  (a dataclass field)
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from audit.ruleset.parse import KEBAB
from audit.ruleset.problems import Node, nearest

if TYPE_CHECKING:
    from audit.ruleset.language import Scalar
    from audit.ruleset.parse import Rule
    from audit.ruleset.problems import Place

_KEYS: Mapping[str, Any] = {"$schema": None, "lists": {}, "params": {}}


@dataclass(frozen=True)
class Policy:
    """`lists` by name, `params` by rule id and name; `sha256` is that of the file's bytes, None without a file."""

    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    params: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)
    sha256: str | None = None

    def params_of(self, rule: Rule) -> dict[str, Scalar]:
        """The parameters in force for a rule: its own, replaced by those of the policy."""
        return {**rule.params, **self.params.get(rule.id, {})}


def parse_policy(value: object, place: Place, rules: Mapping[str, Rule | None], sha256: str | None = None) -> Policy:
    """Read a policy for these rules, noting every problem; a rule that is itself broken is None."""
    members = Node(value, place).members(_KEYS)
    lists = members["lists"].entries("an object from list to values")
    for name, values in lists.items():
        if not KEBAB.fullmatch(name):
            values.note("a list's name is lower-case words with dashes")
    if isinstance(members["lists"].value, dict):
        _check_lists(place, lists, rules)
    params = members["params"].entries("an object from rule to parameters")
    for rule_id, entry in params.items():
        if rule_id not in rules:
            entry.note(f'there is no rule "{rule_id}"{nearest(rule_id, rules)}')
        elif rule := rules[rule_id]:
            for name, given in entry.entries("an object from parameter to value").items():
                rule.check_param(name, given)
    return Policy(
        {name: values.texts() for name, values in lists.items()},
        {rule_id: entry.value for rule_id, entry in params.items()},
        sha256,
    )


def _check_lists(place: Place, lists: Mapping[str, Node], rules: Mapping[str, Rule | None]) -> None:
    """Note every list that a rule reads and the policy does not have."""
    for rule in filter(None, rules.values()):
        for name in sorted(rule.lists - lists.keys()):
            place.note(f'rule "{rule.id}" reads the list "{name}", which is missing{nearest(name, lists)}', "/lists")
