"""What rules are held against beside single connections: changes between two readings, and groups."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from audit.subjects import compare, count_groups
from tests.builders import GATEWAY, connection

if TYPE_CHECKING:
    from audit.model import Connection


def changes(before: list[Connection], now: list[Connection], *, is_whole: bool = True) -> list[tuple[str, str]]:
    found = compare({one.key: one for one in before}, now, is_whole=is_whole)
    return sorted((change.change, change.key) for change in found)


def test_what_came_went_and_changed():
    """One change for each connection; what only our own reckoning changed is none."""
    before = [connection("gone"), connection("same"), connection("other", status="rejected")]
    now = [connection("new"), connection("same", status_since=None, read_in="later"), connection("other")]
    assert changes(before, now) == [("added", "new"), ("modified", "other"), ("removed", "gone")]


def test_any_documented_field_makes_a_change():
    """Also one that was or is null."""
    others: dict[str, Any] = {
        "marker_id": 9,
        "created_at": None,
        "updated_at": "2026-11-21T00:00:00Z",
        "domain_id": None,
        "status": "x",
    }
    for name, value in others.items():
        assert changes([connection()], [connection(**{name: value})]) == [("modified", "c1")], name


def test_part_of_a_gateway_shows_nothing_removed():
    """What was not seen may be there."""
    assert changes([connection("c1"), connection("c2")], [connection("c3")], is_whole=False) == [("added", "c3")]


def test_of_what_is_not_there_every_field_is_null():
    """Before for what came, after for what went."""
    (added,) = compare({}, [connection()], is_whole=True)
    (removed,) = compare({"c1": connection()}, [], is_whole=True)
    for nothing in (added.before, removed.after):
        assert {getattr(nothing, name) for name in ("id", "marker_id", "domain_id", "status", "status_since")} == {None}


ROWS = st.lists(
    st.builds(
        lambda domain, marker, created: connection("c", domain_id=domain, marker_id=marker, created_at=created),
        st.sampled_from(["d1", "d2", None]),
        st.sampled_from([1, 2, None]),
        st.sampled_from(["2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z", None]),
    )
)


@given(ROWS)
def test_groups_count_what_has_all_their_keys(rows):
    """Count, and the earliest and latest request; a null key belongs to no group."""
    groups: dict[tuple[object, ...], dict[str, object]] = {}
    count_groups(("domain_id", "gateway.id", "marker_id"), rows, GATEWAY, groups)
    members: dict[tuple[str, int], list[Connection]] = defaultdict(list)
    for row in rows:
        if row.domain_id is not None and row.marker_id is not None:
            members[row.domain_id, row.marker_id].append(row)
    expected = []
    for (domain, marker), group in members.items():
        created = sorted(row.created_at for row in group if row.created_at)
        expected.append({
            "domain_id": domain, "gateway.id": GATEWAY.id, "marker_id": marker, "count": len(group),
            "oldest": created[0] if created else None, "newest": created[-1] if created else None,
        })  # fmt: skip
    assert [*groups.values()] == expected
