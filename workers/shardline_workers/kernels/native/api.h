// The native CPU kernels as other languages see them: a plain C ABI that knows neither Python nor torch.
//
// A model's step is a *program*: an array of operations on buffers that the caller owns, made once and run for every
// step. sl_program_run() plays the whole array in one call, on the threads of a pool, an operation beginning
// when the one before is done. How many rows count in a step, and where its tokens lie in the KV cache, is read from an sl_step.
//
// Rules that hold everywhere:
// - Ownership. The caller owns every buffer; a program keeps pointers to them (not to the sl_op array, which is copied)
//   and needs them to live, unmoved, as long as itself. Only what sl_*_create returns belongs to the library.
// - Alignment. Weights, panels and KV caches start on 64 bytes; all other buffers as their type wants.
// - Numbers. Activations between operations are float32, row-major; strides count elements. Results depend on a row's
//   own inputs only: never on the number of rows, threads or chunks, nor on the instruction set of a machine (the
//   denormals of float32 count as zero everywhere). One exception: on SL_ISA_AMX linear layers and experts with bfloat16
//   weights, and attention to a cache of SL_KV_BF16, have sums in an order of their own, the same for any number of rows.
// - Errors. Functions that return int give SL_OK or a negative sl_status, those that return pointers give NULL; then
//   sl_last_error() says what was wrong, with value and bound. Nothing was written in that case.
// - Threads. Packing functions may be called by many threads at once on disjoint tiles. A pool runs one program at a
//   time; a program runs on one pool at a time.
#ifndef SHARDLINE_NATIVE_API_H
#define SHARDLINE_NATIVE_API_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// How it is built: all .cpp files of this folder into one shared library, by g++ or clang++, with
//   -std=c++17 -O3 -ffp-contract=off -fno-math-errno -fPIC -fvisibility=hidden -pthread -shared
// and, for a file whose first line is "// flags: …" or "// arm64 flags: …", these flags as well. They name its
// instruction set: such files are left out on processors other than x86-64, or other than 64-bit ARM. No -march besides,
// no -ffast-math: both would change results.
#define SL_ABI_VERSION 8
#define SL_API __attribute__((visibility("default")))

enum sl_status {
    SL_OK = 0,
    SL_BAD_ARGUMENT = -1,  // a null pointer, an unknown enum value, a size out of its bounds
    SL_BAD_STEP = -2,      // a program was run with a step that does not fit it: counts, ids or places out of range
    SL_NO_MEMORY = -3,
};

// SL_ABI_VERSION that the library was built with: the caller's must be equal.
SL_API int32_t sl_abi_version(void);
// Text of the calling thread's last error, "" where there was none; valid until its next failing call.
SL_API const char *sl_last_error(void);

// ---------------------------------------------------------------------------------------------- instruction sets

enum sl_isa {
    SL_ISA_PORTABLE = 0,      // plain C++, any processor
    SL_ISA_AVX2 = 1,          // AVX2, FMA, F16C
    SL_ISA_AVX_VNNI = 2,      // AVX2 and 256-bit dot products of int8
    SL_ISA_AVX512_VNNI = 3,   // AVX512 F, BW, DQ, VL and VNNI
    SL_ISA_AVX512_BF16 = 4,   // the same and dot products of bfloat16
    SL_ISA_AMX = 5,           // AVX512_BF16 and matrix instructions (AMX) for bfloat16 weights and caches
    SL_ISA_NEON = 6,          // 64-bit ARM, any
    SL_ISA_NEON_DOTPROD = 7,  // 64-bit ARM with dot products of int8
    SL_ISA_COUNT = 8,
};

// Bit i is set where instruction set i was compiled in and this processor (and its system) has it.
SL_API uint32_t sl_isa_available(void);
// The fastest of them: not always the last one.
SL_API int32_t sl_isa_best(void);
// "avx512-bf16" and so on; NULL for an unknown number.
SL_API const char *sl_isa_name(int32_t isa);

// ------------------------------------------------------------------------------------------------------- weights
//
// A weight matrix [num_outputs, num_inputs] is stored as tiles of 16 outputs; a tile is a sequence of blocks of 32
// inputs. Missing outputs of the last tile and missing inputs of the last block are zeros. One block:
//
//   SL_BF16     1024 B  [16 pairs of inputs][16 outputs][2] bfloat16
//   SL_W4_MIN    320 B  [4][16 outputs][4] bytes, then 16 scales, then 16 minima (float16); weight = scale·q - minimum
//   SL_W8        544 B  [8][16 outputs][4] bytes, then 16 scales (float16);                 weight = scale·(q - 128)
//   SL_W4        288 B  as SL_W4_MIN without minima;                                        weight = scale·(q - 8)
//
//   Byte [j][output][i] of W8 is input 4j + i. Of W4 its low nibble is input 8j + i, its high one input 8j + 4 + i.
//
// A shard of a matrix (by outputs) is a range of tiles; all instruction sets read the same bytes.

enum sl_format { SL_BF16 = 0, SL_W4_MIN = 1, SL_W8 = 2, SL_W4 = 3, SL_FORMAT_COUNT = 4 };

// What weights are packed from, always row-major [num_rows, num_inputs]. Q types are ggml's blocks along a row, of 32
// inputs, with K of 256; their num_inputs is a multiple of that.
enum sl_source {
    SL_FROM_F32 = 0,
    SL_FROM_F16 = 1,
    SL_FROM_BF16 = 2,
    SL_FROM_Q4_0 = 3,
    SL_FROM_Q4_1 = 4,
    SL_FROM_Q8_0 = 5,
    SL_FROM_Q5_0 = 6,
    SL_FROM_Q5_1 = 7,
    SL_FROM_Q2_K = 8,
    SL_FROM_Q3_K = 9,
    SL_FROM_Q4_K = 10,
    SL_FROM_Q5_K = 11,
    SL_FROM_Q6_K = 12,
    SL_SOURCE_COUNT = 13,
};

// Bytes of a packed matrix, or SL_BAD_ARGUMENT. sl_weight_bytes(format, 16, num_inputs) is the size of one tile.
SL_API int64_t sl_weight_bytes(int32_t format, int64_t num_outputs, int64_t num_inputs);
// Bytes of source rows, or SL_BAD_ARGUMENT.
SL_API int64_t sl_source_bytes(int32_t source, int64_t num_rows, int64_t num_inputs);

typedef struct sl_packing {
    int32_t format;      // enum sl_format
    int32_t source;      // enum sl_source
    int64_t num_rows;    // of the source: ceil(num_rows / 16) tiles are written
    int64_t num_inputs;  // of source and packed matrix
    int64_t first_tile;  // where the first 16 rows go
    int64_t tile_step;  // from one tile to the next: 1, or 2 where two matrices interleave (gate: 0, 2, …; up: 1, 3, …)
    const void *rows;      // source
    int64_t rows_bytes;    // at least sl_source_bytes(…)
    void *packed;          // the whole packed matrix
    int64_t packed_bytes;  // of it: no tile beyond is written
} sl_packing;

// Packs rows into tiles.
// - Exact: Q4_0 → W4 or W4_MIN, Q4_1 → W4_MIN, Q5_0 → W8, Q8_0 → W8, BF16 → BF16.
// - Q4_K → W4_MIN: quants as they are; a group's scale and minimum, products of a float16 and six bits, are rounded to
//   float16, so by 2^-11 of themselves at most.
// - Q3_K, Q6_K → W8, whose groups are twice as long: the half with the larger scale keeps its quants (times 32 and 4),
//   the other one is rounded to that grid, by a 180th of their largest weight at most. Rounded as below where a group
//   is closer to it so.
// - Every other pair is rounded: to bfloat16 to nearest even, to the others as ggml's reference quantisation of Q4_0,
//   Q4_1 and Q8_0 does. So Q5_1, Q2_K and Q5_K → W8 move by a 254th of their group's largest weight at most: as much as
//   the inputs do, which become int8 as well.
// One thread does all of it: split the rows at multiples of 16 (each piece with its own first_tile) for more.
SL_API int sl_pack(const sl_packing *packing);
// The reverse, for tests and fallbacks: packed tiles to float32 rows [num_rows, num_inputs]. The source's fields do not
// count.
SL_API int sl_unpack(const sl_packing *packing, float *rows);

typedef struct sl_weight {
    int32_t format;       // enum sl_format
    int32_t num_outputs;  // that count
    int32_t num_inputs;
    int32_t reserved;   // 0
    const void *tiles;  // sl_weight_bytes(format, num_outputs, num_inputs); plus as for SL_OP_GATED_LINEAR said there
} sl_weight;

// -------------------------------------------------------------------------------------------------------- panels
//
// Inputs of linear layers lie in panels: balanced groups of at most 6 rows (16 for matrix instructions), 32 inputs of
// each row after the other, quantised once for all layers that read them. How rows are spread over panels depends on
// their number in a step and on the instruction set, so a panel buffer can be read only by operations with the same row
// count in the same step of one program.
//
//   SL_INT8    for W4_MIN, W4, W8: int8 per row and 32 inputs with their scale and sums; 48 B a row and 32 inputs
//   SL_PAIRS   for BF16: bfloat16;                                                      64 B a row and 32 inputs

enum sl_panel_kind { SL_INT8 = 0, SL_PAIRS = 1, SL_PANEL_KIND_COUNT = 2 };

// Bytes of panels for up to max_rows rows, or SL_BAD_ARGUMENT.
SL_API int64_t sl_panel_bytes(int32_t kind, int64_t max_rows, int64_t num_inputs);

typedef struct sl_panels {
    int32_t kind;        // enum sl_panel_kind
    int32_t num_inputs;  // of the linear layers that read it
    void *bytes;         // sl_panel_bytes(kind, max rows of the operation, num_inputs); NULL: no panels are wanted
} sl_panels;

// ------------------------------------------------------------------------------------------------------ KV cache
//
// One layer's cache: [num_blocks][num_kv_heads][keys, then values], packed so that attention is two small products of
// the same kind as a linear layer:
//
//   SL_KV_BF16   keys    [block_size / 16][head_dim / 2][16 keys][2 dimensions] bfloat16
//                values  [head_dim / 16][block_size / 2][16 dimensions][2 keys] bfloat16
//   SL_KV_INT8   keys    [block_size / 16][head_dim / 32] blocks of SL_W8, whose outputs are 16 keys: a scale (float16)
//                        for each key and 32 dimensions
//                values  [head_dim / 16][block_size / 4][16 dimensions][4 keys] int8
//                scales  [block_size] float32, of values: one for each key
//
// INT8 takes 0.53 of BF16's bytes at head_dim 64. A number is rounded to 1/254 of the greatest one of its group, when it
// is stored; queries and weights of attention are rounded too, see attention_page_int8.h.
//
// A block's bytes do not depend on its place: a block can be copied, sent and restored as it is. Need not be zeroed.

enum sl_kv_format { SL_KV_BF16 = 0, SL_KV_INT8 = 1, SL_KV_FORMAT_COUNT = 2 };

typedef struct sl_kv_cache {
    void *blocks;          // sl_kv_cache_bytes(…)
    int32_t num_blocks;    // places are 0 … num_blocks · block_size - 1
    int32_t block_size;    // tokens: 32 or 64; 64 is the faster one
    int32_t num_kv_heads;  // 1 …
    int32_t head_dim;      // a multiple of 16, at most 576
    int32_t format;        // enum sl_kv_format
    int32_t reserved;      // 0
} sl_kv_cache;

// Bytes of one layer's cache, or SL_BAD_ARGUMENT; the pointer in it may be NULL.
SL_API int64_t sl_kv_cache_bytes(const sl_kv_cache *cache);

// ---------------------------------------------------------------------------------------------------------- step
//
// Entries and buffers are those of kernels/step_buffers.py, by the same names. Read on every run.

enum sl_count {
    SL_TOKENS = 0,     // tokens that enter the model
    SL_SEQUENCES = 1,  // that these tokens belong to
    SL_SAMPLED = 2,    // rows of logits: tokens whose next one is chosen or given
    SL_DRAWN = 3,      // of these, by chance
    SL_CUT = 4,        // of the drawn ones, with top-k or top-p
    SL_LOGPROBS = 5,   // of the sampled ones, with log-probabilities
    SL_ADJUSTED = 6,   // of the sampled ones, with some logits changed before the choice
    SL_GIVEN = 7,      // of the sampled ones, whose token is known
    SL_COUNT_COUNT = 8,
};

typedef struct sl_step {
    const int32_t *header;           // [SL_COUNT_COUNT]
    const int64_t *token_ids;        // [max_tokens]
    const int64_t *positions;        // [max_tokens], within the sequence
    const int64_t *cache_places;     // [max_tokens], block id · block size + offset
    const int32_t *query_starts;     // [max_seqs + 1], tokens of sequence s are query_starts[s] … [s + 1] - 1
    const int32_t *context_lengths;  // [max_seqs], with this step's tokens; a chunk is the end of its context
    const int64_t *slots;            // [max_seqs], row of block_tables
    const int64_t *block_tables;     // [max_seqs, max_blocks]
    const int64_t *sampled_rows;     // [max_sampled]
} sl_step;

// Sizes that the step's buffers were made for; a step beyond them is refused with SL_BAD_STEP.
typedef struct sl_limits {
    int32_t max_tokens;
    int32_t max_seqs;
    int32_t max_blocks;   // of one sequence
    int32_t max_sampled;  // rows of logits
} sl_limits;

// ---------------------------------------------------------------------------------------------------- operations
//
// `rows` of an sl_op is SL_TOKENS or SL_SAMPLED: how many rows of its buffers count. (Rotation, attention and choices
// know theirs; give SL_TOKENS to the first two, SL_SAMPLED to the others.)
// Operations run in order; each sees all that earlier ones wrote. Rows beyond the count are neither read nor written.

enum sl_op_kind {
    SL_OP_EMBEDDING = 0,
    SL_OP_NORM = 1,
    SL_OP_QUANTISE = 2,
    SL_OP_LINEAR = 3,
    SL_OP_GATED_LINEAR = 4,
    SL_OP_GATED_ACTIVATION = 5,
    SL_OP_ROTATE_STORE = 6,
    SL_OP_ATTENTION = 7,
    SL_OP_GATHER_SAMPLED = 8,
    SL_OP_CHOOSE_GREEDY = 9,
    SL_OP_CHOOSE_DRAWN = 10,
    SL_OP_LOGPROBS = 11,
    SL_OP_SOFT_CAP = 12,
    SL_OP_ADJUST_LOGITS = 13,
    SL_OP_RESTORE_LOGITS = 14,
    SL_OP_CHOOSE_GIVEN = 15,
    SL_OP_ROUTE = 16,
    SL_OP_DEAL_ROWS = 17,
    SL_OP_EXPERTS = 18,
    SL_OP_GATHER_LOGITS = 19,
    SL_OP_ALL_REDUCE = 20,
    SL_OP_SEND = 21,
    SL_OP_RECEIVE = 22,
    SL_OP_KIND_COUNT = 23,
};

// out[row] = scale · table[token_ids[row] - first_id], from any format (so a tied output matrix is its own table).
typedef struct sl_embedding {
    sl_weight table;  // num_outputs is the vocabulary, num_inputs the width
    float *out;       // [max_tokens, out_stride]
    int64_t out_stride;
    float scale;
    int32_t is_part;   // 1: ids that the table has not give zeros; 0: they are refused, and first_id is 0
    int64_t first_id;  // of the table
} sl_embedding;

// residual += delta (where there is one), then y = residual / rms(residual) · weight, rms² = mean(residual²) + epsilon.
// y goes to out, to panels, to both; or with SL_TOKENS and a delta to none, and needs no weight. With rows = SL_SAMPLED, row r reads residual and delta at sampled_rows[r] and
// leaves the residual as it was: final norm and gather in one. Where there is a delta_weight, delta / rms(delta) ·
// delta_weight is added in delta's place.
typedef struct sl_norm {
    float *residual;      // [max_tokens, width]
    const float *delta;   // [max_tokens, width] or NULL
    const float *weight;  // [width]
    float *out;           // [rows, out_stride] or NULL; may be residual only where delta is NULL
    sl_panels panels;     // num_inputs = width
    int32_t width;
    float epsilon;
    const float *delta_weight;  // [width] or NULL
    int64_t out_stride;
} sl_norm;

// Panels of x.
typedef struct sl_quantise {
    const float *x;  // [rows, x_stride]
    int64_t x_stride;
    sl_panels panels;
} sl_quantise;

// out = x · weight transposed; columns 0 … num_outputs - 1 of out are written.
typedef struct sl_linear {
    sl_panels x;
    sl_weight weight;
    float *out;  // [rows, out_stride]
    int64_t out_stride;
} sl_linear;

// What a gate is turned by:
//   SL_SILU       x / (1 + e^-x)
//   SL_GELU_TANH  x / 2 · (1 + tanh(sqrt(2 / pi) · (x + 0.044715 · x³)))
enum sl_activation { SL_SILU = 0, SL_GELU_TANH = 1, SL_ACTIVATION_COUNT = 2 };

// out = activation(gate) · up, where gate and up come from one weight whose tiles alternate: gate's tile 0, up's tile 0,
// gate's tile 1, … Each half is filled up to whole tiles by itself, so the weight has 2 · ceil(size / 16) tiles, and
// weight.num_outputs is 32 · ceil(size / 16).
typedef struct sl_gated_linear {
    sl_panels x;
    sl_weight weight;
    sl_panels panels;    // result, num_inputs = size
    int32_t activation;  // enum sl_activation
    int32_t reserved;    // 0
} sl_gated_linear;

// The same on float32 rows: gate_up [rows, 2 · size], gate before up. Goes to out, to panels, or to both.
typedef struct sl_gated_activation {
    const float *gate_up;
    float *out;        // [rows, size] or NULL
    sl_panels panels;  // num_inputs = size
    int64_t size;
    int32_t activation;  // enum sl_activation
    int32_t reserved;    // 0
} sl_gated_activation;

enum sl_pairing { SL_HALVES = 0, SL_NEIGHBOURS = 1 };

// Turns queries and keys by the angles of their positions. Queries go to `queries`, keys and values into the cache at
// cache_places. A row of qkv: num_heads queries, then num_kv_heads keys, then as many values, each head_dim long.
// Before it turns, a head of queries or keys becomes head / rms(head) · weight where a weight is given.
typedef struct sl_rotate_store {
    const float *qkv;  // [max_tokens, qkv_stride]
    int64_t qkv_stride;
    uint16_t *queries;     // [max_tokens, num_heads, head_dim] bfloat16, result
    const float *cosines;  // [max_len, rotary_dim / 2]
    const float *sines;    // [max_len, rotary_dim / 2]
    int32_t max_len;       // positions of the tables
    int32_t rotary_dim;    // even, at most head_dim; the other dimensions stay
    int32_t pairing;       // enum sl_pairing
    int32_t num_heads;     // a multiple of the cache's num_kv_heads: neighbouring query heads share a key head
    sl_kv_cache cache;
    const float *query_norm;  // [head_dim] or NULL
    const float *key_norm;    // [head_dim] or NULL
    float epsilon;            // of both
    int32_t shares_values;    // 1: a value is its key with 0 in the dimensions that turn, and qkv ends with the keys
} sl_rotate_store;

// Causal attention of each token to its sequence's cache, itself included. A score is query · key · scale, after softcap.
// Keys are taken in fixed splits of 256 positions, whatever the batch, so a row's bits depend on its own context only.
// Blocks that no token of a sequence sees any more are not read, but their entries in the block table must be ids.
typedef struct sl_attention {
    const uint16_t *queries;  // [max_tokens, num_heads, head_dim] bfloat16
    sl_kv_cache cache;
    float *out;        // [max_tokens, num_heads · head_dim] or NULL
    sl_panels panels;  // num_inputs = num_heads · head_dim; wants head_dim % 32 = 0
    int32_t num_heads;
    float scale;
    int32_t window;      // tokens that a token sees, itself included; 0: all
    float softcap;       // scores become softcap · tanh(scores / softcap); 0: off
    const float *sinks;  // [num_heads], a score of each head that takes weight and gives nothing; NULL: none
} sl_attention;

// out[r] = x[sampled_rows[r]]
typedef struct sl_gather {
    const float *x;  // [max_tokens, width]
    float *out;      // [max_seqs, width]
    int64_t width;
} sl_gather;

// Adjustments of kernels/sampling_buffers.py, by the same names.
typedef struct sl_adjustments {
    const int64_t *lengths;      // [max_seqs]; no more than `width` entries of a slot count
    const int32_t *ids;          // [max_seqs, width]; those outside of the vocabulary are passed over
    const float *biases;         // [max_seqs, width]
    const int32_t *occurrences;  // [max_seqs, width]
    double *raw_logits;          // [max_seqs, width]
    int64_t width;
} sl_adjustments;

// Buffers of kernels/sampling_buffers.py, by the same names, and the logits. One struct for the six operations:
//   ADJUST_LOGITS  changes the logits that adjustments name, in float64, rounded once, and keeps what stood there:
//                  v += bias; where seen, v = v > 0 ? v / repetition : v · repetition; where in the output,
//                  v -= frequency · occurrences + presence. Does nothing where header[SL_ADJUSTED] is 0. Rows of which
//                  ranks tell candidates (see sl_gather_logits) are those of an operation that is_part; others are not.
//   RESTORE_LOGITS takes that back.
//   CHOOSE_GREEDY  writes chosen_ids (likeliest, ties to the lowest id) and usable (0: a NaN or +inf, or only -inf).
//   CHOOSE_DRAWN   overwrites chosen_ids of drawn_rows; does nothing where header[SL_DRAWN] is 0.
//   CHOOSE_GIVEN   overwrites chosen_ids of given_rows by given_ids.
//   LOGPROBS       writes the last three, from the logits as they are; nothing where header[SL_LOGPROBS] is 0.
// Rows that are not usable are drawn as 0 and have log-probabilities NaN. Of equals the lower id is first.
typedef struct sl_choice {
    float *logits;  // [max_sampled, logits_stride]
    int64_t logits_stride;
    int32_t vocab_size;
    int32_t num_top;                     // columns of top_ids; 0: none
    const double *temperatures;          // [max_sampled]
    const int64_t *top_ks;               // [max_sampled], 0 is off
    const double *top_ps;                // [max_sampled]
    const double *min_ps;                // [max_sampled]
    const int64_t *noise_keys;           // [max_sampled]
    const int64_t *drawn_rows;           // [max_sampled]
    const int64_t *logprob_rows;         // [max_sampled]
    const int64_t *adjusted_rows;        // [max_sampled], each row once
    const int64_t *adjusted_slots;       // [max_sampled], each slot once
    const double *repetition_penalties;  // [max_sampled]
    const double *frequency_penalties;   // [max_sampled]
    const double *presence_penalties;    // [max_sampled]
    sl_adjustments adjustments;
    const int64_t *given_rows;      // [max_sampled]
    const int64_t *given_ids;       // [max_sampled]
    int64_t *chosen_ids;            // [max_sampled]
    uint8_t *usable;                // [max_sampled], 0 or 1
    double *chosen_logprobs;        // [max_sampled]
    int64_t *top_ids;               // [max_sampled, num_top]
    double *top_logprobs;           // [max_sampled, num_top]
    const int64_t *num_candidates;  // [max_sampled], see sl_gather_logits; NULL: 0 for all rows
    int64_t first_id;               // of the logits, for ADJUST_LOGITS and RESTORE_LOGITS
    int32_t is_part;                // 1: they are one rank's
    int32_t reserved;               // 0
} sl_choice;

// x = cap · tanh(x / cap), in place; what is infinite becomes NaN, so that it does not pass for a number.
typedef struct sl_soft_cap {
    float *x;  // [rows, x_stride]
    int64_t x_stride;
    int64_t width;  // columns that count
    float cap;
    int32_t reserved;  // 0
} sl_soft_cap;

// ---- mixtures of experts: ROUTE chooses, DEAL_ROWS sorts what was chosen by expert, EXPERTS computes ----
//
// Between the first two, rows may go to other ranks and come from them: routes then name rows of several ranks, and
// experts that this one does not have.

enum { SL_EXPERTS_MAX = 1024, SL_ACTIVE_EXPERTS_MAX = 64 };

// Buffers of kernels/operands.py, by the same names. An id that no expert has here is another rank's.
typedef struct sl_routes {
    int32_t *expert_ids;  // [max_rows, num_active]
    float *weights;       // [max_rows, num_active]
    int32_t *num_rows;    // [1]: how many rows count; more than max_rows are max_rows, fewer than none none
    int32_t max_rows;
    int32_t num_active;  // 1 … SL_ACTIVE_EXPERTS_MAX
} sl_routes;

enum sl_scoring { SL_SOFTMAX = 0, SL_SIGMOID = 1, SL_SCORING_COUNT = 2 };

// Chooses a token's experts by logits = x · router transposed. A score is their softmax or sigmoid, in float64; a choice is
// a score plus its bias. With groups, neighbouring experts, those of num_active_groups can be chosen: of the groups whose two
// greatest choices have the greatest sums. The num_active greatest choices stand in falling order, ties go to the lower
// ids, of groups too. Weights are their scores, divided by their sum where `renormalises`, times scale. num_rows becomes
// the number of tokens. A token with a choice that is no number takes the first experts, with weights that are none.
typedef struct sl_route {
    const float *x;  // [max_tokens, x_stride]
    int64_t x_stride;
    const float *router;  // [num_experts, width]
    const float *bias;    // [num_experts] or NULL
    float *logits;        // [max_rows, num_experts], for the operation alone
    int64_t *counts;      // [num_experts] or NULL: grow by 1 for each token that takes an expert
    sl_routes routes;     // of max_rows tokens at most: a step of more is refused
    int32_t width;
    int32_t num_experts;   // 1 … SL_EXPERTS_MAX
    int32_t scoring;       // enum sl_scoring
    int32_t renormalises;  // 0 or 1
    int32_t num_groups;    // divides num_experts
    int32_t num_active_groups;
    float scale;
    int32_t reserved;  // 0
} sl_route;

// Rows by expert: "place" p holds row rows[p] for an expert that it takes with weights[p]. Experts are numbered from 0 on
// as a rank has them, in ascending order of their ids, and so are places: starts[e] … starts[e + 1] - 1 are expert e's, by
// row. Made by DEAL_ROWS, read by EXPERTS.
typedef struct sl_dealt_rows {
    int32_t *starts;      // [num_experts + 1]
    int32_t *rows;        // [max_rows · num_active]
    float *weights;       // [max_rows · num_active]
    int32_t *places;      // [max_rows, num_active], of a row's choices; -1 where another rank has the expert
    int32_t *active;      // [num_experts]: the experts that have rows, ascending
    int32_t *num_active;  // [1]: so many
    sl_panels panels;     // of max_rows · num_active rows; those of an expert as if there were no others
    int32_t num_experts;  // 1 … SL_EXPERTS_MAX
    int32_t reserved;     // 0
} sl_dealt_rows;

// Sorts routes by expert, and writes the rows of x into panels in that order.
typedef struct sl_deal_rows {
    const float *x;  // [max_rows, x_stride]
    int64_t x_stride;
    sl_routes routes;
    const int32_t *id_to_number;  // [num_ids], of an expert here; -1 where another rank has it
    sl_dealt_rows dealt;
    void *row_panels;  // as the panels of dealt, of max_rows rows, for the operation alone
    int32_t num_ids;
    int32_t reserved;  // 0
} sl_deal_rows;

typedef struct sl_expert {
    sl_weight gate_up;  // as SL_OP_GATED_LINEAR wants it
    sl_weight down;
} sl_expert;

// delta[row] = sum of weight · down(activation(gate) · up) over the experts that a row takes, in ascending order of
// numbers; 0 where it takes none.
typedef struct sl_experts {
    sl_routes routes;
    sl_dealt_rows dealt;
    const sl_expert *experts;  // [dealt.num_experts], all of the same sizes, that read the same kinds of panels
    sl_panels activated;       // of max_rows · num_active rows, num_inputs = an expert's width
    float *delta;              // [max_rows, delta_stride]
    int64_t delta_stride;
    int32_t activation;  // enum sl_activation
    int32_t reserved;    // 0
} sl_experts;

// ---- calls to other ranks: see ranks_api.h, whose statuses sl_program_run gives then ----
//
// Groups must live as long as the program, and a rank must make no other call of a group while a program runs. One thread
// makes the call while the others wait. Where no row counts in a step, there is no call: rows must be as many on all ranks.

typedef struct sl_ranks sl_ranks;
enum { SL_MAX_RANKS = 8, SL_CANDIDATES_MAX = 256 };

//   ALL_REDUCE  x becomes the sum over ranks, in their order
//   SEND        x goes to `peer`
//   RECEIVE     x is what `peer` sends next
typedef struct sl_exchange {
    sl_ranks *ranks;
    float *x;  // [rows, width]
    int64_t width;
    int32_t peer;      // of the last two
    int32_t reserved;  // 0
} sl_exchange;

typedef struct sl_candidate {
    float logit;
    int32_t id;  // of the rank that tells it: from 0 on
} sl_candidate;

// Logits that are dealt out by vocabulary come together on rank 0. Of row r each rank tells its num_candidates[r] greatest
// logits, ties to the lower ids; all of them where that is 0, or where candidates are no fewer bytes. What is not told is
// -inf in `out`. Of a row with a NaN, which cannot be used, a NaN is told.
typedef struct sl_gather_logits {
    sl_ranks *ranks;
    const float *x;  // [max_sampled, x_stride], of this rank's ids
    int64_t x_stride;
    float *out;  // [max_sampled, out_stride] on rank 0, of all ids; else NULL
    int64_t out_stride;
    const int64_t *num_candidates;  // [max_sampled], 0 … SL_CANDIDATES_MAX
    sl_candidate *candidates;       // [max_sampled · SL_CANDIDATES_MAX], for the operation alone
    int32_t rank;
    int32_t num_ranks;
    int32_t rank_sizes[SL_MAX_RANKS];  // ids of each rank, which are neighbours of those of the rank before
} sl_gather_logits;

typedef struct sl_op {
    int32_t kind;  // enum sl_op_kind: which member of the union counts
    int32_t rows;  // SL_TOKENS or SL_SAMPLED
    union {
        sl_embedding embedding;
        sl_norm norm;
        sl_quantise quantise;
        sl_linear linear;
        sl_gated_linear gated_linear;
        sl_gated_activation gated_activation;
        sl_rotate_store rotate_store;
        sl_attention attention;
        sl_gather gather;
        sl_choice choice;
        sl_soft_cap soft_cap;
        sl_route route;
        sl_deal_rows deal_rows;
        sl_experts experts;
        sl_gather_logits gather_logits;
        sl_exchange exchange;
    };
} sl_op;

// sizeof(sl_op): the caller's must be equal.
SL_API int64_t sl_op_bytes(void);

// ---------------------------------------------------------------------------------------------------------- pool

typedef struct sl_pool sl_pool;

// num_threads 1 … 256, the caller of sl_program_run being one of them; the others are started here and sleep.
SL_API sl_pool *sl_pool_create(int32_t num_threads);
SL_API void sl_pool_destroy(sl_pool *pool);  // NULL is allowed

// Sums over all runs of the pool so far; differences tell of single runs.
typedef struct sl_pool_stats {
    int64_t num_runs;
    int64_t wall_ns;  // within sl_program_run
    int64_t cpu_ns;   // CPU time of all threads that took part, within it
} sl_pool_stats;

SL_API int sl_pool_read_stats(const sl_pool *pool, sl_pool_stats *stats);

// ------------------------------------------------------------------------------------------------------- program

typedef struct sl_program sl_program;

// Checks all operations and copies them. Scratch memory is made here, for at most max_threads threads; no run allocates.
SL_API sl_program *sl_program_create(const sl_op *ops, int64_t num_ops, const sl_limits *limits, int32_t isa,
                                     int32_t max_threads);
SL_API void sl_program_destroy(sl_program *program);  // NULL is allowed

// Runs all operations on num_threads threads (1 … those of the pool and of the program). Blocks until all is done, or a
// call to other ranks has failed, whose status it gives then: what was computed means nothing.
// The step is checked before anything is written.
// op_ns: NULL, or [num_ops]: nanoseconds from the beginning of each operation to the end of its last share are
// added.
SL_API int sl_program_run(sl_program *program, sl_pool *pool, const sl_step *step, int32_t num_threads, int64_t *op_ns);

#ifdef __cplusplus
}
#endif
#endif
