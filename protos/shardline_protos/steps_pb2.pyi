from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Frame(_message.Message):
    __slots__ = ("step", "probe", "stop")
    STEP_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    step: Step
    probe: Probe
    stop: Stop
    def __init__(self, step: _Optional[_Union[Step, _Mapping]] = ..., probe: _Optional[_Union[Probe, _Mapping]] = ..., stop: _Optional[_Union[Stop, _Mapping]] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("number", "num_threads", "groups")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    NUM_THREADS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    number: int
    num_threads: int
    groups: _containers.RepeatedCompositeFieldContainer[GroupPlan]
    def __init__(self, number: _Optional[int] = ..., num_threads: _Optional[int] = ..., groups: _Optional[_Iterable[_Union[GroupPlan, _Mapping]]] = ...) -> None: ...

class Probe(_message.Message):
    __slots__ = ("number", "num_tokens", "num_threads")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_THREADS_FIELD_NUMBER: _ClassVar[int]
    number: int
    num_tokens: int
    num_threads: int
    def __init__(self, number: _Optional[int] = ..., num_tokens: _Optional[int] = ..., num_threads: _Optional[int] = ...) -> None: ...

class Stop(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GroupPlan(_message.Message):
    __slots__ = ("checksum", "slot_starts", "slots", "starts", "token_ids", "longer", "num_tokens", "growing", "first_new_blocks", "num_new_blocks", "new_block_ids", "unsampled", "scored", "first_scored", "num_given", "given_ids")
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    SLOT_STARTS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    STARTS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    LONGER_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    GROWING_FIELD_NUMBER: _ClassVar[int]
    FIRST_NEW_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    NUM_NEW_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    NEW_BLOCK_IDS_FIELD_NUMBER: _ClassVar[int]
    UNSAMPLED_FIELD_NUMBER: _ClassVar[int]
    SCORED_FIELD_NUMBER: _ClassVar[int]
    FIRST_SCORED_FIELD_NUMBER: _ClassVar[int]
    NUM_GIVEN_FIELD_NUMBER: _ClassVar[int]
    GIVEN_IDS_FIELD_NUMBER: _ClassVar[int]
    checksum: StateChecksum
    slot_starts: _containers.RepeatedCompositeFieldContainer[SlotStart]
    slots: _containers.RepeatedScalarFieldContainer[int]
    starts: _containers.RepeatedScalarFieldContainer[int]
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    longer: _containers.RepeatedScalarFieldContainer[int]
    num_tokens: _containers.RepeatedScalarFieldContainer[int]
    growing: _containers.RepeatedScalarFieldContainer[int]
    first_new_blocks: _containers.RepeatedScalarFieldContainer[int]
    num_new_blocks: _containers.RepeatedScalarFieldContainer[int]
    new_block_ids: _containers.RepeatedScalarFieldContainer[int]
    unsampled: _containers.RepeatedScalarFieldContainer[int]
    scored: _containers.RepeatedScalarFieldContainer[int]
    first_scored: _containers.RepeatedScalarFieldContainer[int]
    num_given: _containers.RepeatedScalarFieldContainer[int]
    given_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, checksum: _Optional[_Union[StateChecksum, _Mapping]] = ..., slot_starts: _Optional[_Iterable[_Union[SlotStart, _Mapping]]] = ..., slots: _Optional[_Iterable[int]] = ..., starts: _Optional[_Iterable[int]] = ..., token_ids: _Optional[_Iterable[int]] = ..., longer: _Optional[_Iterable[int]] = ..., num_tokens: _Optional[_Iterable[int]] = ..., growing: _Optional[_Iterable[int]] = ..., first_new_blocks: _Optional[_Iterable[int]] = ..., num_new_blocks: _Optional[_Iterable[int]] = ..., new_block_ids: _Optional[_Iterable[int]] = ..., unsampled: _Optional[_Iterable[int]] = ..., scored: _Optional[_Iterable[int]] = ..., first_scored: _Optional[_Iterable[int]] = ..., num_given: _Optional[_Iterable[int]] = ..., given_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class StateChecksum(_message.Message):
    __slots__ = ("block_tables", "slots")
    BLOCK_TABLES_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    block_tables: int
    slots: int
    def __init__(self, block_tables: _Optional[int] = ..., slots: _Optional[int] = ...) -> None: ...

class SlotStart(_message.Message):
    __slots__ = ("slot", "sequence", "sampling", "num_prompt_tokens", "token_ids")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    NUM_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    slot: int
    sequence: int
    sampling: Sampling
    num_prompt_tokens: int
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, slot: _Optional[int] = ..., sequence: _Optional[int] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., num_prompt_tokens: _Optional[int] = ..., token_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ("temperature", "top_k", "top_p", "min_p", "seed", "max_tokens", "min_tokens", "stop_token_ids", "num_logprobs", "num_prompt_logprobs", "biased_ids", "biases", "repetition_penalty", "frequency_penalty", "presence_penalty", "bad_words")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    MIN_P_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MIN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STOP_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    NUM_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    NUM_PROMPT_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    BIASED_IDS_FIELD_NUMBER: _ClassVar[int]
    BIASES_FIELD_NUMBER: _ClassVar[int]
    REPETITION_PENALTY_FIELD_NUMBER: _ClassVar[int]
    FREQUENCY_PENALTY_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_PENALTY_FIELD_NUMBER: _ClassVar[int]
    BAD_WORDS_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    seed: int
    max_tokens: int
    min_tokens: int
    stop_token_ids: _containers.RepeatedScalarFieldContainer[int]
    num_logprobs: int
    num_prompt_logprobs: int
    biased_ids: _containers.RepeatedScalarFieldContainer[int]
    biases: _containers.RepeatedScalarFieldContainer[float]
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    bad_words: _containers.RepeatedCompositeFieldContainer[TokenIds]
    def __init__(self, temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., min_p: _Optional[float] = ..., seed: _Optional[int] = ..., max_tokens: _Optional[int] = ..., min_tokens: _Optional[int] = ..., stop_token_ids: _Optional[_Iterable[int]] = ..., num_logprobs: _Optional[int] = ..., num_prompt_logprobs: _Optional[int] = ..., biased_ids: _Optional[_Iterable[int]] = ..., biases: _Optional[_Iterable[float]] = ..., repetition_penalty: _Optional[float] = ..., frequency_penalty: _Optional[float] = ..., presence_penalty: _Optional[float] = ..., bad_words: _Optional[_Iterable[_Union[TokenIds, _Mapping]]] = ...) -> None: ...

class TokenIds(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ids: _Optional[_Iterable[int]] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("sampled", "probed")
    SAMPLED_FIELD_NUMBER: _ClassVar[int]
    PROBED_FIELD_NUMBER: _ClassVar[int]
    sampled: Sampled
    probed: Probed
    def __init__(self, sampled: _Optional[_Union[Sampled, _Mapping]] = ..., probed: _Optional[_Union[Probed, _Mapping]] = ...) -> None: ...

class Sampled(_message.Message):
    __slots__ = ("number", "busy_s", "token_ids", "logprob_rows", "chosen", "num_top", "top_ids", "top", "error_rows", "errors", "expert_tokens", "part_tokens")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    BUSY_S_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_ROWS_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    NUM_TOP_FIELD_NUMBER: _ClassVar[int]
    TOP_IDS_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    ERROR_ROWS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    EXPERT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PART_TOKENS_FIELD_NUMBER: _ClassVar[int]
    number: int
    busy_s: float
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    logprob_rows: _containers.RepeatedScalarFieldContainer[int]
    chosen: _containers.RepeatedScalarFieldContainer[float]
    num_top: _containers.RepeatedScalarFieldContainer[int]
    top_ids: _containers.RepeatedScalarFieldContainer[int]
    top: _containers.RepeatedScalarFieldContainer[float]
    error_rows: _containers.RepeatedScalarFieldContainer[int]
    errors: _containers.RepeatedScalarFieldContainer[str]
    expert_tokens: _containers.RepeatedScalarFieldContainer[int]
    part_tokens: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, number: _Optional[int] = ..., busy_s: _Optional[float] = ..., token_ids: _Optional[_Iterable[int]] = ..., logprob_rows: _Optional[_Iterable[int]] = ..., chosen: _Optional[_Iterable[float]] = ..., num_top: _Optional[_Iterable[int]] = ..., top_ids: _Optional[_Iterable[int]] = ..., top: _Optional[_Iterable[float]] = ..., error_rows: _Optional[_Iterable[int]] = ..., errors: _Optional[_Iterable[str]] = ..., expert_tokens: _Optional[_Iterable[int]] = ..., part_tokens: _Optional[_Iterable[float]] = ...) -> None: ...

class Probed(_message.Message):
    __slots__ = ("number", "nonsense")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    NONSENSE_FIELD_NUMBER: _ClassVar[int]
    number: int
    nonsense: str
    def __init__(self, number: _Optional[int] = ..., nonsense: _Optional[str] = ...) -> None: ...
