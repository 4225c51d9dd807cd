"""Shows what a receiver would be told, and tries whether it can be told at all; no run is made, nothing is recorded."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

from audit.archive import manifest_of, report_link
from audit.errors import UsageError
from audit.extent import Extent
from audit.notify import Message, Standing, Told, begin, decide
from audit.outcome import Tally
from audit.reconcile import Slice
from audit.render.kinds import KINDS
from audit.ruleset.problems import none_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from audit.archive import StoredRun
    from audit.receivers import Receiver

# How the reason begins where a rule was evaluated nowhere; others were not evaluated on some gateways only.
_IDLE = ("not configured: ", "it broke down on ")
_TEST = "test message: the receiver works; nothing was audited"


class Sender(Protocol):
    """Posts one message and returns what was answered; raises DeliveryError."""

    def post(self, receiver: Receiver, message: Message) -> str: ...


def preview(run: StoredRun, kind: str, now: float) -> str:
    """Lay out the first message that a receiver of this kind would get of a recorded run, unsigned, for a person.

    `now` in seconds. Raises UsageError for an unknown kind.
    """
    if kind not in KINDS:
        raise UsageError([f"--preview {none_of(kind, KINDS)}"])
    body = json.loads(KINDS[kind].build(_first_message(run), None, now).body)
    return json.dumps(body, ensure_ascii=False, indent=2) + "\n"


def _first_message(run: StoredRun) -> Message:
    """Decide as for a receiver that was never told anything; what a manifest does not keep is not said."""
    manifest, tally = run.manifest, Tally(run.manifest.run_id)
    tally.add(Slice(tuple(run.findings())))
    tally.coverage = manifest.coverage
    unjudged = {rule.id: rule.not_evaluated for rule in manifest.rules if rule.not_evaluated}
    tally.idle = frozenset(rule for rule, why in unjudged.items() if why.startswith(_IDLE))
    standing = Standing(
        store=run.store.url,
        run_id=manifest.run_id,
        now=manifest.now,
        open=tally.open,
        waived=tally.waived,
        events=tally.events,
        reopened=tally.reopened,
        worst=tally.worst,
        past_events=tally.past_events,
        extent=tally.extent,
        problems=[f"rule {rule} was not evaluated: {why}" for rule, why in unjudged.items()],
        manifest_location=run.store.locate(manifest_of(manifest.run_id)),
        manifest_sha256=run.sha256,
        report_url=report_link(run.store, manifest.run_id),
    )
    message, _ = decide(begin(Told("preview"), standing), standing)
    assert message is not None, "the first message is always due"  # noqa: S101
    return message


def choose_receiver(receivers: Sequence[Receiver], name: str) -> Receiver:
    """Return the receiver of this name, for "" the only one there is. Raises UsageError."""
    if not receivers:
        raise UsageError(["no receiver is set: set AUDIT_WEBHOOK_URL or AUDIT_RECEIVERS"])
    by_name = {receiver.name: receiver for receiver in receivers}
    if not name and len(receivers) == 1:
        return receivers[0]
    if name not in by_name:
        told = none_of(name, by_name) if name else f"say which of {', '.join(by_name)}"
        raise UsageError([f"--test {told}"])
    return by_name[name]


def send_test(sender: Sender, receiver: Receiver, now: str) -> str:
    """Send a message that says it is a test, and return what the service answered. Raises DeliveryError."""
    standing = Standing("", "none", now, {}, {}, {}, frozenset(), (), (), Extent(()), (), "", "")
    delivery_id = sha256(f"{_TEST} {receiver.name} {now}".encode()).hexdigest()[:32]
    message = Message(delivery_id, receiver.name, "none", now, _TEST, {}, {}, (), 0, (), standing)
    return f"receiver {receiver.name} ({receiver.kind}): delivered: {sender.post(receiver, message)}\n"
