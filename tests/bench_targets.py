"""`make bench`: what many targets cost beside one, and what waiting costs beside reading one by one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.bench import ROOT, measure, report

if TYPE_CHECKING:
    from collections.abc import Iterator

GATEWAYS, EACH = 200, 500
ESTATE = """
import json, sys
from tests.emulator import Estate, serve
from tests.emulator.connection import DOMAIN_ID
projects, gateways, each, latency = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
estate = Estate()
for number in range(projects):
    project = estate.add_project(f"{number:032x}", region="cn-north-4", name=f"p{number}")
    for place in range(gateways // projects):
        estate.add_gateway(f"g{place}", permissions=[f"iam:domain::{DOMAIN_ID}"], project=project).add_connections(each)
estate.latency = latency
with serve(estate) as server:
    print(json.dumps({"AUDIT_TARGETS": json.dumps(estate.targets(server.url)),
        "HUAWEICLOUD_SDK_AK": estate.access_key, "HUAWEICLOUD_SDK_SK": estate.secret_key}), flush=True)
    sys.stdin.read()
"""


@contextmanager
def estate(projects: int, latency: float) -> Iterator[dict[str, str]]:
    """So many projects with GATEWAYS of EACH connections between them, and the environment to read them."""
    command = [sys.executable, "-c", ESTATE, str(projects), str(GATEWAYS), str(EACH), str(latency)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AUDIT_", "HUAWEICLOUD_"))},
            **json.loads(server.stdout.readline()),
            "AUDIT_POLICY": str(ROOT / "tests/emulator/sample-policy.json"),
        }
        assert server.stdin is not None
        server.stdin.close()


def audit(directory: str, *flags: str) -> list[str]:
    """A first run into a store of its own."""
    return ["-m", "audit", "run", "--format", "json", "--store", tempfile.mkdtemp(dir=directory), *flags]


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        for latency in (0.0, 0.05):
            print(f"{GATEWAYS} gateways of {EACH} connections, {latency * 1000:g} ms latency")
            costs = {}
            for projects in (1, 10):
                with estate(projects, latency) as environment:
                    runs = [measure(audit(directory), environment, (0, 1)) for _ in range(3)]
                    costs[projects] = min(runs, key=lambda cost: cost.wall)
                    name = f"{projects} target{'s' * (projects > 1)}, as many gateways in all"
                    report(name, costs[projects], costs.get(1) if projects > 1 else None)
                    if latency and projects == 1:
                        slow = measure(audit(directory, "--concurrency", "1"), environment, (0, 1))
                        report("one by one", slow, costs[1])
        print(f"Python {sys.version.split()[0]}, {os.cpu_count()} processors")


if __name__ == "__main__":
    main()
