"""Telling receivers and keeping what they were told."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import pytest

from audit.errors import DeliveryError, StoreError
from audit.receivers import Receiver
from audit.store import LocalStore
from audit.tell import Telling, tell, tell_trouble
from tests.builders import NOW_TEXT, RUN_ID
from tests.test_notify import CLEAN, STANDING

ONE = Receiver("one", "generic", "https://example.com/token")
TWO = Receiver("two", "generic", "https://example.org/token")


class FakeSender:
    """Takes messages, or refuses those for the receivers in `refuse`."""

    def __init__(self) -> None:
        self.refuse: dict[str, Exception] = {}
        self.sent: list[tuple[str, str]] = []

    def deliver(self, receiver, message) -> str:
        if receiver.name in self.refuse:
            raise self.refuse[receiver.name]
        self.sent.append((receiver.name, message.delivery_id))
        return "HTTP 204"


@pytest.fixture
def sender() -> FakeSender:
    return FakeSender()


@pytest.fixture
def telling(tmp_path, sender) -> Telling:
    return Telling((ONE, TWO), sender, LocalStore(tmp_path))


def outcomes(result) -> list[str]:
    return [delivery.outcome for delivery in result.deliveries]


def test_everyone_is_told_once(telling, sender):
    """The second time there is nothing to tell."""
    assert outcomes(tell(telling, STANDING)) == ["delivered", "delivered"]
    assert outcomes(tell(telling, STANDING)) == ["nothing to tell", "nothing to tell"]
    assert [name for name, _ in sender.sent] == ["one", "two"]


def test_one_failing_receiver_holds_up_no_other_and_stays_due(telling, sender, tmp_path):
    """It hears of it later under the same delivery id; its failure is on record meanwhile."""
    sender.refuse["one"] = DeliveryError("HTTP 500")
    result = tell(telling, STANDING)
    assert outcomes(result) == ["failed", "delivered"]
    assert result.deliveries[0].detail == "HTTP 500"
    assert json.loads((tmp_path / "receivers/one.json").read_text())["failure"] == "HTTP 500"
    due = result.messages[0].delivery_id
    sender.refuse.clear()
    assert outcomes(tell(telling, STANDING)) == ["delivered", "nothing to tell"]
    assert sender.sent[-1] == ("one", due)
    assert json.loads((tmp_path / "receivers/one.json").read_text())["failure"] == ""


def test_a_receiver_that_wants_no_more_is_left_alone_until_its_url_changes(telling, sender, tmp_path):
    """410 means stop; the store holds a hash of the URL, never the URL."""
    sender.refuse["one"] = DeliveryError("HTTP 410", gone=True)
    tell(telling, STANDING)
    sender.refuse.clear()
    result = tell(telling, STANDING)
    assert result.deliveries[0].outcome == "failed"
    assert "no more messages to this URL" in result.deliveries[0].detail
    assert ("one", result.messages[0].delivery_id) not in sender.sent
    assert "token" not in (tmp_path / "receivers/one.json").read_text()
    moved = msgspec.structs.replace(telling, receivers=(replace(ONE, url="https://example.com/other"),))
    assert outcomes(tell(moved, STANDING)) == ["delivered"]


def test_silence_keeps_no_record(telling, sender, tmp_path):
    """A dry run shows what would be said and leaves it due."""
    result = tell(msgspec.structs.replace(telling, silent="dry run"), STANDING)
    assert outcomes(result) == ["not sent", "not sent"]
    assert len(result.messages) == 2
    assert sender.sent == []
    assert not (tmp_path / "receivers").exists()


def test_a_garbled_record_means_telling_all_again(telling, tmp_path):
    """Saying it twice beats never saying it."""
    tell(telling, STANDING)
    (tmp_path / "receivers/one.json").write_text("{")
    assert outcomes(tell(telling, STANDING)) == ["delivered", "nothing to tell"]


def test_a_record_that_cannot_be_read_or_written_is_a_failed_delivery(telling, tmp_path):
    """And says so, naming the object."""
    (tmp_path / "receivers").write_text("a file in the way")
    result = tell(telling, STANDING)
    assert outcomes(result) == ["failed", "failed"]
    assert "receivers" in result.deliveries[0].detail

    class ReadOnly(LocalStore):
        def put(self, key, content) -> None:
            raise StoreError(f"{key}: read-only")

    result = tell(msgspec.structs.replace(telling, store=ReadOnly(tmp_path / "elsewhere")), CLEAN)
    assert result.deliveries[0].detail.startswith("delivered, but that could not be noted: receivers/one.json")


def test_trouble_is_told_once_and_so_is_its_end(telling, sender, tmp_path):
    """Told to everyone; then silence until it is over, and a word that it is."""
    tell(telling, STANDING)
    for expected in ("delivered", "nothing to tell"):
        result = tell_trouble(telling, RUN_ID, NOW_TEXT, "unreadable", "the store is gone")
        assert outcomes(result) == [expected, expected]
    assert outcomes(tell(telling, STANDING)) == ["delivered", "delivered"]
    assert outcomes(tell(telling, STANDING)) == ["nothing to tell", "nothing to tell"]
    assert len(sender.sent) == len(set(sender.sent)) == 6
    assert (
        outcomes(tell_trouble(msgspec.structs.replace(telling, silent="dry run"), RUN_ID, NOW_TEXT, "x", "x"))
        == ["not sent"] * 2
    )


def test_trouble_with_the_store_itself_is_told_although_nothing_can_be_noted(telling, sender, tmp_path):
    """It is said again in the next run: nobody knows that it was said."""
    (tmp_path / "receivers").write_text("a file in the way")
    for _ in range(2):
        result = tell_trouble(telling, RUN_ID, NOW_TEXT, "unreadable", "the store is gone")
        assert outcomes(result) == ["delivered", "delivered"]
    assert [name for name, _ in sender.sent] == ["one", "two"] * 2


def test_trouble_is_not_sent_to_a_url_that_wants_no_more(telling, sender):
    """410 holds for every message."""
    sender.refuse["one"] = DeliveryError("HTTP 410", gone=True)
    tell(telling, STANDING)
    sender.refuse.clear()
    tell_trouble(telling, RUN_ID, NOW_TEXT, "unreadable", "the store is gone")
    assert [name for name, _ in sender.sent] == ["two", "two"]


def test_a_new_url_is_a_new_wire(telling, sender):
    """Its first message is sent, though the receiver's name is known."""
    tell(telling, STANDING)
    moved = msgspec.structs.replace(telling, receivers=(replace(ONE, url="https://example.com/other"), TWO))
    result = tell(moved, STANDING)
    assert outcomes(result) == ["delivered", "nothing to tell"]
    assert result.messages[0].changes["new"] == 0, "what was told before is not told as new"
    assert outcomes(tell(moved, STANDING)) == ["nothing to tell", "nothing to tell"]


@pytest.mark.parametrize("garbled", ['{"receiver":"one","findings":{"u1":"severe"}}', '{"receiver":1}', "[]"])
def test_a_record_of_the_wrong_shape_is_none(telling, tmp_path, garbled):
    """It must not break a run that is recorded already."""
    tell(telling, STANDING)
    (tmp_path / "receivers/one.json").write_text(garbled)
    assert outcomes(tell(telling, STANDING)) == ["delivered", "nothing to tell"]


def test_a_defect_at_one_receiver_silences_no_other(telling, sender):
    """It is told as a failure, and stays due."""
    sender.refuse["one"] = RecursionError()
    assert outcomes(tell(telling, STANDING)) == ["failed", "delivered"]
    del sender.refuse["one"]
    assert outcomes(tell(telling, STANDING)) == ["delivered", "nothing to tell"]
