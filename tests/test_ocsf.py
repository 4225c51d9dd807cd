"""Findings as OCSF events, held against the schema that OCSF publishes."""

from __future__ import annotations

import gzip
from contextlib import ExitStack
from datetime import datetime, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

from audit import __version__
from audit.line import Pages
from audit.model import SEVERITIES, STATUSES, Finding, GatewayRef
from audit.render.ocsf import build_event
from audit.store import LocalStore
from audit.times import format_time
from tests.builders import finding
from tests.world import STRANGER, World

OCSF = OcsfJsonSchemaEmbedded(get_ocsf_schema("1.8.0"))
VALIDATOR = Draft202012Validator(OCSF.get_class_schema("compliance_finding", ["cloud"]))

TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ["", "=1", "\x00", "\x1b[2J", "\u202egpj", "<script>", '"', "\u2028"]
)
TIME = st.datetimes(min_value=datetime(1, 1, 2)).map(lambda time: format_time(time.replace(tzinfo=timezone.utc)))  # noqa: DTZ001
INTEGER = st.integers(-(2**63), 2**63 - 1)
PLAIN = st.recursive(
    st.none() | st.booleans() | INTEGER | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
FINDINGS = st.builds(
    Finding,
    title=TEXT,
    message=TEXT,
    remediation=TEXT,
    gateway=st.none() | st.builds(GatewayRef, TEXT, TEXT, TEXT, TEXT),
    connection=st.none() | TEXT,
    group=st.none() | st.dictionaries(TEXT, TEXT | INTEGER | st.none(), max_size=3),
    expected=PLAIN,
    actual=PLAIN,
    controls=st.dictionaries(TEXT, st.lists(TEXT, max_size=3), max_size=3),
    waiver=st.none() | st.dictionaries(TEXT, PLAIN, max_size=3),
    first_seen=TIME,
    last_seen=TIME,
    resolved_at=st.none() | TIME,
    occurrences=st.integers(1, 2**63 - 1),
)


def event_of(finding: Finding) -> dict[str, Any]:
    """The event as whoever reads the file has it, checked against the schema."""
    event: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(build_event(finding)))
    assert not (error := best_match(VALIDATOR.iter_errors(event))), error
    return event


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(FINDINGS)
def test_every_possible_finding_is_a_valid_event(finding):
    """In each status and severity, about whatever there is, with any names, and with nothing where that may be."""
    event = event_of(finding)
    assert event["unmapped"]["actual"] == msgspec.to_builtins(finding.actual)
    assert event["message"] == finding.message, "what came stays as it came"
    assert event["resources"]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("subject", ["connection", "change", "group", "gateway", "policy"])
def test_every_status_of_every_subject_is_a_valid_event(status, subject):
    for gateway in (None, GatewayRef("g1", "", "", "")):
        for severity in SEVERITIES:
            event_of(finding(status=status, subject=subject, severity=severity, gateway=gateway))


@pytest.mark.parametrize("wrong", ["class_uid", "time", "finding_info", "compliance", "cloud", "more"])
def test_the_schema_would_notice(wrong):
    """A check that never fails proves nothing."""
    assert not VALIDATOR.is_valid({**build_event(finding()), wrong: "x"})


def test_a_finding_is_told_in_the_words_of_ocsf():
    event = event_of(
        finding(
            "only-approved",
            controls={"ISO 27001:2022": ["A.5.15", "A.8.20"], "CSA CCM v4": ["IVS-03"]},
            expected={"domain_id": "a"},
            actual={"domain_id": "b"},
        )
    )
    uid = finding("only-approved").uid
    assert event == {
        "category_uid": 2,
        "class_uid": 2003,
        "class_name": "Compliance Finding",
        "type_uid": 200301,
        "activity_id": 1,
        "activity_name": "Create",
        "time": 1795248900000,
        "severity_id": 3,
        "severity": "Medium",
        "status_id": 1,
        "status": "New",
        "status_code": "new",
        "message": "a message",
        "metadata": {
            "version": "1.8.0",
            "profiles": ["cloud"],
            "product": {"name": "apig-vpcep-audit", "vendor_name": "apig-vpcep-audit", "version": __version__},
            "uid": f"{uid}:20261121T081500Z-000001:new",
        },
        "cloud": {
            "provider": "Huawei Cloud",
            "region": "cn-north-4",
            "account": {"uid": "p1", "type_id": 99, "type": "Huawei Cloud project"},
        },
        "finding_info": {
            "uid": uid,
            "title": "a title",
            "desc": "a message",
            "first_seen_time": 1795162500000,
            "last_seen_time": 1795248900000,
            "analytic": {"type_id": 1, "type": "Rule", "uid": "only-approved"},
        },
        "compliance": {
            "control": "only-approved",
            "standards": ["ISO 27001:2022", "CSA CCM v4"],
            "requirements": ["ISO 27001:2022 A.5.15", "ISO 27001:2022 A.8.20", "CSA CCM v4 IVS-03"],
            "status_id": 3,
            "status": "Fail",
        },
        "remediation": {"desc": "do something"},
        "resources": [
            {"type": "VPC endpoint connection", "uid": "c1", "role_id": 3},
            {"type": "API gateway", "uid": "g1", "name": "billing", "region": "cn-north-4", "role_id": 4},
        ],
        "unmapped": {
            "subject": "connection",
            "resolution": None,
            "group": None,
            "expected": {"domain_id": "a"},
            "actual": {"domain_id": "b"},
            "waiver": None,
            "resolved_at": None,
            "occurrences": 2,
            "run_id": "20261121T081500Z-000001",
        },
    }


@pytest.mark.parametrize(
    ("status", "activity", "state", "result"),
    [
        ("new", "Create", "New", "Fail"),
        ("ongoing", "Update", "In Progress", "Fail"),
        ("reopened", "Update", "In Progress", "Fail"),
        ("unverified", "Update", "In Progress", "Warning"),
        ("waived", "Update", "Suppressed", "Fail"),
        ("resolved", "Close", "Resolved", "Pass"),
    ],
)
def test_a_status_is_an_activity_a_status_and_a_result(status, activity, state, result):
    event = event_of(finding(status=status))
    assert (event["activity_name"], event["status"], event["compliance"]["status"]) == (activity, state, result)
    assert event["status_code"] == status


def test_numbers_and_captions_are_those_of_the_schema():
    """Each caption is what the schema says of its number."""
    classes = get_ocsf_schema("1.8.0")
    of_event = classes["classes"]["compliance_finding"]["attributes"]
    of_result = classes["objects"]["compliance"]["attributes"]
    of_resource = classes["objects"]["resource_details"]["attributes"]
    for status in STATUSES:
        for severity in SEVERITIES:
            event = event_of(finding(status=status, severity=severity))
            captions = {"activity_id": "activity_name", "severity_id": "severity", "status_id": "status"}
            for number, caption in captions.items():
                assert of_event[number]["enum"][str(event[number])]["caption"] == event[caption]
            assert of_event["type_uid"]["enum"][str(event["type_uid"])]["caption"].endswith(event["activity_name"])
            result = event["compliance"]
            assert of_result["status_id"]["enum"][str(result["status_id"])]["caption"] == result["status"]
            roles = [resource["role_id"] for resource in event["resources"]]
            assert [of_resource["role_id"]["enum"][str(role)]["caption"] for role in roles] == ["Affected", "Related"]


def test_severities_rise():
    assert [event_of(finding(severity=severity))["severity_id"] for severity in SEVERITIES] == [1, 2, 3, 4, 5]


def test_a_resolved_finding_happened_when_it_was_resolved():
    event = event_of(finding(status="resolved", resolution="fixed", resolved_at="2026-11-22T08:15:01Z"))
    assert event["time"] == 1795335301000
    assert event["finding_info"]["last_seen_time"] == 1795248900000
    assert event["unmapped"]["resolution"] == "fixed"


def test_a_group_is_a_resource_by_what_makes_it():
    about: dict[str, Any] = {"subject": "group", "connection": None, "group": {"gateway.id": "g1", "domain_id": "d1"}}
    assert event_of(finding(**about))["resources"] == [
        {
            "type": "group of VPC endpoint connections",
            "uid": '[["domain_id","d1"],["gateway.id","g1"]]',
            "name": "domain_id d1",
            "role_id": 3,
        },
        {"type": "API gateway", "uid": "g1", "name": "billing", "region": "cn-north-4", "role_id": 4},
    ]


def test_what_is_about_no_gateway_is_about_the_policy_and_no_account():
    event = event_of(finding(subject="policy", gateway=None, connection=None))
    assert event["resources"] == [{"type": "audit policy", "name": "policy", "role_id": 3}]
    assert event["cloud"] == {"provider": "Huawei Cloud"}


def test_a_gateway_without_a_name_has_its_id_for_one():
    event = event_of(finding(subject="gateway", connection=None, gateway=GatewayRef("g1", "", "r", "p")))
    assert event["resources"] == [{"type": "API gateway", "uid": "g1", "name": "g1", "region": "r", "role_id": 3}]


def test_each_state_of_a_finding_is_an_event_of_its_own():
    """A SIEM that knows events by their uid keeps all; what is only carried over is the same event again."""
    states = [finding(), finding(status="unverified"), finding(status="ongoing", run_id="20261122T081500Z-000002")]
    uids = {event_of(state)["metadata"]["uid"] for state in states}
    assert len(uids) == 3
    assert {event_of(state)["finding_info"]["uid"] for state in states} == {finding().uid}


def test_a_run_stores_an_event_for_each_finding_in_their_order(world: World):
    world.estate.add_gateway("billing\u202e").add_connections(700, status="failed")
    world.estate.add_gateway("shop").add_connection(domain_id=STRANGER)
    world.run()
    world.estate.gateways[1].change(world.estate.gateways[1].connections[0].id, status="rejected")
    world.run()
    findings, events = world.lines("findings.ndjson.gz"), world.lines("findings.ocsf.ndjson.gz")
    assert [event["finding_info"]["uid"] for event in events] == [line["uid"] for line in findings]
    assert {event["status"] for event in events} == {"In Progress", "Resolved"}
    for event in events:
        assert VALIDATOR.is_valid(event)


def test_the_same_findings_are_the_same_bytes(tmp_path):
    """There is no time in what is stored but that of the findings."""
    findings = tuple(finding(connection_id=f"c{number}") for number in range(1200))
    stored = []
    for folder in ("one/", "two/"):
        with ExitStack() as stack:
            pages = Pages(stack)
            pages.write_findings(findings)
            stored.append([(item.bytes, item.sha256) for item in pages.store_into(LocalStore(tmp_path), folder)])
    assert stored[0] == stored[1]
    assert gzip.decompress((tmp_path / "one/findings.ocsf.ndjson.gz").read_bytes()).count(b"\n") == 1200
