"""`notify`: what a run would say, and whether a receiver takes it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from audit.compose import open_archive
from audit.rehearse import preview
from audit.render.kinds import KINDS
from tests.emulator import Answer, Forbidden, receive
from tests.emulator.chat import CHAT_KINDS, chat
from tests.emulator.connection import DOMAIN_ID
from tests.test_cli import audit, estate, server  # noqa: F401  (fixtures)
from tests.test_policy_runs import ACCOUNTS, QUOTA, add_rule
from tests.world import STRANGER

if TYPE_CHECKING:
    from tests.world import World

LIST = "AUDIT_RECEIVERS"


@pytest.fixture
def recorded(estate, audit):  # noqa: F811
    estate.add_gateway("billing").add_connection(status="pendingAcceptance", age=timedelta(hours=48))
    assert audit("run", "--no-notify").code == 1
    return audit


@pytest.mark.parametrize("kind", KINDS)
def test_a_preview_is_the_payload(recorded, kind):
    """JSON that names the run; nothing is sent, nothing is written."""
    stored = recorded.stored()
    ran = recorded("notify", "--preview", kind)
    assert (ran.code, ran.err) == (0, "")
    latest = json.loads((recorded.store / "latest.json").read_text())
    assert latest["run_id"] in ran.out
    assert latest["sha256"][:12] in ran.out
    assert json.loads(ran.out)
    assert recorded.stored() == stored


@pytest.mark.parametrize("situation", ["full", "gateways", "rules", "both", "coverage", "idle"])
def test_a_preview_says_what_the_run_itself_said_first(world: World, situation: str):
    """Of a run that others preceded: scope, gaps, rules, findings and counts, from the record alone."""
    add_rule(world, "accounts", ACCOUNTS)
    add_rule(world, "few", {**QUOTA, "require": {"count": {"maximum": 0}}})
    shops = [world.estate.add_gateway(f"shop-{number}") for number in range(3)]
    for shop in shops:
        shop.add_connection(status="pendingAcceptance", age=timedelta(hours=48))
        shop.add_connection(domain_id=STRANGER)
        shop.add_connection(status="failed")
    world.run(notify=False)
    shops[1].add_connection(domain_id=STRANGER)
    if situation == "coverage":
        world.estate.fail(Forbidden(), gateway=shops[0].id, times=None)
    if situation == "idle":
        world.policy.write_text(json.dumps({"lists": {"approved-domains": []}}))
    gateways = tuple(shop.id for shop in shops[:2]) if situation in {"gateways", "both"} else ()
    rules = ("pending-too-long", "no-failed-connections") if situation in {"rules", "both"} else ()
    outcome = world.run(gateways=gateways, rules=rules)
    (delivery,) = world.receiver.deliveries
    told = delivery.json()["data"]
    assert json.loads(preview(open_archive(world.store), "", "generic", 0.0))["data"] == told
    assert told["rules_not_evaluated"] == (["only-approved-domains-accepted"] if situation == "idle" else [])
    assert bool(outcome.summary.counts.carried) == (situation in {"gateways", "rules", "both"})
    assert ("limited to some" in told["headline"]) == bool(outcome.summary.counts.carried)
    assert len(told["findings"]) + told["findings_left_out"] >= 9


@pytest.mark.parametrize(
    ("options", "said", "page"),
    [
        ({}, "clean", "Complete: everything in scope was read and judged"),
        (
            {"gateways": True},
            "clean in what was in scope; limited to some gateways",
            "Complete in what was in scope: limited to some gateways",
        ),
        (
            {"rules": ("accounts",)},
            "clean in what was in scope; limited to some rules",
            "Complete in what was in scope: limited to some rules",
        ),
    ],
)
def test_run_message_preview_and_page_say_the_same_of_a_clean_run(world: World, options, said, page):
    """Also where a rule was left out because it would need more gateways than the run was about."""
    add_rule(world, "accounts", ACCOUNTS)
    shop = world.estate.add_gateway("shop")
    shop.add_connection()
    outcome = world.run(**({"gateways": (shop.id,)} if "gateways" in options else options))
    (delivery,) = world.receiver.deliveries
    assert delivery.json()["data"]["headline"] == said
    assert json.loads(preview(open_archive(world.store), "", "generic", 0.0))["data"]["headline"] == said
    assert outcome.reason == said.partition(";")[0]
    assert f"<h1>{page}</h1>" in (world.store / str(outcome.summary.report)).read_text()


def test_an_unknown_kind_is_said_before_anything_is_read(audit):  # noqa: F811
    """With the one that is meant, even where there is no run to show."""
    ran = audit("notify", "--preview", "discrod")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith('audit: --preview "discrod" is none of generic, slack')
    assert ran.err.endswith('did you mean "discord"?\n')


def test_a_preview_of_a_run_by_its_id(recorded):
    """Any run of the chain; an unknown one is a mistake."""
    run_id = json.loads((recorded.store / "latest.json").read_text())["run_id"]
    recorded("run", "--no-notify")
    assert run_id in recorded("notify", "--preview", "slack", "--run", run_id).out
    assert recorded("notify", "--preview", "slack", "--run", "nonsense").code == 2


@pytest.mark.parametrize(
    ("words", "settings", "said"),
    [
        ((), {}, "one of the arguments --preview --test is required"),
        (("--preview", "slcak"), {}, '"slcak" is none of generic, slack'),
        (("--preview", "slack", "--test"), {}, "not allowed with argument"),
        (("--test",), {}, "no receiver is set: set AUDIT_WEBHOOK_URL or AUDIT_RECEIVERS"),
        (("--test", "--run", "x"), {}, "--run goes with --preview"),
        (("--test", "sco"), {LIST: '[{"name": "soc", "url": "https://discord.com/x"}]'}, '"sco" is none of soc'),
        (("--test",), {LIST: '[{"name": "soc", "url": "https://chat.example/x"}]'}, '"kind" is missing'),
        (
            ("--test",),
            {LIST: '[{"name": "a", "url": "https://discord.com/x"}, {"name": "b", "url": "https://discord.com/y"}]'},
            "--test say which of a, b",
        ),
    ],
)
def test_wrong_usage_ends_with_2(recorded, words, settings, said):
    """In one line that says what is right."""
    ran = recorded("notify", *words, **settings)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


@pytest.mark.parametrize("kind", CHAT_KINDS)
def test_a_test_message_is_taken(audit, kind):  # noqa: F811
    """No key, no rules, no store are needed; what the service answered is said."""
    for name in [name for name in audit.settings if name.startswith("HUAWEICLOUD")]:
        audit.settings[name] = ""
    with chat(kind) as service:
        receivers = json.dumps([{"name": "soc", "kind": kind, "url": service.url}])
        ran = audit("notify", "--test", "soc", **{LIST: receivers})
        (delivery,) = service.deliveries
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"receiver soc ({kind}): delivered: HTTP 20")
    assert b"nothing was audited" in delivery.body
    assert audit.stored() == []


def test_a_refused_test_ends_with_1_and_says_why(audit):  # noqa: F811
    """Without the URL."""
    with chat("wecom") as service:
        audit.settings |= {"AUDIT_WEBHOOK_URL": service.url + "x", "AUDIT_WEBHOOK_KIND": "wecom"}
        ran = audit("notify", "--test")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith('audit: receiver default (wecom): HTTP 200 {"errcode": 93000')
    assert "key=" not in ran.err


def test_a_generic_test_is_signed(audit):  # noqa: F811
    """And an echo of URL and secret is redacted."""
    with receive() as service:
        audit.settings |= {
            "AUDIT_WEBHOOK_URL": service.url,
            "AUDIT_WEBHOOK_KIND": "generic",
            "AUDIT_WEBHOOK_SECRET": str(service.secret),
        }
        assert audit("notify", "--test").out == "receiver default (generic): delivered: HTTP 204\n"
        service.answers.append(Answer(400, {}, f"{service.url} {service.secret}".encode()))
        assert audit("notify", "--test").err == "audit: receiver default (generic): HTTP 400 *** ***\n"
        assert all(delivery.verified for delivery in service.deliveries)


def test_two_chats_of_one_run_are_told_and_one_failing_holds_up_no_other(recorded):
    """A whole run: the record of each is its own."""
    recorded.settings["AUDIT_POLICY"] = str(recorded.directory / "policy.json")
    assert DOMAIN_ID in (recorded.directory / "policy.json").read_text()
    with chat("feishu", "secret-of-the-test") as broken, chat("slack") as works:
        receivers = [
            {"name": "broken", "kind": "feishu", "url": broken.url, "secret": "another"},
            {"name": "works", "kind": "slack", "url": works.url},
        ]
        ran = recorded("run", **{LIST: json.dumps(receivers)})
        assert "receiver  works: delivered: 1 new" in ran.out
        assert 'receiver  broken: failed: HTTP 200 {"code": 19021' in ran.out
        again = recorded("run", **{LIST: json.dumps(receivers)})
        assert "receiver  works: nothing to tell" in again.out
        receivers[0]["secret"] = "secret-of-the-test"
        assert "receiver  broken: delivered" in recorded("run", **{LIST: json.dumps(receivers)}).out
        assert [delivery.problem for delivery in broken.deliveries] == ["the signature"] * 2 + [None]
