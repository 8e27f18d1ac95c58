// What the parts of a mixture of experts cost: shares are cut by it, and every thread comes to the same cuts.
#pragma once
#include "layout.h"

namespace shardline {
namespace {

constexpr double OPS_PER_NS = 300, BYTES_PER_NS = 15;  // of one thread, about
constexpr int GATED_TILES = 4, DOWN_TILES = 2;         // that are computed at once at least, see linear.h
constexpr int ROUTED_ROWS = 4, ROUTED_EXPERTS = 16;    // whose logits are computed at once, see route.h

// Nanoseconds of some tiles of a weight times some rows.
inline int64_t product_ns(const sl_weight &weight, int64_t tiles, int64_t num_rows) {
    const double reading = (double)(tiles * tile_bytes(weight.format, weight.num_inputs)) / BYTES_PER_NS;
    const double computing = 2.0 * (double)(num_rows * tiles * TILE) * weight.num_inputs / OPS_PER_NS;
    return (int64_t)(reading > computing ? reading : computing) + 1;
}

inline int rows_of_expert(const sl_dealt_rows &dealt, int expert) {
    return dealt.starts[expert + 1] - dealt.starts[expert];
}

// Of all rows that experts here have.
inline int num_places(const sl_dealt_rows &dealt) { return dealt.starts[dealt.num_experts]; }

inline int num_gated_units(const sl_experts &e) {
    return (int)ceil_div(num_tiles(e.experts[0].gate_up.num_outputs), GATED_TILES);
}

// Of one of an expert's gated units.
inline int64_t gated_unit_ns(const sl_experts &e, int expert) {
    return product_ns(e.experts[expert].gate_up, GATED_TILES, rows_of_expert(e.dealt, expert));
}

// Of all gated products.
inline int64_t gated_ns(const sl_experts &e) {
    int64_t total = 0;
    for (int i = 0; i < *e.dealt.num_active; i++) total += num_gated_units(e) * gated_unit_ns(e, e.dealt.active[i]);
    return total;
}

// Of all down products.
inline int64_t down_ns(const sl_experts &e) {
    int64_t total = 0;
    for (int i = 0; i < *e.dealt.num_active; i++) {
        const int expert = e.dealt.active[i];
        const sl_weight &down = e.experts[expert].down;
        total += product_ns(down, num_tiles(down.num_outputs), rows_of_expert(e.dealt, expert));
    }
    return total;
}

inline int num_routed_rows(const sl_routes &routes) {
    const int32_t rows = *routes.num_rows;
    return rows < 0 ? 0 : rows > routes.max_rows ? routes.max_rows : rows;
}

}  // namespace
}  // namespace shardline
