"""Builds what FunctionGraph runs: `dist/apig-vpcep-audit.zip`, and the same files unpacked in `dist/code`.

The same sources give the same bytes, wherever, whenever and by whichever Python this is run: every package is held
against the hashes of `package.lock`, nothing is compiled, and times, order and modes are fixed. (Compression is zlib's:
a Python that was built with zlib-ng packs the same files into other bytes.) `make lock` writes the lock anew.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from io import BytesIO
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
LOCK = Path(".ci", "package.lock")
ZIP = "apig-vpcep-audit.zip"
MOST_BYTES = 15_000_000  # packed; the console takes 40 MB, but a cold start fetches all of it

# FunctionGraph's runtimes that the code runs on, and its processors: each one's name, and its number in ELF headers.
VERSIONS = ("3.10", "3.12")
MACHINES = {"x86_64": 62, "aarch64": 183}
_NEWEST_GLIBC = 17  # the 2.17 of manylinux2014: the image's own is not documented

LEFT_OUT = frozenset({
    # A terminal's. These and all others here stay out of what the handler loads: see tests/test_runtime.py.
    "rich", "markdown-it-py", "mdurl", "pygments",
    # Schemas are checked by tests, not by runs.
    "jsonschema", "attrs", "jsonschema-specifications", "referencing", "rpds-py",
    # huaweicloudsdkcore wants them for its own HTTP client; its signer, all that is used here, does not.
    "pymongo", "dnspython", "requests-toolbelt", "six", "pyyaml", "defusedxml",
})  # fmt: skip
# These have no wheels: the folder of each that is the package. The C extension of crcmod has a substitute in Python.
_SOURCES = {"crcmod": "python3/crcmod", "esdk-obs-python": "obs"}

# requests takes chardet before the charset_normalizer that it asks for, and the image has one of 2017.
_SHADOWS = {"chardet.py": b"raise ImportError('this stands before the chardet of the image, so that it is not used')\n"}

_DEAD_FOLDERS = frozenset({"tests", "test", "SelfTest", "__pycache__"})
_DEAD_SUFFIXES = (".pyi", ".pyc", ".pyx", ".pxd", ".c", ".h", "/py.typed", "/test.py")
_OTHER_BINARIES = (b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")  # Windows, macOS

Files = dict[str, bytes]
"""Content by path within the package, with slashes."""


class PackageError(Exception):
    """Nothing was built; the text says why, and what to do."""


def main() -> None:
    """Build, or write the lock, as the command line says."""
    parser = argparse.ArgumentParser(description="Builds dist/apig-vpcep-audit.zip and dist/code.")
    parser.add_argument("--python-version", choices=VERSIONS, default=VERSIONS[0], help="the function's runtime")
    parser.add_argument("--arch", choices=MACHINES, default="x86_64", help="the function's processor")
    parser.add_argument("--lock", action="store_true", help=f"write {LOCK} anew instead")
    arguments = parser.parse_args()
    try:
        if arguments.lock:
            write_lock(ROOT)
        else:
            build(ROOT, ROOT / "dist", arguments.python_version, arguments.arch)
    except (PackageError, OSError) as error:
        sys.exit(f"package: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def build(root: Path, dist: Path, version: str, arch: str) -> None:
    """Build the zip and the folder for a runtime, from scratch, and say what became of them.

    Raises PackageError; then neither is there, so that nothing old is deployed for new.
    """
    withdraw(dist)
    check_lock(root)
    with TemporaryDirectory() as name:
        fetch(root / LOCK, version, arch, Path(name))
        files = assemble(root, Path(name))
    check_binaries(files, version, arch)
    packed = pack(files)
    if len(packed) > MOST_BYTES:
        raise PackageError(f"{_megabytes(len(packed))} packed; at most {_megabytes(MOST_BYTES)}: {_largest(packed)}")
    publish(dist, files, packed)
    unpacked = _megabytes(sum(map(len, files.values())))
    print(f"{dist / ZIP}: {_megabytes(len(packed))} packed, {unpacked} unpacked, for CPython {version} on {arch}")
    print(f"  largest: {_largest(packed)}")
    print(f"  sha256:  {hashlib.sha256(packed).hexdigest()}")


# The lock


def check_lock(root: Path) -> None:
    """Raise PackageError where the lock does not hold what requirements.txt wants in the function."""
    wanted, locked = _wanted(root), _pins((root / LOCK).read_text(encoding="utf-8"))
    if wanted != locked:
        names = ", ".join(sorted({name for name, _ in wanted.items() ^ locked.items()}))
        raise PackageError(f"requirements.txt and {LOCK} differ in {names}: run make lock, and look at the change")


def write_lock(root: Path) -> None:
    """Write the lock with the hashes of what the registry has for every runtime and processor."""
    wanted = _wanted(root)
    hashes: dict[str, set[str]] = {name: set() for name in wanted}
    with TemporaryDirectory() as name:
        bare = Path(name, "requirements")
        bare.write_text(_lock_text(wanted, hashes), encoding="utf-8")
        for version in VERSIONS:
            for arch in MACHINES:
                directory = Path(name, f"{version}-{arch}")
                fetch(bare, version, arch, directory)
                for path in directory.iterdir():
                    hashes[_distribution(path)].add(hashlib.sha256(path.read_bytes()).hexdigest())
    (root / LOCK).write_text(_lock_text(wanted, hashes), encoding="utf-8")
    print(f"{LOCK}: {len(wanted)} packages")


def _lock_text(wanted: dict[str, str], hashes: dict[str, set[str]]) -> str:
    lines = ["# What the function holds of requirements.txt, and the only bytes of it. Written by make lock."]
    lines.append(f"--no-binary {','.join(sorted(_SOURCES))}")
    for name, version in sorted(wanted.items()):
        lines.append(" \\\n    ".join([f"{name}=={version}", *(f"--hash=sha256:{h}" for h in sorted(hashes[name]))]))
    return "\n".join(lines) + "\n"


def _wanted(root: Path) -> dict[str, str]:
    pins = _pins((root / "requirements.txt").read_text(encoding="utf-8"))
    return {name: version for name, version in pins.items() if name not in LEFT_OUT}


def _pins(text: str) -> dict[str, str]:
    return {_normalized(n): version for n, version in re.findall(r"^([\w.-]+)==([^\s\\]+)", text, re.MULTILINE)}


def _normalized(name: str) -> str:
    """Return the name of a distribution as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


# From the registry to files


def fetch(requirements: Path, version: str, arch: str, directory: Path) -> None:
    """Download packages for a runtime, as pip is configured. Raises PackageError with what pip says."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary=:all:", "--implementation=cp"]
    command += [f"--python-version={version}", f"--abi=cp{version.replace('.', '')}"]
    command += [f"--platform={tag}_{arch}" for tag in (f"manylinux_2_{_NEWEST_GLIBC}", "manylinux2014")]
    command += [f"--dest={directory}", f"--requirement={requirements}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603  (the arguments are ours)
    if done.returncode:
        raise PackageError(f"pip could not download the packages of {requirements.name}:\n{done.stderr.strip()}")


def assemble(root: Path, packages: Path) -> Files:
    """Put together the function's own files and those of the downloaded packages, without what nothing needs there.

    Raises PackageError where two of them claim the same name at the top.
    """
    files = _own_files(root) | _SHADOWS
    owners = {_top(name): "the function" for name in files}
    for path in sorted(packages.iterdir()):
        found = _source_files(path) if path.name.endswith(".tar.gz") else _wheel_files(path)
        for top in sorted({_top(name) for name in found}):
            if top in owners:
                raise PackageError(f"{path.name} and {owners[top]} both have {top}")
            owners[top] = path.name
        files |= found
    return files


def _own_files(root: Path) -> Files:
    paths = [root / "handler.py", root / "LICENSE", *(root / "audit").rglob("*"), *(root / "rules").glob("*.json")]
    names = {path.relative_to(root).as_posix(): path for path in paths if path.is_file()}
    left_by_editors = re.compile(r"(^|/)\.|~$")
    return {name: names[name].read_bytes() for name in names if not (_is_dead(name) or left_by_editors.search(name))}


def _wheel_files(path: Path) -> Files:
    files = {}
    with zipfile.ZipFile(path) as wheel:
        for name in wheel.namelist():
            if ".data/" in name and ".data/scripts/" not in name:
                raise PackageError(f"{path.name}: {name} would have to be moved; unpacking such wheels is not written")
            if not (name.endswith("/") or ".data/" in name or _is_dead(name)):
                files[name] = wheel.read(name)
    return files


def _source_files(path: Path) -> Files:
    """Return the package in a source distribution as it is: no compiler of this machine has a part in it."""
    stem = path.name.removesuffix(".tar.gz")
    folder = f"{_SOURCES[_distribution(path)]}/"
    files = {}
    with tarfile.open(path) as archive:
        for member in archive.getmembers():
            name = member.name.partition("/")[2]
            content = archive.extractfile(member)
            if name.startswith(folder):
                name = f"{PurePosixPath(folder).name}/{name.removeprefix(folder)}"
            elif "/" not in name:
                name = f"{stem}.dist-info/{'METADATA' if name == 'PKG-INFO' else name}"
            else:
                continue
            if content and not _is_dead(name):
                files[name] = content.read()
    if not any(name.startswith(f"{PurePosixPath(folder).name}/") for name in files):
        raise PackageError(f"{path.name} has no folder {folder}; put right where it is in .ci/package.py")
    return files


def _is_dead(name: str) -> bool:
    """Whether nothing reads a file at run time. Of the metadata, name and version stay, and every licence."""
    first, _, rest = name.partition("/")
    if first.endswith(".dist-info"):
        return rest != "METADATA" and not re.match(r"licenses/|LICEN[CS]E|COPYING|NOTICE|AUTHORS", rest)
    return name.endswith(_DEAD_SUFFIXES) or not _DEAD_FOLDERS.isdisjoint(name.split("/"))


def _distribution(path: Path) -> str:
    """Return which distribution a downloaded file is: `name-version-...whl`, or `name-version.tar.gz`."""
    stem = path.name.removesuffix(".tar.gz")
    return _normalized(stem.rpartition("-")[0] if stem != path.name else stem.partition("-")[0])


def _top(name: str) -> str:
    """Return what a file is imported by."""
    return name.partition("/")[0].removesuffix(".py")


def check_binaries(files: Files, version: str, arch: str) -> None:
    """Raise PackageError with every binary that the runtime could not load."""
    endings = (".abi3.so", f".cpython-{version.replace('.', '')}-{arch}-linux-gnu.so")
    problems = []
    for name, content in sorted(files.items()):
        if content.startswith(b"\x7fELF"):
            machine = int.from_bytes(content[18:20], "little")
            glibc = max(map(int, re.findall(rb"\0GLIBC_2\.(\d+)", content)), default=0)
            if machine != MACHINES[arch]:
                problems.append(f"{name} is for another processor (ELF machine {machine})")
            elif not name.endswith(endings):
                problems.append(f"{name} is for another Python")
            elif glibc > _NEWEST_GLIBC:
                problems.append(f"{name} needs glibc 2.{glibc}")
        elif content.startswith(_OTHER_BINARIES) or re.search(r"\.(so|dylib|dll|pyd|exe)(\.|$)", name):
            problems.append(f"{name} is for another system")
    if problems:
        raise PackageError(f"not for CPython {version} on Linux {arch}: {'; '.join(problems)}")


# From files to the zip


def pack(files: Files) -> bytes:
    """Zip files so that nothing but their names and contents matters."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name)  # of 1980, the oldest time that there is
            entry.create_system = 3  # Unix, also where this runs on another system
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED, 9)
    return buffer.getvalue()


def publish(dist: Path, files: Files, packed: bytes) -> None:
    """Put folder and zip in place, each at once: whatever stops this leaves whole ones or none."""
    code, archive = dist / ".code", dist / f".{ZIP}"
    for name, content in files.items():
        path = code / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for path in [code, *code.rglob("*")]:  # the deployment zips them with these modes, and another user reads them
        path.chmod(0o755 if path.is_dir() else 0o644)
    archive.write_bytes(packed)
    code.rename(dist / "code")
    archive.replace(dist / ZIP)


def withdraw(dist: Path) -> None:
    """Remove what an earlier build left, whole or not."""
    for name in ("code", ".code"):
        if (dist / name).exists():
            shutil.rmtree(dist / name)
    for name in (ZIP, f".{ZIP}"):
        (dist / name).unlink(missing_ok=True)


def _largest(packed: bytes) -> str:
    sizes: Counter[str] = Counter()
    with zipfile.ZipFile(BytesIO(packed)) as archive:
        for entry in archive.infolist():
            sizes[entry.filename.partition("/")[0]] += entry.compress_size
    return ", ".join(f"{name} {_megabytes(size)}" for name, size in sizes.most_common(5))


def _megabytes(number: int) -> str:
    return f"{number / 1e6:.1f} MB"


if __name__ == "__main__":
    main()
