"""Names of things: uids and keys that never change."""

from __future__ import annotations

import hashlib
import json

from audit.model import GatewayKey, build_uid
from tests.builders import connection


def test_a_uid_is_the_hash_of_a_plain_json_array():
    """A worked example, so that others can compute it: no spaces, no escapes, UTF-8."""
    key = GatewayKey("cn-north-4", "0f5181caba0024e72f89c0045e707b91", "gw-é")
    text = '["v1","pending-too-long","cn-north-4","0f5181caba0024e72f89c0045e707b91","gw-é","connection","76ad893c"]'
    assert json.loads(text)[4] == key.gateway_id
    uid = build_uid("pending-too-long", key, "connection", "76ad893c")
    assert uid == hashlib.sha256(text.encode()).hexdigest()
    assert uid == "58cdf21115fcdfaab375f1e6222f1bc07935b2d7ee6426d08880542df84f2a16"


def test_a_connection_without_id_is_known_by_its_fields():
    """The same record has the same key in every run; another record has another."""
    nameless = connection(None)
    assert nameless.key.startswith("sha256:")
    assert nameless.key == connection(None, status_since=None, read_in="later").key
    assert nameless.key != connection(None, domain_id="d2").key
    assert connection("c1").key == "c1"
