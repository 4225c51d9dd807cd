"""Instants and durations as the product writes them; pure, no clock is read here.

An instant is a string `YYYY-MM-DDTHH:MM:SSZ` (whole seconds, UTC), so that comparing strings is comparing time.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

LONGEST_DAYS = 36_500
_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_LENIENT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:([Zz])|([+-])(\d\d):?(\d\d))", re.ASCII
)
_DURATION = re.compile(r"P(?=\d|T\d)(?:(\d{1,7})D)?(?:T(?=\d)(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,9})S)?)?", re.ASCII)
_fromisoformat = datetime.fromisoformat


def format_time(instant: datetime) -> str:
    """Write an aware instant as canonical text; fractions of a second are cut off."""
    # Not strftime: its %Y does not pad years below 1000 on every platform.
    return instant.astimezone(timezone.utc).replace(tzinfo=None, microsecond=0).isoformat() + "Z"


def parse_time(text: str) -> datetime:
    """Read canonical text as an aware instant; ValueError for anything else."""
    return datetime.strptime(text, _FORMAT).replace(tzinfo=timezone.utc)


def canonical_time(text: str) -> str | None:
    """Return the instant as canonical text, or None where it cannot be read.

    Other zones and fractions of a second are converted. Text without a zone is unreadable: whose noon is it?
    """
    # The documented form is checked by slicing first: this runs twice for every connection.
    if len(text) == 20 and text[19] == "Z" and text[10] == "T" and text[7] == "-" and text.isascii():
        try:
            _fromisoformat(text[:19])
        except ValueError:
            return None
        return text
    match = _LENIENT.fullmatch(text)
    if match is None:
        return None
    *parts, _zulu, sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours), minutes=int(minutes)) if sign else timedelta()
    try:
        local = datetime(*map(int, parts), tzinfo=timezone.utc)  # type: ignore[misc, arg-type]
        return format_time(local + offset if sign == "-" else local - offset)
    except (ValueError, OverflowError):
        return None


def parse_duration(text: str) -> timedelta:
    """Read an ISO 8601 duration of days, hours, minutes and seconds; ValueError for anything else."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f'"{text}" is not a duration such as "PT24H" or "P7D" (days, hours, minutes, seconds)')
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    try:
        duration = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        duration = timedelta.max
    if duration.days > LONGEST_DAYS:
        raise ValueError(f'"{text}" is longer than {LONGEST_DAYS} days')
    return duration


def describe_duration(duration: timedelta) -> str:
    """Say a duration in words that a person compares easily: "49 h", "3 days", "5 min", "40 s"."""
    seconds = int(duration.total_seconds())
    if seconds >= 72 * 3600:
        days, rest = divmod(seconds, 86_400)
        hours = rest // 3600
        return f"{days} days" if hours == 0 else f"{days} days {hours} h"
    if seconds >= 3600:
        hours, rest = divmod(seconds, 3600)
        minutes = rest // 60
        return f"{hours} h" if minutes == 0 else f"{hours} h {minutes} min"
    if seconds >= 60:
        return f"{seconds // 60} min"
    return f"{seconds} s"
