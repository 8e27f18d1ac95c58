// What the checks of operations are written with.
#pragma once
#include <cmath>

#include "checks.h"
#include "errors.h"
#include "layout.h"

namespace shardline {

// One operation under test; its messages name it by number.
struct Check {
    const sl_op &op;
    int64_t number;
    StepNeeds &needs;

    int refuse_op(const char *what) const {
        return refuse(SL_BAD_ARGUMENT, "operation %lld (kind %d): %s", (long long)number, op.kind, what);
    }
    int want(bool condition, const char *what) const { return condition ? SL_OK : refuse_op(what); }
};

inline bool is_size(int64_t size) { return size >= 1 && size < SIZE_MAX_ALLOWED; }
inline bool is_aligned(const void *p) { return p && reinterpret_cast<uintptr_t>(p) % 64 == 0; }

// Of one rank's part of a vocabulary, or of all of it.
inline bool is_first_id(int64_t first_id, int32_t is_part) {
    return is_part == 1 ? first_id >= 0 && first_id < SIZE_MAX_ALLOWED : is_part == 0 && first_id == 0;
}

inline int check_weight(const Check &c, const sl_weight &w) {
    if (int s = c.want(w.format >= 0 && w.format < SL_FORMAT_COUNT, "weight's format is unknown")) return s;
    if (int s = c.want(is_size(w.num_outputs) && is_size(w.num_inputs), "weight's sizes are not 1 … 2^30 - 1"))
        return s;
    return c.want(is_aligned(w.tiles), "weight's tiles are NULL or not aligned to 64 bytes");
}

inline int check_panels(const Check &c, const sl_panels &p, int64_t num_inputs) {
    if (int s = c.want(is_panel_size(p.kind, p.num_inputs), "panels' kind or size is unknown")) return s;
    if (int s = c.want(p.num_inputs == num_inputs, "panels' num_inputs is not the operation's width")) return s;
    return c.want(is_aligned(p.bytes), "panels' bytes are NULL or not aligned to 64 bytes");
}

inline int check_optional_panels(const Check &c, const sl_panels &p, int64_t num_inputs) {
    return p.bytes ? check_panels(c, p, num_inputs) : SL_OK;
}

inline int check_input(const Check &c, const sl_panels &x, const sl_weight &w) {
    if (int s = check_weight(c, w)) return s;
    if (int s = check_panels(c, x, w.num_inputs)) return s;
    return c.want(x.kind == panel_kind(w.format), "panels' kind does not fit the weight's format");
}

inline int check_activation(const Check &c, int32_t activation) {
    return c.want(activation >= 0 && activation < SL_ACTIVATION_COUNT, "activation is unknown");
}

// Of mixtures of experts, see check_experts.cpp.
int check_route(const Check &c);
int check_deal_rows(const Check &c);
int check_experts(const Check &c);

// Of calls to other ranks, see check_exchange.cpp.
int check_gather_logits(const Check &c);
int check_exchange(const Check &c);

}  // namespace shardline
