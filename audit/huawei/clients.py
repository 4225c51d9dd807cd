"""Makes the clients of a run: one transport for each service of each target, one trial for each key."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from audit.huawei.apig import Apig, endpoint_of
from audit.huawei.functions import Functions, project_of
from audit.huawei.iam import AssumedAgency
from audit.huawei.signing import SignatureAuth, TokenAuth
from audit.huawei.transport import Transport
from audit.huawei.trial import Trial
from audit.targets import Agency, Credentials

if TYPE_CHECKING:
    from requests.auth import AuthBase
    from typing_extensions import Self

    from audit.deadline import Deadline
    from audit.settings import Settings
    from audit.targets import Target
    from audit.text import Redactor

# Where there are other targets, so many seconds without anything usable are enough for one, and such a part of all.
_PATIENCE = 60.0
_PATIENCE_PART = 0.25


class Clients:
    """Makes clients, and closes them at the end of the block."""

    def __init__(self, settings: Settings, deadline: Deadline, redact: Redactor) -> None:
        self._settings = settings
        self._deadline = deadline
        self._redact = redact
        patience = min(_PATIENCE, settings.time_limit * _PATIENCE_PART)
        self._patience = patience if len(settings.targets) > 1 else math.inf
        self._trials: dict[Credentials | Agency, Trial] = {}
        self._transports: dict[str, Transport] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for transport in self._transports.values():
            transport.close()

    def apig(self, target: Target) -> Apig:
        """Make the client that reads a target."""
        holder = target.credentials or self._settings.credentials
        transport = self._open(target.name, target.endpoint, self._auth(target), holder)
        return Apig(transport, target.region, target.project_id)

    def functions(self) -> Functions:
        """Make the client that starts invocations of this function."""
        own, urn = self._settings.credentials, self._settings.function_urn
        auth = self._sign(own, project_of(urn))
        return Functions(self._open("FunctionGraph", self._settings.function_endpoint, auth, own), urn)

    def warnings(self) -> list[str]:
        """Say what transports have to warn of, and of which target where there are several."""
        said = [(name, text) for name, transport in self._transports.items() for text in transport.warnings()]
        if len(self._settings.targets) == 1 or not said:
            return [text for _, text in said]
        # It is one clock that is wrong, and it needs no line for each target.
        name, text = said[0]
        return [f"{name}{f' and {len(said) - 1} more' if len(said) > 1 else ''}: {text}"]

    def _open(self, name: str, endpoint: str, auth: AuthBase, holder: Credentials | Agency) -> Transport:
        self._transports[name] = Transport(
            endpoint,
            auth,
            deadline=self._deadline,
            concurrency=self._settings.concurrency,
            redact=self._redact,
            trial=self._trials.setdefault(holder, Trial()),
            patience=self._patience,
        )
        return self._transports[name]

    def _auth(self, target: Target) -> AuthBase:
        own, holder = self._settings.credentials, target.credentials
        if isinstance(holder, Agency):
            endpoint = self._settings.iam_endpoint or endpoint_of(target.region, "iam")
            transport = self._open(f"IAM for {target.name}", endpoint, self._sign(own, ""), own)
            return SignatureAuth(AssumedAgency(transport, holder, self._redact.learn), target.project_id)
        return self._sign(holder or own, target.project_id)

    def _sign(self, keys: Credentials, project_id: str) -> AuthBase:
        return TokenAuth(keys.token) if keys.token else SignatureAuth(lambda: keys, project_id)
