"""What an agency must be allowed is what an audit does: the table of actions, README's policies and the calls agree."""

from __future__ import annotations

import io
import json
import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from audit.compose import perform
from audit.deadline import Deadline
from audit.errors import StoreError
from audit.huawei import permissions
from audit.huawei.obs import ObsStore
from audit.huawei.permissions import (
    ASSUME_AGENCY,
    GET_OBJECT,
    LIST_CONNECTIONS,
    LIST_GATEWAYS,
    LIST_OBJECTS,
    LIST_PERMISSIONS,
    PUT_OBJECT,
    START_FUNCTION,
    USE_KEY,
    Action,
    describe,
)
from audit.options import RunOptions
from audit.settings import RULES_BESIDE_HANDLER, ObsPlace, Surroundings, load_settings
from audit.store import read_object
from audit.targets import Credentials
from tests.seaweed import AK, BUCKET, SK, refusal
from tests.test_fan_out import Cloud

README = (Path(__file__).parents[1] / "README.md").read_text()
API = "/v2/[^/]+/apigw/instances"
CALLS = {
    LIST_GATEWAYS: ("list gateways", f"GET {API}"),
    LIST_CONNECTIONS: ("list VPC endpoint connections", f"GET {API}/[^/]+/vpc-endpoint/connections"),
    LIST_PERMISSIONS: ("list permissions, for rules that read them", f"GET {API}/[^/]+/vpc-endpoint/permissions"),
    GET_OBJECT: ("read an object", f"GET /{BUCKET}/.+"),
    PUT_OBJECT: ("write an object", f"PUT /{BUCKET}/.+"),
    LIST_OBJECTS: ("list objects, and hear that one is missing", f"GET /{BUCKET}/?"),
}


# Which only some runs make: over targets in other accounts, and fanning out.
CALLS_OF_MANY = {
    ASSUME_AGENCY: ("assume the agency of a target in another account", "POST /v3.0/OS-CREDENTIAL/securitytokens"),
    START_FUNCTION: ("start a shard", "POST /v2/[^/]+/fgs/functions/[^/]+/invocations-async"),
}


def test_an_audit_makes_the_calls_of_the_table_and_no_other(world, obs, tmp_path):
    """With rules, policy and runs in OBS, into a fresh store and into one that has runs."""
    obs.keys[world.environment["HUAWEICLOUD_SDK_AK"]] = (world.environment["HUAWEICLOUD_SDK_SK"], None)
    for path in RULES_BESIDE_HANDLER.glob("*.json"):
        obs.direct("PUT", f"{tmp_path.name}/rules/{path.name}", path.read_bytes())
    world.estate.add_gateway("shop", permissions=["*"]).add_connections(2, status="failed")
    root = f"obs://{BUCKET}/{tmp_path.name}"
    places = {"AUDIT_STORE": f"{root}/runs-of-mine", "AUDIT_RULES_DIR": f"{root}/rules", "AUDIT_POLICY": ""}
    environment = {**world.environment, **places, "AUDIT_OBS_ENDPOINT": obs.origin}
    for _ in range(2):
        outcome = perform(load_settings(environment, Surroundings(), {}), RunOptions(), mode="manual")
        assert outcome.summary.manifest
    made = {f"{request.method} {request.path}" for request in (*world.estate.requests, *obs.seen)}
    used = {action for action, (_, call) in CALLS.items() if any(re.fullmatch(call, each) for each in made)}
    assert [each for each in made if not any(re.fullmatch(call, each) for _, call in CALLS.values())] == []
    actions = {action for action in vars(permissions).values() if isinstance(action, Action)}
    assert used == actions - CALLS_OF_MANY.keys()


def test_many_targets_make_two_calls_more(tmp_path):
    with ExitStack() as stack:
        cloud = Cloud(tmp_path, stack, 2, 1)
        cloud.call(cloud.deploy("single"), "")
        cloud.fan_out(cloud.deploy("fanned"))
        calls = {**CALLS, **CALLS_OF_MANY}
        made = {f"{each.method} {each.path}" for each in cloud.estate.requests}
    made = {call for call in made if not call.endswith("/invocations")}  # those are the test's own
    used = {action for action, (_, call) in calls.items() if any(re.fullmatch(call, each) for each in made)}
    assert [each for each in made if not any(re.fullmatch(call, each) for _, call in calls.values())] == []
    assert used == {LIST_GATEWAYS, LIST_CONNECTIONS, *CALLS_OF_MANY}


def policies() -> str:
    """README's part between the marks. To renew it, print this."""
    calls = {**CALLS, **CALLS_OF_MANY}
    rows = [f"| {what} | `{action.identity}` | `{action.role}` |" for action, (what, _) in calls.items()]
    rows += [f"| OBS uses the key of `AUDIT_OBS_KMS_KEY` | `{each.identity}` | `{each.role}` |" for each in USE_KEY]
    apig, objects = (LIST_GATEWAYS, LIST_CONNECTIONS, LIST_PERMISSIONS), (GET_OBJECT, PUT_OBJECT)

    def obs(model: str) -> list[dict[str, object]]:
        return [
            {
                "Action": [getattr(each, model) for each in objects],
                "Resource": ["obs:*:*:object:my-evidence/apig/*"],
            },
            {"Action": [getattr(LIST_OBJECTS, model)], "Resource": ["obs:*:*:bucket:my-evidence"]},
        ]

    def read(model: str) -> dict[str, object]:
        return {"Action": list(dict.fromkeys(getattr(each, model) for each in apig))}

    blocks = [
        ("Identity policy (IAM 5.0):", [read("identity"), *obs("identity")], "5.0"),
        ("Or role policies (1.1), the first for the project of the region:", [read("role")], "1.1"),
        ("and, as the rights of OBS are global, a second one for global services:", obs("role"), "1.1"),
    ]
    texts = [f"{title}\n\n```json\n{_indented(version, statements)}\n```" for title, statements, version in blocks]
    table = ["| call | identity policy | role policy |", "|---|---|---|", *rows]
    return "\n\n".join(["\n".join(table), *texts])


def _indented(version: str, statements: list[dict[str, object]]) -> str:
    """One statement a line: a policy of six lines is read, one of forty is not."""
    lines = ",\n".join(f"    {json.dumps({'Effect': 'Allow', **each})}" for each in statements)
    return f'{{\n  "Version": "{version}",\n  "Statement": [\n{lines}\n  ]\n}}'


def test_the_policies_in_the_readme_are_the_tables():
    """And they are JSON, and allow nothing else."""
    found = re.search(r"<!-- permissions:.*?-->\n(.*?)\n<!-- /permissions -->", README, re.DOTALL)
    assert found
    assert found[1] == policies()
    for block, model in zip(re.findall(r"```json\n(.*?)```", found[1], re.DOTALL), ["5.0", "1.1", "1.1"], strict=True):
        assert json.loads(block)["Version"] == model


@pytest.mark.parametrize("kms_key", ["", "a-key"])
@pytest.mark.parametrize(
    ("ask", "needed"),
    [
        (lambda store: read_object(store, "k"), (GET_OBJECT, LIST_OBJECTS)),
        (lambda store: store.put("k", io.BytesIO(b"x")), (PUT_OBJECT,)),
        (lambda store: list(store.list("")), (LIST_OBJECTS,)),
    ],
)
def test_a_403_of_obs_names_the_actions_to_grant(obs, tmp_path, ask, needed, kms_key):
    """Of the call that was refused, in both models; those of the key where one is used."""
    obs.faults = [lambda _request: refusal(403, "AccessDenied")]
    store = ObsStore(ObsPlace(BUCKET, tmp_path.name, obs.origin, kms_key, lambda: Credentials(AK, SK)), Deadline(20))
    with pytest.raises(StoreError) as caught:
        ask(store)
    key = f", and for the key {describe(*USE_KEY)}" if kms_key and needed != (LIST_OBJECTS,) else ""
    assert str(caught.value).endswith(f"(request id REQX); grant {describe(*needed)}{key}: see README, Permissions")
    assert all(name in str(caught.value) for action in needed for name in action)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("InvalidAccessKeyId", "check the access key"),
        ("SignatureDoesNotMatch", "check the access key"),
        ("RequestTimeTooSkewed", "set the clock of this machine"),
    ],
)
def test_a_403_that_no_grant_mends_says_what_does(obs, tmp_path, code, advice):
    """OBS answers wrong keys and clocks with 403 too."""
    obs.faults = [lambda _request: refusal(403, code)]
    store = ObsStore(ObsPlace(BUCKET, tmp_path.name, obs.origin, "", lambda: Credentials(AK, SK)), Deadline(20))
    with pytest.raises(StoreError, match=f"; {advice}$"):
        read_object(store, "k")
