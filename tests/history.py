"""A small world for long random histories: gateways and what their API says, rules and policy, a store that fails.

What the contract makes of it is not said here.
"""

from __future__ import annotations

import io
from collections.abc import Callable  # noqa: TC003  (a field)
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from random import Random
from typing import Any, NamedTuple

from audit.errors import Forbidden, NotFound, Unavailable
from audit.model import EndpointConnection, Gateway
from audit.paging import Page
from audit.ruleset.load import RuleSet
from audit.ruleset.parse import parse_rule
from audit.ruleset.policy import parse_policy
from audit.ruleset.problems import Place

SEVERITIES = ("info", "low", "medium", "high", "critical")
DOMAINS = ("da", "db", "dc", None)
STATUSES = ("pendingAcceptance", "accepted", "accepted", "rejected", "failed")
GATEWAYS = ("g1", "g2", "g3", "g4")
LAWS: dict[str, dict[str, Any]] = {
    "failed": {"require": {"status": {"not": "failed"}}},
    "approved": {"when": {"status": "accepted"}, "require": {"domain_id": {"enum": {"list": "good"}}}},
    "stuck": {"when": {"status": "pendingAcceptance"}, "require": {"status_since": {"maxAge": "PT48H"}}},
    "outsider": {"when": {"status": "accepted"}, "require": {"domain_id": {"enum": {"field": "gateway.permissions"}}}},
    "door": {"each": "gateway", "require": {"permissions": {"not": {"contains": "*"}}}},
    "crowd": {"each": "gateway", "require": {"connections": {"maximum": 3}}},
    "joined": {"each": "change", "when": {"after.status": "accepted", "before.status": {"not": "accepted"}}},
    "left": {"each": "change", "when": {"change": "removed"}},
    "moved": {
        "each": "change",
        "when": {"change": "modified"},
        "require": {"after.domain_id": {"const": {"field": "before.domain_id"}}},
    },
    "quota": {"each": {"group": ["gateway.id"]}, "when": {"status": "accepted"}, "require": {"count": {"maximum": 1}}},
    "markers": {"each": {"group": ["gateway.id", "marker_id"]}, "require": {"count": 1}},
    "accounts": {"each": {"group": ["domain_id"]}, "require": {"count": {"maximum": 3}}},
    "banned": {
        "each": {"group": ["domain_id"]},
        "when": {"status": "accepted"},
        "require": {"domain_id": {"not": "dc"}},
    },
    "unique": {"each": {"group": ["marker_id"]}, "require": {"count": 1}},
}
KEYS = {rule: sorted(law["each"]["group"]) for rule, law in LAWS.items() if isinstance(law.get("each"), dict)}
SUBJECT = {rule: "group" if rule in KEYS else law.get("each", "connection") for rule, law in LAWS.items()}
SPANNING = {rule for rule, keys in KEYS.items() if "gateway.id" not in keys}
OPEN_TO_DA, FEW = ("open", True), ("few", True)  # what a waiver may match by beside what a finding is about


class Row(NamedTuple):
    """A connection; `since` and `read_in` are the model's own."""

    id: str
    marker: int
    domain: str | None
    status: str
    updated: str
    since: str = ""
    read_in: str = ""


@dataclass
class Site:
    """What people decide: rules with their severities, the approved, and by rule or id: overrides and waivers."""

    laws: dict[str, str]
    good: tuple[str, ...] = ("da",)
    disabled: dict[str, str] = field(default_factory=dict)  # rule: gateway
    severity: dict[str, tuple[str, str]] = field(default_factory=dict)  # rule: gateway, severity
    waivers: dict[str, tuple[str, Any, str]] = field(default_factory=dict)  # id: rule, fact it excuses by, end


class Run(NamedTuple):
    """One run: its id, its instant, and what it is limited to."""

    id: str
    now: datetime
    gateways: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()


@dataclass
class Instance:
    """One gateway and what its API does; `ghosts` are not in its list, but known by id."""

    listed: bool = True
    exists: bool = True
    fault: str = ""  # forbidden, no-service, shaky: the list shifts, and its last connection is never shown
    locked: bool = False
    permissions: tuple[str, ...] = ("da",)
    rows: dict[str, Row] = field(default_factory=dict)
    ghosts: dict[str, Row] = field(default_factory=dict)

    @property
    def seen(self) -> list[Row]:
        rows = list(self.rows.values())
        return [] if self.fault == "no-service" else rows[:-1] if self.fault == "shaky" else rows


class Estate:
    """All gateways; as `Api` it answers what they say. `mute`: queries by id fail."""

    region, project_id = "r", "p"

    def __init__(self) -> None:
        self.gateways: dict[str, Instance] = {}
        self.fault, self.mute = "", False

    @property
    def listed(self) -> list[str]:
        names = sorted(name for name, gateway in self.gateways.items() if gateway.listed and gateway.exists)
        return {"shaky": names[:-1], "forbidden": []}.get(self.fault, names)

    def list_gateways(self, offset: int = 0) -> Page[Gateway]:
        if self.fault == "forbidden":
            raise Forbidden("no list", status=403)
        items = tuple(Gateway("r", "p", name, f"name of {name}", "Running") for name in self.listed)
        return Page(len(items) + (self.fault == "shaky"), None, items[offset:])

    def list_connections(self, gateway_id: str, offset: int = 0, *, connection_id: str | None = None) -> Page[Any]:
        if connection_id and self.mute:
            raise Unavailable("busy", status=503)
        gateway = self._find(gateway_id)
        rows, more = gateway.seen, gateway.fault == "shaky"
        if connection_id:
            rows, more = [row for row in (*rows, *gateway.ghosts.values()) if row.id == connection_id], False
        items = tuple(EndpointConnection(r.id, r.marker, r.updated, r.updated, r.domain, r.status) for r in rows)
        return Page(len(items) + more, None, items[offset:])

    def list_permissions(self, gateway_id: str, offset: int = 0) -> Page[str]:
        gateway = self._find(gateway_id)
        if gateway.locked:
            raise Forbidden("no permissions", status=403)
        items = tuple(f"iam:domain::{name}" for name in gateway.permissions)
        return Page(len(items), None, items[offset:])

    def _find(self, name: str) -> Instance:
        if name not in self.gateways or not self.gateways[name].exists:
            raise NotFound("gone", status=404, code="APIC.7302")
        if self.gateways[name].fault == "forbidden":
            raise Forbidden("no", status=403)
        if self.gateways[name].fault == "no-service":
            raise NotFound("no endpoint service", status=404, code="APIC.7314")
        return self.gateways[name]

    def close(self, why: str = "") -> None: ...


def instant(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class Kill(BaseException):
    """The process ends here."""


class Shelf:
    """A store in memory; the write that `countdown` comes to fails, before or (`late`) after it took effect.

    `on_commit` is called as soon as a run is recorded, before it can tell anyone.
    """

    url = "memory:"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.written: set[str] = set()
        self.countdown, self.late, self.error = 0, False, BaseException()
        self.on_commit: Callable[[], None] = lambda: None

    def open(self, key: str) -> io.BytesIO | None:
        return io.BytesIO(self.objects[key]) if key in self.objects else None

    def put(self, key: str, content: Any) -> None:
        assert not key.startswith("runs/") or key not in self.objects, "runs are never rewritten"
        self.countdown -= 1
        fails = not self.countdown
        if not fails or self.late:
            self.objects[key] = content.read()
            self.written.add(key)
            if key == "latest.json":
                self.on_commit()
        if fails:
            raise self.error

    def swap(self, key: str, expected: bytes | None, content: bytes) -> bool:
        assert self.objects.get(key) == expected
        self.put(key, io.BytesIO(content))
        return True

    def list(self, prefix: str) -> Any:
        return iter(sorted(key for key in self.objects if key.startswith(prefix)))

    def locate(self, key: str) -> str:
        return key

    def link(self, key: str, seconds: int) -> str:
        return f"{key}?{seconds}"


PARSED: dict[tuple[str, str], Any] = {}


def load(site: Site) -> RuleSet:
    """Rules and policy, as the product would read them from files."""
    problems: list[str] = []
    for name, severity in site.laws.items():
        each = LAWS[name].get("each", "connection")
        given: dict[str, Any] = {"given": [{}] if name in KEYS else {}} | ({"before": None} if each == "change" else {})
        tests = [{"name": what, "expect": what, **given} for what in ("finding", "pass")]
        value = {"require": False, **LAWS[name], "id": name, "title": name, "severity": severity, "tests": tests}
        if (name, severity) not in PARSED:
            PARSED[name, severity] = parse_rule(value, Place(name, problems), name)

    def waiver(name: str, rule: str, whom: Any, ends: str) -> dict[str, Any]:
        place = "" if SUBJECT[rule] == "gateway" else "gateway."
        keys = {"open": place + "permissions", "few": "count" if rule in KEYS else place + "connections"}
        keys["who"] = KEYS[rule][0] if rule in KEYS else place + "id"
        tests = {"open": {"contains": "da"}, "few": {"maximum": 4}}
        match = {keys[whom[0]]: tests.get(*whom)} if whom else True
        return {"id": name, "rule": rule, "match": match, "reason": "so", "approved_by": "me", "expires": ends}

    disable = [{"match": {"gateway.id": where}, "disable": [rule]} for rule, where in site.disabled.items()]
    worse = [{"match": {"gateway.id": w}, "severity": {rule: s}} for rule, (w, s) in site.severity.items()]
    waivers = [waiver(name, *waived) for name, waived in site.waivers.items()]
    policy = {"lists": {"good": list(site.good)}, "overrides": [*disable, *worse], "waivers": waivers}
    rules = {name: PARSED[name, severity] for name, severity in sorted(site.laws.items())}
    parsed = parse_policy(policy, Place("policy", problems), rules)
    assert not problems, problems
    return RuleSet(tuple(rules.values()), parsed)


class World:
    """All that may change from run to run; `broken`: rules that have open findings."""

    def __init__(self, seed: int) -> None:
        self.dice = Random(seed)
        self.estate, self.site = Estate(), Site({rule: self.dice.choice(SEVERITIES[1:]) for rule in LAWS})
        self.now, self.number = datetime(2026, 1, 1, tzinfo=timezone.utc), 0
        self.broken: list[str] = []

    def chance(self, probability: float) -> bool:
        return self.dice.random() < probability

    def pass_time(self) -> None:
        dice, before = self.dice, self.now
        self.number += 1
        self.now += timedelta(seconds=dice.choice([60, 60, 3600, 3600, 3600, 86400, 86400]) * dice.randint(1, 40))
        self.now = before + timedelta(days=dice.choice([89, 90, 91])) if self.chance(0.03) else self.now
        since = [instant(before + (self.now - before) * dice.random()) for _ in range(8)]
        for moment in since[: dice.choice([0, 1, 2, 4, 6, 8])]:
            change = dice.choice([self.change_estate] * 4 + [self.change_faults, self.change_site] * 2)
            change(moment)

    def change_estate(self, moment: str) -> None:
        dice = self.dice
        gateway = self.estate.gateways.setdefault(dice.choice(GATEWAYS), Instance())
        new = Row(f"c{dice.randrange(10**9)}", dice.randint(1, 9), dice.choice(DOMAINS), dice.choice(STATUSES), moment)
        what = dice.choice(["add", "add", "remove", "hide", "status", "status", "domain", "marker", "touch", "return"])
        if what == "add" and len(gateway.rows) < 6:
            gateway.rows[new.id] = new
        elif what == "return":
            gateway.rows |= gateway.ghosts
            gateway.ghosts = {}
        elif gateway.rows:
            old = gateway.rows.pop(dice.choice(list(gateway.rows)))
            if what == "hide":
                gateway.ghosts[old.id] = old
            elif what != "remove":
                changed = {what: getattr(new, what)} if what in {"status", "domain", "marker"} else {}
                gateway.rows[old.id] = old._replace(updated=moment, **changed)

    def change_faults(self, _moment: str) -> None:
        estate, dice = self.estate, self.dice
        estate.fault, estate.mute = dice.choice([*[""] * 8, "forbidden", "shaky"]), self.chance(0.2)
        for gateway in estate.gateways.values():
            if self.chance(0.5):
                gateway.fault = dice.choice([*[""] * 6, "forbidden", "shaky", "no-service"])
                gateway.locked, gateway.listed, gateway.exists = (self.chance(p) for p in (0.1, 0.95, 0.95))
                gateway.permissions = dice.choice([("da",), ("da", "db"), ("*",), ()])
                gateway.ghosts = {} if self.chance(0.3) else gateway.ghosts

    def change_site(self, _moment: str) -> None:
        site, dice, rule = self.site, self.dice, self.dice.choice(list(LAWS))
        what = dice.choice(["law", "good", "override", "renew", "end", *["severity"] * 3, *["waive"] * 4])
        if what == "good":
            site.good = dice.choice([(), ("da",), ("da", "db")])
        elif what in {"renew", "end"} and site.waivers:
            waived, whom, _ends = site.waivers.pop(name := dice.choice(list(site.waivers)))
            ends = instant(self.now + timedelta(hours=dice.randint(0, 500)))
            site.waivers |= {name: (waived, whom, ends)} if what == "renew" else {}
        elif what == "severity" or rule not in site.laws:
            site.laws[rule] = dice.choice(SEVERITIES)
        elif what == "waive":
            wanted = [waiver[0] for waiver in site.waivers.values()] * 3
            rule = dice.choice([*wanted, *filter(site.laws.__contains__, self.broken)] or [rule])
            value = dice.randint(1, 9) if rule == "unique" else dice.choice(DOMAINS[:3])
            whom = None if self.chance(0.4) else ("who", value if rule in SPANNING else dice.choice(GATEWAYS))
            if self.chance(0.25):
                whom = FEW if rule in KEYS or self.chance(0.5) else OPEN_TO_DA
            ends = instant(self.now + timedelta(hours=dice.choice([-20, 0, 10, 100, 500])))
            site.waivers[f"w{self.number}"] = (rule, whom, ends)
        elif what in {"law", "override"}:
            site.disabled.pop(rule, None)
            site.severity.pop(rule, None)
            if what == "law":
                del site.laws[rule]
                site.waivers = {name: waiver for name, waiver in site.waivers.items() if waiver[0] != rule}
            elif rule not in SPANNING and self.chance(0.5):
                site.disabled[rule] = dice.choice(GATEWAYS)
            elif rule not in SPANNING:
                site.severity[rule] = (dice.choice(GATEWAYS), dice.choice(SEVERITIES))
