"""The HTTP front end: an estate on a real port, for processes and for real sockets."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tests.emulator.api import exchange
from tests.emulator.loopback import LoopbackServer

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from tests.emulator.estate import Estate


class ApigServer(LoopbackServer):
    """An estate served over HTTP."""

    def __init__(self, estate: Estate, port: int = 0) -> None:
        super().__init__(partial(exchange, estate), port)
        self.estate = estate

    @property
    def url(self) -> str:
        """The endpoint, as a client is configured with it."""
        return self.origin

    def stop(self) -> None:
        """Stop the functions of the estate, then the server."""
        try:
            self.estate.functions.stop()
        finally:
            super().stop()

    def environment(self) -> dict[str, str]:
        """The settings of a process that is to read the estate here."""
        return self.estate.environment(self.url)


def serve(estate: Estate, port: int = 0) -> AbstractContextManager[ApigServer]:
    """Serve an estate on 127.0.0.1 while the block runs; port 0 takes a free one."""
    return ApigServer(estate, port)
