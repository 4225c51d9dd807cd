"""One instance of the function as FunctionGraph runs it, in a process of its own.

From the package's zip and a bare interpreter: no site-packages, but behind the code the image's old packages; the
working directory is the parent of the code, which is read-only; the context has the documented methods and no other.
Source: vendor's developer guide of FunctionGraph, "Python". As a script this is the platform's side of that process; it
must not import anything but the standard library, as whatever it loads is there for the function, too.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

# What is known of the packages that the image ships; there is no `obs` 3.0.3 in the registry.
IMAGE_PACKAGES = (
    "requests==2.24.0", "urllib3==1.25.11", "chardet==3.0.4", "idna==2.10", "huaweicloudsdkcore==3.1.111",
)  # fmt: skip
LARGEST_FILE = 512_000_000  # no one file in /tmp may be larger than all of it


def find_python(version: str) -> str | None:
    """A CPython of this version for Linux on x86_64, e.g. "3.10"; None where there is none."""
    installed = Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python{version}")
    ask = "import sys, platform as p; print(sys.implementation.name, *sys.version_info[:2], sys.platform, p.machine())"
    for candidate in [shutil.which(f"python{version}"), *map(str, sorted(installed)), sys.executable]:
        if candidate:
            done = subprocess.run([candidate, "-ISc", ask], check=False, capture_output=True, text=True)
            if done.stdout.split() == ["cpython", *version.split("."), "linux", "x86_64"]:
                return candidate
    return None


def make_image(directory: Path) -> None:
    """Put the image's packages into a directory. Raises CalledProcessError with what pip says."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--only-binary=:all:"]
    options = ["--disable-pip-version-check", "--root-user-action=ignore", f"--target={directory}"]
    subprocess.run([*command, *options, *IMAGE_PACKAGES], check=True, capture_output=True, text=True)
    (directory / "obs").mkdir()
    (directory / "obs" / "__init__.py").write_text("raise ImportError('this is the client of the image')\n")


class Function:
    """`invoke` performs one invocation after the other in the same process."""

    def __init__(self, process: subprocess.Popen[str], directory: Path) -> None:
        self._process = process
        self.code, self.tmp, self._log = directory / "code", directory / "tmp", directory / "log"

    def invoke(self, event: object, *, entry: str = "handler", seconds: float = 600, **context: Any) -> Any:
        """Call an entry; returns its result, or what the platform makes of an exception.

        `seconds` are left of the invocation's time. `context`: `user_data`, `ak`, `sk`, `token`, `project_id`.
        """
        return self._ask({"entry": entry, "event": event, "context": {**context, "seconds": seconds}})

    def observe(self) -> Any:
        """Return what the process did so far.

        `modules`: file by name. `missing`: what was looked for in vain. `written`: what was opened for writing.
        `peak`: the most memory that was resident, in bytes.
        """
        return self._ask(None)

    def log(self) -> str:
        """What it wrote to stderr."""
        return self._log.read_text()

    def _ask(self, request: object) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, self.log()
        return json.loads(line)


@contextmanager
def function(package: Path, image: Path, python: str, directory: Path) -> Iterator[Function]:
    """Run the function of a zip in an empty directory while the block runs."""
    code = directory / "code"
    (directory / "tmp").mkdir()
    with zipfile.ZipFile(package) as archive:
        archive.extractall(code)
    for path in [code, *code.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    command = [*_bound_by_modes(code), python, "-I", "-S", __file__, str(code), str(image)]
    environment = {"PATH": os.defpath, "TMPDIR": str(directory / "tmp")}
    pipe = subprocess.PIPE
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=directory, env=environment, stdin=pipe, stdout=pipe, stderr=log, text=True
        )
    try:
        with process:
            yield Function(process, directory)
            assert process.stdin
            process.stdin.close()
            process.wait(10)
    finally:
        process.kill()
        for path in [code, *code.rglob("*")]:
            path.chmod(0o755)  # so that it can be removed


def _bound_by_modes(code: Path) -> list[str]:
    """What starts a process that cannot write where modes forbid it: root can, unless it gives that up."""
    if not os.access(code, os.W_OK):
        return []
    gives_up = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
    tried = shutil.which("setpriv") and subprocess.run([*gives_up, "test", "!", "-w", str(code)], check=False)
    assert tried, "run the tests as somebody else than root, or install setpriv (util-linux)"
    assert tried.returncode == 0, "setpriv does not take away root's right to write everywhere"
    return gives_up


def tree_hash(directory: Path) -> str:
    """A hash of every name and content below a directory."""
    found = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        found.update(f"{path.relative_to(directory)}\0".encode())
        found.update(path.read_bytes() if path.is_file() else b"")
    return found.hexdigest()


# The platform's side


class Context:
    """The documented methods, and no other."""

    __slots__ = ("_ends", "_given")

    def __init__(self, given: dict[str, Any]) -> None:
        self._given, self._ends = given, time.monotonic() + given["seconds"]

    def getSecurityAccessKey(self) -> str | None:  # noqa: N802
        return self._given.get("ak")

    def getSecuritySecretKey(self) -> str | None:  # noqa: N802
        return self._given.get("sk")

    def getSecurityToken(self) -> str | None:  # noqa: N802
        return self._given.get("token")

    def getToken(self) -> str | None:  # noqa: N802
        return None

    def getUserData(self, key: str) -> str | None:  # noqa: N802
        value: str | None = self._given.get("user_data", {}).get(key)
        return value

    def getProjectID(self) -> str | None:  # noqa: N802
        return self._given.get("project_id")

    def getRequestID(self) -> str:  # noqa: N802
        return "1167bf8c-87b0-43ab-8f5f-26b16c64f252"

    def getRemainingTimeInMilliSeconds(self) -> int:  # noqa: N802
        return int((self._ends - time.monotonic()) * 1000)

    def getFunctionName(self) -> str:  # noqa: N802
        return "apig-vpcep-audit"

    def getVersion(self) -> str:  # noqa: N802
        return "latest"

    def getMemorySize(self) -> int:  # noqa: N802
        return 128

    def getLogger(self) -> object:  # noqa: N802
        return self


class _Missing:
    """The last one to be asked for a module notes that nobody has it."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        self.names.append(name)


def main(code: str, image: str) -> None:
    """Serve invocations, one a line of JSON, until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the function prints is no answer
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
    missing, written = _Missing(), list[str]()

    def note(name: str, arguments: tuple[Any, ...]) -> None:
        writes = name == "os.mkdir" or (name == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if writes and isinstance(arguments[0], str):
            written.append(os.path.realpath(arguments[0]))

    sys.addaudithook(note)
    sys.path[:] = [code, *sys.path, image]
    sys.meta_path.append(missing)
    function_file = importlib.import_module("handler")
    for line in sys.stdin:
        request = json.loads(line)
        if request:
            context = Context(request["context"])
            arguments = (context,) if request["entry"] == "initializer" else (request["event"], context)
            try:
                answer = getattr(function_file, request["entry"])(*arguments)
            except Exception as error:  # noqa: BLE001  (as the platform does)
                answer = {"errorMessage": str(error), "errorType": type(error).__name__}
        else:
            modules = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
            answer = {"modules": modules, "missing": missing.names, "written": written, "peak": _peak()}
            answer["threads"] = threading.active_count()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _peak() -> int:
    """Resident memory at its highest; getrusage would count what the parent had when it forked."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
