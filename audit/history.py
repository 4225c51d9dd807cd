"""Finds past runs, and what changed between two of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from audit.errors import UsageError
from audit.times import canonical_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from audit.archive import Archive, StoredRun
    from audit.model import Finding

_DATE_LENGTH = len("2026-11-22")


class Difference(NamedTuple):
    """A finding as it is in the later run, and its status in the earlier one, "" where that did not know it."""

    then: str
    finding: Finding


def latest_run(archive: Archive) -> StoredRun:
    """Return the last run. Raises UsageError where there is none."""
    run = archive.latest()
    if run is None:
        raise UsageError([f"{archive.store.url}: no run is recorded there; python -m audit run records one"])
    return run


def find_run(archive: Archive, run_id: str) -> StoredRun:
    """Return a run of the chain, the last one for "". Raises UsageError where there is none of that id."""
    if not run_id:
        return latest_run(archive)
    for run in archive.chain():
        if run.manifest.run_id == run_id:
            return run
    raise UsageError(
        [f"{archive.store.url}: there is no run {run_id}; `python -m audit verify --format json` lists the runs"]
    )


def run_at(archive: Archive, when: str) -> StoredRun:
    """Return the last run up to a time, or to the start of a day; the first run where all are later.

    Raises UsageError where `when` is neither, or there is no run.
    """
    limit = canonical_time(f"{when}T00:00:00Z" if len(when) == _DATE_LENGTH else when)
    if limit is None:
        raise UsageError([f'"{when}" is neither a day such as 2026-11-22 nor a time such as 2026-11-22T08:15:00Z'])
    run = latest_run(archive)
    for run in archive.chain():
        if run.manifest.now <= limit:
            break
    return run


def runs_between(archive: Archive, first: str, last: str) -> list[tuple[StoredRun, StoredRun | None]]:
    """Return the runs from `first` to `last` ("": the last one), oldest first, each with the one it followed."""
    latest_run(archive)
    runs: list[StoredRun] = []
    for run in archive.chain():
        if runs or run.manifest.run_id == last or not last:
            runs.append(run)
        if len(runs) > 1 and runs[-2].manifest.run_id == first:
            break
    ids = [run.manifest.run_id for run in runs]
    if first not in ids:
        named = f"{first} to {last}" if last else first
        raise UsageError(
            [f"{archive.store.url}: there is no run {named}; `python -m audit verify --format json` lists the runs"]
        )
    pairs = zip(runs, [*runs[1:], None], strict=True)
    return list(pairs)[ids.index(first) :: -1]


def compare_runs(then: StoredRun, now: StoredRun) -> Iterator[Difference]:
    """Yield every finding whose state is another than it was, in the order of the later run."""
    before = {finding.uid: finding for finding in then.findings()}
    for finding in now.findings():
        past = before.get(finding.uid)
        again = past is not None and finding.subject == "change" and past.occurrences != finding.occurrences
        if past is None or again or _state(past) != _state(finding):
            yield Difference(past.status if past else "", finding)


def _state(finding: Finding) -> tuple[str, str | None, str]:
    """What counts as a change: open, waived, unverified or resolved and why, and how severe."""
    status = "open" if finding.status in {"new", "ongoing", "reopened"} else finding.status
    return status, finding.resolution, finding.severity
