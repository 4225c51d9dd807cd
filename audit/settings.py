"""Reads the settings (environment, the function's user data, flags) and the run options; all problems at once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from audit.errors import OptionsError, UsageError
from audit.huawei.apig import endpoint_of
from audit.render.generic import parse_secret
from audit.ruleset.problems import kind_of, nearest
from audit.webhook import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

PREFIX = "AUDIT_"
RULES_BESIDE_HANDLER = Path(__file__).resolve().parent.parent / "rules"
LONGEST_RUN = 72 * 3600
MOST_CONCURRENCY = 256
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_SDK_NAMES = ("HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_SK", "HUAWEICLOUD_SDK_SECURITY_TOKEN")


@dataclass(frozen=True)
class Setting:
    """One setting: `name` without the prefix; a `secret` has no flag, as flags show in the list of processes."""

    name: str
    meaning: str
    default: str
    secret: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.name.lower().replace("_", "-")


SETTINGS = (
    Setting("REGION", "region, e.g. `cn-north-4`", "required unless the endpoint is given"),
    Setting("PROJECT_ID", "project to audit", "the function's own project; required elsewhere"),
    Setting("GATEWAYS", "comma-separated gateway ids", "all gateways of the project"),
    Setting("APIG_ENDPOINT", "base URL of the API", "`https://apig.{region}.myhuaweicloud.com`"),
    Setting("RULES_DIR", "directory of the rules (`*.json`, not recursive)", "`rules/` beside `handler.py`"),
    Setting("POLICY", "policy file (lists, parameters)", "`policy.json` in the rules directory, if there"),
    Setting("STORE", "where runs are kept: `file:///dir` or a directory", "`./out`; required in the function"),
    Setting("WEBHOOK_URL", "receiver of messages", "none", secret=True),
    Setting("WEBHOOK_KIND", "kind of the receiver; this version knows `generic`", "required with a URL"),
    Setting("WEBHOOK_SECRET", "signing secret, `whsec_` and base64", "none: unsigned", secret=True),
    Setting("TOKEN", "IAM token, sent as `X-Auth-Token`, instead of an access key", "none", secret=True),
    Setting("CONCURRENCY", "requests in flight", "16"),
    Setting("TIME_LIMIT", "seconds for a run", "600; in the function the remaining time less 20 s"),
    Setting("LOG_LEVEL", f"one of {', '.join(_LOG_LEVELS)}", "INFO"),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True)
class Credentials:
    """An access key (temporary ones with `security_token`) or a token. Nothing here is ever printed."""

    ak: str = field(default="", repr=False)
    sk: str = field(default="", repr=False)
    security_token: str | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)


@dataclass(frozen=True)
class Settings:
    """Everything a run is told from outside, checked. `time_limit` in seconds."""

    region: str
    project_id: str
    gateways: tuple[str, ...]
    endpoint: str
    rules_dir: Path
    policy: Path | None
    store: Path
    receivers: tuple[Receiver, ...]
    credentials: Credentials
    concurrency: int
    time_limit: float
    log_level: str

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every text that must never be shown."""
        keys = self.credentials
        texts = [keys.ak, keys.sk, keys.security_token, keys.token]
        texts += [text for receiver in self.receivers for text in (receiver.url, receiver.secret)]
        return tuple(text for text in texts if text)


@dataclass(frozen=True)
class Surroundings:
    """What differs between a terminal and the function: defaults, and where keys come from."""

    project_id: str = ""
    store: str = "./out"
    time_limit: float = 600.0
    most_time: float = LONGEST_RUN
    keys: Credentials | None = None


def load_settings(environment: Mapping[str, str], around: Surroundings, flags: Mapping[str, str]) -> Settings:
    """Check and complete the settings; `flags` (by name without prefix) win over `environment`.

    Empty values count as absent. Raises UsageError with every problem.
    """
    reader = _Reader(environment, flags)
    reader.check_names()
    region = reader.text("REGION", r"[a-z0-9-]{1,64}", 'a region such as "cn-north-4"')
    endpoint = reader.url("APIG_ENDPOINT")
    if not region and not endpoint and not reader.has("REGION") and not reader.has("APIG_ENDPOINT"):
        reader.note("REGION", 'is missing; set it to the region of the gateways, e.g. "cn-north-4"')
    project_id = reader.text("PROJECT_ID", r"[A-Za-z0-9_-]{1,64}", "a project id") or around.project_id
    if not project_id and not reader.has("PROJECT_ID"):
        reader.note("PROJECT_ID", "is missing; the console shows it under My Credentials")
    store = reader.store(around.store)
    settings = Settings(
        region=region,
        project_id=project_id,
        gateways=reader.ids("GATEWAYS"),
        endpoint=endpoint or endpoint_of(region),
        rules_dir=Path(reader.get("RULES_DIR") or RULES_BESIDE_HANDLER),
        policy=Path(reader.get("POLICY")) if reader.get("POLICY") else None,
        store=store,
        receivers=reader.receivers(),
        credentials=reader.credentials(around.keys),
        concurrency=int(reader.number("CONCURRENCY", 16, 1, MOST_CONCURRENCY)),
        time_limit=min(around.most_time, reader.number("TIME_LIMIT", around.time_limit, 1, LONGEST_RUN)),
        log_level=reader.log_level(),
    )
    if reader.problems:
        raise UsageError(reader.problems)
    return settings


class _Reader:
    """Looks settings up and notes what is wrong with them; never writes a secret's value into a problem."""

    def __init__(self, environment: Mapping[str, str], flags: Mapping[str, str]) -> None:
        self._environment = environment
        self._flags = flags
        self.problems: list[str] = []

    def get(self, name: str) -> str:
        return (self._flags.get(name) or self._environment.get(PREFIX + name) or "").strip()

    def has(self, name: str) -> bool:
        return bool(self.get(name))

    def note(self, name: str, what: str) -> None:
        label = f"{_BY_NAME[name].flag} " if self._flags.get(name) else f"{PREFIX}{name} "
        self.problems.append(label + what)

    def check_names(self) -> None:
        """Note unknown names: a misspelt webhook would mean silence for ever."""
        known = [PREFIX + name for name in _BY_NAME]
        for name, value in sorted(self._environment.items()):
            if name.startswith(PREFIX) and name not in known and value:
                tail = nearest(name, known) or f"; known: {', '.join(known)}"
                self.problems.append(f"{name} is not a setting{tail}")

    def text(self, name: str, pattern: str, what: str) -> str:
        value = self.get(name)
        if value and not re.fullmatch(pattern, value):
            self.note(name, f"is not {what}: {value!r}")
            return ""
        return value

    def ids(self, name: str) -> tuple[str, ...]:
        parts = [part.strip() for part in self.get(name).split(",")]
        if self.has(name) and not all(parts):
            self.note(name, "holds an empty id; separate ids by one comma")
        return _ids(filter(None, parts), lambda what: self.note(name, what))

    def number(self, name: str, default: float, least: int, most: int) -> float:
        value = self.get(name)
        if not value:
            return default
        if not re.fullmatch(r"[0-9]{1,9}", value) or not least <= int(value) <= most:
            self.note(name, f"must be a whole number from {least} to {most}, not {value!r}")
            return default
        return int(value)

    def log_level(self) -> str:
        value = self.get("LOG_LEVEL").upper() or "INFO"
        if value not in _LOG_LEVELS:
            self.note("LOG_LEVEL", f"must be one of {', '.join(_LOG_LEVELS)}, not {value!r}")
        return value

    def url(self, name: str) -> str:
        """Read a base URL: https (http to loopback only), a host and perhaps a port, nothing else."""
        value = self.get(name)
        if not value:
            return ""
        problem = _url_problem(value)
        parts = urlsplit(value) if not problem else None
        if parts and (parts.path.rstrip("/") or parts.query):
            problem = "must be a scheme and a host only, without path or query"
        if problem:
            self.note(name, problem)
            return ""
        return value.rstrip("/")

    def store(self, default: str) -> Path:
        value = self.get("STORE") or default
        if not value:
            self.note("STORE", 'is missing; in the function say where runs are kept, e.g. "file:///mnt/evidence"')
            return Path()
        scheme, mark, rest = value.partition("://")
        if not mark:
            return Path(value)
        if scheme != "file" or not rest.startswith("/"):
            self.note("STORE", f'must be "file:///dir" or a directory in this version, not {value!r}')
            return Path()
        return Path(unquote(rest))

    def receivers(self) -> tuple[Receiver, ...]:
        url, kind, secret = self.get("WEBHOOK_URL"), self.get("WEBHOOK_KIND"), self.get("WEBHOOK_SECRET")
        if not url:
            for name, value in (("WEBHOOK_KIND", kind), ("WEBHOOK_SECRET", secret)):
                if value:
                    self.note(name, f"is set, but {PREFIX}WEBHOOK_URL is not")
            return ()
        if problem := _url_problem(url):
            self.note("WEBHOOK_URL", problem)
        if not kind:
            self.note("WEBHOOK_KIND", "is missing; this version knows generic")
        elif kind != "generic":
            self.note("WEBHOOK_KIND", f"must be generic in this version, not {kind!r}")
        try:
            if secret:
                parse_secret(secret)
        except ValueError as error:
            self.note("WEBHOOK_SECRET", f"cannot be used: {error}")
        return (Receiver("default", kind, url, secret or None),)

    def credentials(self, given: Credentials | None) -> Credentials:
        """Find exactly one kind of credentials; `given` are the function's own."""
        token = self.get("TOKEN")
        ak, sk, security_token = (self._environment.get(name, "").strip() for name in _SDK_NAMES)
        self._check_printable({"AUDIT_TOKEN": token, **dict(zip(_SDK_NAMES, (ak, sk, security_token), strict=True))})
        if given is not None:
            return self._own_credentials(given, token)
        if token and (ak or sk or security_token):
            self.problems.append("two kinds of credentials are set: remove AUDIT_TOKEN or HUAWEICLOUD_SDK_*")
        elif not token and not ak and not sk:
            self.problems.append(
                "credentials are missing: set HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK, or AUDIT_TOKEN"
            )
        elif not token and not (ak and sk):
            missing = "HUAWEICLOUD_SDK_SK" if ak else "HUAWEICLOUD_SDK_AK"
            self.problems.append(f"{missing} is missing; an access key has two parts")
        return Credentials(ak, sk, security_token or None, token)

    def _own_credentials(self, given: Credentials, token: str) -> Credentials:
        if token:
            self.problems.append("AUDIT_TOKEN is set, but the function has the keys of its agency: remove AUDIT_TOKEN")
        if not (given.ak and given.sk):
            self.problems.append(
                "the function has no keys: give it an agency that may read APIG (see README, Permissions)"
            )
        return given

    def _check_printable(self, texts: Mapping[str, str]) -> None:
        for name, text in texts.items():
            if not re.fullmatch(r"[!-~]*", text):
                self.problems.append(f"{name} holds a blank or a character that no HTTP header can carry")


def _url_problem(value: str) -> str:
    """Say what is wrong with a URL without repeating it, as it may be a secret; "" where nothing is."""
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return "is not a URL"
    if not re.fullmatch(r"[!-~]+", value) or parts.scheme not in {"https", "http"} or not parts.hostname or port == 0:
        return "is not a URL such as https://host/path"
    if parts.username is not None or parts.fragment:
        return "must hold neither a user name nor a fragment"
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        return "must be https (http is for loopback only)"
    return ""


def _ids(values: Iterable[str], note: Callable[[str], None]) -> tuple[str, ...]:
    ids = tuple(dict.fromkeys(values))
    for wrong in (value for value in ids if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", value)):
        note(f"holds {wrong!r}, which is not a gateway id")
    return ids


@dataclass(frozen=True)
class RunOptions:
    """What one call asks for. Empty tuples mean all; empty `mode` means the front door's own."""

    gateways: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    dry_run: bool = False
    notify: bool = True
    mode: str = ""


def parse_options(value: object) -> RunOptions:
    """Read run options from JSON data. Raises OptionsError with every problem."""
    if not isinstance(value, dict):
        raise OptionsError([f"run options are a JSON object, not {kind_of(value)}"])
    problems: list[str] = []
    known = ("gateways", "rules", "dry_run", "notify", "mode")
    for key in value:
        if key not in known:
            tail = nearest(key, known) or f"; known: {', '.join(known)}"
            problems.append(f'unknown run option "{key}"{tail}')
    mode = value.get("mode", "")
    if "mode" in value and not (isinstance(mode, str) and re.fullmatch(r"[a-z0-9-]{1,32}", mode)):
        problems.append('run option "mode": 1 to 32 of a-z, 0-9 and - are wanted')
    options = RunOptions(
        gateways=_option_ids(value, "gateways", problems),
        rules=_option_ids(value, "rules", problems),
        dry_run=_option_flag(value, "dry_run", problems, default=False),
        notify=_option_flag(value, "notify", problems, default=True),
        mode=mode,
    )
    if problems:
        raise OptionsError(problems)
    return options


def _option_ids(value: dict[str, Any], key: str, problems: list[str]) -> tuple[str, ...]:
    ids = value.get(key, [])
    if not isinstance(ids, list) or not all(isinstance(text, str) for text in ids):
        problems.append(f'run option "{key}": an array of ids is wanted')
        return ()
    if key in value and not ids:
        problems.append(f'run option "{key}": the array is empty; leave the option out for all')
    return _ids(ids, lambda what: problems.append(f'run option "{key}" {what}')) if key == "gateways" else tuple(ids)


def _option_flag(value: dict[str, Any], key: str, problems: list[str], *, default: bool) -> bool:
    flag = value.get(key, default)
    if not isinstance(flag, bool):
        problems.append(f'run option "{key}": true or false is wanted, not {kind_of(flag)}')
        return default
    return flag


def load_store(environment: Mapping[str, str], around: Surroundings, flags: Mapping[str, str]) -> Path:
    """Read the one setting that looking at past runs needs. Raises UsageError."""
    reader = _Reader(environment, flags)
    store = reader.store(around.store)
    if reader.problems:
        raise UsageError(reader.problems)
    return store
