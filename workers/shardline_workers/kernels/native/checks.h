// Everything outside that can be wrong: operations when a program is made, the step whenever it runs.
#pragma once
#include "api.h"

namespace shardline {

// What the operations of a program want of every step.
struct StepNeeds {
    bool token_ids = false, places = false, sequences = false, sampled_rows = false;
    int64_t vocab_size = INT64_MAX;  // of the smallest table: bound of token ids
    int64_t max_len = INT64_MAX;     // of the shortest table of angles: bound of positions
    int64_t num_blocks = INT64_MAX;  // of the smallest cache
    int32_t block_size = 0;
    int64_t routed_tokens = INT64_MAX;    // that the smallest routes have room for
    const sl_choice *choice = nullptr;    // any of the choices, whose rows are checked; all have the same buffers
    const sl_choice *adjusted = nullptr;  // likewise, of those that adjust logits
    const sl_choice *given = nullptr;     // and of those that take given tokens
    const int64_t *num_candidates = nullptr;  // of the operation that gathers logits
    // Sizes of scratch memory.
    bool linear = false;
    int64_t expert_rows = 0;  // that one expert may get
    bool attention = false;
    int32_t largest_choice = 0;  // vocabulary
};

// SL_OK, or what is wrong with an operation; takes its needs up.
int check_op(const sl_op &op, int64_t number, StepNeeds &needs);

int check_limits(const sl_limits *limits);

// SL_OK, or SL_BAD_STEP. Reads no more of the step than the needs.
int check_step(const sl_step *step, const StepNeeds &needs, const sl_limits &limits);

// Of the panels and of the cache, as their size functions want them.
bool is_panel_size(int32_t kind, int64_t num_inputs);
int check_cache(const sl_kv_cache &cache);

}  // namespace shardline
