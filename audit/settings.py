"""Reads the settings (environment, the function's user data, flags) and the run options; all problems at once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import msgspec

from audit.errors import UsageError
from audit.huawei.apig import endpoint_of
from audit.huawei.functions import URN
from audit.receivers import REFERENCE, Receiver, check_wire, parse_receivers, url_problem
from audit.render.kinds import KINDS
from audit.ruleset.problems import Place, nearest
from audit.targets import ID, REGION, Agency, Credentials, Target, parse_targets
from audit.text import printable
from audit.times import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

PREFIX = "AUDIT_"
RULES_BESIDE_HANDLER = Path(__file__).resolve().parent.parent / "rules"
LONGEST_RUN = 72 * 3600
MOST_CONCURRENCY = 256
_OF_ONE_TARGET = ("REGION", "PROJECT_ID", "GATEWAYS", "APIG_ENDPOINT")
_LOG_LEVEL = r"(?i:DEBUG|INFO|WARNING|ERROR)"
_SDK_NAMES = ("HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_SK", "HUAWEICLOUD_SDK_SECURITY_TOKEN")
# No periods in a bucket's name: no certificate is for `a.b.obs.region...`. No segment that begins with one.
_OBS = re.compile(r"obs://([a-z0-9][a-z0-9-]{1,61}[a-z0-9])((?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*)/?")
# What Serverless Devs leaves in place of a variable that was not set.
_UNFILLED = re.compile(r"\$\{env\(.*\)\}")
_KMS_KEY = r"[A-Za-z0-9:/_-]{1,200}"


class Setting(msgspec.Struct, frozen=True):
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
    Setting(
        "RULES_DIR",
        "directory of the rules (`*.json`, not recursive), or `obs://bucket/prefix`",
        "`rules/` beside `handler.py`",
    ),
    Setting(
        "POLICY",
        "policy file, or `obs://bucket/key`: what differs from site to site",
        "`policy.json` in the rules directory, if there",
    ),
    Setting(
        "STORE",
        "where runs are kept: `obs://bucket/prefix`, `file:///dir` or a directory",
        "`./out`; required in the function",
    ),
    Setting("OBS_ENDPOINT", "base URL of OBS", "`https://obs.{region}.myhuaweicloud.com`"),
    Setting("OBS_KMS_KEY", "id of the KMS key that encrypts every object in OBS", "none: as the bucket is set up"),
    Setting("WEBHOOK_URL", "receiver of messages", "none", secret=True),
    Setting("WEBHOOK_KIND", "its kind: " + ", ".join(f"`{kind}`" for kind in KINDS), "told by the host of the URL"),
    Setting("WEBHOOK_SECRET", "its signing secret (`generic`, `feishu`, `dingtalk`)", "none: unsigned", secret=True),
    Setting("RECEIVERS", "more receivers, a JSON list", "none", secret=True),
    Setting("TOKEN", "IAM token, sent as `X-Auth-Token`, instead of an access key", "none", secret=True),
    Setting(
        "TARGETS",
        "projects and regions to audit, a JSON list (see Many accounts and regions)",
        "the one target of `AUDIT_REGION` and `AUDIT_PROJECT_ID`",
    ),
    Setting("IAM_ENDPOINT", "base URL of IAM, where agencies are assumed", "`https://iam.{region}.myhuaweicloud.com`"),
    Setting("FUNCTION_URN", "URN of this function, which `--mode fan-out` starts for each target", "none"),
    Setting(
        "FUNCTION_ENDPOINT",
        "base URL of FunctionGraph",
        "`https://functiongraph.{region}.myhuaweicloud.com`, by the URN",
    ),
    Setting("SHARD_MAX_AGE", "how old what a shard left may be, an ISO 8601 duration", "PT3H"),
    Setting("CONCURRENCY", "requests in flight per target, at most 256", "16"),
    Setting("TIME_LIMIT", "seconds for a run, at most 259200", "600; in the function the remaining time less 20 s"),
    Setting("LOG_LEVEL", "one of DEBUG, INFO, WARNING, ERROR", "INFO"),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True)
class ObsPlace:
    """A folder or an object in OBS, and how to get there; `keys` gives those that hold now.

    `path` neither begins nor ends with a slash, "" is the whole bucket. Like paths, places are joined with a slash.
    """

    bucket: str
    path: str
    endpoint: str
    kms_key: str = ""
    keys: Callable[[], Credentials] = field(default=Credentials, repr=False, compare=False)

    def __truediv__(self, key: str) -> ObsPlace:
        return replace(self, path=f"{self.path}/{key}".strip("/"))

    def __str__(self) -> str:
        return f"obs://{self.bucket}/{self.path}".rstrip("/")

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> ObsPlace:
        return replace(self, path=self.path.rpartition("/")[0])


class Settings(msgspec.Struct, frozen=True):
    """Everything a run is told from outside, checked. `time_limit` in seconds.

    `gateways`: what the command line limits many targets to; one target has its own.
    """

    targets: tuple[Target, ...]
    gateways: tuple[str, ...]
    iam_endpoint: str
    function_urn: str
    function_endpoint: str
    shard_max_age: timedelta
    rules_dir: Path | ObsPlace
    policy: Path | ObsPlace | None
    store: Path | ObsPlace
    receivers: tuple[Receiver, ...]
    credentials: Credentials
    concurrency: int
    time_limit: float
    log_level: str

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every text that must never be shown."""
        own = (target.credentials for target in self.targets if isinstance(target.credentials, Credentials))
        holders: tuple[Credentials | Receiver, ...] = (self.credentials, *own, *self.receivers)
        return tuple(text for holder in holders for text in holder.secrets)


@dataclass(frozen=True)
class Surroundings:
    """What differs between a terminal and the function: defaults, and where keys come from, and newer ones later."""

    project_id: str = ""
    store: str = "./out"
    time_limit: float = 600.0
    most_time: float = LONGEST_RUN
    keys: Credentials | None = None
    renew: Callable[[], Credentials] | None = field(default=None, compare=False)


def load_settings(environment: Mapping[str, str], around: Surroundings, flags: Mapping[str, str]) -> Settings:
    """Check and complete the settings; `flags` (by name without prefix) win over `environment`.

    An empty variable counts as absent, an empty flag is a mistake. Raises UsageError with every problem.
    """
    reader = _Reader(environment, flags, around)
    targets = reader.targets()
    urn = reader.text("FUNCTION_URN", URN.pattern, "a URN such as urn:fss:REGION:PROJECT:function:PACKAGE:NAME:latest")
    region = match[1] if (match := URN.fullmatch(urn)) else ""
    settings = Settings(
        targets=targets,
        gateways=reader.gateways() if reader.get("TARGETS") else (),
        iam_endpoint=reader.base_url("IAM_ENDPOINT"),
        function_urn=urn,
        function_endpoint=reader.base_url("FUNCTION_ENDPOINT") or (region and endpoint_of(region, "functiongraph")),
        shard_max_age=reader.duration("SHARD_MAX_AGE", "PT3H"),
        rules_dir=reader.place("RULES_DIR") or RULES_BESIDE_HANDLER,
        policy=reader.place("POLICY"),
        store=reader.store(),
        receivers=reader.receivers(),
        credentials=reader.credentials_for(targets),
        concurrency=int(reader.number("CONCURRENCY", 16, MOST_CONCURRENCY)),
        time_limit=min(around.most_time, reader.number("TIME_LIMIT", around.time_limit, LONGEST_RUN)),
        log_level=reader.text("LOG_LEVEL", _LOG_LEVEL, _BY_NAME["LOG_LEVEL"].meaning).upper() or "INFO",
    )
    reader.finish()
    return settings


def load_store(environment: Mapping[str, str], around: Surroundings, flags: Mapping[str, str]) -> Path | ObsPlace:
    """Read where the runs are, all that looking at them needs. Raises UsageError."""
    reader = _Reader(environment, flags, around)
    store = reader.store()
    reader.finish()
    return store


def load_receivers(environment: Mapping[str, str]) -> tuple[Receiver, ...]:
    """Read who is told, all that a test of them needs. Raises UsageError."""
    reader = _Reader(environment, {}, Surroundings())
    receivers = reader.receivers()
    reader.finish()
    return receivers


def load_rule_places(
    environment: Mapping[str, str], flags: Mapping[str, str]
) -> tuple[Path | ObsPlace, Path | ObsPlace | None]:
    """Read where the rules and the policy are, all that checking them needs. Raises UsageError."""
    reader = _Reader(environment, flags, Surroundings())
    places = reader.place("RULES_DIR") or RULES_BESIDE_HANDLER, reader.place("POLICY")
    reader.finish()
    return places


def references_in(get: Callable[[str], str | None]) -> list[str]:
    """Return the names of settings that other ones refer to as `"env:NAME"`; `get` looks a setting up."""
    return [name for word in ("RECEIVERS", "TARGETS") for name in REFERENCE.findall(get(PREFIX + word) or "")]


class _Reader:
    """Looks settings up and notes what is wrong with them; never writes a secret's value into a problem."""

    def __init__(self, environment: Mapping[str, str], flags: Mapping[str, str], around: Surroundings) -> None:
        self._around = around
        self._environment = environment
        self._flags = flags
        self._problems = [
            f"{_BY_NAME[name].flag} is given without a value" for name, v in flags.items() if not v.strip()
        ]
        named = set(references_in(environment.get))
        self._problems += [
            f"{name} is {value}, as that variable was not set at the deployment; set it and deploy again"
            for name, value in environment.items()
            if (name.startswith(PREFIX) or name in named) and _UNFILLED.fullmatch(value)
        ]
        for name in sorted(environment.keys() - named):
            word = name.removeprefix(PREFIX)
            if environment[name] and word != name and word not in _BY_NAME:
                # Without the prefix, which would make everything look near; a misspelt webhook is silence for ever.
                tail = nearest(word, _BY_NAME).replace('"', f'"{PREFIX}', 1)
                tail = tail or f"; known: {', '.join(PREFIX + known for known in _BY_NAME)}"
                self._problems.append(f"{name} is not a setting{tail}")

    def finish(self) -> None:
        if self._problems:
            raise UsageError(list(dict.fromkeys(self._problems)))  # some settings are read for several reasons

    def get(self, name: str) -> str:
        return (self._flags.get(name) or self._environment.get(PREFIX + name) or "").strip()

    def note(self, name: str, what: str) -> None:
        label = _BY_NAME[name].flag if self._flags.get(name) else PREFIX + name
        self._problems.append(f"{label} {what}")

    def text(self, name: str, pattern: str, what: str) -> str:
        value = self.get(name)
        if value and not re.fullmatch(pattern, value):
            self.note(name, f"is not {what}: {value!r}")
        return value

    def number(self, name: str, default: float, most: int) -> float:
        value = self.get(name)
        if not value:
            return default
        if not re.fullmatch(r"[0-9]{1,9}", value) or not 1 <= int(value) <= most:
            self.note(name, f"must be a whole number from 1 to {most}, not {value!r}")
            return default
        return int(value)

    def duration(self, name: str, default: str) -> timedelta:
        try:
            duration = parse_duration(self.get(name) or default)
        except ValueError as error:
            self.note(name, str(error))
        else:
            if duration:
                return duration
            self.note(name, f"must be longer than nothing, e.g. {default}")
        return parse_duration(default)

    def targets(self) -> tuple[Target, ...]:
        text = self.get("TARGETS")
        if not text:
            return (self._target(),)
        for name in [
            name for name in _OF_ONE_TARGET if self.get(name) and name not in self._flags.keys() & {"GATEWAYS"}
        ]:
            self.note(name, f"is set beside {PREFIX}TARGETS, where each target says it for itself: remove it")
        return parse_targets(text, Place(f"{PREFIX}TARGETS", self._problems), self._look_up)

    def _target(self) -> Target:
        region, endpoint = self.region(), self.base_url("APIG_ENDPOINT")
        if not self.get("REGION") and not endpoint:
            self.note("REGION", 'is missing; set it to the region of the gateways, e.g. "cn-north-4"')
        project_id = self.text("PROJECT_ID", ID.pattern, "a project id") or self._around.project_id
        if not project_id:
            self.note("PROJECT_ID", "is missing; the console shows it under My Credentials")
        return Target(project_id, region, project_id, endpoint or endpoint_of(region), self.gateways())

    def _look_up(self, name: str) -> str:
        return self._environment.get(name, "").strip()

    def gateways(self) -> tuple[str, ...]:
        value = self.get("GATEWAYS")
        ids = [part.strip() for part in value.split(",")] if value else []
        for wrong in (text for text in ids if not ID.fullmatch(text)):
            self.note("GATEWAYS", f"holds {wrong!r}, which is not a gateway id; separate ids by one comma")
        return tuple(dict.fromkeys(ids))

    def base_url(self, name: str) -> str:
        value = self.get(name)
        if value and (problem := url_problem(value, bare=True)):
            self.note(name, problem)
        return value.rstrip("/")

    def path(self, name: str, default: str = "") -> Path | None:
        """Read a path, or a file:// URL of one; None where there is neither a value nor a default."""
        value = self.get(name) or default
        path = unquote(value.removeprefix("file://")) if value.startswith("file:///") else value
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", path):
            self.note(name, f'must be a path, "file:///path" or "obs://bucket/prefix", not {value!r}')
        elif path != printable(path):
            self.note(name, f"holds a character that cannot be shown: {value!r}")
        return Path(path) if path else None

    def place(self, name: str, default: str = "") -> Path | ObsPlace | None:
        """Read a path, or a place in OBS."""
        value = self.get(name) or default
        if not value.startswith("obs:"):
            return self.path(name, default)
        if found := _OBS.fullmatch(value):
            return self._obs(name, found[1], found[2].strip("/"))
        self.note(
            name,
            f'is not "obs://bucket/prefix": {value!r}; a bucket has 3 to 63 of a-z, 0-9 and -, a prefix has '
            "A-Z, a-z, 0-9, - _ . and /, and no part of it begins with a period",
        )
        return ObsPlace("", "", "")  # it is meant to be in OBS, and what goes with that is no mistake

    def _obs(self, name: str, bucket: str, path: str) -> ObsPlace:
        region, endpoint = self.region(), self.base_url("OBS_ENDPOINT")
        if name == "POLICY" and not path:
            self.note(name, "names a bucket; name the object, e.g. obs://bucket/policy.json")
        if not (self.get("REGION") or endpoint):
            wanted = "" if self.get("TARGETS") else f"{PREFIX}REGION or "
            self.note(name, f"is in OBS: set {wanted}{PREFIX}OBS_ENDPOINT")
        keys = self.credentials()
        if keys.token:
            self.note(name, f"is in OBS, which takes no {PREFIX}TOKEN: set HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK")
        kms_key = self.text("OBS_KMS_KEY", _KMS_KEY, "the id of a KMS key")
        return ObsPlace(
            bucket, path, endpoint or endpoint_of(region, "obs"), kms_key, self._around.renew or (lambda: keys)
        )

    def region(self) -> str:
        """Read the region; part of host names, it holds nothing else, and "" where it is wrong."""
        region = self.text("REGION", REGION.pattern, 'a region such as "cn-north-4"')
        return region if REGION.fullmatch(region) else ""

    def store(self) -> Path | ObsPlace:
        self.base_url("OBS_ENDPOINT")
        place = self.place("STORE", self._around.store)
        if place is None:
            self.note("STORE", 'is missing; in the function say where runs are kept, e.g. "obs://bucket/prefix"')
        elif isinstance(place, Path) and self.get("OBS_KMS_KEY"):
            self.note("OBS_KMS_KEY", f"is set, but {PREFIX}STORE is not in OBS")
        return place or Path()

    def receivers(self) -> tuple[Receiver, ...]:
        more = self.get("RECEIVERS")
        place = Place(f"{PREFIX}RECEIVERS", self._problems)
        others = parse_receivers(more, place, self._look_up) if more else ()
        return (*self._default_receiver(), *others)

    def _default_receiver(self) -> tuple[Receiver, ...]:
        url, kind, secret = self.get("WEBHOOK_URL"), self.get("WEBHOOK_KIND"), self.get("WEBHOOK_SECRET")
        if not url:
            for name in filter(self.get, ("WEBHOOK_KIND", "WEBHOOK_SECRET")):
                self.note(name, f"is set, but {PREFIX}WEBHOOK_URL is not")
            return ()
        kind, problems = check_wire(kind, url, secret)
        for what, problem in problems.items():
            self.note(f"WEBHOOK_{what.upper()}", problem)
        return (Receiver("default", kind, url, secret or None),)

    def credentials_for(self, targets: Sequence[Target]) -> Credentials:
        """Find the run's own credentials; that there are none is said only where a target or the store needs them."""
        own = self._around.keys or Credentials()
        given = own.ak or any(self._environment.get(name, "").strip() for name in (f"{PREFIX}TOKEN", *_SDK_NAMES))
        if not given and targets and all(isinstance(target.credentials, Credentials) for target in targets):
            return Credentials()
        keys = self.credentials()
        if keys.token and (len(targets) > 1 or any(isinstance(target.credentials, Agency) for target in targets)):
            self.note(
                "TOKEN", "is good for one project; set HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK for many targets"
            )
        return keys

    def credentials(self) -> Credentials:
        """Find exactly one kind of credentials; in the function those of its agency."""
        own = self._around.keys
        found = {name: self._environment.get(name, "").strip() for name in (f"{PREFIX}TOKEN", *_SDK_NAMES)}
        token, ak, sk, security_token = found.values()
        given = [name for name, text in found.items() if text]
        note = self._problems.append
        for name in given:
            if not re.fullmatch(r"[!-~]+", found[name]):
                note(f"{name} holds a blank or a character that no HTTP header can carry")
        if own is not None:
            if given:
                note(f"{', '.join(given)}: set, but the function has the keys of its agency; remove it")
            if not (own.ak and own.sk):
                note("the function has no keys: give it an agency that may read APIG (see README, Permissions)")
            return own
        if token and len(given) > 1:
            note("two kinds of credentials are set: remove AUDIT_TOKEN or HUAWEICLOUD_SDK_*")
        elif not (token or ak or sk):
            note("credentials are missing: set HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK, or AUDIT_TOKEN")
        elif not (token or (ak and sk)):
            note(f"HUAWEICLOUD_SDK_{'SK' if ak else 'AK'} is missing; an access key has two parts")
        return Credentials(ak, sk, security_token or None, token)
