"""The table of all kinds of receivers: where each lives, how it is spoken to, and how its answers are understood."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import msgspec

from audit.render import generic

if TYPE_CHECKING:
    from audit.render.post import Builder, Classifier

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
GENERIC = "generic"


class Kind(msgspec.Struct, frozen=True):
    """`hosts` where it lives, `*.` for any name below; none: anywhere. `signs`: whether it takes a signing secret.

    Its `module` is loaded when it is first spoken to: a start does not pay for the others.
    """

    module: str
    hosts: tuple[str, ...] = ()
    signs: bool = False

    @property
    def build(self) -> Builder:
        builder: Builder = import_module(self.module).build
        return builder

    @property
    def classify(self) -> Classifier:
        classifier: Classifier = import_module(self.module).classify
        return classifier

    def lives_at(self, host: str) -> bool:
        """Whether a host (lower case) is one of its own."""
        return any(host.endswith(own[1:]) if own.startswith("*.") else host == own for own in self.hosts)


_CHAT = "audit.render.chat"
KINDS = {
    GENERIC: Kind("audit.render.generic", signs=True),
    "slack": Kind(f"{_CHAT}.slack", ("hooks.slack.com",)),
    "teams": Kind(f"{_CHAT}.teams", ("*.logic.azure.com", "*.api.powerplatform.com")),
    "feishu": Kind(f"{_CHAT}.feishu", ("open.feishu.cn", "open.larksuite.com"), signs=True),
    "dingtalk": Kind(f"{_CHAT}.dingtalk", ("oapi.dingtalk.com",), signs=True),
    "wecom": Kind(f"{_CHAT}.wecom", ("qyapi.weixin.qq.com",)),
    "welink": Kind(f"{_CHAT}.welink", ("open.welink.huaweicloud.com",)),
    "discord": Kind(f"{_CHAT}.discord", ("discord.com",)),
}


def find_kind(host: str) -> str:
    """Name the chat service that lives at a host; "" where none does."""
    return next((name for name, kind in KINDS.items() if kind.lives_at(host)), "")


def host_problem(name: str, host: str) -> str:
    """Say why a kind cannot live at a host, without naming the host; "" where it can.

    Loopback is good for every kind (tests). `generic` may live anywhere but with a chat service, whose "refused" at
    HTTP 200 it would take for success.
    """
    home = find_kind(host)
    if host in LOOPBACK or name == home or (name == GENERIC and not home):
        return ""
    if home:
        return f"is one of {home}, not of {name}"
    return f"is not at {' or '.join(KINDS[name].hosts)}, where {name} is"


def secret_problem(name: str, secret: str) -> str:
    """Say why a signing secret cannot be used, without repeating it; "" where it can."""
    if not KINDS[name].signs:
        return f"cannot be used: {name} knows no signing; what protects it is its URL"
    if name == GENERIC:
        try:
            generic.parse_secret(secret)
        except ValueError as error:
            return f"cannot be used: {error}"
    return ""
