"""Text that is safe to show."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from audit.text import Redactor, describe_defect, printable, shorten

TOKEN = "s3cret/with+signs=and%percent"
URL = "https://hooks.example.com/services/T0123/AbCdEfGhIjKlMnOpQrSt?key=0123456789abcdefXYZ"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\nb\rc\td\0", r"a\nb\rc\td\x00"),
        ("\x7f\x9b", r"\x7f\x9b"),
        ("gpj\u202e.exe\u2066", r"gpj\u202e.exe\u2066"),
        ("zero\u200bwidth\ufeff\xad", r"zero\u200bwidth\ufeff\xad"),
        ("line\u2028paragraph\u2029", r"line\u2028paragraph\u2029"),
        ("lone\ud800", r"lone\ud800"),
        ("tag\U000e0041", r"tag\U000e0041"),
    ],
)
def test_what_cannot_be_seen_is_shown_as_an_escape(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize(
    "text", ["", "plain", "网关-结算", "Ünïcödé", "全角\u3000空格", "no\xa0break", "[red]", "a\\b"]
)
def test_what_can_be_seen_is_left_alone(text):
    assert printable(text) == text


def test_shortened_text_has_at_most_the_length_asked_and_says_that_it_was_cut():
    assert shorten("12345", 5) == "12345"
    assert shorten("123456", 5) == "1234…"


@pytest.mark.parametrize(
    "said",
    [
        TOKEN,
        "s3cret%2Fwith%2Bsigns%3Dand%25percent",
        "s3cret%2fwith%2bsigns%3dand%25percent",
        "s3cret/with%2Bsigns%3Dand%25percent",
        r"s3cret\/with+signs=and%percent",
        TOKEN.upper(),
    ],
)
def test_a_secret_is_taken_out_however_it_is_spelt(said):
    assert Redactor([TOKEN])(f"<{said}>") == "<***>"


@pytest.mark.parametrize(
    "said",
    [
        URL,
        "/services/T0123/AbCdEfGhIjKlMnOpQrSt",
        "key=0123456789abcdefXYZ",
        "AbCdEfGhIjKlMnOpQrSt",
        "0123456789abcdefXYZ",
        URL.replace("/", "\\/"),
    ],
)
def test_of_a_secret_url_every_part_that_opens_something_is_taken_out(said):
    assert Redactor([URL])(f"<{said}>") == "<***>"


SHORT = (
    "https://chat.example.com/hooks/T0123abcd/messages.json?key=p%26ss1&wait=true&token=se-9&n=1&pin=hunter&format=json"
)


@pytest.mark.parametrize(
    "said",
    [
        "key p&ss1, token se-9, pin hunter",
        "key p%26ss1, token SE-9, pin hunter",
        "key p%2526ss1, token se%2D9, pin %68unter",
        r"?key\u003dp\u0026ss1\u0026token\u003dse-9\u0026pin\u003dhunter",
        r"key p\x26ss1, token se\u002D9\npin\thunter",
        "?key=p&amp;ss1&amp;token=se&#45;9&pin=&#x68;unter",
        r"\u0025\u0032\u0036 p%26ss1 se-9 hunter",
        "密钥hunter无效",
    ],
)
def test_short_values_of_a_query_are_taken_out_however_they_are_spelt(said):
    found = Redactor([SHORT])(said)
    assert "***" in found
    assert not [word for word in ("ss1", "se-9", "SE-9", "se%2D9", "hunter", "unter") if word in found], found


def test_long_segments_of_a_path_are_taken_out_alone():
    assert Redactor([SHORT])("no hook T0123abcd here") == "no hook *** here"


@pytest.mark.parametrize(
    "said",
    [
        '{"ok": true, "format": "json", "retry": 1, "error": "no such hook"}',
        "the hooks of chat take messages.json; nothing is wrong with hunters or 9 se",
        r"left as it came: a\nb \u0026 %41 &amp;",
    ],
)
def test_ordinary_words_are_left_alone(said):
    assert Redactor([SHORT])(said) == said


def test_what_a_server_sends_is_read_as_bytes():
    body = '{"name": "网关", "token": "s3cret\\u002fwith+signs=and%percent"}'.encode()
    assert Redactor([TOKEN]).body(body) == '{"name": "网关", "token": "***"}'.encode()
    assert Redactor([TOKEN, SHORT]).body(SHORT.encode()) == b"***"


def test_the_key_inside_a_signing_secret_is_taken_out_without_its_prefix_too():
    assert "MDEyMzQ1Njc4OWFiY2RlZg" not in Redactor(["whsec_MDEyMzQ1Njc4OWFiY2RlZg=="])("key MDEyMzQ1Njc4OWFiY2RlZg==")


def test_the_longest_secret_wins_where_one_holds_another():
    assert Redactor(["abcd", "abcdefgh"])("abcdefgh abcd") == "*** ***"


def test_without_secrets_nothing_is_replaced():
    assert Redactor([])("anything") == "anything"
    assert Redactor(["", "abc"])("abc is too short to be one") == "abc is too short to be one"


def test_a_defect_is_named_by_kind_and_place_but_not_by_its_text():
    try:
        shorten(None, 1)  # type: ignore[arg-type]
    except TypeError as error:
        said = describe_defect(error)
    assert said.startswith("internal error (TypeError in text.py:")
    assert "NoneType" not in said


def test_a_defect_outside_our_own_code_has_no_place():
    assert "(ValueError in ?)" in describe_defect(ValueError("secret"))


def test_what_several_threads_learn_at_once_is_all_learned():
    """Each agency that is assumed has keys of its own, and all of them are asked for at the same time."""
    redact, both = Redactor(["known already"]), threading.Barrier(2)

    def slowly(secret: str) -> Iterator[str]:
        with suppress(threading.BrokenBarrierError):
            both.wait(0.3)
        yield secret

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(redact.learn, [slowly("first-secret"), slowly("second-secret")]))
    assert redact("first-secret second-secret") == "*** ***"
    assert redact.body(b"first-secret second-secret") == b"*** ***"
