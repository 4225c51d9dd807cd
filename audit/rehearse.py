"""Shows what a receiver would be told, and tries whether it can be told at all; no run is made, nothing is recorded."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING

from audit.errors import UsageError
from audit.extent import Extent
from audit.history import find_run
from audit.notify import Message, Standing, Told, begin, decide
from audit.outcome import Tally
from audit.reconcile import Slice
from audit.render.kinds import KINDS
from audit.ruleset.problems import none_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from audit.archive import Archive, Manifest, StoredRun
    from audit.model import Finding
    from audit.receivers import Receiver
    from audit.tell import Sender

_TEST = "test message: the receiver works; nothing was audited"


def preview(archive: Archive, run_id: str, kind: str, now: float) -> str:
    """Lay out the first message that a receiver of this kind would get of a run, unsigned, for a person.

    `run_id` "" for the latest run; `now` in seconds. Raises UsageError for an unknown kind or run.
    """
    if kind not in KINDS:
        raise UsageError([f"--preview {none_of(kind, KINDS)}"])
    standing = _recall(find_run(archive, run_id))
    message, _ = decide(begin(Told("preview"), standing), standing)
    assert message is not None, "the first message is always due"  # noqa: S101
    body = json.loads(KINDS[kind].build(message, None, now).body)
    return json.dumps(body, ensure_ascii=False, indent=2) + "\n"


def _recall(run: StoredRun) -> Standing:
    """Tell from the record what was true after a run; problems are those with rules, as others are not on record."""
    manifest, findings = run.manifest, tuple(run.findings())
    tally = Tally(manifest.run_id, coverage=manifest.coverage, reach=manifest.extent, report=manifest.report)
    tally.problems = [rule.problem for rule in manifest.rules if rule.problem]
    tally.add(Slice(findings, frozenset(_carried(manifest, findings))))
    return tally.stand(run.store, manifest.now, run.sha256)


def _carried(manifest: Manifest, findings: Iterable[Finding]) -> Iterator[str]:
    """Yield the uid of each finding that a run left as it was, being about other gateways or other rules."""
    scope, narrowed = manifest.scope, manifest.extent.narrowed
    outside = {(e.region, e.project_id, e.gateway_id) for e in manifest.coverage if e.state == "out_of_scope"}
    judged = {rule.id for rule in manifest.rules} - narrowed
    for finding in findings:
        of_others = scope.gateways and (finding.gateway is None or finding.gateway_key in outside)
        by_others = finding.rule_id in narrowed or (scope.rules and finding.rule_id not in judged)
        if finding.run_id != manifest.run_id and (of_others or by_others):
            yield finding.uid


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
    return f"receiver {receiver.name} ({receiver.kind}): delivered: {sender.deliver(receiver, message)}\n"
