"""The in-process front end: requests made with `requests` are answered without a socket."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import responses
from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import ReadTimeout

from tests.emulator.api import exchange
from tests.emulator.wire import Answer, Request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from requests import PreparedRequest

    from tests.emulator.estate import Estate

ENDPOINT = "https://apig.cn-north-4.myhuaweicloud.com"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@contextmanager
def in_process(estate: Estate, endpoint: str = ENDPOINT) -> Iterator[Estate]:
    """Answer what is sent to `endpoint` from `estate`, as a context manager or a decorator.

    Loopback addresses are reached as ever; any other address refuses the connection.
    """

    def respond(prepared: PreparedRequest) -> tuple[int, dict[str, str], bytes]:
        with exchange(estate, _as_request(prepared)) as answer:
            return _deliver(answer, prepared)

    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.add_passthru("http://127.0.0.1:")
        for method in METHODS:
            mock.add_callback(method, re.compile(re.escape(endpoint) + "/.*"), callback=respond, content_type=None)
        try:
            yield estate
        finally:
            estate.functions.stop()


def _as_request(prepared: PreparedRequest) -> Request:
    url = urlsplit(str(prepared.url))
    headers = {"host": url.netloc}
    headers.update({name.lower(): _text(value) for name, value in prepared.headers.items()})
    body = prepared.body or b""
    return Request(
        str(prepared.method), url.path, url.query, headers, body.encode() if isinstance(body, str) else bytes(body)
    )


def _deliver(answer: Answer, prepared: PreparedRequest) -> tuple[int, dict[str, str], bytes]:
    """Raises what a client over a socket would see."""
    timeout = _read_timeout(prepared)
    if timeout is not None and answer.delay > timeout:
        time.sleep(timeout)
        raise ReadTimeout(f"Read timed out. (read timeout={timeout})", request=prepared)
    if answer.delay:
        time.sleep(answer.delay)
    if answer.broken == "reset":
        raise RequestsConnectionError("('Connection aborted.', ConnectionResetError(104, 'Connection reset by peer'))")
    if timeout is not None and answer.drip > timeout:
        time.sleep(timeout)
        raise RequestsConnectionError(f"Read timed out. (read timeout={timeout})", request=prepared)
    time.sleep(answer.drip * len(answer.body))
    return answer.status, {**answer.headers, "Content-Length": str(len(answer.body))}, answer.sent


def _read_timeout(prepared: Any) -> float | None:
    timeout: Any = prepared.req_kwargs.get("timeout")
    seconds: float | None = timeout[1] if isinstance(timeout, tuple) else timeout
    return seconds


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
