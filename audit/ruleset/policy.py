"""The values of the site: lists and parameters for the rules, exceptions for gateways and findings. Knows no files."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003  (a field)
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from audit.model import SEVERITIES, Severity
from audit.ruleset.conditions import ConditionReader
from audit.ruleset.language import FALSE, LISTED, Predicate, constant_of, required_of
from audit.ruleset.parse import KEBAB, lists_in
from audit.ruleset.problems import Node, nearest
from audit.times import canonical_time

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from audit.ruleset.language import Field, Scalar
    from audit.ruleset.parse import Rule
    from audit.ruleset.problems import Place

    Rules = Mapping[str, Rule | None]

_KEYS: Mapping[str, Any] = {
    "$schema": None,
    "$comment": None,
    "lists": {},
    "params": {},
    "overrides": [],
    "waivers": [],
}
_OVERRIDE_KEYS: Mapping[str, Any] = {"$comment": None, "match": True, "params": {}, "severity": {}, "disable": []}
_WAIVER_KEYS: Mapping[str, Any] = {
    "id": "",
    "rule": "",
    "match": True,
    "reason": "",
    "approved_by": "",
    "ticket": "",
    "expires": "",
}
_WAIVER_REQUIRED = ("id", "rule", "match", "reason", "approved_by", "expires")


class Override(msgspec.Struct, frozen=True):
    """What is otherwise for some gateways: parameters and severities by rule, and the rules that do not apply."""

    match: Predicate
    params: Mapping[str, Mapping[str, Scalar]]
    severity: Mapping[str, Severity]
    disable: tuple[str, ...]


class Waiver(msgspec.Struct, frozen=True):
    """An accepted exception to a rule, until it `expires`; its fields are those of the policy."""

    id: str
    rule: str
    match: Predicate
    reason: str
    approved_by: str
    ticket: str
    expires: str

    @property
    def note(self) -> dict[str, str]:
        """What a finding says of it."""
        names = ("id", "reason", "approved_by", "ticket", "expires")
        return {name: value for name in names if (value := getattr(self, name))}


class Policy(msgspec.Struct, frozen=True):
    """`lists` by name, `params` by rule id and name; `sha256` is that of the file's bytes, None without a file."""

    lists: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    params: Mapping[str, Mapping[str, Scalar]] = msgspec.field(default_factory=dict)
    overrides: tuple[Override, ...] = ()
    waivers: tuple[Waiver, ...] = ()
    sha256: str | None = None

    def apply(self, rule: Rule, overrides: Iterable[Override] = ()) -> tuple[Rule, dict[str, Scalar]] | None:
        """The rule, as severe as it is under these overrides, and its parameters; None where it does not apply."""
        params = {**rule.params, **self.params.get(rule.id, {})}
        severity = rule.severity
        for override in overrides:
            if rule.id in override.disable:
                return None
            params |= override.params.get(rule.id, {})
            severity = override.severity.get(rule.id, severity)
        return (rule if severity == rule.severity else replace(rule, severity=severity)), params


def parse_policy(value: object, place: Place, rules: Rules, sha256: str | None = None) -> Policy:
    """Read a policy for these rules, noting every problem; a rule that is itself broken is None."""
    members = Node(value, place).members(_KEYS)
    lists = members["lists"].entries("an object from list to values")
    for name, values in lists.items():
        if not KEBAB.fullmatch(name):
            values.note("a list's name is lower-case words with dashes")
    policy = Policy(
        {name: values.texts() for name, values in lists.items()},
        _read_params(members["params"], rules),
        tuple(_read_override(node, rules) for node in _entries_of(members["overrides"])),
        tuple(_read_waiver(node, rules) for node in _entries_of(members["waivers"])),
        sha256,
    )
    if isinstance(members["lists"].value, dict):
        _check_lists(place, policy, rules)
    seen: set[str] = set()
    for number, waiver in enumerate(policy.waivers):
        if waiver.id and waiver.id in seen:
            place.note(f'"{waiver.id}" is the id of an earlier waiver', f"/waivers/{number}/id")
        seen.add(waiver.id)
    return policy


def _entries_of(node: Node) -> list[Node]:
    return node.items("an array") if node.value != [] else []


def _find_rule(rule_id: str, node: Node, rules: Rules) -> Rule | None:
    """Return a rule, None where it is broken or there is none, which is noted."""
    if rule_id not in rules:
        node.note(f'there is no rule "{rule_id}"{nearest(rule_id, rules)}')
    return rules.get(rule_id)


def _read_params(node: Node, rules: Rules) -> dict[str, Mapping[str, Scalar]]:
    """Read parameters by rule and name."""
    params = node.entries("an object from rule to parameters")
    for rule_id, entry in params.items():
        if rule := _find_rule(rule_id, entry, rules):
            for name, given in entry.entries("an object from parameter to value").items():
                rule.check_param(name, given)
    return {rule_id: entry.value for rule_id, entry in params.items()}


def _read_override(node: Node, rules: Rules) -> Override:
    members = node.members(_OVERRIDE_KEYS, ("match",))
    severity = members["severity"].entries("an object from rule to severity")
    for rule_id, word in severity.items():
        _find_rule(rule_id, word, rules)
        word.choose(SEVERITIES)
    disable = members["disable"].texts()
    for number, rule_id in enumerate(disable):
        _find_rule(rule_id, members["disable"].at(number, rule_id), rules)
    params = _read_params(members["params"], rules)
    for key, ids in (("params", [*params]), ("severity", [*severity]), ("disable", disable)):
        for rule in filter(None, map(rules.get, ids)):
            if rule.spans_gateways:
                members[key].note(
                    f'the groups of "{rule.id}" may span gateways, so that no gateway\'s override can apply to them; '
                    'give it "gateway.id" among its group\'s fields'
                )
    is_empty = members["params"].value == {rule_id: {} for rule_id in params}
    if is_empty and not (members["severity"].value or members["disable"].value) and isinstance(node.value, dict):
        node.note('it changes nothing; give it "params", "severity" or "disable"')
    return Override(
        _read_match(members["match"], LISTED),
        params,
        {rule_id: word.value for rule_id, word in severity.items()},
        disable,
    )


def _read_waiver(node: Node, rules: Rules) -> Waiver:
    members = node.members(_WAIVER_KEYS, _WAIVER_REQUIRED)
    given = {name: members[name].text() for name in _WAIVER_KEYS if name != "match"}
    if given["expires"] and canonical_time(given["expires"]) != given["expires"]:
        members["expires"].note(f'a time such as "2026-12-31T00:00:00Z" is wanted, not "{given["expires"]}"')
    rule = _find_rule(given["rule"], members["rule"], rules) if given["rule"] else None
    match = _read_match(members["match"], required_of(rule.each, rule.keys)) if rule else FALSE
    return Waiver(match=match, **given)


def _read_match(node: Node, fields: Mapping[str, Field]) -> Predicate:
    match = ConditionReader(fields, None).read(node)
    if constant_of(match) is False:
        node.note("it matches nothing")
    return match


def _check_lists(place: Place, policy: Policy, rules: Rules) -> None:
    """Note every list that is read and that the policy does not have."""
    readers: dict[str, Collection[str]] = {f'rule "{rule.id}"': rule.lists for rule in rules.values() if rule}
    readers |= {f"override {number}": lists_in(override.match) for number, override in enumerate(policy.overrides)}
    readers |= {f'waiver "{waiver.id}"': lists_in(waiver.match) for waiver in policy.waivers}
    for reader, names in readers.items():
        for name in sorted(set(names) - policy.lists.keys()):
            place.note(f'{reader} reads the list "{name}", which is missing{nearest(name, policy.lists)}', "/lists")
