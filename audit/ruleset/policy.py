"""The values of the site: lists and parameters for the rules. Knows no files."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003  (a dataclass field)
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from audit.ruleset.parse import KEBAB, Rule, check_param
from audit.ruleset.problems import kind_of, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from audit.ruleset.language import Scalar
    from audit.ruleset.problems import Place

_KEYS = ("$schema", "lists", "params")


@dataclass(frozen=True)
class Policy:
    """`lists` by name, `params` by rule id and name; `sha256` is that of the file's bytes, None without a file."""

    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    params: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)
    sha256: str | None = None

    def params_of(self, rule: Rule) -> dict[str, Scalar]:
        """The parameters in force for a rule: its own, replaced by those of the policy."""
        return {**rule.params, **self.params.get(rule.id, {})}


def parse_policy(
    value: object, place: Place, rules: Iterable[Rule], broken: Iterable[str] = (), sha256: str | None = None
) -> Policy:
    """Read a policy for these rules, noting every problem; of `broken` rules it is enough that they are there."""
    if not isinstance(value, dict):
        place.note(f"a policy is an object, not {kind_of(value)}")
        return Policy()
    place.check_keys(value, _KEYS, "key")
    lists = _object(value.get("lists", {}), place.at("lists"))
    params = _object(value.get("params", {}), place.at("params"))
    _check_params(params, place.at("params"), {rule.id: rule for rule in rules}, set(broken))
    return Policy(
        {name: _parse_list(name, values, place.at("lists", name)) for name, values in lists.items()}, params, sha256
    )


def check_lists(rules: Iterable[Rule], policy: Policy, place: Place) -> None:
    """Note every list that a rule reads and the policy does not have."""
    for rule in rules:
        for name in sorted(rule.lists - policy.lists.keys()):
            place.at("lists").note(
                f'rule "{rule.id}" reads the list "{name}", which is missing{nearest(name, policy.lists)}'
            )


def _parse_list(name: str, values: object, place: Place) -> tuple[str, ...]:
    if not KEBAB.fullmatch(name):
        place.note("a list's name is lower-case words with dashes")
    if not isinstance(values, list):
        place.note(f"an array of texts is wanted, not {kind_of(values)}")
        return ()
    seen: set[str] = set()
    for number, text in enumerate(values):
        if not isinstance(text, str) or not text or text != text.strip():
            place.at(number).note("a text without blanks around it is wanted")
        elif text in seen:
            place.at(number).note(f'"{text}" stands twice in this list')
        else:
            seen.add(text)
    return tuple(text for text in values if isinstance(text, str))


def _object(value: object, place: Place) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    place.note(f"an object is wanted, not {kind_of(value)}")
    return {}


def _check_params(params: dict[str, Any], place: Place, rules: Mapping[str, Rule], broken: set[str]) -> None:
    for rule_id, values in params.items():
        at = place.at(rule_id)
        if rule_id in broken:
            continue
        rule = rules.get(rule_id)
        if rule is None:
            at.note(f'there is no rule "{rule_id}"{nearest(rule_id, rules)}')
            continue
        for name, value in _object(values, at).items():
            if name not in rule.params:
                at.at(name).note(f'rule "{rule_id}" has no parameter "{name}"{nearest(name, rule.params)}')
            elif isinstance(value, (dict, list)):
                at.at(name).note(f"a parameter is a text or a number, not {kind_of(value)}")
            else:
                check_param(rule, name, value, at.at(name))
