"""Says to which target a gateway belongs, for people who look at several: `shop-eu/orders-prod`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from audit.model import Coverage, Finding, TargetNames


def name_findings(findings: Iterable[Finding], targets: TargetNames) -> Iterator[Finding]:
    """Yield findings with the names of gateways as they are to be shown; to be stored they stay as they are."""
    for finding in findings:
        gateway = finding.gateway
        if gateway and (target := targets.get((gateway.region, gateway.project_id))):
            named = replace(gateway, name=f"{target}/{gateway.name or gateway.id}")
            yield replace(finding, gateway=named)
        else:
            yield finding


def name_coverage(coverage: Iterable[Coverage], targets: TargetNames) -> list[Coverage]:
    """Do the same for what is said of gateways, and of the lists of them."""
    named = []
    for entry in coverage:
        target = targets.get((entry.region, entry.project_id))
        name = f"{target}/{entry.name or entry.gateway_id}" if entry.gateway_id else target
        named.append(replace(entry, name=name) if target else entry)
    return named
