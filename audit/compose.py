"""The composition root: the only place that knows every adapter, and where clock, randomness and logging enter."""

from __future__ import annotations

import logging
import secrets
import sys
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from msgspec.structs import replace

from audit.app import Ports, run_audit
from audit.archive import Archive, TargetRef, shard_folder
from audit.collect import Source
from audit.deadline import Deadline
from audit.errors import OptionsError, StoreError, UsageError
from audit.huawei.clients import Clients
from audit.line import Job
from audit.objects import temporary_room
from audit.options import FAN_OUT, SHARD, SUMMARIZE
from audit.ruleset.load import load_rule_set
from audit.ruleset.problems import unknown
from audit.settings import LONGEST_RUN, PREFIX, ObsPlace
from audit.shards import ShardSource, start_shards
from audit.store import LocalStore, read_object
from audit.tell import Telling
from audit.text import Redactor, printable
from audit.times import format_time
from audit.webhook import SECONDS, WebhookSender

if TYPE_CHECKING:
    from audit.line import Progress
    from audit.model import Reading
    from audit.options import RunOptions
    from audit.outcome import Outcome
    from audit.receivers import Receiver
    from audit.ruleset.load import RuleSet
    from audit.settings import Settings
    from audit.store import Store
    from audit.targets import Target

# Of the time limit, this much is kept for publishing and telling, and of that for telling: at most so many seconds, at
# most so large a part.
_PUBLISH = (20.0, 0.2)
_TELL = (5.0, 0.05)


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
    _check_mode(settings, options)
    if options.mode == SHARD:
        settings = _narrow(settings, options.target)
    options = replace(options, gateways=options.gateways or settings.gateways, mode=options.mode or mode)
    now = datetime.now(timezone.utc)
    whole = Deadline(settings.time_limit)
    reading, storing = (_ending_before(settings.time_limit, *kept) for kept in (_PUBLISH, _TELL))

    def new_run_id() -> str:
        return f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"

    rule_set = load_rules(settings.rules_dir, settings.policy, whole)
    rule_set.select(options.rules)  # an unknown rule is an error before anything is read
    job = _plan_job(settings, options, new_run_id(), now, rule_set, fail_on)
    with Clients(settings, reading, redact) as clients:
        if options.mode == FAN_OUT:
            return _fan_out(settings, clients, job.run_id)
        archive = open_archive(settings.store, storing)
        sender = WebhookSender(whole, redact, len(settings.receivers))
        silent = "dry run" if options.dry_run else "" if options.notify else "not wanted in this run"
        ports = Ports(
            sources=[_source(settings, target, options, now, clients, storing) for target in settings.targets],
            archive=archive,
            telling=Telling(settings.receivers, sender, archive.store, silent),
            clock=lambda: datetime.now(timezone.utc),
            new_run_id=new_run_id,
            progress=progress or NoProgress(),
            warnings=clients.warnings,
            left=reading.left,
        )
        return run_audit(job, ports)


def _check_mode(settings: Settings, options: RunOptions) -> None:
    """Raise UsageError where the settings do not go with the mode."""
    if settings.gateways and options.mode in {FAN_OUT, SHARD, SUMMARIZE}:
        raise OptionsError([f"--gateways cannot be given beside --mode {options.mode}"])
    if options.mode == FAN_OUT and not settings.function_urn:
        raise UsageError([f"{PREFIX}FUNCTION_URN is missing: --mode fan-out starts this function for each target"])
    if options.mode == FAN_OUT and not settings.credentials.secrets:
        raise UsageError(["credentials are missing: --mode fan-out needs HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK"])


def _plan_job(
    settings: Settings, options: RunOptions, run_id: str, now: datetime, rule_set: RuleSet, fail_on: str
) -> Job:
    targets = settings.targets
    named = [TargetRef(target.name, target.region, target.project_id) for target in targets]
    return Job(
        run_id=run_id,
        now=now,
        mode=options.mode,
        rule_set=rule_set,
        gateways=options.gateways or tuple(dict.fromkeys(gid for target in targets for gid in target.gateways)),
        rule_ids=options.rules,
        dry_run=options.dry_run,
        fail_on=fail_on,
        concurrency=settings.concurrency,
        targets=tuple(named) if len(named) > 1 else (),
    )


def _fan_out(settings: Settings, clients: Clients, run_id: str) -> Outcome:
    functions = clients.functions()
    events: dict[Target, dict[str, object]] = {
        target: {"mode": SHARD, "target": target.name} for target in settings.targets
    }
    return start_shards(run_id, events, functions.start, settings.concurrency)


def _ending_before(limit: float, seconds: float, part: float) -> Deadline:
    return Deadline(limit - min(seconds, limit * part))


def _narrow(settings: Settings, name: str) -> Settings:
    """Settings of a shard: one target, a chain of its own, and nobody to tell. Raises OptionsError."""
    targets = tuple(target for target in settings.targets if target.name == name)
    if not targets:
        known = [target.name for target in settings.targets]
        raise OptionsError([unknown("target", name, known)])
    return replace(settings, targets=targets, store=settings.store / shard_folder(name), receivers=())


def _source(
    settings: Settings, target: Target, options: RunOptions, now: datetime, clients: Clients, deadline: Deadline
) -> Source:
    api = clients.apig(target)
    if options.mode == SUMMARIZE:
        archive = open_archive(settings.store / shard_folder(target.name), deadline)
        oldest = format_time(now - settings.shard_max_age)
        return ShardSource(
            name=target.name, api=api, wanted=target.gateways, archive=archive, oldest=oldest, now=format_time(now)
        )
    # Ids that the options name may be in any target.
    owned = not options.gateways or len(settings.targets) == 1
    return Source(target.name, api, options.gateways or target.gateways, owned)


def open_archive(place: Path | ObsPlace, deadline: Deadline | None = None) -> Archive:
    """Open the runs in a place, for as long as a run may last where there is no deadline."""
    return Archive(_open_store(place, deadline or Deadline(LONGEST_RUN)))


def _open_store(place: Path | ObsPlace, deadline: Deadline) -> Store:
    if isinstance(place, Path):
        return LocalStore(place)
    from audit.huawei.obs import ObsStore  # noqa: PLC0415  (the vendor's client is not loaded for nothing)

    return ObsStore(place, deadline)


def load_rules(rules_dir: Path | ObsPlace, policy: Path | ObsPlace | None, deadline: Deadline | None = None) -> RuleSet:
    """Load rules and policy; what is in OBS is brought into a directory that lasts until it is read.

    Raises UsageError with every problem of every file, StoreError where OBS does not give them.
    """
    if isinstance(rules_dir, Path) and not isinstance(policy, ObsPlace):
        return load_rule_set(rules_dir, policy)
    deadline = deadline or Deadline(LONGEST_RUN)
    with ExitStack() as stack:
        with temporary_room():
            name = stack.enter_context(TemporaryDirectory())
        here, beside = Path(name) / "rules", Path(name) / "policy"
        names = {str(here): str(rules_dir)}
        if isinstance(policy, ObsPlace):
            target = here if policy.parent == rules_dir else beside
            names[str(beside)] = str(policy.parent)
            _bring(policy.parent, [policy.name], target, deadline)
            policy = target / policy.name
        if isinstance(rules_dir, ObsPlace):
            _bring(rules_dir, None, here, deadline)
            rules_dir = here
        try:
            return load_rule_set(rules_dir, policy)
        except UsageError as error:
            problems = list(error.problems)
            for local, remote in names.items():
                problems = [problem.replace(local, remote) for problem in problems]
            raise UsageError(problems) from None


def _bring(place: ObsPlace, names: list[str] | None, directory: Path, deadline: Deadline) -> None:
    """Copy objects of a folder, all JSON files right in it where none are named; one that is not there is left out."""
    store = _open_store(place, deadline)
    with temporary_room():
        directory.mkdir(exist_ok=True)
    listed = names is None
    for name in names or [key for key in store.list("") if "/" not in key and key.lower().endswith(".json")]:
        content = read_object(store, name)
        if content is not None:
            with temporary_room():
                (directory / name).write_bytes(content)
        elif listed:
            raise StoreError(f"{store.locate(name)}: is in the list, but not there; run it again")


def open_sender(receiver: Receiver) -> WebhookSender:
    """Be ready to post to one receiver outside of a run."""
    redact = Redactor(receiver.secrets)
    configure_logging("WARNING", redact)
    return WebhookSender(Deadline(SECONDS), redact)


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
