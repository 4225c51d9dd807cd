"""The one table of what this product asks Huawei Cloud to do, and of the IAM actions that allow it.

Tests hold it against the calls of an audit, and README's policies against it. Source: the vendor's references of
actions "supported by identity policy-based authorization" and "by policy-based authorization", of APIG, OBS and DEW
(November 2026). Not proved against the live cloud: the name `apig:instance:list`, that role actions suffice for
connections, the actions of IAM and FunctionGraph, and which ones OBS asks of KMS (its manual names more, for keys
that it makes by itself).
"""

from __future__ import annotations

from typing import NamedTuple


class Action(NamedTuple):
    """What allows one call: its name in an identity policy (IAM 5.0) and in a role policy (1.1)."""

    identity: str
    role: str


LIST_GATEWAYS = Action("apig:instance:list", "apig:instances:list")
LIST_CONNECTIONS = Action("apig:instance:listVpcEndpoint", "apig:instances:get")
LIST_PERMISSIONS = Action("apig:instance:listVpcEndpointPermission", "apig:instances:get")
# Where targets name an agency, and where shards are started.
ASSUME_AGENCY = Action("iam:agencies:assume", "iam:tokens:assume")
START_FUNCTION = Action("functiongraph:function:invokeAsync", "functiongraph:function:invokeAsync*")
GET_OBJECT = Action("obs:object:getObject", "obs:object:GetObject")
PUT_OBJECT = Action("obs:object:putObject", "obs:object:PutObject")
LIST_OBJECTS = Action("obs:bucket:listBucket", "obs:bucket:ListBucket")
# Not asked for by this product: OBS uses the key on its behalf.
USE_KEY = (
    Action("kms:cmk:get", "kms:cmk:get"),
    Action("kms:cmk:createDataKey", "kms:dek:create"),
    Action("kms:cmk:decryptDataKey", "kms:dek:decrypt"),
)


def describe(*actions: Action) -> str:
    """Name actions in both models, to tell somebody what to grant."""
    identity, role = (", ".join(dict.fromkeys(names)) for names in zip(*actions, strict=True))
    return f"{identity} (identity policy) or {role} (role policy)"
