"""The tensors of a model as the Open Inference Protocol shows them: names, datatypes, shapes. The same for every model.

They are those of Triton's vLLM backend, so that its clients need no change.
"""

from dataclasses import dataclass
from typing import Literal

Datatype = Literal["BYTES", "BOOL", "UINT32", "FP32"]

ONE = (1,)
ONE_EACH = (-1,)  # one for each sequence of the request


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor."""

    name: str
    datatype: Datatype
    dims: tuple[int, ...] = ONE
    optional: bool = False


TEXT_INPUT = TensorSpec("text_input", "BYTES")
STREAM = TensorSpec("stream", "BOOL", optional=True)
SAMPLING_PARAMETERS = TensorSpec("sampling_parameters", "BYTES", optional=True)
EXCLUDE_INPUT = TensorSpec("exclude_input_in_output", "BOOL", optional=True)

TEXT_OUTPUT = TensorSpec("text_output", "BYTES", ONE_EACH)
FINISH_REASON = TensorSpec("finish_reason", "BYTES", ONE_EACH)
CUMULATIVE_LOGPROB = TensorSpec("cumulative_logprob", "FP32", ONE_EACH)
LOGPROBS = TensorSpec("logprobs", "BYTES", ONE_EACH)
NUM_INPUT_TOKENS = TensorSpec("num_input_tokens", "UINT32")
NUM_OUTPUT_TOKENS = TensorSpec("num_output_tokens", "UINT32", ONE_EACH)

OUTPUTS = (TEXT_OUTPUT, FINISH_REASON, CUMULATIVE_LOGPROB, LOGPROBS, NUM_INPUT_TOKENS, NUM_OUTPUT_TOKENS)
OUTPUT_OF_FLAG = {f"return_{output.name}": output for output in OUTPUTS[1:]}  # input `return_…` → what it asks for
INPUTS = (
    TEXT_INPUT,
    STREAM,
    SAMPLING_PARAMETERS,
    EXCLUDE_INPUT,
    *(TensorSpec(flag, "BOOL", optional=True) for flag in OUTPUT_OF_FLAG),
)
