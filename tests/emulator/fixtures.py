"""Pytest fixtures: import them into a conftest, or name this module in `pytest_plugins`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.emulator.estate import Estate
from tests.emulator.inprocess import in_process

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def apig() -> Iterator[Estate]:
    """A fresh estate, served in process at the default endpoint."""
    with in_process(Estate()) as estate:
        yield estate
