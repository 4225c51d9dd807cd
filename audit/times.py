"""Instants and durations as the product writes them; pure, no clock is read here.

An instant is a string `YYYY-MM-DDTHH:MM:SSZ` (whole seconds, UTC), so that comparing strings is comparing time.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

LONGEST_DAYS = 36_500
# fromisoformat alone takes many another form, which differ from Python to Python (and 24:00:00 from 3.14 on).
_CANONICAL = re.compile(r"\d{4}-\d\d-\d\dT(?!24)\d\d:\d\d:\d\dZ", re.ASCII)
_LENIENT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:[Zz]|([+-])([01]\d|2[0-3]):?([0-5]\d))", re.ASCII
)
_DURATION = re.compile(r"P(?=\d|T\d)(?:(\d{1,7})D)?(?:T(?=\d)(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,9})S)?)?", re.ASCII)
_fromisoformat = datetime.fromisoformat


def format_time(instant: datetime) -> str:
    """Write an aware instant as canonical text; fractions of a second are cut off."""
    # Not strftime: its %Y does not pad years below 1000 on every platform.
    return instant.astimezone(timezone.utc).replace(tzinfo=None, microsecond=0).isoformat() + "Z"


def parse_time(text: str) -> datetime:
    """Read canonical text as an aware instant; ValueError for anything else."""
    if canonical_time(text) != text:
        raise ValueError(f'"{text}" is not a time such as "2026-11-22T08:15:00Z"')
    return _fromisoformat(text[:19]).replace(tzinfo=timezone.utc)


def canonical_time(text: str) -> str | None:
    """Return the instant as canonical text, or None where it cannot be read.

    Other zones and fractions of a second are converted. Text without a zone is unreadable: whose noon is it?
    So is a leap second: no datetime can hold it.
    """
    if _CANONICAL.fullmatch(text):
        try:
            _fromisoformat(text[:19])
        except ValueError:
            return None
        return text
    match = _LENIENT.fullmatch(text)
    if match is None:
        return None
    *parts, sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    try:
        local = datetime(*map(int, parts), tzinfo=timezone.utc)  # type: ignore[misc, arg-type]
        return format_time(local + offset if sign == "-" else local - offset)
    except (ValueError, OverflowError):
        return None


def resolve_time(text: str, now: datetime) -> str | None:
    """Read canonical text, or a duration before or after now ("-PT25H", "PT1H"); None for anything else."""
    try:
        return format_time(now + parse_duration(text, signs="+-"))
    except ValueError:
        return text if canonical_time(text) == text else None


def parse_duration(text: str, signs: str = "") -> timedelta:
    """Read an ISO 8601 duration of days, hours, minutes and seconds; ValueError for anything else.

    One of `signs` may stand before it.
    """
    sign = text[:1] if text[:1] in signs else ""
    match = _DURATION.fullmatch(text.removeprefix(sign))
    if match is None:
        raise ValueError(f'"{text}" is not a duration such as "PT24H" or "P7D" (days, hours, minutes, seconds)')
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    try:
        duration = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        duration = timedelta.max
    if duration.days > LONGEST_DAYS:
        raise ValueError(f'"{text}" is longer than {LONGEST_DAYS} days')
    return -duration if sign == "-" else duration


def parse_distance(text: str) -> timedelta:
    """Read a duration before an instant; with a minus sign, one after it. ValueError for anything else."""
    return parse_duration(text, signs="-")


def describe_duration(duration: timedelta) -> str:
    """Say a duration in words that a person compares easily: "49 h", "3 days 4 h", "5 min", "1 min 30 s"."""
    seconds = int(duration.total_seconds())
    for unit, size, smaller, rest, least in _UNITS:
        if seconds >= least:
            parts = [(seconds // size, unit), (seconds % size // rest, smaller)]
            return " ".join(f"{number} {name}" for number, name in parts if number)
    return f"{seconds} s"


# A unit in seconds, the smaller one that may follow it, and from how much on it is used: up to three days are hours.
_UNITS = (
    ("days", 86_400, "h", 3600, 3 * 86_400),
    ("h", 3600, "min", 60, 3600),
    ("min", 60, "s", 1, 60),
)
