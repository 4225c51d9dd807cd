"""An independent emulator of the vendor's API gateway: one backend (`Estate`), two front ends.

`serve` puts an estate on a real port, `in_process` answers `requests` without one. It is written from the vendor's
API document and imports nothing of the product, so that the two readings of the document check each other.
"""

from tests.emulator.api import Call
from tests.emulator.connection import STATUSES, Connection
from tests.emulator.estate import Estate, Logged
from tests.emulator.faults import (
    Body,
    Busy,
    Drip,
    Forbidden,
    HtmlError,
    IamError,
    NotFound,
    Oversize,
    Redirect,
    Reset,
    ServerError,
    Slow,
    Throttled,
    Truncated,
    Unauthorized,
)
from tests.emulator.gateway import Gateway
from tests.emulator.inprocess import ENDPOINT, in_process
from tests.emulator.receiver import Delivery, Receiver, receive
from tests.emulator.server import ApigServer, serve
from tests.emulator.wire import Answer, Request

__all__ = [
    "ENDPOINT",
    "STATUSES",
    "Answer",
    "ApigServer",
    "Body",
    "Busy",
    "Call",
    "Connection",
    "Delivery",
    "Drip",
    "Estate",
    "Forbidden",
    "Gateway",
    "HtmlError",
    "IamError",
    "Logged",
    "NotFound",
    "Oversize",
    "Receiver",
    "Redirect",
    "Request",
    "Reset",
    "ServerError",
    "Slow",
    "Throttled",
    "Truncated",
    "Unauthorized",
    "in_process",
    "receive",
    "serve",
]
