"""TLS to Redis: the files that a URL names, and what a failed connection has to do with TLS."""

import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from shardline_cluster.errors import ConfigurationError

_CA, _CERT, _KEY = "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"

# Words of OpenSSL's and of the system's, and what would help.
_HINTS = (
    ("IP address mismatch", "its certificate is for another name: put that name into the URL"),
    ("Hostname mismatch", "its certificate is for another name: put that name into the URL"),
    ("certificate has expired", "its certificate has expired: it needs a new one"),
    (
        "CERTIFICATE_VERIFY_FAILED",
        f"its certificate comes from a CA that is not trusted here: name it (--redis-tls-ca, or {_CA}= in the URL)",
    ),
    (
        "CERTIFICATE_REQUIRED",
        "it wants a client's certificate: give one (--redis-tls-cert and --redis-tls-key, or "
        f"{_CERT}= and {_KEY}= in the URL)",
    ),
    ("ALERT_UNKNOWN_CA", "it does not trust the CA of this client's certificate: give another one"),
    ("ALERT_BAD_CERTIFICATE", "it does not take this client's certificate: give another one"),
    ("WRONG_VERSION_NUMBER", "it speaks plain text there: name its TLS port, or write redis://"),
)
# A server that does not like what it hears, or one that is going away.
_CUT_OFF = ("Connection reset", "Connection closed", "Connection lost", "Broken pipe", "EOF")


def with_tls_files(url: str, *, ca: str | None, cert: str | None, key: str | None) -> str:
    """The URL with these PEM files as options.

    Raises:
        ConfigurationError: they stand beside a URL that means no TLS, or a certificate without its key.
    """
    given = {name: file for name, file in ((_CA, ca), (_CERT, cert), (_KEY, key)) if file is not None}
    if not given:
        return url
    if not url.startswith("rediss:"):
        raise ConfigurationError("files for TLS to Redis were given, but its URL does not begin with rediss:// (TLS)")
    if (cert is None) != (key is None):
        raise ConfigurationError("of a client's certificate for Redis and its key one was given: give both, or neither")
    return url + ("&" if urlsplit(url).query else "?") + urlencode(given)


def check_options(options: Mapping[str, Any], *, shown: str) -> None:
    """Reads the files of a URL's options once, so that a wrong one is told before anything is started.

    Raises:
        ConfigurationError: a file cannot be used, or options of TLS stand in a URL without TLS.
    """
    if not any(name.startswith("ssl_") for name in options):
        return
    if not shown.startswith("rediss:"):
        raise ConfigurationError(f"the URL of Redis at {shown} has options of TLS, so it must begin with rediss://")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca, cert, key = (options.get(name) for name in (_CA, _CERT, _KEY))
    if ca is not None:
        _use(f"the CA file {ca}", lambda: context.load_verify_locations(ca))
    if cert is not None:
        _use(f"the certificate {cert} with the key {key}", lambda: context.load_cert_chain(cert, key, lambda: ""))


def told_reason(reason: str) -> str:
    """What TLS has to do with a failed connection, by the words of its error; empty: nothing, or it is not told."""
    return next((told for words, told in _HINTS if words in reason), "")


def suspicion(shown: str, reason: str) -> str:
    """What TLS may have to do with one that was cut off or not answered, as the end of a sentence; empty: nothing."""
    cut_off = any(words in reason for words in _CUT_OFF)
    if cut_off and shown.startswith("redis:"):
        return "; if it speaks TLS there, the URL must begin with rediss://"
    if cut_off and shown.startswith("rediss:"):
        return "; if it wants another client's certificate, or any, give that"
    if "no answer" in reason and shown.startswith("rediss:"):
        return "; if it speaks plain text there, name its TLS port, or write redis://"
    return ""


def _use(what: str, load: Callable[[], None]) -> None:
    try:
        load()
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).lower().replace("_", " ")
        raise ConfigurationError(f"{what} for TLS to Redis cannot be used ({reason})") from None
    except OSError as error:
        raise ConfigurationError(f"{what} for TLS to Redis cannot be read: {error.strerror}") from None
