"""Instants and durations: what is read, what is refused, and how it is written."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.times import (
    LONGEST_DAYS,
    canonical_time,
    describe_duration,
    format_time,
    parse_duration,
    parse_time,
    resolve_time,
)

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize("text", ["2021-04-29T02:12:44Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_the_documented_form_stays_as_it_is(text):
    """What the API documents is already canonical."""
    assert canonical_time(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-22T16:15:00+08:00", "2026-11-22T08:15:00Z"),
        ("2026-11-22T16:15:00+0800", "2026-11-22T08:15:00Z"),
        ("2026-11-22T00:15:00-08:30", "2026-11-22T08:45:00Z"),
        ("2026-11-22T08:15:00-00:00", "2026-11-22T08:15:00Z"),
        ("2026-11-22T08:15:00+23:59", "2026-11-21T08:16:00Z"),
        ("2026-11-22T08:15:00.999999999Z", "2026-11-22T08:15:00Z"),
        ("2026-11-22T16:15:00.5+08:00", "2026-11-22T08:15:00Z"),
        ("2026-11-22t08:15:00z", "2026-11-22T08:15:00Z"),
        ("2026-11-22 08:15:00Z", "2026-11-22T08:15:00Z"),
        ("2026-12-31T23:30:00-01:00", "2027-01-01T00:30:00Z"),
        ("2024-02-29T00:00:00+00:00", "2024-02-29T00:00:00Z"),
        ("0001-01-01T08:00:00+08:00", "0001-01-01T00:00:00Z"),
        ("9999-12-31T15:59:59-08:00", "9999-12-31T23:59:59Z"),
    ],
)
def test_other_zones_and_fractions_are_converted(text, expected):
    """Whole seconds in UTC, so that comparing text is comparing time."""
    assert canonical_time(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-11-22",
        "2026-11-22T08:15:00",
        "2026-11-22T08:15Z",
        "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "2026-11-22T24:00:00Z",
        "2026-11-22T24:00:00+00:00",
        "2026-11-22T08:60:00Z",
        "2016-12-31T23:59:60Z",
        "2026-11-22T08:15:00+24:00",
        "2026-11-22T08:15:00+99:99",
        "2026-11-22T08:15:00+08:60",
        "2026-11-22T08:15:00 +08:00",
        "2026-11-22T08:15:00.Z",
        "2026-11-22T08:15:00Z\n",
        " 2026-11-22T08:15:00Z",
        "2026-11-22T08:15:00ZZ",
        "2026-W47-7T08:15:00Z",
        "2026W477T08:15:00Z",
        "2026-326T08:15:00Z",
        "20261122T081500Z",
        # Twenty characters that datetime.fromisoformat takes, but not in this form.
        "2026-11-22T081500.5Z",
        "2026-11-22T08+01:00Z",
        "\u0662\u0660\u0662\u0666-11-22T08:15:00Z",
        "2026-11-22T08:15:0\u0660Z",
        "2026\u201011-22T08:15:00Z",
        "1763799300",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
    ],
)
def test_what_cannot_be_read_for_sure_is_unreadable(text):
    """A date that is none, a time without a zone, a leap second, what leaves the calendar: all None, nothing raises."""
    assert canonical_time(text) is None
    with pytest.raises(ValueError, match="is not a time"):
        parse_time(text)


_LIKE_TIMES = st.from_regex(
    r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:?[0-9]{2})\Z"
)


@given(_LIKE_TIMES | st.text() | st.text("0123456789-:TZ+. W", min_size=18, max_size=22))
def test_canonical_output_can_be_read_and_stays(text):
    """Whatever comes in: what comes out is canonical itself, reads back, and is 20 characters."""
    canonical = canonical_time(text)
    if canonical is not None:
        assert canonical_time(canonical) == canonical
        assert format_time(parse_time(canonical)) == canonical
        assert len(canonical) == 20


@given(st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29)), st.integers(-1439, 1439))  # noqa: DTZ001
def test_canonical_time_is_the_same_instant(naive, offset):
    """Held against datetime's own reading of any offset."""
    aware = naive.replace(tzinfo=timezone(timedelta(minutes=offset)))
    text = naive.isoformat() + f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02}:{abs(offset) % 60:02}"
    canonical = canonical_time(text)
    assert canonical is not None
    assert parse_time(canonical) == aware.astimezone(timezone.utc).replace(microsecond=0)


@given(st.datetimes(timezones=st.just(timezone.utc)), st.datetimes(timezones=st.just(timezone.utc)))
def test_comparing_text_is_comparing_time(one, other):
    """Years below 1000 included."""
    one, other = one.replace(microsecond=0), other.replace(microsecond=0)
    assert (format_time(one) < format_time(other)) == (one < other)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PT24H", timedelta(hours=24)),
        ("P7D", timedelta(days=7)),
        ("P1DT2H3M4S", timedelta(days=1, hours=2, minutes=3, seconds=4)),
        ("PT0S", timedelta()),
        ("PT90M", timedelta(minutes=90)),
        ("PT000000001S", timedelta(seconds=1)),
        (f"P{LONGEST_DAYS}D", timedelta(days=LONGEST_DAYS)),
    ],
)
def test_durations(text, expected):
    """Days, hours, minutes and seconds, in this order."""
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "P", "PT", "P1DT", "24H", "PT24", "P1M", "P1Y", "P1W", "pt24h", "PT1.5H", "-PT1H", "PT1M1H", "PT1H ",
     "P\u0661D", "PT1H\n", "PT 1H", "1 day"],
)  # fmt: skip
def test_what_is_no_duration_is_refused(text):
    """Months and years have no fixed length; the rest is not ISO 8601."""
    with pytest.raises(ValueError, match='is not a duration such as "PT24H" or "P7D"'):
        parse_duration(text)


@pytest.mark.parametrize("text", ["P36501D", "P36500DT24H", "PT999999999H", "P9999999DT999999999H999999999M"])
def test_a_duration_that_leaves_the_calendar_is_refused(text):
    """A hundred years are enough for everyone."""
    with pytest.raises(ValueError, match="is longer than 36500 days"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-PT25H", "2025-12-30T23:00:00Z"),
        ("PT1H", "2026-01-01T01:00:00Z"),
        ("+P1D", "2026-01-02T00:00:00Z"),
        ("-PT0S", "2026-01-01T00:00:00Z"),
        ("2026-11-22T08:15:00Z", "2026-11-22T08:15:00Z"),
        ("--PT1H", None),
        ("+-PT1H", None),
        ("-2026-11-22T08:15:00Z", None),
        ("2026-11-22T08:15:00+00:00", None),
        ("", None),
        ("-", None),
    ],
)
def test_a_time_may_be_relative(text, expected):
    """One sign at most; absolute times only as the product writes them."""
    assert resolve_time(text, NOW) == expected


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (40, "40 s"),
        (59, "59 s"),
        (60, "1 min"),
        (90, "1 min 30 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h"),
        (5400, "1 h 30 min"),
        (49 * 3600, "49 h"),
        (49 * 3600 + 59, "49 h"),
        (72 * 3600 - 1, "71 h 59 min"),
        (72 * 3600, "3 days"),
        (9 * 86_400 + 5 * 3600 + 1, "9 days 5 h"),
    ],
)
def test_durations_in_words(seconds, words):
    """Two units at most; hours up to three days, as limits are mostly written in hours."""
    assert describe_duration(timedelta(seconds=seconds)) == words


def test_format_time_cuts_fractions_and_converts_zones():
    """An aware instant of any zone, as text."""
    instant = datetime(2026, 1, 1, 8, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=8)))
    assert format_time(instant) == "2026-01-01T00:00:00Z"
