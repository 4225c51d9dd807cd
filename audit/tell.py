"""Tells receivers what is due and keeps a record of it in the store, after each one's own success."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from audit.errors import DeliveryError, StoreError
from audit.notify import Message, Standing, Told, begin, decide, trouble_message
from audit.outcome import Delivery
from audit.store import read_object

if TYPE_CHECKING:
    from collections.abc import Sequence

    from audit.store import Store
    from audit.webhook import Receiver


RECEIVERS = "receivers/"


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
        told = begin(told, standing)
        _tell_one(telling, receiver, told, decide(told, standing, receiver.min_severity), result, keep=True)
    return result


def tell_trouble(telling: Telling, run_id: str, now: str, kind: str, trouble: str) -> Result:
    """Tell every receiver that the run could not do its work: silence would look like health.

    Where the trouble is the store itself, nothing can be noted in it, and the next run says the same again.
    """
    result = Result([], [])
    for receiver in telling.receivers:
        try:
            told, keep = _load(telling.store, receiver), True
        except StoreError:
            told, keep = Told(receiver.name, url=receiver.url_hash), False  # what cannot be read is not overwritten
        due = trouble_message(telling.store.url, told, run_id, now, kind, trouble)
        _tell_one(telling, receiver, told, due, result, keep=keep)
    return result


def _tell_one(
    telling: Telling, receiver: Receiver, told: Told, due: tuple[Message, Told] | None, result: Result, *, keep: bool
) -> None:
    if due is None:
        result.deliveries.append(Delivery(receiver.name, "nothing to tell"))
        return
    message, record = due
    result.messages.append(message)
    result.deliveries.append(_deliver(telling, receiver, message, told, record if keep else None))


def _deliver(telling: Telling, receiver: Receiver, message: Message, told: Told, record: Told | None) -> Delivery:
    """Deliver one message and note what came of it, unless there is no record to be kept."""
    if telling.silent:
        return Delivery(receiver.name, "not sent", telling.silent)
    failure = _attempt(telling, receiver, message, told)
    delivery = Delivery(receiver.name, "delivered", message.headline)
    if failure is not None:
        delivery = Delivery(receiver.name, "failed", str(failure))
        record = record and msgspec.structs.replace(told, failure=str(failure), gone=failure.gone)
    if record is None:
        return delivery
    try:
        telling.store.put(_key(receiver), io.BytesIO(msgspec.json.encode(record)))
    except StoreError as error:
        return Delivery(receiver.name, "failed", f"{delivery.outcome}, but that could not be noted: {error}")
    return delivery


def _attempt(telling: Telling, receiver: Receiver, message: Message, told: Told) -> DeliveryError | None:
    if told.gone:
        return DeliveryError("it asked for no more messages to this URL (HTTP 410); give it a new URL", gone=True)
    try:
        telling.sender.deliver(receiver, message)
    except DeliveryError as error:
        return error
    return None


def _load(store: Store, receiver: Receiver) -> Told:
    """Read what a receiver was last told. A garbled record is none: all is told again.

    A new URL keeps what was told, but counts as never tried, so that a message proves the wire.
    """
    told = read_told(store, _key(receiver))
    if told is None:
        return Told(receiver.name, url=receiver.url_hash)
    if told.url != receiver.url_hash:
        told = msgspec.structs.replace(told, url=receiver.url_hash, told_at=None, gone=False)
    return told


def read_told(store: Store, key: str) -> Told | None:
    """Read a receiver's record; None where there is none, or it is garbled. Raises StoreError."""
    text = read_object(store, key)
    try:
        return None if text is None else msgspec.json.decode(text, type=Told)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _key(receiver: Receiver) -> str:
    return f"{RECEIVERS}{receiver.name}.json"
