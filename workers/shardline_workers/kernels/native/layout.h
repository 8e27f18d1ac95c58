// Sizes and places of the packed layouts that api.h draws. No arithmetic on values here, only on addresses.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "api.h"

namespace shardline {
// Nameless: each instruction set's file gets its own copy, so that the linker never hands one's code to another.
namespace {

constexpr int TILE = 16;       // outputs of a weight tile, and lanes of all vector code
constexpr int GROUP = 32;      // inputs of a block: one scale for each output, and for each row of activations
constexpr int PANEL_ROWS = 6;  // rows that vector products take at once: × 2 tiles (bf16: × 4) they fill 32 registers
constexpr int HEAD_DIM_MAX = 576;  // what DeepSeek-V3 caches of a token
constexpr int BLOCK_SIZE_MAX = 64;  // tokens of a KV block
constexpr int SPLIT = 256;          // keys of an attention split: fixed, so that no batch changes the order of sums

// 2^30 of anything is no model's size; below it no product of two sizes overflows an int64.
constexpr int64_t SIZE_MAX_ALLOWED = (int64_t)1 << 30;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

constexpr int64_t quant_bytes(int format) { return format == SL_W8 ? 512 : 256; }  // of a block, before its scales

constexpr int64_t block_bytes(int format) {
    return format == SL_BF16 ? 1024 : format == SL_W8 ? 544 : format == SL_W4_MIN ? 320 : 288;
}

constexpr int64_t tile_bytes(int format, int64_t num_inputs) {
    return block_bytes(format) * ceil_div(num_inputs, GROUP);
}

constexpr int64_t num_tiles(int64_t num_outputs) { return ceil_div(num_outputs, TILE); }

// Panel of mr rows, 32 inputs. SL_INT8: [mr][32] int8, then [mr] each of scale, scale · sum (float32), -8 · sum,
// -128 · sum (int32). SL_PAIRS: [mr][32] bfloat16.
constexpr int64_t panel_group_bytes(int kind) { return kind == SL_INT8 ? 48 : 64; }

constexpr int64_t panel_row_bytes(int kind, int64_t num_inputs) {
    return panel_group_bytes(kind) * ceil_div(num_inputs, GROUP);
}

// Behind the panels: whatever lies there is loaded into tile registers with the last group of a panel that does not fill
// their 16 rows.
constexpr int64_t PANEL_SLACK = 1024;

constexpr int panel_kind(int format) { return format == SL_BF16 ? SL_PAIRS : SL_INT8; }

// Whether matrix instructions multiply: they take up to 16 rows at once.
#ifdef SL_AMX
constexpr bool is_tiled(int kind) { return kind == SL_PAIRS; }
#else
constexpr bool is_tiled(int) { return false; }
#endif

// Most rows of a panel.
constexpr int panel_rows(int kind) { return is_tiled(kind) ? TILE : PANEL_ROWS; }

// How num_rows rows are spread over panels: as evenly as possible, larger panels first (16 → 6, 5, 5).
struct PanelSplit {
    int num_panels, small, num_large;

    PanelSplit(int kind, int num_rows)
        : num_panels((int)ceil_div(num_rows, panel_rows(kind))),
          small(num_panels ? num_rows / num_panels : 0),
          num_large(num_panels ? num_rows % num_panels : 0) {}

    int start(int panel) const { return panel * small + (panel < num_large ? panel : num_large); }
    int size(int panel) const { return small + (panel < num_large ? 1 : 0); }
    int of(int row) const {
        const int in_large = num_large * (small + 1);
        return row < in_large ? row / (small + 1) : num_large + (row - in_large) / small;
    }
    // Of so many panels alone, from `first` on.
    PanelSplit part(int first, int count) const {
        PanelSplit split = *this;
        split.num_panels = count;
        split.num_large = num_large <= first ? 0 : num_large - first < count ? num_large - first : count;
        return split;
    }
};

// Where a row lies: bytes of its panel, rows of that panel, its number there.
struct PanelPlace {
    uint8_t *panel;
    int rows, row;
};

inline PanelPlace panel_place(const sl_panels &panels, const PanelSplit &split, int row) {
    const int number = split.of(row), start = split.start(number);
    uint8_t *panel = static_cast<uint8_t *>(panels.bytes) + panel_row_bytes(panels.kind, panels.num_inputs) * start;
    return {panel, split.size(number), row - start};
}

// A block of the KV cache: bytes of one head's keys, of its keys and values, and of all heads.
inline int64_t key_tile_bytes(const sl_kv_cache &cache) {
    return cache.format == SL_KV_INT8 ? tile_bytes(SL_W8, cache.head_dim) : (int64_t)2 * TILE * cache.head_dim;
}
inline int64_t key_bytes(const sl_kv_cache &cache) { return cache.block_size / TILE * key_tile_bytes(cache); }
inline int64_t head_bytes(const sl_kv_cache &cache) {
    const int64_t numbers = (int64_t)cache.block_size * cache.head_dim;
    return key_bytes(cache) + (cache.format == SL_KV_INT8 ? numbers + 4 * cache.block_size : 2 * numbers);
}
inline int64_t kv_block_bytes(const sl_kv_cache &cache) { return head_bytes(cache) * cache.num_kv_heads; }

}  // namespace
}  // namespace shardline
