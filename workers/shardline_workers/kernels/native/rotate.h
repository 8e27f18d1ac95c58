// Rotary position embedding, on the way of queries to attention and of keys and values into the cache. Tokens are
// spread over threads.
#pragma once
#include <cmath>

#include "kv_store.h"
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

// The head itself, or where it has a weight, head / rms · weight in `room`.
static const float *normed_head(const sl_rotate_store &r, const float *x, const float *weight, float *room) {
    if (!weight) return x;
    F squares = set(0);
    for (int i = 0; i < r.cache.head_dim; i += TILE) squares = fma(load(x + i), load(x + i), squares);
    const F inverse = set(1.f / std::sqrt(reduce_add(squares) / (float)r.cache.head_dim + r.epsilon));
    for (int i = 0; i < r.cache.head_dim; i += TILE) store(room + i, mul(mul(load(x + i), inverse), load(weight + i)));
    return room;
}

static void rotate_head(const sl_rotate_store &r, const float *head, const float *weight, int64_t position,
                        float *turned) {
    alignas(64) float room[HEAD_DIM_MAX];
    const float *x = normed_head(r, head, weight, room);
    const int half = r.rotary_dim / 2;
    const float *cosines = r.cosines + position * half, *sines = r.sines + position * half;
    if (r.pairing == SL_HALVES) rotate_pairs(x, cosines, sines, half, 1, half, turned);
    else rotate_pairs(x, cosines, sines, half, 2, 1, turned);
    for (int i = r.rotary_dim; i < r.cache.head_dim; i++) turned[i] = x[i];
}

static void store_query(const sl_rotate_store &r, const float *x, int64_t position, uint16_t *out) {
    alignas(64) float turned[HEAD_DIM_MAX];
    rotate_head(r, x, r.query_norm, position, turned);
    for (int i = 0; i < r.cache.head_dim; i += TILE) store_bf16(out + i, load(turned + i));
}

static void store_token(const sl_rotate_store &r, const Work &work, int row, const float *keys) {
    const sl_kv_cache &cache = r.cache;
    const int64_t *places = work.step.cache_places, place = places[row];
    const bool follows = row + 1 < work.count(SL_TOKENS) && places[row + 1] == place + 1;
    uint8_t *block = static_cast<uint8_t *>(cache.blocks) + place / cache.block_size * kv_block_bytes(cache);
    alignas(64) float key[HEAD_DIM_MAX];
    for (int k = 0; k < cache.num_kv_heads; k++) {
        const KvPlace to = {block + k * head_bytes(cache), (int)(place % cache.block_size)};
        rotate_head(r, keys + k * cache.head_dim, r.key_norm, work.step.positions[row], key);
        store_key(cache, to, key);
        if (r.shares_values) memset(key, 0, sizeof(float) * (size_t)r.rotary_dim);
        const float *value = r.shares_values ? key : keys + (cache.num_kv_heads + k) * cache.head_dim;
        store_value(cache, to, value, !follows);
    }
}

static void rotate_store(const sl_op &op, Work &work) {
    const sl_rotate_store &r = op.rotate_store;
    const int num_rows = work.count(SL_TOKENS), size = r.cache.head_dim;
    for (int row = work.begin(num_rows); row < work.end(num_rows); row++) {
        const float *qkv = r.qkv + row * r.qkv_stride;
        uint16_t *queries = r.queries + (int64_t)row * r.num_heads * size;
        for (int h = 0; h < r.num_heads; h++)
            store_query(r, qkv + h * size, work.step.positions[row], queries + h * size);
        store_token(r, work, row, qkv + r.num_heads * size);
    }
}

}  // namespace SL_TARGET
}  // namespace shardline
