"""A threaded HTTP/1.1 server on 127.0.0.1 for any function from request to answer; knows no service.

It keeps connections alive, and misbehaves exactly as an answer asks it to. When it stops, nothing is left behind.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any

from tests.emulator.wire import Answer, Request

if TYPE_CHECKING:
    from types import TracebackType

Application = Callable[[Request], AbstractContextManager[Answer]]
"""Gives the answer to a request; the context lasts until it is sent."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_PATIENCE = 5.0


class LoopbackServer:
    """Serves `application` between `with` and its end, which waits until every thread and socket is gone.

    An exception in the application drops the client's connection, and is raised again when the server stops.
    """

    def __init__(self, application: Application, port: int = 0) -> None:
        self._server = _Server(application, port)
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def origin(self) -> str:
        """`http://127.0.0.1:port`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and raise the first exception that the application raised."""
        self._server.shutdown()
        self._thread.join(_PATIENCE)
        self._server.hang_up()
        self._server.server_close()
        if self._server.failures:
            raise self._server.failures[0]

    def __enter__(self) -> Any:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Server(TCPServer):
    """One thread a connection, all of them known, so that they can be waited for."""

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, application: Application, port: int) -> None:
        self.application = application
        self.stopping = Event()
        self.failures: list[BaseException] = []
        self._clients: dict[socket.socket, Thread] = {}
        self._lock = Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = Thread(target=self._serve_client, args=(request, client_address), daemon=True)
        with self._lock:
            self._clients[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        # The inherited method ends the stream in good order first, which would hide a reset.
        request.close()

    def hang_up(self) -> None:
        """End every open connection and wait for its thread."""
        self.stopping.set()
        with self._lock:
            clients = dict(self._clients)
        for client in clients:
            with suppress(OSError):  # it may have gone by itself
                client.shutdown(socket.SHUT_RDWR)
        for thread in clients.values():
            thread.join(_PATIENCE)

    def _serve_client(self, client: socket.socket, address: Any) -> None:
        try:
            self.finish_request(client, address)
        except OSError:
            pass  # the client hung up first, as clients under test do
        except BaseException as error:  # noqa: BLE001 - kept, and raised when the server stops
            self.failures.append(error)
        finally:
            with self._lock:
                self._clients.pop(client, None)
            self.shutdown_request(client)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _exchange(self) -> None:
        path, _, query = self.path.partition("?")
        headers: dict[str, str] = {}
        for name, value in self.headers.items():
            key = name.lower()
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
        if "transfer-encoding" in headers:
            self.send_error(411)  # clients under test state the length
            return
        body = self.rfile.read(int(headers.get("content-length", "0")))
        with self.server.application(Request(self.command, path, query, headers, body)) as answer:
            if answer.delay:
                self.server.stopping.wait(answer.delay)
            if answer.broken == "reset":
                self._reset()
            else:
                self._send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _exchange  # noqa: N815 - the base class finds them by name

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.close_connection = True

    def _send(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
            self.send_header(name, value)
        if answer.broken == "truncated":
            self.close_connection = True
        sent = b"" if self.command == "HEAD" else answer.sent
        if not answer.drip:
            # One write, so that a small answer is one packet.
            self._headers_buffer.append(b"\r\n" + sent)  # type: ignore[attr-defined]
            self.flush_headers()
            return
        self.end_headers()
        for position in range(len(sent)):
            if self.server.stopping.wait(answer.drip):
                return
            self.wfile.write(sent[position : position + 1])

    def log_message(self, *_: Any) -> None:
        """Nothing: tests read the estate's log."""
