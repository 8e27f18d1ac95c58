// The way of one token's keys and values into the cache, in its format. api.h draws the layouts.
#pragma once
#include "half.h"
#include "product.h"

namespace shardline {
namespace SL_TARGET {

// Where a token's key and value go: its head's part of a block, and its place there.
struct KvPlace {
    uint8_t *head;
    int offset;
};

// ---- bfloat16 ----

static void store_bf16_key(const sl_kv_cache &cache, KvPlace place, const float *key) {
    alignas(64) uint16_t rounded[HEAD_DIM_MAX];
    for (int i = 0; i < cache.head_dim; i += TILE) store_bf16(rounded + i, load(key + i));
    uint16_t *to = (uint16_t *)(place.head + place.offset / TILE * key_tile_bytes(cache)) + place.offset % TILE * 2;
    for (int pair = 0; pair < cache.head_dim / 2; pair++) memcpy(to + pair * 2 * TILE, rounded + 2 * pair, 4);
}

// `ends`: no token of this step follows in the block. Then the place beside an even one is zeroed: attention reads values
// by twos, and what an earlier request left there may be a NaN, which no weight of 0 would remove.
static void store_bf16_value(const sl_kv_cache &cache, KvPlace place, const float *value, bool ends) {
    alignas(64) uint16_t rounded[HEAD_DIM_MAX];
    for (int i = 0; i < cache.head_dim; i += TILE) store_bf16(rounded + i, load(value + i));
    uint16_t *values = (uint16_t *)(place.head + key_bytes(cache)) + place.offset / 2 * 2 * TILE + place.offset % 2;
    for (int i = 0; i < cache.head_dim; i++) {
        uint16_t *to = values + (int64_t)(i / TILE) * cache.block_size * TILE + i % TILE * 2;
        *to = rounded[i];
        if (ends && place.offset % 2 == 0) to[1] = 0;
    }
}

// ---- int8 ----

// Greatest magnitude; NaN where there is one, as it is the largest of all when bits are compared.
static float largest_of(const float *x, int count) {
    I largest = set_int(0);
    for (int i = 0; i < count; i += TILE) largest = max(largest, bit_and(bits(load(x + i)), set_int(0x7fffffff)));
    return bits_float((uint32_t)reduce_max(largest));
}

// round(x · inverse) of 16 numbers, -127 … 127. A scale that float16 rounds down would lead a little beyond.
static void put_rounded(const float *x, float inverse, int8_t *out) {
    F v = max(set(-127.f), mul(load(x), set(inverse)));
    v = select(less(set(127.f), v), set(127.f), v);
    store_bytes(out, to_int(v));
}

// Numbers that are none, and those beyond float16's range, make a scale that is none: all products with it are NaN.
static float inverse_of(float scale) { return scale > 0 && scale < INFINITY ? 1.f / scale : 0.f; }

static void store_int8_key(const sl_kv_cache &cache, KvPlace place, const float *key) {
    uint8_t *block = place.head + place.offset / TILE * key_tile_bytes(cache);
    const int column = place.offset % TILE;
    for (int i = 0; i < cache.head_dim; i += GROUP, block += block_bytes(SL_W8)) {
        const int count = cache.head_dim - i < GROUP ? cache.head_dim - i : GROUP;
        const uint16_t scale = float_to_half(largest_of(key + i, count) / 127.f);
        alignas(32) int8_t rounded[GROUP] = {};
        for (int k = 0; k < count; k += TILE) put_rounded(key + i + k, inverse_of(half_to_float(scale)), rounded + k);
        for (int k = 0; k < GROUP; k++) block[k / 4 * LINE + column * 4 + k % 4] = (uint8_t)(rounded[k] + 128);
        memcpy(block + quant_bytes(SL_W8) + 2 * column, &scale, 2);
    }
}

static void store_int8_value(const sl_kv_cache &cache, KvPlace place, const float *value) {
    alignas(64) int8_t rounded[HEAD_DIM_MAX];
    uint8_t *values = place.head + key_bytes(cache);
    const float scale = largest_of(value, cache.head_dim) / 127.f, inverse = inverse_of(scale);
    for (int i = 0; i < cache.head_dim; i += TILE) put_rounded(value + i, inverse, rounded + i);
    uint8_t *to = values + place.offset / 4 * LINE + place.offset % 4;
    for (int i = 0; i < cache.head_dim; i++)
        to[(int64_t)(i / TILE) * cache.block_size * TILE + i % TILE * 4] = (uint8_t)rounded[i];
    memcpy(values + (int64_t)cache.block_size * cache.head_dim + 4 * place.offset, &scale, 4);
}

static void store_key(const sl_kv_cache &cache, KvPlace place, const float *key) {
    if (cache.format == SL_KV_INT8) store_int8_key(cache, place, key);
    else store_bf16_key(cache, place, key);
}

static void store_value(const sl_kv_cache &cache, KvPlace place, const float *value, bool ends) {
    if (cache.format == SL_KV_INT8) store_int8_value(cache, place, value);
    else store_bf16_value(cache, place, value, ends);
}

}  // namespace SL_TARGET
}  // namespace shardline
