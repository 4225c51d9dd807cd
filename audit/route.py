"""The way to a host: the proxy and the certificates that the environment names, read as `requests` reads them."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import certifi
import requests
import urllib3

from audit.errors import UsageError
from audit.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Route:
    """`proxy` is a URL with a scheme, "" for none; it may hold a password. `certificates` is a file or a directory."""

    proxy: str = field(repr=False)
    certificates: str


def find_route(url: str, schemes: Sequence[str] = ("http", "https")) -> Route:
    """Find the way to the host of `url`, by a proxy of one of `schemes`.

    Raises UsageError, which names the variable that is wrong and repeats no proxy, as it may hold a password.
    """
    with requests.Session() as session:
        found: Any = session.merge_environment_settings(url, {}, None, None, None)
    given = found["verify"] is not True
    route = Route(_proxy_to(url, found["proxies"], schemes), found["verify"] if given else certifi.where())
    if given and url.startswith("https:"):
        try:
            tls_context(route.certificates)
        except OSError as error:
            name = next(name for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if os.environ.get(name))
            why = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
            fix = "name a file of certificates (PEM), or a directory that `openssl rehash` made ready"
            raise UsageError([f"{name}: {printable(route.certificates)}: {why}; {fix}"]) from None
    return route


def tls_context(certificates: str) -> ssl.SSLContext:
    """Trust a file or a directory of certificates, for the hosts that they name. Raises OSError."""
    if Path(certificates).is_dir():
        return ssl.create_default_context(capath=certificates)
    return ssl.create_default_context(cafile=certificates)


def _proxy_to(url: str, proxies: Mapping[str, str], schemes: Sequence[str]) -> str:
    proxy = requests.utils.select_proxy(url, dict(proxies)) or ""
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"  # by hand: the function that requests has for it takes `localhost:` for a scheme
    try:
        parts = urllib3.util.parse_url(proxy)
        usable = not proxy or (parts.scheme in schemes and bool(parts.host) and parts.port != 0)
    except urllib3.exceptions.LocationParseError:
        usable = False
    if not usable:
        key = urlsplit(url).scheme if urlsplit(url).scheme in proxies else "all"
        name = next((name for name in (f"{key}_proxy", f"{key.upper()}_PROXY") if os.environ.get(name)), "the proxy")
        forms = " or ".join(f"{scheme}://host:port" for scheme in schemes)
        raise UsageError([f"{name}: is not the URL of a proxy that can be used here; write {forms}"])
    return proxy
