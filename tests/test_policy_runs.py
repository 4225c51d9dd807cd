"""Whole runs under changes, groups, overrides and waivers, from the API over HTTP to store and receiver."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from audit.evaluate import Judge
from audit.model import ESTATE, Reading, build_uid
from audit.ruleset.parse import Rule, parse_rule
from audit.ruleset.policy import Policy, Waiver
from audit.ruleset.problems import Place
from tests.builders import GATEWAY, NOW, record
from tests.emulator import Forbidden
from tests.emulator.connection import DOMAIN_ID
from tests.world import POLICY, STRANGER

if TYPE_CHECKING:
    from tests.world import World

CASES: list[dict[str, Any]] = [{"name": name, "given": {}, "expect": name} for name in ("finding", "pass")]
NEWLY_ACCEPTED: dict[str, Any] = {
    "each": "change",
    "when": {"after.status": "accepted", "before.status": {"not": "accepted"}},
    "require": False,
    "tests": [{"before": None, **case} for case in CASES],
}
GONE: dict[str, Any] = {**NEWLY_ACCEPTED, "when": {"change": "removed"}}
QUOTA: dict[str, Any] = {
    "each": {"group": ["gateway.id"]},
    "when": {"status": "accepted"},
    "require": {"count": {"maximum": 1}},
    "tests": [{**case, "given": [{}]} for case in CASES],
}
ACCOUNTS: dict[str, Any] = {**QUOTA, "each": {"group": ["domain_id"]}}


def add_rule(world: World, rule_id: str, rule: dict[str, Any], severity: str = "medium") -> None:
    value = {"id": rule_id, "title": rule_id, "severity": severity, **rule}
    (world.rules_dir / f"{rule_id}.json").write_text(json.dumps(value))


def set_policy(world: World, **members: Any) -> None:
    world.policy.write_text(json.dumps({**POLICY, **members}))


def in_days(days: float) -> str:
    return (datetime.now(timezone.utc) + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


def waiver(rule: str = "no-failed-connections", match: Any = True, days: float = 30, **more: Any) -> dict[str, Any]:
    return {
        "id": "w1", "rule": rule, "match": match, "reason": "migration", "approved_by": "j.doe",
        "expires": in_days(days), **more,
    }  # fmt: skip


def headlines(world: World) -> list[str]:
    assert all(delivery.verified for delivery in world.receiver.deliveries)
    return [delivery.json()["data"]["headline"] for delivery in world.receiver.deliveries]


def of_rule(world: World, rule_id: str) -> list[dict[str, Any]]:
    found = [finding for finding in world.lines("findings.ndjson.gz") if finding["rule_id"] == rule_id]
    world.findings()  # each is valid under the schema
    return found


def coverage(world: World) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in world.manifest()["coverage"]}


def test_a_change_is_found_once_told_once_and_over_in_the_next_run(world):
    """Without an earlier reading the rule is not evaluated, and clean is not said."""
    shop = world.estate.add_gateway("shop")
    waiting = shop.add_connection(status="pendingAcceptance")
    add_rule(world, "newly-accepted", NEWLY_ACCEPTED)

    first = world.run()
    assert first.summary.exit_code == 0
    assert first.reason == "nothing found in what could be judged"
    assert coverage(world)["shop"]["not_evaluated"] == {"newly-accepted": "no earlier reading to compare with"}
    run_id = first.summary.run_id
    assert coverage(world)["shop"]["complete_in"] == run_id

    shop.change(waiting.id, status="accepted")
    assert world.run().summary.exit_code == 1
    (found,) = of_rule(world, "newly-accepted")
    assert (found["status"], found["subject"], found["connection"]) == ("new", "change", waiting.id)
    assert found["message"] == (
        'after.status is "accepted"; before.status is "pendingAcceptance"; this must never occur'
    )
    assert coverage(world)["shop"]["not_evaluated"] == {}

    assert world.run().summary.exit_code == 0
    (found,) = of_rule(world, "newly-accepted")
    assert (found["status"], found["resolution"]) == ("resolved", "event_over")
    assert headlines(world) == [
        "nothing found in what could be judged; 1 gateway with nothing to compare yet",
        "1 change; nothing else open",
    ]

    shop.change(waiting.id, status="rejected")
    shop.add_connection()
    world.run()
    shop.change(waiting.id, status="accepted")
    world.run()
    by_connection = {finding["connection"]: finding for finding in of_rule(world, "newly-accepted")}
    assert by_connection[waiting.id]["status"] == "reopened"
    assert headlines(world)[2:] == ["1 change; nothing else open"] * 2


def test_a_change_that_nobody_took_is_told_when_it_is_over(world):
    """An event leaves no state to tell later, so what failed stays due."""
    shop = world.estate.add_gateway("shop")
    waiting = shop.add_connection(status="pendingAcceptance")
    add_rule(world, "newly-accepted", NEWLY_ACCEPTED)
    world.run()
    shop.change(waiting.id, status="accepted")
    for _ in range(2):
        world.receiver.answers.append(403)
        assert world.run().summary.deliveries[0].outcome == "failed"
    assert world.run().summary.deliveries[0].outcome == "delivered"
    assert world.run().summary.deliveries[0].outcome == "nothing to tell"
    assert headlines(world)[-1].startswith("1 change; ")


def test_an_outage_hides_no_change_and_makes_none_up(world):
    """Changes are told by the last complete reading; what a gateway that was not read holds is not gone."""
    shop = world.estate.add_gateway("shop")
    kept, lost = shop.add_connection(), shop.add_connection(status="pendingAcceptance")
    add_rule(world, "removed", GONE)
    world.run()
    world.estate.fail(Forbidden(), gateway=shop.id, times=None)
    world.run()
    assert of_rule(world, "removed") == []
    world.estate.heal()
    shop.remove(lost.id)
    world.run()
    (found,) = of_rule(world, "removed")
    assert (found["connection"], found["status"]) == (lost.id, "new")
    assert kept.id != lost.id


def test_a_quota_for_each_gateway_belongs_to_its_gateway(world):
    """The finding names gateway and group; it is fixed when the group is small enough or gone."""
    shop, other = world.estate.add_gateway("shop"), world.estate.add_gateway("other")
    for number in range(2):
        shop.add_connection(domain_id=DOMAIN_ID if number else STRANGER)
    other.add_connection()
    add_rule(world, "quota", QUOTA)
    world.run()
    (found,) = of_rule(world, "quota")
    assert (found["message"], found["connection"]) == ("count is 2; must be at most 1", None)
    assert (found["group"], found["gateway"]["name"]) == ({"gateway.id": shop.id}, "shop")
    key = build_uid("quota", _key(found), "group", f'[["gateway.id","{shop.id}"]]')
    assert found["uid"] == key
    for connection in shop.connections[1:]:
        shop.remove(connection.id)
    world.run()
    (found,) = of_rule(world, "quota")
    assert (found["status"], found["resolution"]) == ("resolved", "fixed")


def _key(found: dict[str, Any]) -> Any:
    gateway = found["gateway"]
    return ESTATE._replace(region=gateway["region"], project_id=gateway["project_id"], gateway_id=gateway["id"])


def test_a_group_that_spans_gateways_is_raised_by_what_is_seen_and_resolved_by_all(world):
    """A gateway that was not read may hold the rest of the group."""
    shop, other = world.estate.add_gateway("shop"), world.estate.add_gateway("other")
    shop.add_connection()
    second = other.add_connection()
    add_rule(world, "accounts", ACCOUNTS)
    world.run()
    (found,) = of_rule(world, "accounts")
    assert (found["gateway"], found["group"], found["status"]) == (None, {"domain_id": DOMAIN_ID}, "new")
    assert found["uid"] == build_uid("accounts", ESTATE, "group", f'[["domain_id","{DOMAIN_ID}"]]')

    world.estate.fail(Forbidden(), gateway=other.id, times=None)
    world.run()
    assert [finding["status"] for finding in of_rule(world, "accounts")] == ["unverified"]
    third = shop.add_connection()
    world.run()
    assert [finding["status"] for finding in of_rule(world, "accounts")] == ["ongoing"], "raised all the same"
    shop.remove(third.id)
    world.estate.heal()
    limited = world.run(gateways=(shop.id,))
    assert "rule accounts was not evaluated: its groups may span gateways" in "".join(limited.summary.problems)
    assert [finding["status"] for finding in of_rule(world, "accounts")] == ["ongoing"], "out of scope, as it was"
    other.remove(second.id)
    world.run()
    assert [finding["resolution"] for finding in of_rule(world, "accounts")] == ["fixed"]


def test_overrides_change_rules_for_some_gateways(world):
    """Parameters, severity, or the rule itself; a later entry wins, and what is turned off is resolved."""
    for name in ("prod-1", "test-1"):
        gateway = world.estate.add_gateway(name)
        gateway.add_connection(status="pendingAcceptance", age=timedelta(hours=5))
        gateway.add_connection(status="failed")
    world.run()
    assert {finding["rule_id"] for finding in world.lines("findings.ndjson.gz")} == {"no-failed-connections"}
    set_policy(
        world,
        overrides=[
            {"match": True, "params": {"pending-too-long": {"longest-wait": "PT1H"}}},
            {
                "match": {"gateway.name": {"like": "prod-*"}},
                "params": {"pending-too-long": {"longest-wait": "PT4H"}},
                "severity": {"pending-too-long": "critical"},
            },
            {"match": {"gateway.name": "test-1"}, "disable": ["no-failed-connections"]},
        ],
    )
    world.run()
    found = {
        (f["gateway"]["name"], f["rule_id"]): (f["status"], f["severity"], f["resolution"], f["message"])
        for f in world.lines("findings.ndjson.gz")
    }
    failed = 'status is "failed"; not allowed'
    assert found == {
        ("prod-1", "pending-too-long"): ("new", "critical", None, "pending for 5 h; at most 4 h allowed"),
        ("test-1", "pending-too-long"): ("new", "medium", None, "pending for 5 h; at most 1 h allowed"),
        ("prod-1", "no-failed-connections"): ("ongoing", "low", None, failed),
        ("test-1", "no-failed-connections"): ("resolved", "low", "rule_removed", failed),
    }


def test_a_waiver_excuses_until_it_ends(world):
    """The finding stays, with the waiver on it; the receiver hears of both ends."""
    shop = world.estate.add_gateway("shop")
    broken = shop.add_connection(status="failed")
    key = ("no-failed-connections", broken.id)
    world.run()
    first_seen = world.findings()[key]["first_seen"]

    set_policy(world, waivers=[waiver(match={"id": broken.id}, ticket="SEC-1")])
    assert world.run().summary.exit_code == 0
    found = world.findings()[key]
    assert (found["status"], found["waiver"]["id"], found["waiver"]["ticket"]) == ("waived", "w1", "SEC-1")
    assert world.run().summary.deliveries[0].outcome == "nothing to tell"

    set_policy(world, waivers=[waiver(match={"id": broken.id}, days=-1)])
    assert world.run().summary.exit_code == 1
    found = world.findings()[key]
    assert (found["status"], found["waiver"], found["first_seen"]) == ("ongoing", None, first_seen)
    (expired,) = of_rule(world, "waiver-expired")
    assert (expired["status"], expired["severity"], expired["subject"]) == ("new", "medium", "policy")
    assert expired["uid"] == build_uid("waiver-expired", ESTATE, "policy", "w1")
    assert expired["message"].startswith("waiver w1 for rule no-failed-connections expired on ")
    assert expired["message"].endswith("; it still matches 1 finding")

    shop.change(broken.id, status="accepted")
    world.run()
    assert world.findings()[key]["resolution"] == "fixed"
    assert [finding["resolution"] for finding in of_rule(world, "waiver-expired")] == ["fixed"]
    assert headlines(world) == [
        "1 new; 1 open (1 low)",
        "1 waived; clean",
        "1 new, 1 waiver ended; 2 open (1 medium, 1 low)",
        "2 resolved; clean",
    ]


def test_a_waived_finding_of_an_unread_gateway_stays_waived(world):
    """While the waiver lasts; then it is open again, unverified."""
    shop = world.estate.add_gateway("shop")
    broken = shop.add_connection(status="failed")
    key = ("no-failed-connections", broken.id)
    set_policy(world, waivers=[waiver(match={"id": broken.id})])
    world.run()
    world.estate.fail(Forbidden(), gateway=shop.id, times=None)
    world.run()
    assert world.statuses() == {key: "waived"}
    set_policy(world)
    world.run()
    assert world.statuses() == {key: "unverified"}
    assert world.findings()[key]["waiver"] is None


def test_a_waived_connection_that_vanished_is_resolved(world):
    """A waiver does not keep what is gone."""
    shop = world.estate.add_gateway("shop")
    broken = shop.add_connection(status="failed")
    set_policy(world, waivers=[waiver(match={"id": broken.id})])
    world.run()
    shop.remove(broken.id)
    world.run()
    (found,) = world.findings().values()
    assert (found["status"], found["resolution"]) == ("resolved", "resource_deleted")


@pytest.mark.parametrize(
    ("changes", "notice"),
    [
        ({"match": {"domain_id": "nobody"}}, "waiver w1 for rule no-failed-connections matches nothing: delete it"),
        (
            {"match": {"domain_id": "nobody"}, "days": -1},
            "waiver w1 for rule no-failed-connections matches nothing and has expired: delete it",
        ),
        ({"days": 6.5}, "waiver w1 for rule no-failed-connections expires on "),
        ({"days": 7.5}, None),
    ],
)
def test_a_waiver_that_needs_a_look_is_named(world, changes, notice):
    """One that ends within 7 days, and one that matches nothing."""
    world.estate.add_gateway("shop").add_connection(status="failed")
    set_policy(world, waivers=[waiver(**changes)])
    problems = world.run().summary.problems
    assert len(problems) == (notice is not None)
    assert problems == [] or problems[0].startswith(notice)


def test_that_a_waiver_matches_nothing_is_said_only_of_what_was_read(world):
    """An unread gateway, a limited run or a rule about changes proves nothing."""
    shop = world.estate.add_gateway("shop")
    shop.add_connection()
    other = world.estate.add_gateway("other")
    add_rule(world, "newly-accepted", NEWLY_ACCEPTED)
    nothing = waiver(match={"domain_id": "nobody"})
    set_policy(world, waivers=[nothing, {**waiver("newly-accepted"), "id": "w2"}])
    assert len(world.run().summary.problems) == 1
    assert len(world.run().summary.problems) == 1, "one event is not all there is"
    assert world.run(gateways=(shop.id,)).summary.problems == []
    assert world.run(rules=("pending-too-long",)).summary.problems == []
    world.estate.fail(Forbidden(), gateway=other.id, times=None)
    assert not [problem for problem in world.run().summary.problems if "waiver" in problem]


def test_a_renewed_waiver_takes_over(world):
    """The old entry may stand beside it: nothing is open, so that nothing is said."""
    world.estate.add_gateway("shop").add_connection(status="failed")
    set_policy(world, waivers=[waiver(days=-1), {**waiver(), "id": "w2"}])
    outcome = world.run()
    assert (outcome.summary.exit_code, outcome.summary.problems) == (0, [])
    assert [finding["waiver"]["id"] for finding in world.lines("findings.ndjson.gz")] == ["w2"]


def test_a_rule_that_breaks_down_costs_no_other(world, monkeypatch):
    """It is named and told, the audit goes on, and the exit code says that something was not judged."""
    shop = world.estate.add_gateway("shop")
    shop.add_connection(status="failed")
    shop.add_connection(status="pendingAcceptance", age=timedelta(days=9))
    world.run()
    real = __import__("audit.evaluate", fromlist=["explain"]).explain

    def broken(bound, *rest):
        if bound.rule.id == "pending-too-long":
            raise ZeroDivisionError
        return real(bound, *rest)

    monkeypatch.setattr("audit.evaluate.explain", broken)
    outcome = world.run()
    assert outcome.summary.exit_code == 3
    assert outcome.reason == "a rule broke down"
    (problem,) = outcome.summary.problems
    assert problem.startswith(
        "rule pending-too-long was not evaluated: it broke down on gateway shop: internal error (ZeroDivisionError in "
    )
    assert {f["rule_id"]: f["status"] for f in world.lines("findings.ndjson.gz")} == {
        "no-failed-connections": "ongoing",
        "pending-too-long": "unverified",
    }
    rules = {rule["id"]: rule["not_evaluated"] for rule in world.manifest()["rules"]}
    assert rules["pending-too-long"].startswith("it broke down on gateway shop")
    assert not rules["no-failed-connections"]
    assert headlines(world)[-1].endswith("; 1 rule not evaluated")


def test_no_waiver_is_granted_on_what_was_not_read(world):
    """Not by permissions that were refused; a match that reads them has them asked for."""
    shop = world.estate.add_gateway("shop", permissions=["*"])
    shop.add_connection(status="failed")
    crowded = {"each": "gateway", "require": {"connections": {"maximum": 0}}}
    add_rule(world, "crowded", crowded | {"tests": [{**case, "given": {}} for case in CASES]})
    shut = {"permissions": {"not": {"contains": "*"}}}
    set_policy(world, waivers=[waiver("crowded", shut)])
    world.run()
    assert [f["status"] for f in of_rule(world, "crowded")] == ["new"], "permissions were read for the waiver's sake"
    world.estate.fail(Forbidden(), kind="permissions", times=None)
    world.run()
    assert [f["status"] for f in of_rule(world, "crowded")] == ["ongoing"]
    world.estate.heal()
    shop.permissions = []
    world.run()
    assert [f["status"] for f in of_rule(world, "crowded")] == ["waived"]


@pytest.mark.parametrize("state", ["complete", "partial"])
def test_counts_of_a_gateway_that_was_read_in_part_excuse_nothing(state):
    """There may be more than the waiver allows."""
    rule = _parse({"each": "gateway", "require": {"accepted": {"maximum": 1}}})
    records = tuple(record(f"c{number}") for number in range(3))
    at_most = _parse({"each": "gateway", "require": {"accepted": {"maximum": 3}}}).require
    excuse = Waiver("w", "r", at_most, "", "", "", "9")
    judge = Judge([rule], Policy(waivers=(excuse,)), NOW)
    (hit,) = judge.judge(Reading(GATEWAY, state, records), []).hits.values()
    assert (hit.waiver is None) == (state == "partial")


def _parse(rule: dict[str, Any]) -> Rule:
    problems: list[str] = []
    tests = [{"name": case["name"], "expect": case["expect"], "given": {}} for case in CASES]
    value = {"id": "r", "title": "t", "severity": "low", **rule, "tests": tests}
    parsed = parse_rule(value, Place("r", problems), "r")
    assert parsed, problems
    return parsed


def test_a_run_limited_by_rule_still_sees_changes(world):
    """What it reads is what the next run compares with."""
    shop = world.estate.add_gateway("shop")
    waiting = shop.add_connection(status="pendingAcceptance")
    add_rule(world, "newly-accepted", NEWLY_ACCEPTED)
    world.run()
    shop.change(waiting.id, status="accepted")
    world.run(rules=("pending-too-long",))
    assert [f["status"] for f in of_rule(world, "newly-accepted")] == ["new"]
    assert world.run().summary.deliveries[0].outcome == "nothing to tell"


def test_gaps_are_told_each_time_also_where_some_rule_needs_more_gateways(world):
    """A deployment for some gateways, with a rule about groups that span gateways."""
    shop = world.estate.add_gateway("shop")
    shop.add_connection()
    add_rule(world, "accounts", ACCOUNTS)
    for number in range(2):
        assert world.run(gateways=(shop.id,)).reason == "clean in what was in scope"
        world.estate.fail(Forbidden(), gateway=shop.id, times=None)
        assert world.run(gateways=(shop.id,)).summary.deliveries[0].outcome == "delivered", number
        world.estate.heal()
    rules = {rule["id"]: rule["not_evaluated"] for rule in world.manifest()["rules"]}
    assert rules["accounts"] == "its groups may span gateways, and this run is limited to some"


def test_a_rule_whose_groups_span_gateways_no_more_leaves_nothing_open(world):
    """Findings about what spans gateways end as those of a rule that was removed."""
    for name in ("shop", "other"):
        world.estate.add_gateway(name).add_connection()
    add_rule(world, "accounts", ACCOUNTS)
    world.run()
    add_rule(world, "accounts", QUOTA)
    world.run()
    assert [(f["status"], f["resolution"]) for f in of_rule(world, "accounts")] == [("resolved", "rule_removed")]


def test_a_change_that_is_told_late_is_named(world):
    """By what was found then, up to a limit, and the rest is counted."""
    shop = world.estate.add_gateway("shop")
    waiting = shop.add_connections(12, status="pendingAcceptance")
    add_rule(world, "newly-accepted", NEWLY_ACCEPTED)
    world.run()
    for connection in waiting:
        shop.change(connection.id, status="accepted")
    for _ in range(3):
        world.receiver.answers.append(403)
        world.run()
    world.run()
    data = world.receiver.deliveries[-1].json()["data"]
    assert (data["headline"], len(data["findings"]), data["findings_left_out"]) == (
        "12 changes; nothing else open",
        10,
        2,
    )
    assert {finding["resources"][0]["uid"] for finding in data["findings"]} <= {connection.id for connection in waiting}


def test_clean_is_not_said_beside_a_change_that_is_too_mild_to_tell(world):
    """It is open, below what the receiver hears of."""
    shop = world.estate.add_gateway("shop")
    waiting, broken = shop.add_connection(status="pendingAcceptance"), shop.add_connection(status="failed")
    add_rule(world, "newly-accepted", NEWLY_ACCEPTED, severity="info")
    world.run()
    shop.change(waiting.id, status="accepted")
    shop.remove(broken.id)
    world.run()
    assert headlines(world)[-1] == "1 resolved; nothing open at or above low"


def test_a_rule_about_all_gateways_that_could_not_be_judged_says_so(world):
    """In the manifest; a requirement without counts is raised all the same."""
    shop, other = world.estate.add_gateway("shop"), world.estate.add_gateway("other")
    shop.add_connection(domain_id=STRANGER)
    other.add_connection()
    add_rule(world, "accounts", {**ACCOUNTS, "require": {"count": {"minimum": 2}}})
    add_rule(world, "strangers", {**ACCOUNTS, "require": {"domain_id": DOMAIN_ID}})
    world.estate.fail(Forbidden(), gateway=other.id, times=None)
    world.run()
    rules = {rule["id"]: rule["not_evaluated"] for rule in world.manifest()["rules"]}
    assert rules["accounts"] == "not every gateway was read"
    assert [f["status"] for f in of_rule(world, "strangers")] == ["new"]
    assert of_rule(world, "accounts") == []


def test_an_expired_waiver_is_found_in_a_limited_run_too_and_closed_when_renewed(world):
    """As for a deployment that is only about some gateways."""
    shop = world.estate.add_gateway("shop")
    shop.add_connection(status="failed")
    set_policy(world, waivers=[waiver(days=-1)])
    assert world.run(gateways=(shop.id,)).summary.exit_code == 1
    assert [f["status"] for f in of_rule(world, "waiver-expired")] == ["new"]
    set_policy(world, waivers=[waiver(days=30)])
    world.run(gateways=(shop.id,))
    assert [f["resolution"] for f in of_rule(world, "waiver-expired")] == ["fixed"]


def test_an_expired_waiver_is_missed_no_more_though_its_rule_is_turned_off_somewhere(world):
    """Where a rule is turned off there is nothing that it could find: that is no gap."""
    shop, other = world.estate.add_gateway("shop"), world.estate.add_gateway("other")
    broken = shop.add_connection(status="failed")
    off = {"match": {"gateway.id": other.id}, "disable": ["no-failed-connections"]}
    set_policy(world, waivers=[waiver(days=-1)], overrides=[off])
    world.run()
    assert [f["status"] for f in of_rule(world, "waiver-expired")] == ["new"]
    shop.change(broken.id, status="accepted")
    world.run()
    assert [f["resolution"] for f in of_rule(world, "waiver-expired")] == ["fixed"]


def test_what_is_waived_again_and_again_hides_nothing(world):
    """Neither on the terminal nor in the message."""
    shop = world.estate.add_gateway("shop")
    shop.add_connections(60, status="failed")
    waiting = shop.add_connection(status="pendingAcceptance", age=timedelta(days=9))
    set_policy(world, waivers=[waiver()])
    world.run()
    shop.change(waiting.id, status="accepted")
    world.run()
    data = world.receiver.deliveries[-1].json()["data"]
    assert [finding["compliance"]["control"] for finding in data["findings"]] == ["pending-too-long"]


def test_a_waived_change_is_told_as_waived(world):
    """Becoming waived is told, whatever the subject."""
    shop = world.estate.add_gateway("shop")
    waiting = shop.add_connection(status="pendingAcceptance")
    add_rule(world, "newly-accepted", NEWLY_ACCEPTED)
    set_policy(world, waivers=[waiver("newly-accepted")])
    world.run()
    shop.change(waiting.id, status="accepted")
    world.run()
    assert headlines(world)[-1] == "1 waived; clean"


def test_records_without_id_that_are_alike_are_no_change(world):
    """Both are known by what they have, which is the same."""
    shop = world.estate.add_gateway("shop")
    shop.raw_records += [{"id": None, "status": "accepted"}] * 2
    add_rule(world, "newly-accepted", NEWLY_ACCEPTED)
    world.run()
    world.run()
    assert of_rule(world, "newly-accepted") == []


def test_a_waiver_that_was_given_to_another_rule_excuses_nothing_more(world):
    """Also on a gateway that could not be read."""
    shop = world.estate.add_gateway("shop")
    shop.add_connection(status="failed")
    set_policy(world, waivers=[waiver()])
    world.run()
    world.estate.fail(Forbidden(), gateway=shop.id, times=None)
    set_policy(world, waivers=[waiver("pending-too-long")])
    world.run()
    assert [f["status"] for f in of_rule(world, "no-failed-connections")] == ["unverified"]


def test_every_expired_waiver_that_is_needed_is_found(world):
    """Not only the first of them."""
    world.estate.add_gateway("shop").add_connection(status="failed")
    set_policy(world, waivers=[waiver(days=-1), {**waiver(days=-2), "id": "w2"}])
    world.run()
    assert len(of_rule(world, "waiver-expired")) == 2


def test_what_the_policy_turns_off_is_on_record_and_clean_is_not_said(world):
    """Nor is an override that matches no gateway passed over in silence."""
    world.estate.add_gateway("shop").add_connection(status="failed")
    nowhere = {"match": {"gateway.name": "shop-*"}, "severity": {"no-failed-connections": "critical"}}
    set_policy(world, overrides=[{"match": True, "disable": ["no-failed-connections"]}, nowhere])
    outcome = world.run()
    assert coverage(world)["shop"]["not_evaluated"] == {"no-failed-connections": "turned off by the policy"}
    assert outcome.reason == "clean in what was in scope"
    assert outcome.summary.problems == ["override 1 of the policy matches no gateway"]
