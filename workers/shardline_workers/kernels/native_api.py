"""The C interface of native/api.h in ctypes: the same names without the prefix, nothing else.

What the fields mean stands there. `NativeLibrary` compares version and size, so that the two cannot drift apart.
"""

import ctypes
from ctypes import POINTER, c_float, c_int32, c_int64, c_void_p
from enum import IntEnum

ABI_VERSION = 8
MAX_RANKS = 8  # SL_MAX_RANKS
CANDIDATES_MAX = 256  # SL_CANDIDATES_MAX


class Status(IntEnum):
    """enum sl_status."""

    OK = 0
    BAD_ARGUMENT = -1
    BAD_STEP = -2
    NO_MEMORY = -3


class Format(IntEnum):
    """enum sl_format."""

    BF16 = 0
    W4_MIN = 1
    W8 = 2
    W4 = 3


class Source(IntEnum):
    """enum sl_source."""

    F32 = 0
    F16 = 1
    BF16 = 2
    Q4_0 = 3
    Q4_1 = 4
    Q8_0 = 5
    Q5_0 = 6
    Q5_1 = 7
    Q2_K = 8
    Q3_K = 9
    Q4_K = 10
    Q5_K = 11
    Q6_K = 12


class PanelKind(IntEnum):
    """enum sl_panel_kind."""

    INT8 = 0
    PAIRS = 1


class Pairing(IntEnum):
    """enum sl_pairing."""

    HALVES = 0
    NEIGHBOURS = 1


class KvFormat(IntEnum):
    """enum sl_kv_format."""

    BF16 = 0
    INT8 = 1


class Activation(IntEnum):
    """enum sl_activation."""

    SILU = 0
    GELU_TANH = 1


class Scoring(IntEnum):
    """enum sl_scoring."""

    SOFTMAX = 0
    SIGMOID = 1


class OpKind(IntEnum):
    """enum sl_op_kind."""

    EMBEDDING = 0
    NORM = 1
    QUANTISE = 2
    LINEAR = 3
    GATED_LINEAR = 4
    GATED_ACTIVATION = 5
    ROTATE_STORE = 6
    ATTENTION = 7
    GATHER_SAMPLED = 8
    CHOOSE_GREEDY = 9
    CHOOSE_DRAWN = 10
    LOGPROBS = 11
    SOFT_CAP = 12
    ADJUST_LOGITS = 13
    RESTORE_LOGITS = 14
    CHOOSE_GIVEN = 15
    ROUTE = 16
    DEAL_ROWS = 17
    EXPERTS = 18
    GATHER_LOGITS = 19
    ALL_REDUCE = 20
    SEND = 21
    RECEIVE = 22


class Packing(ctypes.Structure):
    """sl_packing."""

    _fields_ = (
        ("format", c_int32),
        ("source", c_int32),
        ("num_rows", c_int64),
        ("num_inputs", c_int64),
        ("first_tile", c_int64),
        ("tile_step", c_int64),
        ("rows", c_void_p),
        ("rows_bytes", c_int64),
        ("packed", c_void_p),
        ("packed_bytes", c_int64),
    )


class Weight(ctypes.Structure):
    """sl_weight."""

    _fields_ = (
        ("format", c_int32),
        ("num_outputs", c_int32),
        ("num_inputs", c_int32),
        ("reserved", c_int32),
        ("tiles", c_void_p),
    )


class Panels(ctypes.Structure):
    """sl_panels."""

    _fields_ = (("kind", c_int32), ("num_inputs", c_int32), ("bytes", c_void_p))


class Cache(ctypes.Structure):
    """sl_kv_cache."""

    _fields_ = (
        ("blocks", c_void_p),
        ("num_blocks", c_int32),
        ("block_size", c_int32),
        ("num_kv_heads", c_int32),
        ("head_dim", c_int32),
        ("format", c_int32),
        ("reserved", c_int32),
    )


class Step(ctypes.Structure):
    """sl_step."""

    _fields_ = (
        ("header", c_void_p),
        ("token_ids", c_void_p),
        ("positions", c_void_p),
        ("cache_places", c_void_p),
        ("query_starts", c_void_p),
        ("context_lengths", c_void_p),
        ("slots", c_void_p),
        ("block_tables", c_void_p),
        ("sampled_rows", c_void_p),
    )


class Limits(ctypes.Structure):
    """sl_limits."""

    _fields_ = (("max_tokens", c_int32), ("max_seqs", c_int32), ("max_blocks", c_int32), ("max_sampled", c_int32))


class Embedding(ctypes.Structure):
    """sl_embedding."""

    _fields_ = (
        ("table", Weight),
        ("out", c_void_p),
        ("out_stride", c_int64),
        ("scale", c_float),
        ("is_part", c_int32),
        ("first_id", c_int64),
    )


class Norm(ctypes.Structure):
    """sl_norm."""

    _fields_ = (
        ("residual", c_void_p),
        ("delta", c_void_p),
        ("weight", c_void_p),
        ("out", c_void_p),
        ("panels", Panels),
        ("width", c_int32),
        ("epsilon", c_float),
        ("delta_weight", c_void_p),
        ("out_stride", c_int64),
    )


class Quantise(ctypes.Structure):
    """sl_quantise."""

    _fields_ = (("x", c_void_p), ("x_stride", c_int64), ("panels", Panels))


class Linear(ctypes.Structure):
    """sl_linear."""

    _fields_ = (("x", Panels), ("weight", Weight), ("out", c_void_p), ("out_stride", c_int64))


class GatedLinear(ctypes.Structure):
    """sl_gated_linear."""

    _fields_ = (
        ("x", Panels),
        ("weight", Weight),
        ("panels", Panels),
        ("activation", c_int32),
        ("reserved", c_int32),
    )


class GatedActivation(ctypes.Structure):
    """sl_gated_activation."""

    _fields_ = (
        ("gate_up", c_void_p),
        ("out", c_void_p),
        ("panels", Panels),
        ("size", c_int64),
        ("activation", c_int32),
        ("reserved", c_int32),
    )


class RotateStore(ctypes.Structure):
    """sl_rotate_store."""

    _fields_ = (
        ("qkv", c_void_p),
        ("qkv_stride", c_int64),
        ("queries", c_void_p),
        ("cosines", c_void_p),
        ("sines", c_void_p),
        ("max_len", c_int32),
        ("rotary_dim", c_int32),
        ("pairing", c_int32),
        ("num_heads", c_int32),
        ("cache", Cache),
        ("query_norm", c_void_p),
        ("key_norm", c_void_p),
        ("epsilon", c_float),
        ("shares_values", c_int32),
    )


class Attention(ctypes.Structure):
    """sl_attention."""

    _fields_ = (
        ("queries", c_void_p),
        ("cache", Cache),
        ("out", c_void_p),
        ("panels", Panels),
        ("num_heads", c_int32),
        ("scale", c_float),
        ("window", c_int32),
        ("softcap", c_float),
        ("sinks", c_void_p),
    )


class Gather(ctypes.Structure):
    """sl_gather."""

    _fields_ = (("x", c_void_p), ("out", c_void_p), ("width", c_int64))


class Adjustments(ctypes.Structure):
    """sl_adjustments."""

    _fields_ = (
        ("lengths", c_void_p),
        ("ids", c_void_p),
        ("biases", c_void_p),
        ("occurrences", c_void_p),
        ("raw_logits", c_void_p),
        ("width", c_int64),
    )


class Choice(ctypes.Structure):
    """sl_choice."""

    _fields_ = (
        ("logits", c_void_p),
        ("logits_stride", c_int64),
        ("vocab_size", c_int32),
        ("num_top", c_int32),
        ("temperatures", c_void_p),
        ("top_ks", c_void_p),
        ("top_ps", c_void_p),
        ("min_ps", c_void_p),
        ("noise_keys", c_void_p),
        ("drawn_rows", c_void_p),
        ("logprob_rows", c_void_p),
        ("adjusted_rows", c_void_p),
        ("adjusted_slots", c_void_p),
        ("repetition_penalties", c_void_p),
        ("frequency_penalties", c_void_p),
        ("presence_penalties", c_void_p),
        ("adjustments", Adjustments),
        ("given_rows", c_void_p),
        ("given_ids", c_void_p),
        ("chosen_ids", c_void_p),
        ("usable", c_void_p),
        ("chosen_logprobs", c_void_p),
        ("top_ids", c_void_p),
        ("top_logprobs", c_void_p),
        ("num_candidates", c_void_p),
        ("first_id", c_int64),
        ("is_part", c_int32),
        ("reserved", c_int32),
    )


class SoftCap(ctypes.Structure):
    """sl_soft_cap."""

    _fields_ = (
        ("x", c_void_p),
        ("x_stride", c_int64),
        ("width", c_int64),
        ("cap", c_float),
        ("reserved", c_int32),
    )


class Routes(ctypes.Structure):
    """sl_routes."""

    _fields_ = (
        ("expert_ids", c_void_p),
        ("weights", c_void_p),
        ("num_rows", c_void_p),
        ("max_rows", c_int32),
        ("num_active", c_int32),
    )


class Route(ctypes.Structure):
    """sl_route."""

    _fields_ = (
        ("x", c_void_p),
        ("x_stride", c_int64),
        ("router", c_void_p),
        ("bias", c_void_p),
        ("logits", c_void_p),
        ("counts", c_void_p),
        ("routes", Routes),
        ("width", c_int32),
        ("num_experts", c_int32),
        ("scoring", c_int32),
        ("renormalises", c_int32),
        ("num_groups", c_int32),
        ("num_active_groups", c_int32),
        ("scale", c_float),
        ("reserved", c_int32),
    )


class DealtRows(ctypes.Structure):
    """sl_dealt_rows."""

    _fields_ = (
        ("starts", c_void_p),
        ("rows", c_void_p),
        ("weights", c_void_p),
        ("places", c_void_p),
        ("active", c_void_p),
        ("num_active", c_void_p),
        ("panels", Panels),
        ("num_experts", c_int32),
        ("reserved", c_int32),
    )


class DealRows(ctypes.Structure):
    """sl_deal_rows."""

    _fields_ = (
        ("x", c_void_p),
        ("x_stride", c_int64),
        ("routes", Routes),
        ("id_to_number", c_void_p),
        ("dealt", DealtRows),
        ("row_panels", c_void_p),
        ("num_ids", c_int32),
        ("reserved", c_int32),
    )


class Expert(ctypes.Structure):
    """sl_expert."""

    _fields_ = (("gate_up", Weight), ("down", Weight))


class Experts(ctypes.Structure):
    """sl_experts."""

    _fields_ = (
        ("routes", Routes),
        ("dealt", DealtRows),
        ("experts", c_void_p),
        ("activated", Panels),
        ("delta", c_void_p),
        ("delta_stride", c_int64),
        ("activation", c_int32),
        ("reserved", c_int32),
    )


class Exchange(ctypes.Structure):
    """sl_exchange."""

    _fields_ = (
        ("ranks", c_void_p),
        ("x", c_void_p),
        ("width", c_int64),
        ("peer", c_int32),
        ("reserved", c_int32),
    )


class GatherLogits(ctypes.Structure):
    """sl_gather_logits."""

    _fields_ = (
        ("ranks", c_void_p),
        ("x", c_void_p),
        ("x_stride", c_int64),
        ("out", c_void_p),
        ("out_stride", c_int64),
        ("num_candidates", c_void_p),
        ("candidates", c_void_p),
        ("rank", c_int32),
        ("num_ranks", c_int32),
        ("rank_sizes", c_int32 * MAX_RANKS),
    )


class Operands(ctypes.Union):
    """The union in sl_op."""

    _fields_ = (
        ("embedding", Embedding),
        ("norm", Norm),
        ("quantise", Quantise),
        ("linear", Linear),
        ("gated_linear", GatedLinear),
        ("gated_activation", GatedActivation),
        ("rotate_store", RotateStore),
        ("attention", Attention),
        ("gather", Gather),
        ("choice", Choice),
        ("soft_cap", SoftCap),
        ("route", Route),
        ("deal_rows", DealRows),
        ("experts", Experts),
        ("gather_logits", GatherLogits),
        ("exchange", Exchange),
    )


class Op(ctypes.Structure):
    """sl_op."""

    _fields_ = (("kind", c_int32), ("rows", c_int32), ("operands", Operands))


class PoolStats(ctypes.Structure):
    """sl_pool_stats."""

    _fields_ = (
        ("num_runs", c_int64),
        ("wall_ns", c_int64),
        ("cpu_ns", c_int64),
    )


# Function → result and arguments.
FUNCTIONS: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "sl_abi_version": (c_int32, ()),
    "sl_last_error": (ctypes.c_char_p, ()),
    "sl_isa_available": (ctypes.c_uint32, ()),
    "sl_isa_best": (c_int32, ()),
    "sl_isa_name": (ctypes.c_char_p, (c_int32,)),
    "sl_weight_bytes": (c_int64, (c_int32, c_int64, c_int64)),
    "sl_source_bytes": (c_int64, (c_int32, c_int64, c_int64)),
    "sl_pack": (c_int32, (POINTER(Packing),)),
    "sl_unpack": (c_int32, (POINTER(Packing), c_void_p)),
    "sl_panel_bytes": (c_int64, (c_int32, c_int64, c_int64)),
    "sl_kv_cache_bytes": (c_int64, (POINTER(Cache),)),
    "sl_op_bytes": (c_int64, ()),
    "sl_pool_create": (c_void_p, (c_int32,)),
    "sl_pool_destroy": (None, (c_void_p,)),
    "sl_pool_read_stats": (c_int32, (c_void_p, POINTER(PoolStats))),
    "sl_program_create": (c_void_p, (POINTER(Op), c_int64, POINTER(Limits), c_int32, c_int32)),
    "sl_program_destroy": (None, (c_void_p,)),
    "sl_program_run": (c_int32, (c_void_p, c_void_p, POINTER(Step), c_int32, POINTER(c_int64))),
}
