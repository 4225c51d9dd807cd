"""What `make package` puts into the zip, and that the same sources always give the same bytes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import package
from tests.runtime import find_python

PACKAGES = {
    "Crypto", "certifi", "charset_normalizer", "crcmod", "huaweicloudsdkcore", "idna", "jinja2", "markupsafe",
    "msgspec", "obs", "pyasn1", "requests", "simplejson", "typing_extensions.py", "urllib3",
}  # fmt: skip
OWN = {"handler.py", "audit", "rules", "LICENSE", "chardet.py"}
DEAD = r"\.(pyi|pyc|pyx|c|h|so\.\d)$|py\.typed|__pycache__|(^|/)(bin|tests?|SelfTest)/|RECORD|rules/README"
BUILD = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1] + "/.ci")
import package
os.umask(int(sys.argv[4], 8))
files = package.assemble(Path(sys.argv[1]), Path(sys.argv[2]))
package.publish(Path(sys.argv[3]), files, package.pack(files))
"""


@pytest.fixture(scope="session")
def contents(built: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(built / package.ZIP) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the sources, with no packages in the lock."""
    root = tmp_path / "a copy"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("audit", "rules", ".ci"):
        shutil.copytree(package.ROOT / name, root / name, ignore=ignore)
    for name in ("handler.py", "LICENSE", "requirements.txt"):
        shutil.copy(package.ROOT / name, root)
    return root


def elf(machine: int = 62, needs: bytes = b"\0GLIBC_2.14\0") -> bytes:
    return b"\x7fELF\2\1\1".ljust(18, b"\0") + machine.to_bytes(2, "little") + needs


def test_the_same_sources_give_the_same_bytes(sources, tmp_path):
    """Wherever they are, whoever's files they are, and whichever Python packs them."""
    packages = tmp_path / "packages"
    packages.mkdir()
    with zipfile.ZipFile(packages / "one-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("one/__init__.py", "1\n" * 5000)
        wheel.writestr("one/ü.txt", os.urandom(5000))
    (sources / "audit" / "__pycache__").mkdir()
    (sources / "audit" / "__pycache__" / "app.cpython-310.pyc").write_bytes(b"old")
    (sources / "handler.py").touch()
    found = set()
    pythons = {sys.executable, *filter(None, map(find_python, ("3.10", "3.11", "3.12", "3.13")))}
    for number, python in enumerate(sorted(pythons)):
        root, umask = [(package.ROOT, "022"), (sources, "077")][number % 2]
        dist = tmp_path / f"dist{number}"
        subprocess.run([python, "-I", "-c", BUILD, root, packages, dist, umask], check=True)
        found.add((dist / package.ZIP).read_bytes())
        modes = {oct(path.stat().st_mode)[-3:] for path in (dist / "code").rglob("*")}
        assert modes == {"755", "644"}
    assert len(found) == 1


def test_building_anew_gives_what_was_built(built, sources, tmp_path):
    """From the registry to the zip, by another Python where there is one."""
    python = find_python("3.13") or find_python("3.12") or sys.executable
    subprocess.run([python, sources / ".ci" / "package.py"], check=True, capture_output=True)
    assert (sources / "dist" / package.ZIP).read_bytes() == (built / package.ZIP).read_bytes()


def test_the_zip_has_the_function_and_its_packages_and_nothing_else(contents):
    """One name at the top for each, with its metadata and licence."""
    tops = {name.partition("/")[0] for name in contents}
    described = {top for top in tops if top.endswith(".dist-info")}
    assert tops - described == OWN | PACKAGES
    assert len(described) == len(PACKAGES)
    # The vendor's OBS client comes without the text of its licence; its metadata names it (Apache-2.0).
    licensed = {
        name.partition("/")[0] for name in contents if re.search(r"dist-info/(licenses/)?(LICEN|COPYING)", name)
    }
    assert {top.partition("-")[0] for top in described - licensed} == {"esdk_obs_python"}
    assert all(f"{top}/METADATA" in contents for top in described)


def test_all_of_the_product_is_in_it_unchanged(contents):
    """Rules, too: a run names their hashes."""
    files = [*(package.ROOT / "audit").rglob("*"), *(package.ROOT / "rules").glob("*.json")]
    wanted = {
        path.relative_to(package.ROOT).as_posix(): path for path in files if path.suffix in {".py", ".json", ".j2"}
    }
    assert len(wanted) > 80
    assert {name: contents[name] for name in wanted} == {name: path.read_bytes() for name, path in wanted.items()}
    assert {name for name in contents if name.startswith(("audit/", "rules/"))} == wanted.keys()


def test_there_is_no_dead_weight(contents):
    """Nothing that only developers, compilers or type checkers read."""
    assert [name for name in contents if re.search(DEAD, name)] == []


def test_times_modes_and_order_are_fixed(built):
    with zipfile.ZipFile(built / package.ZIP) as archive:
        entries = archive.infolist()
    assert {(entry.date_time, oct(entry.external_attr >> 16)) for entry in entries} == {
        ((1980, 1, 1, 0, 0, 0), "0o100644")
    }
    assert [entry.filename for entry in entries] == sorted(entry.filename for entry in entries)


def test_the_folder_is_the_zip_unpacked(built, contents):
    """`template.yml` deploys the folder."""
    found = {
        path.relative_to(built / "code").as_posix(): path for path in (built / "code").rglob("*") if path.is_file()
    }
    assert {name: path.read_bytes() for name, path in found.items()} == contents
    assert sorted(path.name for path in built.iterdir()) == [package.ZIP, "code"]


def test_every_binary_is_the_runtimes(contents):
    """There are some: msgspec and pycryptodome do not work without."""
    assert sum(content.startswith(b"\x7fELF") for content in contents.values()) > 20
    package.check_binaries(contents, "3.10", "x86_64")
    with pytest.raises(package.PackageError, match=r"msgspec/_core\S+ is for another Python"):
        package.check_binaries(contents, "3.12", "x86_64")
    with pytest.raises(package.PackageError, match=r"msgspec/_core\S+ is for another processor \(ELF machine 62\)"):
        package.check_binaries(contents, "3.10", "aarch64")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.cpython-310-x86_64-linux-gnu.so", elf(), ""),
        ("a.abi3.so", elf(), ""),
        ("a.abi3.so", elf(needs=b"\0GLIBC_2.28\0GLIBC_2.4\0"), "needs glibc 2.28"),
        ("a.cpython-311-x86_64-linux-gnu.so", elf(), "is for another Python"),
        ("a.so", elf(), "is for another Python"),
        ("a", elf(), "is for another Python"),
        ("a.abi3.so", elf(183), "is for another processor"),
        ("a.abi3.so", b"\xcf\xfa\xed\xfe", "is for another system"),
        ("a.pyd", b"MZ", "is for another system"),
        ("a.so.1", b"INPUT(libx.so)", "is for another system"),
        ("a.json", b"{}", ""),
    ],
)
def test_a_binary_of_another_place_is_refused(name, content, problem):
    """By what is in it and by what it is called."""
    if not problem:
        package.check_binaries({name: content}, "3.10", "x86_64")
        return
    with pytest.raises(package.PackageError, match=re.escape(f"{name} {problem}")):
        package.check_binaries({name: content}, "3.10", "x86_64")


@pytest.mark.parametrize(
    "name", ["handler.py", "audit/x.py", "rules/__init__.py", "two/x.py", "two.py", "chardet/x.py"]
)
def test_two_owners_of_a_name_are_refused(name, sources, tmp_path):
    """One of them would hide the other."""
    for wheel, member in (("a_two-1.0-py3-none-any.whl", "two/__init__.py"), ("b-1.0-py3-none-any.whl", name)):
        (tmp_path / "packages").mkdir(exist_ok=True)
        with zipfile.ZipFile(tmp_path / "packages" / wheel, "w") as archive:
            archive.writestr(member, "")
    with pytest.raises(package.PackageError, match=r"b-1.0-py3-none-any.whl and .* both have "):
        package.assemble(sources, tmp_path / "packages")


def test_a_package_of_other_bytes_is_refused_and_nothing_is_left(built, sources):
    """Not even what was built before, which could be deployed for new."""
    (sources / "requirements.txt").write_text("idna==3.20\n")
    (sources / package.LOCK).write_text(f"idna==3.20 --hash=sha256:{'0' * 64}\n")
    dist = sources / "dist"
    (dist / "code").mkdir(parents=True)
    (dist / package.ZIP).write_bytes(b"old")
    with pytest.raises(package.PackageError, match=r"(?s)pip could not download.*DO NOT MATCH.*idna"):
        package.build(sources, dist, "3.10", "x86_64")
    assert list(dist.iterdir()) == []
    assert built.exists()  # so a registry can be reached


def test_a_package_that_is_too_large_says_what_dominates(built, sources, monkeypatch):
    """Cold starts fetch all of it."""
    monkeypatch.setattr(package, "fetch", lambda *_arguments: None)
    monkeypatch.setattr(package, "MOST_BYTES", 100_000)
    with pytest.raises(package.PackageError, match=r"0\.\d MB packed; at most 0\.1 MB: audit 0\.\d MB, rules 0\.\d MB"):
        package.build(sources, sources / "dist", "3.10", "x86_64")
    assert not (sources / "dist").exists()
    assert (built / package.ZIP).stat().st_size < 5_000_000


def test_whatever_stops_a_build_leaves_no_half_zip(sources, monkeypatch):
    """Here at the last step of all; the next build clears up."""
    dist = sources / "dist"

    def stop(*_arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(Path, "rename", stop)
        with pytest.raises(KeyboardInterrupt):
            package.publish(dist, {"a/b.py": b""}, b"zip")
    assert not {package.ZIP, "code"} & {path.name for path in dist.iterdir()}
    package.withdraw(dist)
    assert list(dist.iterdir()) == []


def test_a_lock_that_is_behind_the_requirements_is_refused(sources):
    """It is named what to do."""
    requirements = sources / "requirements.txt"
    requirements.write_text(requirements.read_text().replace("idna==3.20", "idna==3.21"))
    said = subprocess.run([sys.executable, sources / ".ci" / "package.py"], check=False, capture_output=True, text=True)
    assert said.returncode == 1
    assert said.stderr == (
        "package: requirements.txt and .ci/package.lock differ in idna: run make lock, and look at the change\n"
    )


def test_every_requirement_of_a_requirement_is_pinned():
    """Or an installation next year would not be this one."""
    pins = package._pins((package.ROOT / "requirements.txt").read_text())
    for name in pins:
        for text in distribution(name).requires or ():
            wanted = Requirement(text)
            if not wanted.marker or wanted.marker.evaluate({"extra": ""}):
                assert package._normalized(wanted.name) in pins, f"{name} requires {text}"
    assert pins.keys() >= package.LEFT_OUT


def test_every_module_is_imported_from_the_folder_alone(built):
    """By a bare interpreter that has no other packages."""
    python = find_python("3.10")
    if not python:
        pytest.skip("there is no CPython 3.10 for x86_64, the runtime of template.yml, on this machine")
    code = built / "code"
    names = [path.relative_to(code).with_suffix("") for path in (code / "audit").rglob("*.py")]
    modules = sorted(".".join(name.parts).removesuffix(".__init__") for name in names if name.name != "__main__")
    script = "import sys, json, importlib; sys.path.insert(0, sys.argv[1])\n"
    script += "for name in ['handler', *json.loads(sys.argv[2])]: importlib.import_module(name)\n"
    subprocess.run([python, "-ISBc", script, code, json.dumps(modules)], check=True)
