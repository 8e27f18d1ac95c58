"""Folders are private, go at the end, and those of killed owners go with the next start."""

import tempfile
from pathlib import Path

import pytest

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.serve.private_folder import PrivateFolder, default_root


def test_only_its_owner_can_open_it_and_it_is_gone_at_the_end(tmp_path: Path) -> None:
    folder = PrivateFolder(tmp_path / "root")
    (folder.make("logs") / "router.log").write_text("x")

    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "root", folder.path, folder.path / "logs")}
    folder.remove()

    assert modes == {0o700}
    assert not folder.path.exists()


def test_two_at_once_do_not_collide(tmp_path: Path) -> None:
    first = PrivateFolder(tmp_path / "root")
    second = PrivateFolder(tmp_path / "root")

    assert first.path != second.path
    assert first.path.exists()
    first.remove()
    second.remove()


def test_what_a_killed_owner_left_is_cleaned_by_the_next_start(tmp_path: Path) -> None:
    left = tmp_path / "root" / "s-dead01"
    left.mkdir(mode=0o700, parents=True)
    (tmp_path / "root").chmod(0o700)
    (left / "owner.lock").touch()

    folder = PrivateFolder(tmp_path / "root")

    assert not left.exists()
    folder.remove()


def test_a_root_that_others_can_open_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root").chmod(0o755)

    with pytest.raises(ConfigurationError, match="nobody else can open"):
        PrivateFolder(tmp_path / "root")


@pytest.mark.parametrize(("temporary", "parent"), [("/var/tmp", "/var/tmp"), ("/var/folders/ab/cdefghij/T", "/tmp")])
def test_a_temporary_folder_whose_name_is_too_long_for_sockets_is_passed_over(
    temporary: str, parent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: temporary)

    assert default_root().parent == Path(parent)
