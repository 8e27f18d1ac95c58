"""The tiny model on the real engine behind a real router, and beside it deployments of the same weights with chat
templates that nobody should ever use."""

import dataclasses
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_loading import load_engine
from shardline_workers.files.model_source import ModelFiles, ModelKind
from shardline_workers.text.generation_config import GenerationConfig
from shardline_workers.text.jinja_chat_template import JinjaChatTemplate
from shardline_workers.text.load_text_model import load_text_model
from shardline_workers.text.text_model import TextModel
from tests.bad_input.tiny_model import TEMPLATE, write_tiny_model
from tests.cluster.served_engine import DIGEST, ServedEngine, serve_engine

MODEL = "tiny"
CONTEXT = 128
MAX_NUM_SEQS = 8
TEMPLATE_LIMIT_S = 0.3
TEMPLATES: Mapping[str, str | None] = {
    MODEL: TEMPLATE,
    "base": None,
    "looping": "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
    "growing": "{% set ns = namespace(x='x' * 1000) %}{% for _ in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "multiplying": "{{ 'x' * 10000000000 }}",
    "reading-classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "reading-globals": "{{ raise_exception.__globals__['signal'] }}",
    "importing": "{% include '/etc/passwd' %}",
    "raising": "{{ raise_exception('roles must alternate') }}",
    "dividing": "{{ 1 / 0 }}",
}


@asynccontextmanager
async def serve_tiny_model(folder: Path) -> AsyncIterator[ServedEngine]:
    """Serves it, and them, until the end of the block."""
    files = ModelFiles(
        source=MODEL, kind=ModelKind.FOLDER, path=write_tiny_model(folder), digest=DIGEST, pinned=str(folder)
    )
    plain = load_text_model(files, name=MODEL, chat_template=None, generation_config=GenerationConfig.NONE)
    config = EngineConfig(
        files=files,
        dtype="float64",
        max_model_len=CONTEXT,
        max_num_seqs=MAX_NUM_SEQS,
        max_num_batched_tokens=64,
        kv_cache_tokens=MAX_NUM_SEQS * CONTEXT,
        block_size=8,
        replicas_on_host=64,
    )
    texts = {name: _text(plain, name) for name in TEMPLATES}
    async with serve_engine(load_engine(config, report=lambda _: None), texts, led=MODEL) as served:
        yield served


def _text(plain: TextModel, name: str) -> TextModel:
    source = TEMPLATES[name]
    template = None if source is None else JinjaChatTemplate(source, time_limit_s=TEMPLATE_LIMIT_S)
    return dataclasses.replace(plain, name=name, chat_template=template)
