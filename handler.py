"""The function's front door: FunctionGraph calls `initializer` once, then `handler` for every event."""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any

import msgspec

from audit.compose import perform
from audit.errors import AuditError, OptionsError, UsageError
from audit.huawei.function import environment_of, is_http, parse_event, surroundings_of
from audit.options import parse_options
from audit.settings import load_settings
from audit.text import describe_defect, printable

if TYPE_CHECKING:
    from audit.huawei.function import Context
    from audit.outcome import Outcome

_FAILED = 4


class RunFailed(AuditError):
    """The platform is to count this invocation as failed; the text says why."""


def initializer(context: Context) -> None:
    """Be ready: importing this file did the work. Settings are judged by the handler, which can answer for them."""


def handler(event: object, context: Context) -> dict[str, Any]:
    """Perform one run. Events: TIMER, API Gateway, or run options as a JSON object.

    Returns the summary, or for API Gateway an HTTP answer. Raises RunFailed where the exit code would be 2 or 4.
    """
    if is_http(event):
        return _answer(event, context)
    try:
        outcome = _run(event, context)
    except UsageError as error:
        raise RunFailed("; ".join(map(printable, error.problems))) from None
    if outcome.summary.exit_code == _FAILED:
        raise RunFailed(_why(outcome))
    return _builtins(outcome)


def _run(event: object, context: Context) -> Outcome:
    """Perform the run; an error that nobody expected is named without its text, as the platform logs it."""
    try:
        invocation = parse_event(event)
        options = parse_options(invocation.options)
        settings = load_settings(environment_of(context, os.environ), surroundings_of(context), {})
        return perform(settings, options, mode=invocation.mode)
    except AuditError:
        raise
    except Exception as error:
        logging.getLogger("audit").debug("internal error", exc_info=True)
        raise RunFailed(describe_defect(error)) from None


def _answer(event: object, context: Context) -> dict[str, Any]:
    """Answer over HTTP: 200 with the summary, 400 for bad options, 500 otherwise, as RFC 9457 describes problems."""
    try:
        outcome = _run(event, context)
    except OptionsError as error:
        return _problem(400, "bad run options", str(error), {"problems": list(error.problems)})
    except UsageError as error:
        return _problem(500, "wrong settings, rules or policy", str(error), {"problems": list(error.problems)})
    except AuditError as error:
        return _problem(500, "the run failed", str(error), {})
    if outcome.summary.exit_code == _FAILED:
        return _problem(500, "the run failed", _why(outcome), {"summary": _builtins(outcome)})
    return _http(200, "application/json", _builtins(outcome))


def _problem(status: int, title: str, detail: str, more: dict[str, Any]) -> dict[str, Any]:
    problem = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return _http(status, "application/problem+json", problem)


def _http(status: int, content_type: str, body: dict[str, Any]) -> dict[str, Any]:
    return {
        "statusCode": status,
        "isBase64Encoded": False,
        "headers": {"Content-Type": content_type},
        "body": json.dumps(body),
    }


def _why(outcome: Outcome) -> str:
    summary = outcome.summary
    gaps = [entry.reason for entry in summary.coverage if entry.state != "complete" and entry.reason]
    return "; ".join([f"run {summary.run_id}: {outcome.reason}", *dict.fromkeys([*summary.problems, *gaps])])


def _builtins(outcome: Outcome) -> dict[str, Any]:
    builtins: dict[str, Any] = msgspec.to_builtins(outcome.summary)
    return builtins
