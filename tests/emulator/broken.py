"""Endpoints that are not there: a region that is down, as a client meets it."""

from __future__ import annotations

import socket
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Literal

from tests.emulator.loopback import LoopbackServer
from tests.emulator.wire import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator

How = Literal["refuses", "resets", "hangs"]
FOREVER = 86400.0


@contextmanager
def broken(how: How) -> Iterator[str]:
    """The URL of an endpoint on 127.0.0.1 that refuses connections, resets them, or never answers."""
    if how == "refuses":
        # Taken, so that nobody else can have it, but not listening.
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            yield f"http://127.0.0.1:{taken.getsockname()[1]}"
        return
    answer = Answer(0, broken="reset", delay=FOREVER if how == "hangs" else 0.0)
    with LoopbackServer(lambda _: nullcontext(answer)) as server:
        yield server.origin
