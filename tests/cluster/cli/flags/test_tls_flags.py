"""What the flags of TLS become."""

import argparse
from pathlib import Path

import pytest

from shardline_cluster.cli.flags.tls_flags import add_tls_flags, tls_files
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.router.tls_files import TlsFiles


def files(*given: str) -> TlsFiles | None:
    parser = argparse.ArgumentParser()
    add_tls_flags(parser.add_argument_group("TLS"))
    return tls_files(parser.parse_args(given))


def test_paths_are_those_of_where_the_command_was_given() -> None:
    here = Path.cwd()

    assert files() is None
    assert files("--tls-cert", "c", "--tls-key", "/k") == TlsFiles(cert=f"{here}/c", key="/k")
    assert files("--tls-cert", "/c", "--tls-key", "/k", "--tls-client-ca", "/a") == TlsFiles(
        cert="/c", key="/k", client_ca="/a"
    )


@pytest.mark.parametrize("given", [("--tls-cert", "c"), ("--tls-key", "k"), ("--tls-client-ca", "a", "--tls-key", "k")])
def test_half_of_a_pair_is_refused_by_name(given: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match=rf"{given[-2]}.* alone is no TLS: give --tls-cert and --tls-key"):
        files(*given)
