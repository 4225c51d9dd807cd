"""Tells receivers what is due and keeps a record of it in the store, after each one's own success."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec.structs import replace

from audit.archive import is_overtaken
from audit.errors import DeliveryError, StoreError
from audit.notify import Message, Standing, Told, begin, decide, trouble_message
from audit.outcome import Delivery
from audit.store import read_object
from audit.text import describe_defect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from audit.receivers import Receiver
    from audit.store import Store


RECEIVERS = "receivers/"


class Sender(Protocol):
    """Delivers one message and returns what was answered; raises DeliveryError."""

    def deliver(self, receiver: Receiver, message: Message) -> str: ...


class Telling(msgspec.Struct, frozen=True):
    """Who is told, by whom, and where the records are; `silent` says why nobody is told this time, "" to tell."""

    receivers: Sequence[Receiver]
    sender: Sender
    store: Store
    silent: str = ""


class Result(msgspec.Struct, frozen=True):
    """What became of each receiver, and the messages that were due."""

    deliveries: list[Delivery]
    messages: list[Message]


def tell(telling: Telling, standing: Standing) -> Result:
    """Tell each receiver what it does not know yet; what fails stays due for the next run.

    A run that others followed before it could tell leaves that to them: what it has to say is true no more.
    """
    result = Result([], [])
    if standing.manifest_sha256 and is_overtaken(telling.store, standing.run_id):
        later = "a later run tells what is to be told"
        return Result([Delivery(receiver.name, "not sent", later) for receiver in telling.receivers], [])
    known: dict[str, Told] = {}
    failures: dict[str, str] = {}
    for receiver in telling.receivers:
        try:
            known[receiver.name] = begin(_load(telling.store, receiver), standing)
            failures[receiver.name] = known[receiver.name].failure
        except StoreError as error:
            result.deliveries.append(Delivery(receiver.name, "failed", str(error)))
    for receiver in telling.receivers:
        if told := known.get(receiver.name):
            # Of one that cannot be reached the others hear.
            others = [f"receiver {name}: {text}" for name, text in failures.items() if text and name != receiver.name]
            message, record = decide(told, replace(standing, problems=[*standing.problems, *others]), receiver.wishes)
            delivery = _tell_one(telling, receiver, told, (message, record), result, keep=True)
            failures[receiver.name] = delivery.detail if delivery.outcome == "failed" else ""
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
        _tell_one(telling, receiver, told, due or (None, told), result, keep=keep)
    return result


def _tell_one(
    telling: Telling, receiver: Receiver, told: Told, due: tuple[Message | None, Told], result: Result, *, keep: bool
) -> Delivery:
    message, record = due
    failure = None
    if message is None:
        delivery = Delivery(receiver.name, "nothing to tell")
    else:
        result.messages.append(message)
        if telling.silent:
            delivery = Delivery(receiver.name, "not sent", telling.silent)
        else:
            failure = _attempt(telling, receiver, message, told)
            delivery = Delivery(receiver.name, "delivered", message.headline)
    if failure is not None:
        delivery = Delivery(receiver.name, "failed", str(failure))
        owed = sorted({*told.owed, *(message.told_changes if message else ())})
        record = msgspec.structs.replace(told, failure=str(failure), gone=failure.gone, owed=owed)
    if keep and record != told and not telling.silent:
        try:
            telling.store.put(_key(receiver), io.BytesIO(msgspec.json.encode(record)))
        except StoreError as error:
            detail = f"{delivery.outcome}, but that could not be noted: {error}"
            delivery = Delivery(receiver.name, "failed", detail)
    result.deliveries.append(delivery)
    return delivery


def _attempt(telling: Telling, receiver: Receiver, message: Message, told: Told) -> DeliveryError | None:
    if told.gone:
        return DeliveryError("it asked for no more messages to this URL (HTTP 410); give it a new URL", gone=True)
    try:
        telling.sender.deliver(receiver, message)
    except DeliveryError as error:
        return error
    except Exception as error:  # noqa: BLE001  (a defect that one receiver shows must not silence the others)
        return DeliveryError(describe_defect(error))
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
