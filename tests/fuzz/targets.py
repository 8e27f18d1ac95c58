"""Everything that is fuzzed, by name."""

from collections.abc import Mapping
from types import MappingProxyType

from tests.fuzz.admin_target import ADMIN
from tests.fuzz.gguf_target import GGUF
from tests.fuzz.open_inference_target import OPEN_INFERENCE
from tests.fuzz.request_target import REQUEST
from tests.fuzz.resume_target import RESUME
from tests.fuzz.safetensors_target import FOLDER, SAFETENSORS
from tests.fuzz.target import FuzzTarget
from tests.fuzz.tokenizer_target import SENTENCEPIECE, TEXT_FOLDER

TARGETS: Mapping[str, FuzzTarget] = MappingProxyType(
    {
        target.name: target
        for target in (GGUF, SAFETENSORS, FOLDER, SENTENCEPIECE, TEXT_FOLDER, REQUEST, RESUME, OPEN_INFERENCE, ADMIN)
    }
)
