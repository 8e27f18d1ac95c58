from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Transport(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ALONE: _ClassVar[Transport]
    SHARED_MEMORY: _ClassVar[Transport]
    TORCH: _ClassVar[Transport]
ALONE: Transport
SHARED_MEMORY: Transport
TORCH: Transport

class Challenge(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    def __init__(self, nonce: _Optional[bytes] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("nonce", "claims", "proof")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    claims: bytes
    proof: bytes
    def __init__(self, nonce: _Optional[bytes] = ..., claims: _Optional[bytes] = ..., proof: _Optional[bytes] = ...) -> None: ...

class Claims(_message.Message):
    __slots__ = ("member", "version", "rank", "host", "host_identity", "pid")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    HOST_IDENTITY_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    member: bytes
    version: str
    rank: int
    host: str
    host_identity: str
    pid: int
    def __init__(self, member: _Optional[bytes] = ..., version: _Optional[str] = ..., rank: _Optional[int] = ..., host: _Optional[str] = ..., host_identity: _Optional[str] = ..., pid: _Optional[int] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("proof", "member", "patience")
    PROOF_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_FIELD_NUMBER: _ClassVar[int]
    proof: bytes
    member: bytes
    patience: Patience
    def __init__(self, proof: _Optional[bytes] = ..., member: _Optional[bytes] = ..., patience: _Optional[_Union[Patience, _Mapping]] = ...) -> None: ...

class Patience(_message.Message):
    __slots__ = ("beat_s", "silence_s", "loading_silence_s")
    BEAT_S_FIELD_NUMBER: _ClassVar[int]
    SILENCE_S_FIELD_NUMBER: _ClassVar[int]
    LOADING_SILENCE_S_FIELD_NUMBER: _ClassVar[int]
    beat_s: float
    silence_s: float
    loading_silence_s: float
    def __init__(self, beat_s: _Optional[float] = ..., silence_s: _Optional[float] = ..., loading_silence_s: _Optional[float] = ...) -> None: ...

class Order(_message.Message):
    __slots__ = ("assignment", "load", "build", "release", "dismissal")
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    BUILD_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    DISMISSAL_FIELD_NUMBER: _ClassVar[int]
    assignment: Assignment
    load: Load
    build: Build
    release: Release
    dismissal: Dismissal
    def __init__(self, assignment: _Optional[_Union[Assignment, _Mapping]] = ..., load: _Optional[_Union[Load, _Mapping]] = ..., build: _Optional[_Union[Build, _Mapping]] = ..., release: _Optional[_Union[Release, _Mapping]] = ..., dismissal: _Optional[_Union[Dismissal, _Mapping]] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("rank", "device_index", "config", "groups", "wait_s", "join_s", "store_host", "store_port", "ring")
    RANK_FIELD_NUMBER: _ClassVar[int]
    DEVICE_INDEX_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    JOIN_S_FIELD_NUMBER: _ClassVar[int]
    STORE_HOST_FIELD_NUMBER: _ClassVar[int]
    STORE_PORT_FIELD_NUMBER: _ClassVar[int]
    RING_FIELD_NUMBER: _ClassVar[int]
    rank: int
    device_index: int
    config: Config
    groups: _containers.RepeatedCompositeFieldContainer[Group]
    wait_s: float
    join_s: float
    store_host: str
    store_port: int
    ring: Ring
    def __init__(self, rank: _Optional[int] = ..., device_index: _Optional[int] = ..., config: _Optional[_Union[Config, _Mapping]] = ..., groups: _Optional[_Iterable[_Union[Group, _Mapping]]] = ..., wait_s: _Optional[float] = ..., join_s: _Optional[float] = ..., store_host: _Optional[str] = ..., store_port: _Optional[int] = ..., ring: _Optional[_Union[Ring, _Mapping]] = ...) -> None: ...

class Ring(_message.Message):
    __slots__ = ("name", "reader", "num_readers")
    NAME_FIELD_NUMBER: _ClassVar[int]
    READER_FIELD_NUMBER: _ClassVar[int]
    NUM_READERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    reader: int
    num_readers: int
    def __init__(self, name: _Optional[str] = ..., reader: _Optional[int] = ..., num_readers: _Optional[int] = ...) -> None: ...

class Group(_message.Message):
    __slots__ = ("name", "place", "num_ranks", "transport")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    NUM_RANKS_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    name: str
    place: int
    num_ranks: int
    transport: Transport
    def __init__(self, name: _Optional[str] = ..., place: _Optional[int] = ..., num_ranks: _Optional[int] = ..., transport: _Optional[_Union[Transport, str]] = ...) -> None: ...

class Config(_message.Message):
    __slots__ = ("files", "device", "dtype", "kernels", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "kv_cache_tokens", "kv_cache_dtype", "block_size", "enable_prefix_caching", "max_logprobs", "plan", "ranks_on_host", "replicas_on_host", "memory_sharers", "memory_taken_bytes", "expert_placement")
    FILES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    KERNELS_FIELD_NUMBER: _ClassVar[int]
    MAX_MODEL_LEN_FIELD_NUMBER: _ClassVar[int]
    MAX_NUM_SEQS_FIELD_NUMBER: _ClassVar[int]
    MAX_NUM_BATCHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_DTYPE_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    ENABLE_PREFIX_CACHING_FIELD_NUMBER: _ClassVar[int]
    MAX_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    RANKS_ON_HOST_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_ON_HOST_FIELD_NUMBER: _ClassVar[int]
    MEMORY_SHARERS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TAKEN_BYTES_FIELD_NUMBER: _ClassVar[int]
    EXPERT_PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    files: Files
    device: str
    dtype: str
    kernels: str
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    kv_cache_tokens: int
    kv_cache_dtype: str
    block_size: int
    enable_prefix_caching: bool
    max_logprobs: int
    plan: Plan
    ranks_on_host: int
    replicas_on_host: int
    memory_sharers: int
    memory_taken_bytes: int
    expert_placement: ExpertPlacement
    def __init__(self, files: _Optional[_Union[Files, _Mapping]] = ..., device: _Optional[str] = ..., dtype: _Optional[str] = ..., kernels: _Optional[str] = ..., max_model_len: _Optional[int] = ..., max_num_seqs: _Optional[int] = ..., max_num_batched_tokens: _Optional[int] = ..., kv_cache_tokens: _Optional[int] = ..., kv_cache_dtype: _Optional[str] = ..., block_size: _Optional[int] = ..., enable_prefix_caching: _Optional[bool] = ..., max_logprobs: _Optional[int] = ..., plan: _Optional[_Union[Plan, _Mapping]] = ..., ranks_on_host: _Optional[int] = ..., replicas_on_host: _Optional[int] = ..., memory_sharers: _Optional[int] = ..., memory_taken_bytes: _Optional[int] = ..., expert_placement: _Optional[_Union[ExpertPlacement, _Mapping]] = ...) -> None: ...

class ExpertPlacement(_message.Message):
    __slots__ = ("num_redundant", "loads")
    NUM_REDUNDANT_FIELD_NUMBER: _ClassVar[int]
    LOADS_FIELD_NUMBER: _ClassVar[int]
    num_redundant: int
    loads: _containers.RepeatedCompositeFieldContainer[ExpertLoads]
    def __init__(self, num_redundant: _Optional[int] = ..., loads: _Optional[_Iterable[_Union[ExpertLoads, _Mapping]]] = ...) -> None: ...

class ExpertLoads(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, tokens: _Optional[_Iterable[int]] = ...) -> None: ...

class Files(_message.Message):
    __slots__ = ("source", "kind", "path", "digest", "pinned")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    source: str
    kind: str
    path: str
    digest: str
    pinned: str
    def __init__(self, source: _Optional[str] = ..., kind: _Optional[str] = ..., path: _Optional[str] = ..., digest: _Optional[str] = ..., pinned: _Optional[str] = ...) -> None: ...

class Plan(_message.Message):
    __slots__ = ("tp", "pp", "ep", "dp")
    TP_FIELD_NUMBER: _ClassVar[int]
    PP_FIELD_NUMBER: _ClassVar[int]
    EP_FIELD_NUMBER: _ClassVar[int]
    DP_FIELD_NUMBER: _ClassVar[int]
    tp: int
    pp: int
    ep: int
    dp: int
    def __init__(self, tp: _Optional[int] = ..., pp: _Optional[int] = ..., ep: _Optional[int] = ..., dp: _Optional[int] = ...) -> None: ...

class Load(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Build(_message.Message):
    __slots__ = ("max_model_len", "max_num_seqs", "max_num_batched_tokens", "num_blocks", "block_size", "max_scored_tokens", "enable_prefix_caching", "max_in_flight")
    MAX_MODEL_LEN_FIELD_NUMBER: _ClassVar[int]
    MAX_NUM_SEQS_FIELD_NUMBER: _ClassVar[int]
    MAX_NUM_BATCHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_SCORED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ENABLE_PREFIX_CACHING_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    num_blocks: int
    block_size: int
    max_scored_tokens: int
    enable_prefix_caching: bool
    max_in_flight: int
    def __init__(self, max_model_len: _Optional[int] = ..., max_num_seqs: _Optional[int] = ..., max_num_batched_tokens: _Optional[int] = ..., num_blocks: _Optional[int] = ..., block_size: _Optional[int] = ..., max_scored_tokens: _Optional[int] = ..., enable_prefix_caching: _Optional[bool] = ..., max_in_flight: _Optional[int] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Dismissal(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Reply(_message.Message):
    __slots__ = ("prepared", "loaded", "ready", "released", "failed", "line")
    PREPARED_FIELD_NUMBER: _ClassVar[int]
    LOADED_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    prepared: Prepared
    loaded: Loaded
    ready: Ready
    released: Released
    failed: Failed
    line: str
    def __init__(self, prepared: _Optional[_Union[Prepared, _Mapping]] = ..., loaded: _Optional[_Union[Loaded, _Mapping]] = ..., ready: _Optional[_Union[Ready, _Mapping]] = ..., released: _Optional[_Union[Released, _Mapping]] = ..., failed: _Optional[_Union[Failed, _Mapping]] = ..., line: _Optional[str] = ...) -> None: ...

class Prepared(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Loaded(_message.Message):
    __slots__ = ("num_blocks", "block_size", "block_bytes", "weights_bytes", "numerics")
    class NumericsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    BLOCK_BYTES_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_BYTES_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_FIELD_NUMBER: _ClassVar[int]
    num_blocks: int
    block_size: int
    block_bytes: int
    weights_bytes: int
    numerics: _containers.ScalarMap[str, str]
    def __init__(self, num_blocks: _Optional[int] = ..., block_size: _Optional[int] = ..., block_bytes: _Optional[int] = ..., weights_bytes: _Optional[int] = ..., numerics: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Ready(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Released(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Failed(_message.Message):
    __slots__ = ("text", "is_refusal", "is_another_ranks")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IS_REFUSAL_FIELD_NUMBER: _ClassVar[int]
    IS_ANOTHER_RANKS_FIELD_NUMBER: _ClassVar[int]
    text: str
    is_refusal: bool
    is_another_ranks: bool
    def __init__(self, text: _Optional[str] = ..., is_refusal: _Optional[bool] = ..., is_another_ranks: _Optional[bool] = ...) -> None: ...
