"""`make bench`: what an audit costs beside a bare floor, as ratios measured in one run on this machine.

The floor does the least that any audit must: fetch every page over HTTP with 16 threads, decode, compare two fields in
a loop, write compressed lines. It signs nothing, proves nothing, remembers nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
FLOOR = """
import gzip, http.client, os, sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit
import msgspec
host = urlsplit(os.environ["AUDIT_APIG_ENDPOINT"]).netloc
project, token = os.environ["AUDIT_PROJECT_ID"], os.environ["TOKEN"]
class C(msgspec.Struct):
    id: str; marker_id: int; created_at: str; updated_at: str; domain_id: str; status: str
class Page(msgspec.Struct):
    total: int; connections: list[C]
class G(msgspec.Struct):
    id: str
class Gateways(msgspec.Struct):
    instances: list[G]
import threading
local = threading.local()
def get(path, kind):
    if not hasattr(local, "c"): local.c = http.client.HTTPConnection(host)
    local.c.request("GET", f"/v2/{project}/apigw/instances{path}", headers={"X-Auth-Token": token})
    return msgspec.json.decode(local.c.getresponse().read(), type=kind)
def read(g):
    items, offset = [], 0
    while True:
        page = get(f"/{g.id}/vpc-endpoint/connections?offset={offset}&limit=500", Page)
        items += page.connections; offset = len(items)
        if offset >= page.total: return items
found = 0
with gzip.open(sys.argv[1], "wb", compresslevel=1) as out, ThreadPoolExecutor(16) as pool:
    for items in pool.map(read, get("?offset=0&limit=500", Gateways).instances):
        for c in items:
            if c.status == "pendingAcceptance" and c.updated_at < "2026": found += 1
            if c.status == "failed": found += 1
        out.write(msgspec.json.Encoder().encode_lines(items))
"""
ESTATE = """
import sys, time
from tests.emulator import Estate, serve
from tests.emulator.connection import DOMAIN_ID
estate = Estate()
for number in range(int(sys.argv[1])):
    estate.add_gateway(f"g{number:04}", permissions=[f"iam:domain::{DOMAIN_ID}"]).add_connections(int(sys.argv[2]))
estate.latency = float(sys.argv[3])
with serve(estate) as server:
    print(server.url, estate.project_id, estate.access_key, estate.secret_key, estate.token, flush=True)
    sys.stdin.read()
"""


class Cost(NamedTuple):
    """CPU and wall in seconds, peak memory in MB, of one process."""

    cpu: float
    wall: float
    memory: float


@contextmanager
def estate(gateways: int, each: int, latency: float = 0):
    """An emulated API in a process of its own, and the environment to reach it."""
    command = [sys.executable, "-c", ESTATE, str(gateways), str(each), str(latency)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url, project_id, key, secret, token = server.stdout.readline().split()
        yield {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AUDIT_", "HUAWEICLOUD_"))},
            "AUDIT_APIG_ENDPOINT": url,
            "AUDIT_PROJECT_ID": project_id,
            "HUAWEICLOUD_SDK_AK": key,
            "HUAWEICLOUD_SDK_SK": secret,
            "TOKEN": token,
            "AUDIT_POLICY": str(ROOT / "tests/emulator/sample-policy.json"),
        }
        assert server.stdin is not None
        server.stdin.close()


def measure(command: list[str], environment: dict[str, str], accepted: tuple[int, ...] = (0,)) -> Cost:
    """Run a process to its end."""
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode in accepted, process.returncode
    return Cost(usage.ru_utime + usage.ru_stime, time.perf_counter() - begin, usage.ru_maxrss / 1024)


def best(command: list[str], environment: dict[str, str], accepted: tuple[int, ...] = (0,), runs: int = 3) -> Cost:
    """The least of a few runs: noise only ever adds."""
    return Cost(*map(min, zip(*(measure(command, environment, accepted) for _ in range(runs)), strict=True)))


def audit(store: str) -> list[str]:
    return ["-m", "audit", "run", "--format", "json", "--store", store, "--region", "x"]


def report(name: str, cost: Cost, floor: Cost | None = None) -> None:
    ratio = f"   {cost.cpu / floor.cpu:4.1f} x CPU  {cost.wall / floor.wall:4.1f} x wall" if floor else ""
    print(f"  {name:34} {cost.cpu:6.2f} s CPU {cost.wall:6.2f} s wall {cost.memory:6.0f} MB{ratio}")


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        for title, gateways, each, latency in [
            ("200 gateways of 500 connections", 200, 500, 0.0),
            ("20 gateways of 5,000 connections", 20, 5000, 0.0),
            ("200 gateways of 500, 50 ms latency", 200, 500, 0.05),
        ]:
            print(title)
            with estate(gateways, each, latency) as environment:
                floor = best(["-c", FLOOR, f"{directory}/floor.gz"], environment)
                report("floor", floor)
                store = f"{directory}/{gateways}-{latency}"
                report("audit, first run", measure(audit(store), environment, (0, 1)), floor)
                report("audit, later run", best(audit(store), environment, (0, 1)), floor)
        print("memory of a later run, 500 connections a gateway")
        costs = []
        for gateways in (20, 200):
            with estate(gateways, 500) as environment:
                store = f"{directory}/memory-{gateways}"
                measure(audit(store), environment, (0, 1))
                costs.append(best(audit(store), environment, (0, 1)))
                report(f"{gateways} gateways", costs[-1])
        print(f"  ten times the estate                {costs[1].memory / costs[0].memory:4.2f} x memory")
        print(f"Python {sys.version.split()[0]}, {os.cpu_count()} processors")


if __name__ == "__main__":
    main()
