"""What a function sees: the platform's context object, and a process of its own that can be killed.

Read from the vendor's developer guide, "Python", "Context methods". As a program, `python -m tests.emulator.runtime
MODULE:HANDLER` takes `{"event", "context"}` on standard input and prints `{"result"}` or `{"error"}`; whatever the
handler prints goes to standard error.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Context:
    """The documented methods and nothing else; `values` has one entry for each, the end of the run as epoch seconds."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def getSecurityAccessKey(self) -> str | None:  # noqa: N802
        return self._text("access")

    def getSecuritySecretKey(self) -> str | None:  # noqa: N802
        return self._text("secret")

    def getSecurityToken(self) -> str | None:  # noqa: N802
        return self._text("security_token")

    def getToken(self) -> str | None:  # noqa: N802
        return self._text("token")

    def getUserData(self, key: str) -> str | None:  # noqa: N802
        found: str | None = self._values["user_data"].get(key)
        return found

    def getProjectID(self) -> str | None:  # noqa: N802
        return self._text("project_id")

    def getRequestID(self) -> str | None:  # noqa: N802
        return self._text("request_id")

    def getRemainingTimeInMilliSeconds(self) -> int:  # noqa: N802
        return max(0, int((self._values["ends"] - time.time()) * 1000))

    def getFunctionName(self) -> str | None:  # noqa: N802
        return self._text("name")

    def getVersion(self) -> str | None:  # noqa: N802
        return self._text("version")

    def getMemorySize(self) -> int:  # noqa: N802
        return int(self._values["memory"])

    def getLogger(self) -> logging.Logger:  # noqa: N802
        return logging.getLogger("function")

    def _text(self, name: str) -> str | None:
        found: str | None = self._values[name]
        return found


def describe(error: BaseException) -> dict[str, str]:
    """The documented answer of a function that raised."""
    return {"errorMessage": str(error), "errorType": type(error).__name__}


def load_handler(text: str) -> Callable[[Any, Context], Any]:
    """The function that `MODULE:NAME` means. Raises ImportError, AttributeError."""
    module, _, name = text.partition(":")
    handler: Callable[[Any, Context], Any] = getattr(importlib.import_module(module), name)
    return handler


def main() -> None:
    """Run the handler once."""
    given = json.load(sys.stdin)
    # The answer keeps standard output for itself.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        try:
            text = json.dumps({"result": load_handler(sys.argv[1])(given["event"], Context(given["context"]))})
        except Exception as error:  # noqa: BLE001 - the platform answers for whatever a handler raises
            traceback.print_exc()
            text = json.dumps({"error": describe(error)})
        answers.write(text)


if __name__ == "__main__":
    main()
