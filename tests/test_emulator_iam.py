"""What the emulator promises of agencies: who gets keys, what they open, and until when."""

import json
import re
import time
from datetime import datetime, timedelta, timezone

import pytest
import requests

from tests.emulator import Estate, Forbidden, IamError, Key, Throttled, Unauthorized, broken, serve
from tests.emulator.samples import REGIONS, build_landscape
from tests.emulator_client import SECURITY_TOKENS, assume, issued, own_key, read, send

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
BORN = datetime(2025, 8, 22, 12, 0, tzinfo=timezone.utc)


@pytest.fixture
def estate():
    """Two foreign projects, of which agency `reader` of account `shop` may read the first."""
    estate = Estate()
    estate.opens = frozenset([estate.project_id])
    estate.add_gateway("home", project=None)
    estate.add_gateway("till", project=estate.add_project("p-shop", domain="shop", agency="reader"))
    estate.add_gateway("other", project=estate.add_project("p-other"))
    estate.iam.add_agency("shop", "wary", ["p-shop"], trusts=["somebody"])
    return estate


@pytest.fixture
def server(estate):
    with serve(estate) as server:
        yield server


def names(reply: requests.Response) -> list[str]:
    assert reply.status_code == 200, reply.text
    return [gateway["instance_name"] for gateway in reply.json()["instances"]]


def refused(reply: requests.Response, status: int) -> str:
    """The message, in the identity service's shape."""
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    titles = {400: "Bad Request", 403: "Forbidden", 404: "Not Found"}
    assert (error["code"], error["title"]) == (status, titles[status])
    return str(error["message"])


def test_issued_keys_open_the_projects_of_their_agency_and_no_other(server, estate):
    key = issued(assume(server, "reader", domain_name="shop"))

    assert names(read(server, "p-shop", key)) == ["till"]
    for project_id in ("p-other", estate.project_id):
        reply = read(server, project_id, key)
        assert (reply.status_code, reply.json()["error_code"]) == (403, "APIC.7106")
    assert read(server, "p-shop").status_code == 403
    assert names(read(server, estate.project_id)) == ["home"]


def test_gateway_is_found_in_its_own_project_only(server, estate):
    gateway = estate.gateway("till")
    estate.opens = None

    path = f"/v2/{{}}/apigw/instances/{gateway.id}/vpc-endpoint/connections"
    assert send(server, path.format("p-shop")).status_code == 200
    assert send(server, path.format("p-other")).json()["error_code"] == "APIC.7302"
    assert gateway.record["project_id"] == "p-shop"


def test_answer_is_as_documented(server):
    reply = assume(server, "reader", domain_name="shop", seconds=900)

    (credential,) = reply.json().values()
    assert list(credential) == ["access", "secret", "securitytoken", "expires_at"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}000Z", credential["expires_at"])
    left = datetime.fromisoformat(credential["expires_at"].replace("Z", "+00:00")) - datetime.now(timezone.utc)
    assert timedelta(seconds=880) < left <= timedelta(seconds=900)


def test_account_may_be_named_by_id(server, estate):
    agency = estate.iam.agencies[0]

    assert assume(server, "reader", domain_id=agency.domain_id).status_code == 201
    assert assume(server, "reader", domain_id=agency.domain_id, domain_name="else").status_code == 404


def test_log_tells_whose_key_it_was(server, estate):
    key = issued(assume(server, "reader", domain_name="shop"))
    read(server, "p-shop", key)
    read(server, estate.project_id)

    told = [(log.project_id, log.key and log.key.agency) for log in estate.requests]
    assert told == [(None, None), ("p-shop", "reader"), (estate.project_id, None)]
    assert [log.key.access for log in estate.requests if log.key] == [estate.access_key, key.access, estate.access_key]


@pytest.mark.parametrize(
    ("name", "domain", "status", "said"),
    [
        ("nobody", "shop", 404, "Could not find agency: nobody of shop."),
        ("reader", "elsewhere", 404, "Could not find agency: reader of elsewhere."),
        ("wary", "shop", 403, "not authorized"),
    ],
)
def test_unknown_and_distrustful_agencies_issue_nothing(server, estate, name, domain, status, said):
    assert said in refused(assume(server, name, domain_name=domain), status)
    assert estate.iam.keys == {}
    assert estate.refusals == []


def test_issued_keys_act_for_the_account_that_issued_them(server, estate):
    estate.iam.add_agency("bank", "vault", ["p-other"], trusts=["shop"])
    key = issued(assume(server, "reader", domain_name="shop"))

    assert refused(assume(server, "vault", domain_name="bank"), 403)
    assert names(read(server, "p-other", issued(assume(server, "vault", key, domain_name="bank")))) == ["other"]


@pytest.mark.parametrize(
    "role",
    [
        {},
        {"agency_name": "reader"},
        {"domain_name": "shop"},
        {"agency_name": 7, "domain_name": "shop"},
        {"agency_name": "reader", "domain_name": "shop", "session": "x"},
        *({"agency_name": "reader", "domain_name": "shop", "duration_seconds": n} for n in (899, 86401, "900", True)),
    ],
)
def test_what_is_not_documented_is_refused(server, estate, role):
    document = {"auth": {"identity": {"methods": ["assume_role"], "assume_role": role}}}

    refused(send(server, SECURITY_TOKENS, "POST", json.dumps(document).encode()), 400)
    assert len(estate.refusals) == 1


@pytest.mark.parametrize("body", [b"", b"[]", b'{"auth": {}}', b'{"auth": {"identity": {"assume_role": 7}}}'])
def test_bodies_of_another_shape_are_refused(server, body):
    assert "Request body is invalid" in refused(send(server, SECURITY_TOKENS, "POST", body), 400)


def test_signature_covers_every_byte_of_the_body(server, estate):
    document = {"agency_name": "reader", "domain_name": "shop"}
    body = json.dumps({"auth": {"identity": {"methods": ["assume_role"], "assume_role": document}}}).encode()

    assert send(server, SECURITY_TOKENS, "POST", body).status_code == 201
    for place in range(0, len(body), 7):
        changed = bytearray(body)
        changed[place] ^= 1
        reply = send(server, SECURITY_TOKENS, "POST", body, sent=bytes(changed))
        assert (reply.status_code, reply.json()["error_code"]) == (401, "APIG.0301"), changed
    assert len(estate.iam.keys) == 1


@pytest.mark.parametrize("part", ["secret", "security_token"])
def test_issued_key_needs_its_secret_and_its_token(server, part):
    key = issued(assume(server, "reader", domain_name="shop"))
    wrong = Key(**{**vars(key), part: "wrong"})

    assert read(server, "p-shop", wrong).status_code == 401
    assert read(server, "p-shop", Key(key.access, key.secret)).status_code == 401
    assert read(server, "p-shop", key).status_code == 200


def test_keys_end_when_told_and_new_ones_live(server, estate):
    first, second = (issued(assume(server, "reader", domain_name="shop")) for _ in range(2))
    estate.iam.expire(first.access)

    reply = read(server, "p-shop", first)
    assert (reply.status_code, "has expired" in reply.json()["error_msg"]) == (401, True)
    assert read(server, "p-shop", second).status_code == 200
    estate.iam.expire()
    assert read(server, "p-shop", second).status_code == 401
    assert read(server, "p-shop", issued(assume(server, "reader", domain_name="shop"))).status_code == 200
    assert names(read(server, estate.project_id, own_key(estate))) == ["home"]


def test_keys_end_by_themselves(server, estate):
    estate.iam.lifetime = timedelta(seconds=0.3)
    key = issued(assume(server, "reader", domain_name="shop"))

    assert read(server, "p-shop", key).status_code == 200
    time.sleep(0.3)
    assert read(server, "p-shop", key).status_code == 401


def test_permanent_keys_of_their_own(server, estate):
    key = estate.iam.add_key(["p-other"])

    assert key.security_token is None
    assert names(read(server, "p-other", key)) == ["other"]
    assert read(server, "p-shop", key).status_code == 403


def test_failures_of_one_key_lock_no_other(server, estate):
    estate.lock_key_after = 1
    key = estate.iam.add_key(["p-other"])
    read(server, "p-other", Key(key.access, "wrong"))

    assert "reach the limit" in read(server, "p-other", key).json()["error_msg"]
    assert read(server, estate.project_id).status_code == 200


def test_faults_strike_one_project_only(server, estate):
    estate.opens = None
    estate.fail(Unauthorized(), project="p-shop", times=None)
    estate.fail(Throttled(2), project=estate.projects[1])

    assert [read(server, p).status_code for p in (estate.project_id, "p-shop", "p-other")] == [200, 401, 429]
    assert [read(server, p).status_code for p in (estate.project_id, "p-shop", "p-other")] == [200, 401, 200]
    estate.fail(Forbidden(), kind="securitytokens")
    estate.fail(IamError(401, 401, "The token expired"), kind="securitytokens")
    assert assume(server, "reader", domain_name="shop").status_code == 403
    told = {"code": 401, "message": "The token expired", "title": "Unauthorized"}
    assert assume(server, "reader", domain_name="shop").json() == {"error": told}


def test_landscape_is_the_same_every_time_and_readable_by_its_agencies():
    estate = build_landscape(BORN, 0)
    again = build_landscape(BORN, 0)

    assert [g.record for g in estate.gateways] == [g.record for g in again.gateways]
    assert [c.record for g in estate.gateways for c in g.connections] == [
        c.record for g in again.gateways for c in g.connections
    ]
    assert (len(estate.projects), len(estate.gateways)) == (50, 1000)
    with serve(estate) as server:
        targets = json.loads(server.environment()["AUDIT_TARGETS"])
        assert len(targets) == 50
        for target in targets[::10]:
            agency = target["credentials"]
            key = issued(assume(server, agency["agency"], domain_name=agency["domain"]))
            assert len(names(read(server, target["project_id"], key))) == 20
            assert read(server, target["project_id"]).status_code == 403
    assert "AUDIT_PROJECT_ID" not in server.environment()


def test_one_region_may_be_elsewhere():
    estate = build_landscape(BORN, 0, projects=10, gateways=1)

    estate.elsewhere[REGIONS[1]] = "http://there"
    targets = estate.targets("http://here")

    assert [t["endpoint"] for t in targets if t["region"] == REGIONS[1]] == ["http://there"] * 2
    assert len([t for t in targets if t["endpoint"] == "http://here"]) == 8


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("refuses", "Connection refused"),
        ("resets", "Connection reset by peer"),
        ("hangs", "Read timed out"),
    ],
)
def test_broken_endpoints_break_as_named(how, error):
    with broken(how) as url, pytest.raises(requests.RequestException, match=error):
        requests.get(url, timeout=0.3)
