"""What one call asks for: the run options of an event, of a request's body, or of the command line."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from audit.errors import OptionsError
from audit.ruleset.problems import kind_of, nearest
from audit.targets import ID
from audit.text import shorten


class RunOptions(msgspec.Struct, frozen=True):
    """What one call asks for. Empty tuples mean all; empty `mode` means the front door's own.

    `target`: name of the target that a shard reads, "" in every other mode.
    """

    gateways: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    dry_run: bool = False
    notify: bool = True
    mode: str = ""
    target: str = ""


def _is_ids(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) and ID.fullmatch(v) for v in value)


OPTIONS = {
    "gateways": (_is_ids, "an array of gateway ids (leave the option out for all)"),
    "rules": (_is_ids, "an array of rule ids (leave the option out for all)"),
    "dry_run": (lambda value: isinstance(value, bool), "true or false"),
    "notify": (lambda value: isinstance(value, bool), "true or false"),
    "mode": (
        lambda value: isinstance(value, str) and re.fullmatch(r"[a-z0-9-]{1,32}", value),
        "1 to 32 of a-z, 0-9, -",
    ),
    "target": (lambda value: isinstance(value, str) and bool(value), "the name of a target"),
}
FAN_OUT, SHARD, SUMMARIZE = "fan-out", "shard", "summarize"
# What is more than a label, and the options that are of use beside it.
_MODES = {FAN_OUT: {"mode"}, SHARD: {"mode", "target", "dry_run"}, SUMMARIZE: {"mode", "dry_run", "notify"}}


def parse_options(value: object) -> RunOptions:
    """Read run options from JSON data. Raises OptionsError with every problem."""
    if not isinstance(value, dict):
        raise OptionsError([f"run options are a JSON object, not {kind_of(value)}"])
    problems: list[str] = []
    options: dict[str, Any] = {}
    for name, given in value.items():
        key = shorten(str(name), 80)
        if key not in OPTIONS:
            tail = nearest(key, OPTIONS) or f"; known: {', '.join(OPTIONS)}"
            problems.append(f'unknown run option "{key}"{tail}')
            continue
        is_right, wanted = OPTIONS[key]
        if is_right(given):
            options[key] = tuple(dict.fromkeys(given)) if isinstance(given, list) else given
        else:
            shown = shorten(json.dumps(given, ensure_ascii=False, default=kind_of), 80)
            problems.append(f'run option "{key}": {wanted} is wanted, not {shown}')
    mode = options.get("mode", "")
    if mode == SHARD and "target" not in options:
        problems.append('run option "mode": a shard needs the option "target", the name of the target that it reads')
    for name in [name for name in options if name not in _MODES.get(mode, OPTIONS.keys() - {"target"})]:
        beside = f'beside the mode "{mode}"' if mode in _MODES else f'without the mode "{SHARD}"'
        problems.append(f'run option "{name}": cannot be given {beside}')
    if problems:
        raise OptionsError(problems)
    return RunOptions(**options)
