// Rotary position embedding, and the way of keys and values into the cache. Tokens are spread over threads.
#pragma once
#include "layout.h"
#include "work.h"

namespace shardline {
namespace SL_TARGET {

// (a, b) → (a cos - b sin, b cos + a sin), for pairs `step` apart whose first members are `stride` apart. Plain loops:
// without contraction of products and sums, every instruction set rounds alike.
static void rotate_pairs(const float *x, const float *cosines, const float *sines, int pairs, int stride, int step,
                         float *out) {
    for (int i = 0; i < pairs; i++) {
        const float a = x[i * stride], b = x[i * stride + step];
        out[i * stride] = a * cosines[i] - b * sines[i];
        out[i * stride + step] = b * cosines[i] + a * sines[i];
    }
}

// One head, turned and rounded to bfloat16.
static void rotate_head(const sl_rotate_store &r, const float *x, int64_t position, uint16_t *out) {
    alignas(64) float turned[HEAD_DIM_MAX];
    const int half = r.rotary_dim / 2;
    const float *cosines = r.cosines + position * half, *sines = r.sines + position * half;
    if (r.pairing == SL_HALVES) rotate_pairs(x, cosines, sines, half, 1, half, turned);
    else rotate_pairs(x, cosines, sines, half, 2, 1, turned);
    for (int i = r.rotary_dim; i < r.cache.head_dim; i++) turned[i] = x[i];
    for (int i = 0; i < r.cache.head_dim; i += TILE) store_bf16(out + i, load(turned + i));
}

static void store_key(const sl_kv_cache &cache, uint16_t *head, int offset, const uint16_t *key) {
    uint16_t *to = head + (int64_t)(offset / TILE) * cache.head_dim * TILE + offset % TILE * 2;
    for (int pair = 0; pair < cache.head_dim / 2; pair++) memcpy(to + pair * 2 * TILE, key + 2 * pair, 4);
}

// `ends`: no token of this step follows in the block. Then the place beside an even one is zeroed: attention reads values
// by twos, and what an earlier request left there may be a NaN, which no weight of 0 would remove.
static void store_value(const sl_kv_cache &cache, uint16_t *head, int offset, const float *value, bool ends) {
    alignas(64) uint16_t rounded[HEAD_DIM_MAX];
    for (int i = 0; i < cache.head_dim; i += TILE) store_bf16(rounded + i, load(value + i));
    uint16_t *values = head + (int64_t)cache.block_size * cache.head_dim + offset / 2 * 2 * TILE + offset % 2;
    for (int i = 0; i < cache.head_dim; i++) {
        uint16_t *to = values + (int64_t)(i / TILE) * cache.block_size * TILE + i % TILE * 2;
        *to = rounded[i];
        if (ends) to[1] = 0;
    }
}

static void store_token(const sl_rotate_store &r, const Work &work, int row, const float *keys) {
    const sl_kv_cache &cache = r.cache;
    const int64_t *places = work.step.cache_places, place = places[row];
    const int offset = (int)(place % cache.block_size);
    const bool follows = row + 1 < work.count(SL_TOKENS) && places[row + 1] == place + 1;
    uint16_t *block = static_cast<uint16_t *>(cache.blocks) + place / cache.block_size * block_values(cache);
    alignas(64) uint16_t key[HEAD_DIM_MAX];
    for (int k = 0; k < cache.num_kv_heads; k++) {
        uint16_t *head = block + k * head_values(cache);
        rotate_head(r, keys + k * cache.head_dim, work.step.positions[row], key);
        store_key(cache, head, offset, key);
        store_value(cache, head, offset, keys + (cache.num_kv_heads + k) * cache.head_dim, offset % 2 == 0 && !follows);
    }
}

static void rotate_store(const sl_op &op, Work &work) {
    const sl_rotate_store &r = op.rotate_store;
    const int num_rows = work.count(SL_TOKENS), size = r.cache.head_dim;
    for (int row = work.begin(num_rows); row < work.end(num_rows); row++) {
        const float *qkv = r.qkv + row * r.qkv_stride;
        uint16_t *queries = r.queries + (int64_t)row * r.num_heads * size;
        for (int h = 0; h < r.num_heads; h++)
            rotate_head(r, qkv + h * size, work.step.positions[row], queries + h * size);
        store_token(r, work, row, qkv + r.num_heads * size);
    }
}

}  // namespace SL_TARGET
}  // namespace shardline
