"""What a person reads on a terminal about past runs: pure lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audit.render import console
from audit.render.naming import name_coverage, name_findings
from audit.text import count, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from audit.archive import Manifest
    from audit.history import Difference
    from audit.model import Finding, TargetNames
    from audit.replay import Replayed
    from audit.verify import Verification

_MOST_RUNS = 10
_MOST_DIFFERENCES = 100


def render_differences(changed: Iterable[Difference], targets: TargetNames) -> str:
    """Say what became of findings between two runs, a line each."""
    lines = (
        console.line_of(finding, f"{then or '-'} -> {console.state(finding)}")
        for then, changed_one in changed
        for finding in name_findings([changed_one], targets)
    )
    return "".join(lines) or "nothing changed\n"


def render_report(manifest: Manifest, sha256: str, findings: Sequence[Finding], *, table: bool) -> str:
    """Say what a past run read, found, judged by, and how its evidence is anchored."""
    scope = manifest.scope
    rules = [
        f"{rule.id} (not evaluated: {rule.not_evaluated})" if rule.not_evaluated else rule.id for rule in manifest.rules
    ]
    parent = (
        f"run {manifest.parent.run_id} (sha256 {manifest.parent.sha256})" if manifest.parent else "none: the first run"
    )
    lines = [
        *console.run_lines(manifest.run_id, name_coverage(manifest.coverage, scope.names), manifest.counts),
        f"time      {manifest.now}, mode {manifest.mode}, version {manifest.version}",
        f"scope     {', '.join(scope.gateways) or 'all gateways'}; {', '.join(scope.rules) or 'all rules'}",
        f"rules     {printable(', '.join(rules))}",
        f"policy    {manifest.policy_sha256 or 'none'}",
        f"manifest  sha256 {sha256}",
        *(
            f"          {item.key.split('/')[-1]}: {item.bytes} bytes, sha256 {item.sha256}"
            for item in manifest.objects
        ),
        f"follows   {parent}",
    ]
    lines = console.fit(lines) if table else lines
    named = list(name_findings(findings, scope.names))
    return "\n".join([*lines, "", console.render_findings(named, table=table)])


def render_verification(found: Verification, only: str) -> str:
    """Say whether the chain holds, what breaks it, and the newest hashes, which messages had too."""
    runs = list(found.runs.items())
    lines = [f"chain     {count(len(runs), 'run')}" + (f", {runs[-1][0]} to {runs[0][0]}" if runs else "")]
    lines += [f"          {run_id}  manifest sha256 {digest}" for run_id, digest in runs[:_MOST_RUNS]]
    lines += [f"          and {len(runs) - _MOST_RUNS} older"] * (len(runs) > _MOST_RUNS)
    lines += [
        f"abandoned run {run_id}: not in the chain; it was never recorded, or left behind by a repair"
        for run_id in found.abandoned
    ]
    lines += [f"broken    {printable(problem)}" for problem in found.problems]
    if not (found.runs or found.problems):
        return "\n".join([*lines, "no run is recorded yet", ""])
    checked = f"every manifest, and every object of run {only}," if only else "every object and manifest"
    lines.append("broken" if found.problems else f"sound: {checked} is as its run left it")
    return "\n".join(lines) + "\n"


def render_replay(results: Iterable[Replayed]) -> str:
    """Count for each run what was found then and what would be found, then name the differences."""
    lines = ["run                      time                   then   now  added  missing"]
    differences = []
    for result in results:
        run = result.run.manifest
        numbers = f"{result.then:6}{result.now:6}{len(result.added):7}{len(result.missing):9}"
        lines.append(f"{run.run_id}  {run.now} {numbers}")
        lines += [f"    {count(result.unread, 'gateway')} not read completely"] * bool(result.unread)
        lines += [f"    not evaluated: {rule_id}: {why}" for rule_id, why in sorted(result.not_evaluated.items())]
        differences += list(result.lines())
    lines += [""] * bool(differences)
    for line in differences[:_MOST_DIFFERENCES]:
        about = console.name_subject(line["connection"], line["group"]) or "-"
        place = line["gateway"].name or line["gateway"].id if line["gateway"] else "-"
        said = (line["difference"], line["run_id"], line["severity"], line["rule_id"], place, about, line["message"])
        lines.append("\t".join(map(printable, said)))
    if len(differences) > _MOST_DIFFERENCES:
        lines.append(f"+{len(differences) - _MOST_DIFFERENCES} more; --out FILE writes all")
    return "\n".join(lines) + "\n"
