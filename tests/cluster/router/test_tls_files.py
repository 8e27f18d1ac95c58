"""Whether a certificate, its key and a CA will do, and what is said of those that will not."""

from pathlib import Path
from typing import Any

import pytest

from shardline_cluster.router.tls_files import CertificateError, TlsFiles
from tests.certificates import Authority, Pair

# Made for this test, of use to nobody.
KEY_WITH_PASSPHRASE = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAjrV/Cc3pSmKQICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEL23GZeNVuB4BmVT6ZmAdesEgZCs
uYBSNDR4q3Cetc8D/laJ3kzozjLLYWeZyKKIk2GICLynpshTpLZkN+amEft60VuR
icj94+o0vMYG193J8Ot4a0M7pL6YtrhhHMdpA72/HFegV/ou7K/FykI55EUB6+aW
6feH686ocEwdJQywyhNtFEKv0mo8w+AtBmb5zDttZqb53G8GkniGeyxZ5WhcTzU=
-----END ENCRYPTED PRIVATE KEY-----
"""
ED25519_KEY = """\
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEICk94Yzd9eXfjbyZNM8Tk0xEEm1xX3y5HEZKpVTW3Ldh
-----END PRIVATE KEY-----
"""
ED25519_CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBSTCB/KADAgECAhQ3FNahm8AucVNZ7PaGeFpKPuJcYDAFBgMrZXAwDDEKMAgG
A1UEAwwBeDAgFw0yNjExMjQxNDQ4NDBaGA8yMTI2MTAzMTE0NDg0MFowDDEKMAgG
A1UEAwwBeDAqMAUGAytlcAMhALtRzu1ZAZP1YXgmDJVY8YacLNGd+24ZKJnnqV4O
XvGfo24wbDAdBgNVHQ4EFgQUzbf+cuScUG0jbkRwknoM3tT2lvcwHwYDVR0jBBgw
FoAUzbf+cuScUG0jbkRwknoM3tT2lvcwDwYDVR0TAQH/BAUwAwEB/zAZBgNVHREE
EjAQgg5yb3V0ZXIuZXhhbXBsZTAFBgMrZXADQQDGp3txzbbbe/WjeuLmbpWc6lPZ
ovxquIIvZifjBC3eSxz4Me8Ji4uNttHKkp90DKnU85gDnCWa9S99jmiwSyQF
-----END CERTIFICATE-----
"""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def files(pair: Pair, **others: Any) -> TlsFiles:
    return TlsFiles(**{"cert": str(pair.cert), "key": str(pair.key), **{k: str(v) for k, v in others.items()}})


def test_a_good_pair_tells_its_names_and_how_long_it_is_valid(authority: Authority) -> None:
    pair = authority.pair("one.example", "two.example", "127.0.0.1")

    loaded = files(pair, client_ca=authority.file).load()

    assert loaded.names == ("one.example", "two.example", "127.0.0.1")
    assert (loaded.key, loaded.cert, loaded.client_ca) == (*pair.pem, authority.file.read_bytes())
    assert loaded.told.startswith("TLS with a certificate for one.example, two.example, 127.0.0.1 until 20")
    assert "PRIVATE KEY" not in repr(loaded)


def test_what_will_not_do_is_told_with_the_file_and_the_reason(authority: Authority, tmp_path: Path) -> None:
    one, other, expired = authority.pair(), authority.pair(), authority.pair(expired=True)
    no_pem = tmp_path / "no.pem"
    no_pem.write_text("nothing of use")

    for tls, told in (
        (files(one, cert=tmp_path / "gone.pem"), r"cannot read .*gone\.pem: No such file"),
        (files(one, key=tmp_path / "gone.key"), r"cannot read .*gone\.key: No such file"),
        (files(one, key=other.key), r"ca-1\.pem with the key .*ca-2\.key cannot be used \(key values mismatch\)"),
        (files(one, cert=no_pem), r"no\.pem with the key .* cannot be used"),
        (files(one, client_ca=no_pem), r"clients' CA file .*no\.pem cannot be used \(no certificate or crl found\)"),
        (files(expired), r"ca-3\.pem is not valid now: certificate has expired"),
    ):
        with pytest.raises(CertificateError, match=told):
            tls.load()


def test_a_key_with_a_passphrase_is_refused_instead_of_asked_for(authority: Authority) -> None:
    pair = authority.pair()
    pair.key.write_text(KEY_WITH_PASSPHRASE)

    with pytest.raises(CertificateError, match=r"the key .*ca-1\.key has a passphrase"):
        files(pair).load()


def test_a_kind_of_key_that_grpc_does_not_use_is_refused(authority: Authority) -> None:
    pair = authority.pair()
    pair.key.write_text(ED25519_KEY)
    pair.cert.write_text(ED25519_CERTIFICATE)

    with pytest.raises(CertificateError, match=r"ca-1\.key is of Ed25519, .*take RSA, P-256 or P-384"):
        files(pair).load()


def test_any_change_of_a_file_shows_in_the_signature(authority: Authority) -> None:
    pair = authority.pair()
    tls = files(pair)
    before = tls.signature()

    same = tls.signature()
    pair.replace_by(authority.pair())
    replaced = tls.signature()
    pair.key.chmod(0o400)

    assert same == before
    assert len({before, replaced, tls.signature()}) == 3, "a file that may be read now is read again"
