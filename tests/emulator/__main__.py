"""Serves a named estate, alone until Ctrl-C or around a command that is to read it.

The gateways' API, the identity service (agencies) and the functions' API (--function) are all at the one address.
With a command, a webhook receiver runs too and what it got is printed afterwards. Notes go to standard error,
the received messages to standard output, and the exit status is the command's.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, get_args

from tests.emulator.broken import How, broken
from tests.emulator.estate import TOKEN
from tests.emulator.functions import Function, Plan, once, seeded
from tests.emulator.receiver import SECRET, Delivery, Receiver, receive
from tests.emulator.runtime import load_handler
from tests.emulator.samples import NAMED, Sample, SampleError, find_sample
from tests.emulator.server import ApigServer, serve
from tests.emulator.story import StoryError, load_story, save_story

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType

LOOPBACK = "127.0.0.1"
LINE = 110
MOST_SHOWN = 1
SHOWN_HEADERS = ("content-type", "user-agent", "webhook-id", "webhook-timestamp", "webhook-signature")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is the command's, or 0."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        sample = find_sample(options.estate)
        story = load_story(options.state)
    except (SampleError, StoryError) as error:
        parser.error(str(error))
    with ExitStack() as stack:
        estate = sample.build(story.born, story.step)
        for domain, name, project_ids in options.agency:
            estate.iam.add_agency(domain, name, project_ids)
        for region, how in options.broken:
            estate.elsewhere[region] = stack.enter_context(broken(how))
        try:
            server = stack.enter_context(serve(estate, options.port))
            save_story(options.state, story)
        except OSError as error:
            parser.error(str(error))
        _note(f"estate {sample.name!r}, step {story.step}, at {server.url}")
        if options.function:
            _note(describe_function(server, add_function(server, options)))
        if not options.command:
            return serve_until_stopped(server, sample)
        receiver = stack.enter_context(receive())
        try:
            status = run(options.command, build_environment(os.environ, server, sample, receiver))
        except OSError as error:
            _note(f"cannot run {shlex.join(options.command)}: {error.strerror}")
            return 127
        status = finish(server, status)
        _show(render_deliveries(receiver.deliveries))
        if server.estate.refusals:
            _note("requests that were not understood:\n  " + "\n  ".join(server.estate.refusals))
        return status


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.emulator", description=__doc__)
    known = ", ".join(NAMED)
    parser.add_argument(
        "--estate", default="sample", metavar="NAME|FILE.json", help=f"{known}, or a file as samples.py describes it"
    )
    parser.add_argument("--port", type=_port, default=0, metavar="PORT", help="default: a free one")
    parser.add_argument("--state", type=Path, metavar="FILE", help="keeps the story: each start is one step further")
    parser.add_argument(
        "--agency",
        type=_agency,
        action="append",
        default=[],
        metavar="DOMAIN/NAME=PROJECT_ID,...",
        help="an agency that whoever has the estate's keys may assume; repeatable",
    )
    parser.add_argument(
        "--broken",
        type=_broken,
        action="append",
        default=[],
        metavar="REGION=HOW",
        help=f"this region's endpoint {', '.join(get_args(How))}; for estates of several projects; repeatable",
    )
    parser.add_argument(
        "--function",
        type=_function,
        nargs="?",
        const="handler:handler",
        metavar="MODULE:HANDLER",
        help="deploy this as function 'audit' (%(const)s when not named); each run is a process of its own, and "
        "COMMAND finds in EMULATOR_FUNCTION_URL where to invoke it",
    )
    parser.add_argument(
        "--user-data",
        type=_user_data,
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="of the function, repeatable; without a value it is the environment's. The address and the project or "
        "the targets are there already",
    )
    parser.add_argument("--timeout", type=float, default=900.0, metavar="SECONDS", help="of the function (%(default)g)")
    parser.add_argument(
        "--delivery",
        type=_plan,
        default=once,
        metavar="seed=N,...",
        help="how asynchronous events fare: duplicates, drops and deaths (chances from 0 to 1), delay (most seconds)",
    )
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="after --, what to run against the estate")
    return parser


def build_environment(
    mine: Mapping[str, str], server: ApigServer, sample: Sample, receiver: Receiver
) -> dict[str, str]:
    """The command's environment: real credentials are taken out, other settings that are there already stay.

    With a function, EMULATOR_FUNCTION_URL is where to invoke it.
    """
    environment = {name: value for name, value in mine.items() if not _is_credential(name)}
    for function in server.estate.functions.all:
        environment["EMULATOR_FUNCTION_URL"] = invocation_url(server, function)
    if "AUDIT_WEBHOOK_URL" in environment:
        _note("AUDIT_WEBHOOK_URL is set already: messages go there and are not shown")
    else:
        environment["AUDIT_WEBHOOK_URL"] = receiver.url
        environment["AUDIT_WEBHOOK_KIND"] = "generic"
        environment["AUDIT_WEBHOOK_SECRET"] = SECRET
    if sample.policy:
        environment.setdefault("AUDIT_POLICY", str(sample.policy))
    for name in ("no_proxy", "NO_PROXY"):
        environment[name] = ",".join(filter(None, [environment.get(name), LOOPBACK]))
    return {**environment, **server.environment()}


def add_function(server: ApigServer, options: argparse.Namespace) -> Function:
    """Deploy the function that the command line describes, with the settings that lead here."""
    here = {name: value for name, value in server.environment().items() if not _is_credential(name)}
    return server.estate.functions.add(
        "audit",
        options.function,
        user_data={**here, **dict(options.user_data)},
        timeout=options.timeout,
        plan=options.delivery,
    )


def describe_function(server: ApigServer, function: Function) -> str:
    """How to invoke it by hand."""
    called = f"curl -H 'X-Auth-Token: {TOKEN}' -d '{{}}' {invocation_url(server, function)}"
    return f"function {function.handler}, synchronously or with -async:\n  {called}"


def invocation_url(server: ApigServer, function: Function) -> str:
    """Where to post events for an answer; with `-async` after it, for none."""
    return f"{server.url}/v2/{function.project_id}/fgs/functions/{function.urn}/invocations"


def finish(server: ApigServer, status: int) -> int:
    """Wait for what was invoked and tell what became of it; the exit status."""
    try:
        server.estate.functions.drain()
    except TimeoutError as error:
        _note(str(error))
        status = status or 1
    for function in server.estate.functions.all:
        for invocation in function.invocations:
            why = f": {invocation.error['errorMessage']}" if invocation.error else ""
            _note(f"invocation {invocation.id} of {function.name} {invocation.outcome}{why}")
    return status


def run(command: list[str], environment: dict[str, str]) -> int:
    """Run the command to its end, leaving Ctrl-C to it and passing SIGTERM on. Raises OSError."""
    child = subprocess.Popen(command, env=environment)
    with _on_signals({signal.SIGINT: lambda: None, signal.SIGTERM: child.terminate}):
        status = child.wait()
    return status if status >= 0 else 128 - status


def serve_until_stopped(server: ApigServer, sample: Sample) -> int:
    """Print what to export, then wait for Ctrl-C."""
    settings = server.environment()
    if sample.policy:
        settings["AUDIT_POLICY"] = str(sample.policy)
    stopped = Event()
    with _on_signals({signal.SIGINT: stopped.set, signal.SIGTERM: stopped.set}):
        for name, value in settings.items():
            print(f"export {name}={shlex.quote(value)}", flush=True)
        _note("Ctrl-C stops")
        stopped.wait()
    return 0


def render_deliveries(deliveries: Sequence[Delivery]) -> str:
    """The messages as text for a person."""
    if not deliveries:
        return "The webhook receiver got no message: nothing changed."
    return "\n".join(_render_delivery(number, delivery) for number, delivery in enumerate(deliveries, 1))


def _render_delivery(number: int, delivery: Delivery) -> str:
    lines = [f"The webhook receiver got message {number}, answered {delivery.status}:"]
    lines += [f"  {name}: {delivery.headers[name]}" for name in SHOWN_HEADERS if name in delivery.headers]
    lines.append("  signature: " + ("verified" if delivery.verified else f"NOT verified, {delivery.problem}"))
    try:
        lines.append(_pretty(delivery.json()))
    except ValueError:
        lines.append(repr(delivery.body))
    return "\n".join(lines)


def _pretty(value: object, indent: str = "") -> str:
    """JSON for a person: what fits into a line stands on one, and a long array shows its first member only."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(flat) <= LINE or not isinstance(value, dict | list) or not value:
        return flat
    inner = indent + "  "
    if isinstance(value, dict):
        members = [f"{inner}{json.dumps(key)}: {_pretty(member, inner)}" for key, member in value.items()]
        return "{\n" + ",\n".join(members) + f"\n{indent}}}"
    shown = [inner + _pretty(member, inner) for member in value[:MOST_SHOWN]]
    if len(value) > MOST_SHOWN:
        shown.append(f"{inner}... {len(value) - MOST_SHOWN} more like this ...")
    return "[\n" + ",\n".join(shown) + f"\n{indent}]"


@contextmanager
def _on_signals(actions: Mapping[signal.Signals, Callable[[], object]]) -> Iterator[None]:
    def act(number: int, _: FrameType | None) -> None:
        actions[signal.Signals(number)]()

    before = {number: signal.signal(number, act) for number in actions}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(text: str) -> None:
    """Print, unless whoever reads has enough already."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is not a port; known: 0 (a free one) to 65535")
    return port


def _agency(text: str) -> tuple[str, str, list[str]]:
    names, _, project_ids = text.partition("=")
    domain, _, name = names.partition("/")
    if not (domain and name and project_ids):
        raise argparse.ArgumentTypeError(f"{text!r} is not DOMAIN/NAME=PROJECT_ID,...")
    return domain, name, project_ids.split(",")


def _broken(text: str) -> tuple[str, How]:
    region, _, how = text.partition("=")
    for known in get_args(How):
        if region and how == known:
            return region, known
    raise argparse.ArgumentTypeError(f"{text!r} is not REGION=HOW; known: {', '.join(get_args(How))}")


def _function(text: str) -> str:
    try:
        load_handler(text)
    except (ImportError, AttributeError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not MODULE:HANDLER: {error}") from None
    return text


def _user_data(text: str) -> tuple[str, str]:
    name, given, value = text.partition("=")
    if not given and name not in os.environ:
        raise argparse.ArgumentTypeError(f"{name} has no value, neither here nor in the environment")
    return name, value if given else os.environ[name]


def _plan(text: str) -> Plan:
    try:
        pairs = dict(part.split("=") for part in text.split(","))
        return seeded(int(pairs.pop("seed")), **{name: float(value) for name, value in pairs.items()})
    except (ValueError, KeyError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not seed=N,duplicates=0.2,...: {error}") from None


def _is_credential(name: str) -> bool:
    return name.startswith("HUAWEICLOUD_SDK_") or name == "AUDIT_TOKEN"


def _note(text: str) -> None:
    print(f"emulator: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
