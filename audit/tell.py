"""Tells receivers what is due and keeps a record of it in the store, after each one's own success."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from audit.errors import DeliveryError, StoreError
from audit.notify import Message, Standing, Told, decide, plain_message
from audit.outcome import Delivery
from audit.store import read_object

if TYPE_CHECKING:
    from collections.abc import Sequence

    from audit.store import Store
    from audit.webhook import Receiver


class Sender(Protocol):
    """Delivers one message; raises DeliveryError."""

    def deliver(self, receiver: Receiver, message: Message) -> None: ...


@dataclass(frozen=True)
class Telling:
    """Who is told, by whom, and where the records are; `silent` says why nobody is told this time, "" to tell."""

    receivers: Sequence[Receiver]
    sender: Sender
    store: Store
    silent: str = ""


@dataclass(frozen=True)
class Result:
    """What became of each receiver, and the messages that were due."""

    deliveries: list[Delivery]
    messages: list[Message]


def tell(telling: Telling, standing: Standing) -> Result:
    """Tell each receiver what it does not know yet; what fails stays due for the next run."""
    result = Result([], [])
    for receiver in telling.receivers:
        try:
            told = _load(telling.store, receiver)
        except StoreError as error:
            result.deliveries.append(Delivery(receiver.name, "failed", str(error)))
            continue
        due = decide(told, standing, receiver.min_severity)
        if due is None:
            result.deliveries.append(Delivery(receiver.name, "nothing to tell"))
            continue
        message, record = due
        result.messages.append(message)
        result.deliveries.append(_deliver(telling, receiver, message, told, record))
    return result


def tell_trouble(telling: Telling, run_id: str, now: str, trouble: str) -> Result:
    """Tell every receiver that the run could not do its work: silence would look like health. Keeps no record."""
    result = Result([], [])
    for receiver in telling.receivers:
        message = plain_message(receiver.name, run_id, now, trouble)
        result.messages.append(message)
        failure = _attempt(telling, receiver, message)
        result.deliveries.append(_describe(telling, receiver, message, failure))
    return result


def _deliver(telling: Telling, receiver: Receiver, message: Message, told: Told, record: Told) -> Delivery:
    """Deliver one message and note what came of it."""
    if told.gone_url == receiver.url_hash:
        failure: DeliveryError | None = DeliveryError(
            "it asked for no more messages to this URL (HTTP 410); give it a new URL", gone=True
        )
    else:
        failure = _attempt(telling, receiver, message)
    delivery = _describe(telling, receiver, message, failure)
    if telling.silent:
        return delivery
    if failure is not None:
        gone_url = receiver.url_hash if failure.gone else None
        record = msgspec.structs.replace(told, failure=str(failure), gone_url=gone_url)
    try:
        telling.store.put(_key(receiver), io.BytesIO(msgspec.json.encode(record)))
    except StoreError as error:
        return Delivery(receiver.name, "failed", f"{delivery.outcome}, but that could not be noted: {error}")
    return delivery


def _attempt(telling: Telling, receiver: Receiver, message: Message) -> DeliveryError | None:
    if telling.silent:
        return None
    try:
        telling.sender.deliver(receiver, message)
    except DeliveryError as error:
        return error
    return None


def _describe(telling: Telling, receiver: Receiver, message: Message, failure: DeliveryError | None) -> Delivery:
    if telling.silent:
        return Delivery(receiver.name, "not sent", telling.silent)
    if failure is not None:
        return Delivery(receiver.name, "failed", str(failure))
    return Delivery(receiver.name, "delivered", message.headline)


def _load(store: Store, receiver: Receiver) -> Told:
    """Read what a receiver was last told. A record that is garbled counts as none: the receiver hears all again."""
    text = read_object(store, _key(receiver))
    if text is None:
        return Told(receiver.name)
    try:
        return msgspec.json.decode(text, type=Told)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Told(receiver.name)


def _key(receiver: Receiver) -> str:
    return f"receivers/{receiver.name}.json"
