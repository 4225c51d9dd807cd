"""The composition root: the only place that knows every adapter, and where clock, randomness and logging enter."""

from __future__ import annotations

import logging
import secrets
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from audit.app import Ports, run_audit
from audit.archive import Archive
from audit.deadline import Deadline
from audit.huawei.apig import Apig
from audit.huawei.signing import AccessKey, SignatureAuth, TokenAuth
from audit.huawei.transport import Transport
from audit.line import Job
from audit.ruleset.load import load_rule_set
from audit.store import LocalStore
from audit.tell import Telling
from audit.text import Redactor, printable
from audit.webhook import WebhookSender

if TYPE_CHECKING:
    from pathlib import Path

    from requests.auth import AuthBase

    from audit.line import Progress
    from audit.model import Reading
    from audit.outcome import Outcome
    from audit.settings import RunOptions, Settings

# Of the time limit, this much is kept for publishing and telling: at most so many seconds, at most so large a part.
_PUBLISH_SECONDS = 20.0
_PUBLISH_PART = 0.2


class NoProgress:
    """Progress for where nobody watches."""

    def start(self, gateways: int) -> None: ...

    def advance(self, reading: Reading) -> None: ...


def perform(
    settings: Settings, options: RunOptions, *, mode: str, fail_on: str = "low", progress: Progress | None = None
) -> Outcome:
    """Perform one run with real adapters; `mode` is the label where the options name none.

    Raises UsageError for rules, policy or options that are wrong, before anything is read.
    """
    redact = Redactor(settings.secrets)
    configure_logging(settings.log_level, redact)
    now = datetime.now(timezone.utc)

    def new_run_id() -> str:
        return f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"

    job = Job(
        run_id=new_run_id(),
        now=now,
        mode=options.mode or mode,
        rule_set=load_rule_set(settings.rules_dir, settings.policy),
        gateways=options.gateways or settings.gateways,
        rule_ids=options.rules,
        dry_run=options.dry_run,
        fail_on=fail_on,
        concurrency=settings.concurrency,
    )
    job.rule_set.select(job.rule_ids)  # an unknown rule is an error before anything is read
    whole = Deadline(settings.time_limit)
    reading = Deadline(settings.time_limit - min(_PUBLISH_SECONDS, settings.time_limit * _PUBLISH_PART))
    transport = Transport(
        settings.endpoint, _auth(settings), deadline=reading, concurrency=settings.concurrency, redact=redact
    )
    archive = open_archive(settings.store)
    silent = "dry run" if options.dry_run else "" if options.notify else "not wanted in this run"
    ports = Ports(
        api=Apig(transport, settings.region, settings.project_id),
        archive=archive,
        telling=Telling(settings.receivers, WebhookSender(whole, redact), archive.store, silent),
        clock=lambda: datetime.now(timezone.utc),
        new_run_id=new_run_id,
        progress=progress or NoProgress(),
        warnings=transport.warnings,
    )
    try:
        return run_audit(job, ports)
    finally:
        transport.close()


def open_archive(directory: Path) -> Archive:
    """Open the runs in a directory."""
    return Archive(LocalStore(directory))


def _auth(settings: Settings) -> AuthBase:
    keys = settings.credentials
    if keys.token:
        return TokenAuth(keys.token)
    return SignatureAuth(AccessKey(keys.ak, keys.sk, keys.security_token), settings.project_id)


class _SafeFormatter(logging.Formatter):
    """Takes secrets out of every line, and what could move a cursor."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        return printable(self._redact(super().format(record)))


def configure_logging(level: str, redact: Redactor) -> None:
    """Send our own log to stderr; libraries keep silent, as they name URLs."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_SafeFormatter(redact))
    log = logging.getLogger("audit")
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(level)
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)
