"""Errors of the emulated service: HTTP status, code, message and the shape of the body.

The texts of 7102, 7106, 7314 and 9007 are verbatim from the vendor's API document (2023-11-30). The others follow
the vendor's list of error codes; their wording is not documented for this call.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Literal

from tests.emulator.wire import Answer, json_answer

if TYPE_CHECKING:
    from collections.abc import Mapping

Shape = Literal["service", "gateway", "iam"]


class ApiError(Exception):
    """Ends a request with an error answer.

    `shape` is the layout of the body: `service` has `error_code` and `error_msg`; `gateway` adds `request_id`;
    `iam` nests `code` and `message` in `error`, and a `title` where the code is the status.
    """

    def __init__(
        self,
        status: int,
        code: str | int,
        message: str,
        *,
        shape: Shape = "service",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.shape = shape
        self.headers = dict(headers or {})

    def answer(self, request_id: str) -> Answer:
        """The error as an answer to the request `request_id`."""
        if self.shape == "iam":
            error = {"code": self.code, "message": self.message}
            title = {"title": HTTPStatus(self.status).phrase} if self.code == self.status else {}
            return json_answer(self.status, {"error": {**error, **title}}, self.headers)
        body = {"error_code": self.code, "error_msg": self.message}
        if self.shape == "gateway":
            body["request_id"] = request_id
        return json_answer(self.status, body, self.headers)


class RefusalError(ApiError):
    """A request that the emulator does not know how to answer: recorded in `Estate.refusals`."""


UNAUTHORIZED = {
    "APIC.7102": "Incorrect token or token resolution failed",
    "APIG.0301": "Incorrect IAM authentication information: verify aksk signature fail",
}
FORBIDDEN = {"APIC.7106": "No permissions to request for the method"}
NOT_FOUND = {
    "APIC.7302": "Instance not found",
    "APIC.7314": "Endpoint service not found",
    "FSS.1051": "Not found the function",
}
SERVER_ERROR = {
    "APIC.9000": "Internal server error",
    "APIC.9007": "Failed to execute VCPEP request",
    "APIG.9008": "Too many requests",
}


def unauthorized(code: str = "APIC.7102") -> ApiError:
    """401; codes that begin with APIG come from the gateway in front of the service."""
    return ApiError(401, code, UNAUTHORIZED.get(code, "Unauthorized"), shape=_shape(code))


def forbidden(code: str = "APIC.7106") -> ApiError:
    """403."""
    return ApiError(403, code, FORBIDDEN.get(code, "No permissions"), shape=_shape(code))


def not_found(code: str) -> ApiError:
    """404 of a thing that the service knows about but does not have; an unknown route is a refusal."""
    return ApiError(404, code, NOT_FOUND.get(code, "Resource not found"), shape=_shape(code))


def iam(status: int, message: str) -> ApiError:
    """Any error of the identity service."""
    return ApiError(status, status, message, shape="iam")


def iam_refusal(message: str) -> RefusalError:
    """400 of the identity service for a body that its document does not describe."""
    return RefusalError(400, 400, f"Request body is invalid: {message}", shape="iam")


def bad_event(message: str, status: int = 400) -> RefusalError:
    """400 for a body that FunctionGraph does not take as an event; 413, of which the code is not documented."""
    return RefusalError(status, f"FSS.0{status}", f"Invalid request: {message}")


def busy() -> ApiError:
    """409: the gateway is being changed."""
    return ApiError(409, "APIC.7701", "The instance is busy. Try again later")


def server_error(code: str = "APIC.9007") -> ApiError:
    """500."""
    return ApiError(500, code, SERVER_ERROR.get(code, "Internal server error"), shape=_shape(code))


def throttled(limit: int = 10, seconds: float = 1, headers: Mapping[str, str] | None = None) -> ApiError:
    """429, from the gateway in front of the service."""
    unit = "second" if seconds == 1 else "seconds"
    message = (
        f"The throttling threshold has been reached: policy ip over ratelimit,limit:{limit},time:{seconds:g} {unit}"
    )
    return ApiError(429, "APIG.0308", message, shape="gateway", headers=headers)


def bad_signature(reason: str) -> ApiError:
    """401 for an access key, a signature or a token that did not hold."""
    return ApiError(401, "APIG.0301", f"Incorrect IAM authentication information: {reason}", shape="gateway")


def bad_parameter(message: str) -> RefusalError:
    """400 for a parameter or body that the vendor's API document does not describe."""
    return RefusalError(400, "APIC.2011", f"Invalid parameter value: {message}")


def no_such_api(status: int, message: str) -> RefusalError:
    """404 or 405 for a route that the emulator does not have."""
    return RefusalError(
        status, "APIG.0101", f"The API does not exist or has not been published: {message}", shape="gateway"
    )


def _shape(code: str) -> Shape:
    return "gateway" if code.startswith(("APIG.", "APIGW.")) else "service"
