"""Long random histories, held against a second reading of the contract.

`next_state` says what the contract makes of one run (the life of every finding, coverage, readings); `Ear` is what one
receiver must hear. Neither uses code of the product. All is drawn from a seed: a failure names the seed and the run.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator  # noqa: TC003
from collections.abc import Set as AbstractSet  # noqa: TC003  (fields of a NamedTuple)
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

import pytest

from audit.app import Ports, run_audit
from audit.archive import Archive
from audit.collect import Source
from audit.compose import NoProgress
from audit.errors import DeliveryError, StoreError
from audit.line import Job
from audit.notify import Wishes
from audit.receivers import Receiver
from audit.tell import Telling
from audit.verify import Verifier
from tests.history import (
    GATEWAYS,
    KEYS,
    OPEN_TO_DA,
    SEVERITIES,
    SPANNING,
    SUBJECT,
    Estate,
    Kill,
    Row,
    Run,
    Shelf,
    Site,
    World,
    instant,
    load,
)

SEEDS, RUNS = 20, 60
OPEN, GAPS = {"new", "ongoing", "reopened", "unverified"}, {"partial", "not_covered"}
EXPIRED = "waiver-expired"
COUNTING = {*KEYS, "crowd"} - {"banned"}  # they read a number that a partial reading makes too low ...
MAXIMUM = {"quota", "accounts", "crowd"}  # ... but that may exceed a maximum all the same
ABOUT_PERMISSIONS = {"outsider", "door"}


class Life(NamedTuple):
    """Where a finding stands, in the order of NAMED, REFS and FIELDS."""

    rule: str
    subject: str
    connection: str | None
    severity: str
    gateway: str | None
    waiver: str | None
    status: str
    first: str
    last: str
    times: int
    run: str
    resolved: str | None = None
    why: str | None = None


Hit = tuple[str, Life, dict[str, Any]]  # uid, the finding as yet without a life, what a waiver may know it by
NAMED, REFS = ("rule_id", "subject", "connection", "severity"), ("gateway", "waiver")
FIELDS = ("status", "first_seen", "last_seen", "occurrences", "run_id", "resolved_at", "resolution")


class State(NamedTuple):
    """What is known after a run: findings by uid, coverage and last readings by gateway."""

    lives: dict[str, Life]
    coverage: dict[str | None, str]
    rows: dict[str, dict[str, Row]]
    complete_in: dict[str, str]  # the run that last read all of a gateway
    carried: AbstractSet[str] = frozenset()  # findings out of the run's scope
    events: AbstractSet[str] = frozenset()  # changes found in this run that no waiver excuses
    idle: AbstractSet[str] = frozenset()  # rules that are not configured
    untouched: AbstractSet[str] = frozenset()  # rules that were not asked for
    run: str = ""
    narrowed: AbstractSet[str] = frozenset()  # rules that need more gateways than the run is limited to


@dataclass
class Look:
    """What a run learns of one gateway; `whole`: all its connections were read."""

    state: str
    gone: bool = False
    whole: bool = False
    rows: dict[str, Row] = field(default_factory=dict)
    permissions: tuple[str, ...] | None = None
    deleted: set[str] = field(default_factory=set)


def uid_of(rule: str, gateway: str | None, subject: str, subject_id: str) -> str:
    place = ["r", "p", gateway] if gateway else ["", "", ""]
    return sha256(json.dumps(["v1", rule, *place, subject, subject_id], separators=(",", ":")).encode()).hexdigest()


def look_at(name: str, estate: Estate, run: Run, state: State, *, permissions: bool) -> Look:
    """Read one gateway, as the decided cases say."""
    if run.gateways and name not in run.gateways:
        return Look("out_of_scope")
    if name not in estate.listed:
        is_gone = name in state.coverage and not (name in estate.gateways and estate.gateways[name].exists)
        return Look("complete", gone=True) if is_gone and not estate.fault else Look("not_covered")
    gateway, before = estate.gateways[name], state.rows.get(name, {})
    if gateway.fault == "forbidden":
        return Look("not_covered")
    look = Look("partial" if gateway.fault == "shaky" else "complete", whole=gateway.fault != "shaky")
    for row in gateway.seen:
        same = row.id in before and before[row.id].status == row.status
        since = min(row.updated, before[row.id].since) if same else row.updated
        look.rows[row.id] = row._replace(since=since, read_in=run.id)
    if gateway.fault == "no-service":
        look.permissions = ()
    elif permissions:
        look.permissions = None if gateway.locked else gateway.permissions
        look.state = "partial" if gateway.locked else look.state
    lives = (life for life in state.lives.values() if life.gateway == name and life.subject == "connection")
    missing = {life.connection or "" for life in lives if life.status != "resolved"} - look.rows.keys()
    if look.whole and not estate.mute:
        still = set() if gateway.fault == "no-service" else missing & gateway.ghosts.keys()
        look.deleted = missing - still
        look.state, look.whole = ("partial", False) if still else (look.state, True)
    return look


def can_judge(rule: str, look: Look, *, compared: bool) -> bool:
    """Say whether what was read of a gateway is enough for a rule."""
    if look.gone or look.state not in {"complete", "partial"}:
        return False
    if rule in ABOUT_PERMISSIONS and look.permissions is None:
        return False
    return (compared or SUBJECT[rule] != "change") and (look.whole or rule not in COUNTING or rule in MAXIMUM)


def breaks(rule: str, row: Row, look: Look, site: Site, now: datetime) -> bool:
    if rule in {"failed", "stuck"}:
        late = row.since < instant(now - timedelta(hours=48))
        return row.status == "failed" if rule == "failed" else row.status == "pendingAcceptance" and late
    return row.status == "accepted" and row.domain not in (site.good if rule == "approved" else look.permissions or ())


def changes_in(rule: str, look: Look, before: dict[str, Row]) -> list[tuple[str, str]]:
    """Name the changes that a rule is about; only a whole reading shows what was removed."""
    if rule == "left":
        return [(f"{name}:removed", name) for name in before if look.whole and name not in look.rows]
    found = []
    for name, row in look.rows.items():
        past = before.get(name)
        joined = row.status == "accepted" and (past is None or past.status != "accepted")
        if joined if rule == "joined" else past is not None and past.domain != row.domain:
            found.append((f"{name}:modified" if past else f"{name}:added", name))
    return found


def big_groups(rule: str, looks: dict[str, Look]) -> list[tuple[str, Any, int]]:
    """Name the groups that break a rule, with the value of their first field, and their size."""
    groups: Counter[tuple[Any, ...]] = Counter()
    for gateway, look in looks.items():
        for row in look.rows.values():
            values = {"gateway.id": gateway, "marker_id": row.marker, "domain_id": row.domain}
            counts = rule not in {"quota", "banned"} or row.status == "accepted"
            groups[tuple(values[key] for key in KEYS[rule])] += counts
    limit = {"accounts": 3, "banned": 0}.get(rule, 1)
    return [
        (json.dumps(list(zip(KEYS[rule], key, strict=True)), separators=(",", ":")), key[0], count)
        for key, count in groups.items()
        if None not in key and count > limit and (rule != "banned" or key == ("dc",))
    ]


def find(rule: str, name: str, look: Look, before: dict[str, Row], site: Site, now: datetime) -> Iterator[Hit]:
    """Hold one gateway against one rule."""
    subject = SUBJECT[rule]
    few = len(look.rows) <= 4 if look.whole else None
    about: list[tuple[str, str | None, bool | None]] = []
    if subject == "connection":
        about += [(row.id, row.id, few) for row in look.rows.values() if breaks(rule, row, look, site, now)]
    elif subject == "change":
        about += [(*change, few) for change in changes_in(rule, look, before)]
    elif subject == "group":
        about += [(g, None, count <= 4 if look.whole else None) for g, _, count in big_groups(rule, {name: look})]
    elif "*" in (look.permissions or ()) if rule == "door" else len(look.rows) > 3:
        about += [(name, None, few)]
    where, override = site.severity.get(rule, ("", ""))
    severity = override if where == name else site.laws[rule]
    welcome = look.permissions is not None and "da" in look.permissions
    for what, connection, small in about:
        hit = _hit(rule, subject, connection, severity, name)
        yield uid_of(rule, name, subject, what), hit, {"who": name, "few": small, "open": welcome}


def _hit(rule: str, subject: str, connection: str | None, severity: str, gateway: str | None) -> Life:
    return Life(rule, subject, connection, severity, gateway, None, "", "", "", 0, "")


def next_state(state: State, estate: Estate, site: Site, run: Run) -> State:
    """Say what the contract makes of a run."""
    now, full = instant(run.now), not (run.gateways or run.rules)
    chosen = {rule for rule in site.laws if not run.rules or rule in run.rules or SUBJECT[rule] == "change"}
    selected = chosen - (SPANNING if run.gateways else set())
    idle = selected & {"approved"} if not site.good else set()
    names = {name for name in state.coverage if name} | set(run.gateways) | set(estate.listed)
    asked = bool(ABOUT_PERMISSIONS & (selected - idle))
    asked |= any(rule in selected - idle and whom == OPEN_TO_DA for rule, whom, _ in site.waivers.values())
    looks = {name: look_at(name, estate, run, state, permissions=asked) for name in sorted(names)}
    sure = not estate.fault and all(look.whole or look.gone for look in looks.values())
    gaps = bool(estate.fault) or any(look.state in GAPS for look in looks.values())

    hits: dict[str, Life] = {}
    facts: dict[str, dict[str, Any]] = {}  # what a waiver may know a finding by; None: it was not read
    able = set()
    for name, look in looks.items():
        for rule in selected - idle - SPANNING:
            if can_judge(rule, look, compared=name in state.complete_in):
                able.add((rule, name))
                if site.disabled.get(rule) != name:
                    for uid, hit, fact in find(rule, name, look, state.rows.get(name, {}), site, run.now):
                        hits[uid], facts[uid] = hit, fact
    for rule in (selected - idle) & SPANNING - (set() if sure else COUNTING - MAXIMUM):
        for group, value, count in big_groups(rule, looks):
            facts[uid := uid_of(rule, None, "group", group)] = {"who": value, "few": count <= 4 if sure else None}
            hits[uid] = _hit(rule, "group", None, site.laws[rule], None)

    # The first waiver in force excuses what it matches; one that has expired is missed where nothing else excuses.
    excuse: dict[str, str] = {}
    missed, unsure = set(), set()
    for waiver, (rule, who, ends) in sorted(site.waivers.items(), key=lambda item: item[1][2] <= now):
        matching = [uid for uid, h in hits.items() if h.rule == rule and (not who or facts[uid].get(who[0]) == who[1])]
        everywhere = all(look.gone or (rule, n) in able or site.disabled.get(rule) == n for n, look in looks.items())
        if ends > now:
            excuse = {**dict.fromkeys(matching, waiver), **excuse}
        elif set(matching) - excuse.keys():
            missed.add(uid_of(EXPIRED, None, "policy", waiver))
        elif gaps or run.gateways or rule not in selected - idle or not (everywhere or rule in SPANNING):
            unsure.add(uid_of(EXPIRED, None, "policy", waiver))
    hits |= dict.fromkeys(missed, _hit(EXPIRED, "policy", None, "medium", None))

    def is_in_scope(uid: str, life: Life) -> bool:
        if life.gateway is None and (life.rule == EXPIRED or run.gateways):
            return life.rule == EXPIRED and (full or uid not in unsure)
        here = life.gateway not in looks or looks[life.gateway].state != "out_of_scope"
        return here and (life.rule in selected or (life.rule not in site.laws and not run.rules))

    def why_over(uid: str, life: Life) -> str | None:
        if life.subject == "change":
            return "event_over"
        if life.rule == EXPIRED:
            return None if uid in unsure else "fixed"
        look = looks[life.gateway] if life.gateway else Look("", whole=True)
        if look.gone or not look.whole:
            return "resource_deleted" if look.gone else None
        if life.connection in look.deleted:
            return "resource_deleted"
        if life.rule not in site.laws or site.disabled.get(life.rule, "") == life.gateway:
            return "rule_removed"
        judged = (life.rule, life.gateway) in able if life.gateway else sure and life.rule not in idle
        return "fixed" if judged and (life.connection is None or life.connection in look.rows) else None

    remembered = instant(run.now - timedelta(days=90))
    before = {uid: life for uid, life in state.lives.items() if not life.resolved or life.resolved >= remembered}
    lives = dict(before)
    for uid, hit in hits.items():
        old = before.get(uid, hit._replace(first=now))
        status = "reopened" if old.status == "resolved" else "ongoing" if uid in before else "new"
        status = "waived" if uid in excuse else status
        life = hit._replace(first=old.first, last=now, times=old.times + 1, run=run.id)
        lives[uid] = life._replace(status=status, waiver=excuse.get(uid))
    carried = {uid for uid, life in before.items() if uid not in hits and not is_in_scope(uid, life)}
    for uid, life in before.items():
        if uid in hits or uid in carried or life.status == "resolved":
            continue
        if why := why_over(uid, life):
            lives[uid] = life._replace(status="resolved", resolved=now, why=why, run=run.id)
        elif life.status != "waived" or site.waivers.get(life.waiver or "", ("", "", ""))[2] <= now:
            lives[uid] = life._replace(status="unverified", waiver=None)

    coverage: dict[str | None, str] = {name: look.state for name, look in looks.items()}
    coverage |= {None: "partial" if estate.fault == "shaky" else "not_covered"} if estate.fault else {}
    rows, complete_in = {}, {**state.complete_in, **{name: run.id for name, look in looks.items() if look.whole}}
    for name, look in looks.items():
        if not look.gone:
            rows[name] = look.rows if look.whole else {**state.rows.get(name, {}), **look.rows}
        elif name in run.gateways or any(before[uid].gateway == name for uid in carried):
            coverage[name] = "not_covered" if name in run.gateways else "out_of_scope"
        else:
            del coverage[name]
        if look.gone:
            complete_in.pop(name, None)
    events = {uid for uid, hit in hits.items() if hit.subject == "change" and uid not in excuse}
    untouched, narrowed = site.laws.keys() - chosen, chosen - selected
    return State(lives, coverage, rows, complete_in, carried, events, idle, untouched, run.id, narrowed)


class Ear:
    """What one receiver knows, and what it must hear after a run."""

    def __init__(self, name: str, floor: Any) -> None:
        self.receiver = Receiver(name, "generic", f"https://example.com/{name}", wishes=Wishes(min_severity=floor))
        self.record = f"receivers/{name}.json"
        self.told = self.tried = self.trouble = False
        self.open: dict[str, str] = {}
        self.waived: set[str] = set()
        self.gaps: set[str | None] = set()
        self.idle: AbstractSet[str] = frozenset()
        self.due: dict[str, str] = {}  # changes that were not told yet, with the last time each was found
        self.fresh: AbstractSet[str] = frozenset()  # the changes of the last run
        self.owed: AbstractSet[str] = frozenset()  # those in messages that were not taken
        self.attempts: dict[str, str] = {}  # delivery ids by what was told, since the record was last written
        self.ids: set[str] = set()

    def is_loud(self, severity: str) -> bool:
        return SEVERITIES.index(severity) >= SEVERITIES.index(self.receiver.wishes.min_severity)

    def note(self, state: State) -> None:
        """Note the changes of a run that was committed: they are due until they are told."""
        lives = {u: f for u, f in state.lives.items() if f.subject == "change" and self.is_loud(f.severity)}
        fresh = {uid for uid, life in lives.items() if life.status in OPEN and (uid in state.events or not self.tried)}
        kept = {uid for uid in self.due if uid in lives and not lives[uid].waiver} if self.tried else self.fresh
        self.fresh = fresh
        self.due = {u: state.lives[u].last if u in state.lives else "" for u in kept | fresh | self.owed}

    def compare(self, state: State) -> tuple[dict[str, int], dict[str, Any]]:
        """Hold what was told against what is true; returns what happened since, and what is known once it is told."""
        lasting = {uid: life for uid, life in state.lives.items() if life.subject != "change"}
        pending = {uid for uid, life in lasting.items() if life.status != "resolved"}
        loud = {uid: life for uid, life in lasting.items() if self.is_loud(life.severity)}
        is_open = {uid: life.severity for uid, life in loud.items() if life.status in OPEN}
        waived = {uid for uid, life in state.lives.items() if life.status == "waived" and self.is_loud(life.severity)}
        worse = [u for u, was in self.open.items() if SEVERITIES.index(is_open.get(u, was)) > SEVERITIES.index(was)]
        kept = {name for name, what in state.coverage.items() if state.untouched or what == "out_of_scope"}
        gaps = {name for name, what in state.coverage.items() if what in GAPS} | (kept & self.gaps)
        idle = state.idle | ((state.untouched | state.narrowed) & self.idle)
        newly = is_open.keys() - self.open.keys() - self.waived
        again = {uid for uid in newly if lasting[uid].status == "reopened"}
        happened = {
            "working again": int(self.trouble),
            "new": len(newly - again),
            "reopened": len(newly & again),
            "waiver ended": len(is_open.keys() & self.waived),
            "more severe": len(worse),
            "resolved": len(self.open.keys() - pending),
            "waived": len(waived - self.waived),
            "gaps opened": len(gaps - self.gaps),
            "gaps closed": len(self.gaps - gaps),
            "rules lost": len(idle - self.idle),
            "rules regained": len(self.idle - idle),
            "changes": len(self.due),
        }
        known = {"open": is_open, "waived": waived, "gaps": gaps, "idle": idle, "due": {}, "owed": set()}
        return happened, {**known, "trouble": False}

    def hear(self, message: Any, known: dict[str, Any], *, refused: bool, written: bool) -> None:
        """Take a message: the same told again has the same delivery id, anything else another."""
        parts = (known.get("open", {}).items(), *(known.get(name, ()) for name in ("waived", "gaps", "idle")))
        due = self.due.items() if "due" in known else ()
        content = str([known["trouble"], *(sorted(map(str, part)) for part in (*parts, due))])
        assert self.attempts.setdefault(content, message.delivery_id) == message.delivery_id, "another id for the same"
        others = {name for text, name in self.attempts.items() if text != content}
        assert message.delivery_id not in self.ids | others, "the same id for another message"
        self.tried |= written and "due" in known
        if written and refused and "due" in known:
            self.owed |= self.due.keys()
        if written and not refused:
            vars(self).update(known, told=True)
            self.ids |= {message.delivery_id, *others}
            self.attempts = {}


class History:
    """A deployment that lives from run to run."""

    def __init__(self, seed: int) -> None:
        self.world, self.shelf, self.state = World(seed), Shelf(), State({}, {}, {}, {})
        self.ears = [Ear("all", "low")]
        self.refusing: set[str] = set()
        self.sent: list[tuple[str, Any]] = []

    def deliver(self, receiver: Receiver, message: Any) -> str:
        self.sent.append((receiver.name, message))
        if receiver.name in self.refusing:
            raise DeliveryError(self.world.dice.choice(["HTTP 403", "HTTP 500 after 3 tries"]))
        return "HTTP 204"

    def go_on(self) -> None:
        """Let time pass, change the world, and perform a run; now and then another one follows before it can tell."""
        world, shelf, dice = self.world, self.shelf, self.world.dice
        world.pass_time()
        if world.number == 15:
            self.ears.append(Ear("grave", "high"))
            self.ears[-1].note(self.state)
        gateways = dice.sample([*GATEWAYS, "g9"], dice.randint(1, 3)) if world.chance(0.2) else ()
        rules = dice.sample(sorted(world.site.laws), dice.randint(1, 4)) if world.chance(0.2) else ()
        run = Run(f"{world.now:%Y%m%dT%H%M%SZ}-{world.number:06x}", world.now, tuple(gateways), tuple(rules))
        silent = dice.choice(["dry run", "not wanted"]) if world.chance(0.12) else ""
        dry = silent == "dry run"
        self.refusing = {ear.receiver.name for ear in self.ears if world.chance(0.2)}
        shelf.countdown, shelf.late = dice.randint(1, 10) if world.chance(0.25) else 0, world.chance(0.5)
        shelf.error = dice.choice([Kill(), StoreError("the disk is full")])
        shelf.written, self.sent, kept = set(), [], dict(shelf.objects)
        after, is_followed = next_state(self.state, world.estate, world.site, run), world.chance(0.04)

        def on_commit() -> None:
            self.state = after
            world.broken = [life.rule for life in after.lives.values() if life.status in OPEN]
            self._check_record(after, run)
            for ear in self.ears:
                ear.note(after)
            if is_followed:
                self.go_on()
                shelf.written, shelf.countdown, self.sent = set(), 0, []

        shelf.on_commit = on_commit
        job = Job(run.id, run.now, "test", load(world.site), run.gateways, run.rules, dry_run=dry, concurrency=2)
        ears = [*self.ears]  # who is told in this run; another one that follows may know of more
        telling = Telling([ear.receiver for ear in ears], self, shelf, silent)
        ports = Ports(
            [Source("", world.estate, run.gateways)],
            Archive(shelf),
            telling,
            lambda: run.now,
            lambda: "",
            NoProgress(),
            list,
            lambda: 60.0,
        )
        outcome = None
        with suppress(Kill):
            outcome = run_audit(job, ports)
        trouble = outcome is not None and outcome.summary.manifest is None and not dry
        if outcome is not None:
            assert outcome.summary.exit_code == (4 if trouble else exit_code(after))
        is_overtaken = self.state.run > run.id and not trouble
        for ear in [] if is_overtaken else ears:
            self._check_message(ear, trouble=trouble, may_miss=bool(silent) or outcome is None)
        assert not self.sent or not (silent or is_overtaken)
        assert not dry or shelf.objects == kept
        if outcome is None or world.number % 15 == 0:
            assert Verifier(shelf).verify().problems == []

    def _check_record(self, state: State, run: Run) -> None:
        """Hold what the run left in the store against the model."""
        objects, lines = self.shelf.objects, {}
        latest = json.loads(objects["latest.json"])
        manifest = json.loads(objects[latest["manifest"]])
        for key in (item["key"] for item in manifest["objects"]):
            if key.endswith(".ndjson.gz"):
                lines[key.split("/")[-1]] = list(map(json.loads, gzip.decompress(objects[key]).splitlines()))
        assert latest["run_id"] == manifest["run_id"] == run.id
        coverage = {entry["gateway_id"]: entry for entry in manifest["coverage"]}
        assert {name: entry["state"] for name, entry in coverage.items()} == state.coverage
        complete_in = {name: entry["complete_in"] for name, entry in coverage.items() if entry["complete_in"]}
        assert complete_in == state.complete_in
        columns = ("gateway_id", "id", "status", "status_since", "read_in")
        rows = {tuple(line[column] for column in columns) for line in lines["connections.ndjson.gz"]}
        known = [(name, row) for name, of_gateway in state.rows.items() for row in of_gateway.values()]
        assert rows == {(name, row.id, row.status, row.since, row.read_in) for name, row in known}
        found = {}
        for line in lines["findings.ndjson.gz"]:
            refs = (line[name] and line[name]["id"] for name in REFS)
            found[line["uid"]] = Life._make([*(line[n] for n in NAMED), *refs, *(line[n] for n in FIELDS)])
        differing = {uid for uid in found.keys() | state.lives.keys() if found.get(uid) != state.lives.get(uid)}
        assert not differing, [(found.get(uid), state.lives.get(uid)) for uid in differing]

    def _check_message(self, ear: Ear, *, trouble: bool, may_miss: bool) -> None:
        """Hold what a receiver was sent against what it must hear."""
        sent = [message for name, message in self.sent if name == ear.receiver.name]
        refused, written = ear.receiver.name in self.refusing, ear.record in self.shelf.written
        happened, known = ear.compare(self.state) if not trouble else ({}, {"trouble": True})
        is_due = not ear.trouble if trouble else not ear.told or any(happened.values())
        assert len(sent) == is_due or (may_miss and not sent), happened
        for message in sent:
            assert message.changes == happened, (message.changes, happened)
            ear.hear(message, known, refused=refused, written=written)


def exit_code(state: State) -> int:
    if GAPS & set(state.coverage.values()):
        return 3 if any(what in {"complete", "partial"} for name, what in state.coverage.items() if name) else 4
    judged = (life for uid, life in state.lives.items() if uid not in state.carried)
    return int(any(life.status in OPEN and life.severity != "info" for life in judged))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_long_history_goes_as_the_contract_says(seed):
    history = History(seed)
    for _ in range(RUNS):
        try:
            history.go_on()
        except Exception as error:
            raise AssertionError(f"seed {seed}, run {history.world.number}: {error}") from error
