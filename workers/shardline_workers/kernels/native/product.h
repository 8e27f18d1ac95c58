// One panel of activations times a few tiles of weights: what the innermost loops of each instruction set compute.
#pragma once
#include "layout.h"

// Before a loop over rows or tiles: their sums shall lie in registers, so the loop must not stay one.
#ifdef __clang__
#define SL_UNROLL _Pragma("unroll")
#else
#define SL_UNROLL _Pragma("GCC unroll 16")
#endif

namespace shardline {
namespace SL_TARGET {

struct Product {
    const uint8_t *tiles;
    ptrdiff_t tile_stride;  // bytes from one tile to the next
    const uint8_t *panel;
    int panel_rows;
    int num_blocks;  // of 32 inputs
    float *out;      // [panel_rows, 16 · tiles]
    ptrdiff_t out_stride;
    // Prefetch: of each block the cache lines first_line … last_line - 1, so many bytes ahead.
    ptrdiff_t ahead;
    int first_line, last_line;
};

// At one row, tiles are streamed: 4 KB ahead into the first level of cache is best there (the second level is 15 to
// 35 % slower), as it is worthless with more rows.
constexpr ptrdiff_t STREAM_AHEAD = 4096;

constexpr int LINE = 64;                                                                  // bytes of a cache line
constexpr int num_lines(int format) { return (int)ceil_div(block_bytes(format), LINE); }  // of a block

}  // namespace SL_TARGET
}  // namespace shardline
