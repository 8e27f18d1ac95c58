"""A request of the Open Inference Protocol as a request of `shardline.v1`, and how its answers must look. Pure.

What it says that we do not know is refused by name, and so is what would be computed and told to nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.duration_pb2 import Duration

from shardline_cluster.errors import SHOWN_CHARACTERS, InvalidRequestError, UnknownModelError
from shardline_cluster.router.admission.field_checks import check_no_unknown_fields, invalid
from shardline_cluster.router.open_inference.sampling import (
    SAMPLING_NAMES,
    Setting,
    sampling_of,
    settings_of_json,
)
from shardline_cluster.router.open_inference.signature import (
    CUMULATIVE_LOGPROB,
    EXCLUDE_INPUT,
    LOGPROBS,
    OUTPUT_OF_FLAG,
    OUTPUTS,
    SAMPLING_PARAMETERS,
    STREAM,
    TEXT_INPUT,
    TEXT_OUTPUT,
    TensorSpec,
)
from shardline_cluster.router.open_inference.tensors import InputValues, input_values
from shardline_protos import generation_pb2 as generation
from shardline_protos import open_inference_pb2 as pb

VERSION = "1"  # every model has this one
MAX_ID_BYTES = 256  # it stands in every answer
EMPTY_FINAL = "triton_enable_empty_final_response"
PRIORITY = "priority"
TIMEOUT = "timeout"
_OPTIONS = (PRIORITY, TIMEOUT, EMPTY_FINAL)
_STATELESS = "leave it out: a request keeps no state for the next one"
_REMEDIES = dict.fromkeys(("sequence_id", "sequence_start", "sequence_end"), _STATELESS)
_OUTPUTS = {output.name: output for output in OUTPUTS}
_MAX_TIMEOUT_US = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerForm:
    """How a request's answers look."""

    request_id: str  # the client's own
    num_sequences: int
    outputs: tuple[TensorSpec, ...]
    streams: bool  # an answer for each piece of text, not one for all
    empty_final: bool  # the end is told by an answer without outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class TranslatedRequest:
    """What to do, how to tell it, and how the client calls the fields."""

    generate: generation.GenerateRequest
    form: AnswerForm
    paths: Mapping[str, str]  # our field → the client's; the first that fits counts

    def in_clients_words(self, error: InvalidRequestError) -> InvalidRequestError:
        """The same error, the field named as the client has sent it."""
        for ours, theirs in self.paths.items():
            rest = error.field.removeprefix(ours)
            if error.field.startswith(ours) and rest[:1] in ("", "[", "."):
                field = theirs + rest
                return InvalidRequestError(str(error).replace(error.field, field, 1), field=field)
        return error


def translated(request: pb.ModelInferRequest) -> TranslatedRequest:
    """A request, understood.

    Raises:
        InvalidRequestError: the first thing that is wrong or not known.
        UnknownModelError: no model has this version.
    """
    check_no_unknown_fields(request)
    check_version(request.model_name, request.model_version)
    if len(request.id.encode()) > MAX_ID_BYTES:
        raise invalid("id", f"has {len(request.id.encode())} bytes", f"at most {MAX_ID_BYTES} are allowed")
    values = input_values(request)
    outputs = _outputs(request, values)
    sampling, paths = _sampling(request, values, outputs)
    streams = values.flags.get(STREAM.name, False)
    generate = generation.GenerateRequest(
        model=request.model_name,
        text=values.texts[TEXT_INPUT.name],
        sampling=sampling,
        on_disconnect=generation.OnDisconnect(cancel=True),  # its clients have no way to come back
    )
    generate.sampling.echo = not values.flags.get(EXCLUDE_INPUT.name, streams)
    _set_options(generate, request)
    form = AnswerForm(
        request_id=request.id,
        num_sequences=max(1, sampling.n),
        outputs=outputs,
        streams=streams,
        empty_final=_empty_final(request.parameters),
    )
    return TranslatedRequest(generate=generate, form=form, paths=paths | _FIXED_PATHS)


def check_version(model: str, version: str) -> None:
    """A version that models have.

    Raises:
        UnknownModelError: it is another one.
    """
    if version not in ("", VERSION):
        raise UnknownModelError(
            f"model {model[:SHOWN_CHARACTERS]!r} has no version {version[:SHOWN_CHARACTERS]!r}: leave it out, or say "
            f"{VERSION!r}"
        )


# --- pieces ----------------------------------------------------------------------------------------------------------

_FIXED_PATHS = {
    "text": TEXT_INPUT.name,
    "prompt": TEXT_INPUT.name,
    "model": "model_name",
    "priority": f"parameters.{PRIORITY}",
    "timeout": f"parameters.{TIMEOUT}",
    "sampling": SAMPLING_PARAMETERS.name,
}


def _outputs(request: pb.ModelInferRequest, values: InputValues) -> tuple[TensorSpec, ...]:
    """The text and what was asked for; or exactly what was named."""
    for index, output in enumerate(request.outputs):
        if output.name not in _OUTPUTS:
            what = f"is {output.name[:SHOWN_CHARACTERS]!r}, which no model has"
            raise invalid(f"outputs[{index}].name", what, f"outputs are: {', '.join(_OUTPUTS)}")
        for name in output.parameters:
            what = f"holds {name[:SHOWN_CHARACTERS]!r}"
            raise invalid(f"outputs[{index}].parameters", what, "leave it out: outputs have no options")
    named = {output.name for output in request.outputs}
    asked = {output.name for flag, output in OUTPUT_OF_FLAG.items() if values.flags.get(flag)}
    wanted = named or {TEXT_OUTPUT.name} | asked
    if asked - wanted:
        missing = min(asked - wanted)
        what = f"is true, but `outputs` does not name {missing}"
        raise invalid(f"return_{missing}", what, "name it there, or leave `outputs` empty to get all that is asked for")
    return tuple(output for output in OUTPUTS if output.name in wanted)


def _sampling(
    request: pb.ModelInferRequest, values: InputValues, outputs: tuple[TensorSpec, ...]
) -> tuple[generation.SamplingParams, dict[str, str]]:
    settings = settings_of_json(values.texts.get(SAMPLING_PARAMETERS.name, "{}"), SAMPLING_PARAMETERS.name)
    for name, setting in _typed_settings(request.parameters).items():
        if name in settings:
            raise invalid(setting.path, f"is given beside {settings[name].path}", "say it once")
        settings[name] = setting
    sampling, paths = sampling_of(settings)
    tells_logprobs = LOGPROBS in outputs or CUMULATIVE_LOGPROB in outputs
    if tells_logprobs and not sampling.HasField("logprobs"):
        sampling.logprobs = 0  # of the chosen tokens
    if sampling.HasField("logprobs") and not tells_logprobs:
        remedy = "send return_logprobs or return_cumulative_logprob = true, or leave it out"
        raise invalid(paths["sampling.logprobs"], f"is {sampling.logprobs}, but no output would carry them", remedy)
    return sampling, paths


def _typed_settings(parameters: Mapping[str, pb.InferParameter]) -> dict[str, Setting]:
    settings = {}
    for name in sorted(parameters):
        if name in _OPTIONS:
            continue
        path = f"parameters.{name[:SHOWN_CHARACTERS]}"
        if name not in SAMPLING_NAMES:
            known = ", ".join((*_OPTIONS, *SAMPLING_NAMES))
            raise invalid(path, "is not known", _REMEDIES.get(name, f"known are: {known}"))
        settings[name] = Setting(path, _value(path, parameters[name]))
    return settings


def _set_options(generate: generation.GenerateRequest, request: pb.ModelInferRequest) -> None:
    if PRIORITY in request.parameters:
        generate.priority = _integer(request.parameters, PRIORITY, least=-(2**31), most=2**31 - 1)
    if TIMEOUT in request.parameters:
        microseconds = _integer(request.parameters, TIMEOUT, least=0, most=_MAX_TIMEOUT_US)
        timeout = Duration()
        timeout.FromMicroseconds(microseconds)
        generate.timeout.CopyFrom(timeout)


def _empty_final(parameters: Mapping[str, pb.InferParameter]) -> bool:
    if EMPTY_FINAL not in parameters:
        return False
    value = _value(f"parameters.{EMPTY_FINAL}", parameters[EMPTY_FINAL])
    if not isinstance(value, bool):
        raise invalid(f"parameters.{EMPTY_FINAL}", f"is {value!r}"[:SHOWN_CHARACTERS], "must be a bool_param")
    return value


def _integer(parameters: Mapping[str, pb.InferParameter], name: str, *, least: int, most: int) -> int:
    value = _value(f"parameters.{name}", parameters[name])
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        what = f"is {value!r}"[:SHOWN_CHARACTERS]
        raise invalid(f"parameters.{name}", what, f"must be an int64_param or uint64_param, {least} … {most}")
    return value


def _value(path: str, parameter: pb.InferParameter) -> Any:
    choice = parameter.WhichOneof("parameter_choice")
    if choice is None:
        raise invalid(
            path, "has no value", "set one of bool_param, int64_param, uint64_param, double_param, string_param"
        )
    return getattr(parameter, choice)
