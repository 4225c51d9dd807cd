"""An independent emulator of the vendor's API gateway, identity service and functions: one backend (`Estate`), two
front ends.

`serve` puts an estate on a real port, `in_process` answers `requests` without one. It is written from the vendor's
API document and imports nothing of the product, so that the two readings of the document check each other.
"""

from tests.emulator.api import Call
from tests.emulator.broken import broken
from tests.emulator.connection import STATUSES, Connection
from tests.emulator.estate import Estate, Logged, Project
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
from tests.emulator.functions import Function, Invocation, Run, once, scripted, seeded
from tests.emulator.gateway import Gateway
from tests.emulator.iam import Agency, Key
from tests.emulator.inprocess import ENDPOINT, in_process
from tests.emulator.receiver import Delivery, Receiver, receive
from tests.emulator.server import ApigServer, serve
from tests.emulator.wire import Answer, Request

__all__ = [
    "ENDPOINT",
    "STATUSES",
    "Agency",
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
    "Function",
    "Gateway",
    "HtmlError",
    "IamError",
    "Invocation",
    "Key",
    "Logged",
    "NotFound",
    "Oversize",
    "Project",
    "Receiver",
    "Redirect",
    "Request",
    "Reset",
    "Run",
    "ServerError",
    "Slow",
    "Throttled",
    "Truncated",
    "Unauthorized",
    "broken",
    "in_process",
    "once",
    "receive",
    "scripted",
    "seeded",
    "serve",
]
