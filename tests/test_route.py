"""Proxies and certificates of the environment: what is used, and what is said of those that cannot be."""

from __future__ import annotations

import gc
import os
from contextlib import closing

import pytest

from audit.compose import open_sender, perform
from audit.deadline import Deadline
from audit.errors import DeliveryError, StoreError, UsageError
from audit.exchange import ExchangeError, HttpClient
from audit.huawei import obs_client
from audit.huawei.obs import ObsStore
from audit.options import RunOptions
from audit.route import find_route
from audit.settings import ObsPlace, Surroundings, load_settings
from audit.store import read_object
from audit.targets import Credentials
from tests.test_exchange import ask, saying, wire

API = "https://apig.example"
NO_TUNNEL = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith(("_proxy", "_ca_bundle"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(obs_client, "_FIRST_BACKOFF", 0.01)


def obs_store(endpoint: str = "https://obs.example.com") -> ObsStore:
    return ObsStore(ObsPlace("evidence", "", endpoint, "", lambda: Credentials("AK", "SK")), Deadline(5))


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("form", ["http://user:p%40ss@{}", "user:p%40ss@{}", "{}"])
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # Python 3.10 closes no answer of a proxy
def test_a_proxy_is_used_in_every_form_that_requests_knows(monkeypatch, name, form):
    """By the API and by OBS alike, which blame it when it refuses."""
    with wire(saying(NO_TUNNEL)) as proxy:
        monkeypatch.setenv(name, form.format(f"localhost:{proxy.port}"))
        with pytest.raises(ExchangeError, match="^the proxy could not be used$"):
            ask(API)
        with pytest.raises(StoreError, match="k: cannot be read: the proxy could not be used$"):
            read_object(obs_store(), "k")
    gc.collect()  # Python 3.10 forgets to close what a proxy answered
    hosts = {text.partition(b" HTTP/1.")[0] for text in proxy.heard}
    assert hosts == {b"CONNECT apig.example:443", b"CONNECT evidence.obs.example.com:443"}
    assert all((b"dXNlcjpwQHNz" in text) == ("user" in form) for text in proxy.heard)


@pytest.mark.parametrize("spared", ["evidence.obs.example.com", "obs.example.com", ".example.com", "*"])
def test_no_proxy_spares_the_buckets_host(monkeypatch, spared):
    """By its own name too."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", spared)
    assert obs_store()._client._proxy == ""
    monkeypatch.setenv("NO_PROXY", "elsewhere.example")
    assert obs_store()._client._proxy == "http://127.0.0.1:9"


def test_no_proxy_spares_an_address(monkeypatch):
    """A network of them, as requests reads it."""
    monkeypatch.setenv("HTTP_PROXY", "127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
    assert obs_store("http://127.0.0.1:1234")._client._proxy == ""


@pytest.mark.parametrize(
    "value",
    [
        "socks5://me:t0ken@host:1080",
        "socks5h://host",
        "ftp://me:t0ken@host",
        "http://me:t0ken@host:99999",
        "http://me:t0ken@host:port",
        "http://me:t0ken@host:0",
        "http://",
        "me:t0ken@",
    ],
)
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_that_cannot_be_used_is_a_wrong_setting(monkeypatch, name, value):
    """Named, with the fix, and without its password."""
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as caught:
        HttpClient(API, 1)
    said = f"{name}: is not the URL of a proxy that can be used here; write http://host:port"
    assert caught.value.problems == (f"{said} or https://host:port",)
    with pytest.raises(UsageError) as caught:
        obs_store()
    assert caught.value.problems == (said,)


def test_obs_is_not_asked_by_way_of_a_proxy_over_tls(monkeypatch):
    """Which the API may be."""
    monkeypatch.setenv("HTTPS_PROXY", "https://host:3128")
    with closing(HttpClient(API, 1)):
        pass
    with pytest.raises(UsageError, match=r"^HTTPS_PROXY: .* write http://host:port$"):
        obs_store()


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_certificates_that_cannot_be_read_are_a_wrong_setting(monkeypatch, tmp_path, name):
    """Missing or something else; hosts without TLS need none."""
    path = tmp_path / "ca.pem"
    monkeypatch.setenv(name, str(path))
    for why in ("No such file or directory", "it holds no certificate"):
        for build in (lambda: HttpClient(API, 1), obs_store):
            with pytest.raises(UsageError) as caught:
                build()
            assert str(caught.value).startswith(f"{name}: {path}: {why}; name a file of certificates")
        path.write_text("nothing of the kind")
    assert find_route("http://127.0.0.1:1").proxy == ""


def test_wrong_surroundings_end_a_run_before_anything_is_read(world, monkeypatch):
    """As every wrong setting does; a receiver that is the only one concerned fails alone."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    settings = load_settings({**world.environment, "AUDIT_APIG_ENDPOINT": API}, Surroundings(), {})
    with pytest.raises(UsageError, match="REQUESTS_CA_BUNDLE: /nowhere: No such file"):
        perform(settings, RunOptions(), mode="manual")
    elsewhere = {**world.environment, "AUDIT_WEBHOOK_URL": "https://receiver.example/x"}
    settings = load_settings(elsewhere, Surroundings(), {})
    outcome = perform(settings, RunOptions(), mode="manual")
    assert outcome.summary.manifest
    world.estate.add_gateway("g").add_connections(1, status="failed")
    outcome = perform(settings, RunOptions(), mode="manual")
    assert [item.outcome for item in outcome.summary.deliveries] == ["failed"]
    assert "REQUESTS_CA_BUNDLE: /nowhere: No such file" in outcome.summary.deliveries[0].detail
    with pytest.raises(DeliveryError, match="REQUESTS_CA_BUNDLE"):
        open_sender(settings.receivers[0]).deliver(settings.receivers[0], outcome.messages[0])
