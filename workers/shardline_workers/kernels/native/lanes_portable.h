// Sixteen lanes in plain C++: what the vector code of all kernels is written in, and what the other lanes_*.h imitate
// bit for bit. Lanes never mix but in reduce_*, whose order is fixed, so a result does not depend on the register width.
#pragma once
#include <cmath>

#include "half.h"
#include "layout.h"

namespace shardline {
namespace SL_TARGET {

struct F {
    float v[TILE];
};
struct I {
    int32_t v[TILE];
};
struct M {
    bool v[TILE];
};

// clang-format off
#define SL_LANES for (int i = 0; i < TILE; i++)

static inline F load(const float *p) { F r; SL_LANES r.v[i] = p[i]; return r; }
static inline void store(float *p, F a) { SL_LANES p[i] = a.v[i]; }
static inline F set(float a) { F r; SL_LANES r.v[i] = a; return r; }
static inline F add(F a, F b) { SL_LANES a.v[i] += b.v[i]; return a; }
static inline F sub(F a, F b) { SL_LANES a.v[i] -= b.v[i]; return a; }
static inline F mul(F a, F b) { SL_LANES a.v[i] *= b.v[i]; return a; }
static inline F div(F a, F b) { SL_LANES a.v[i] /= b.v[i]; return a; }
// a · b + c, rounded once
static inline F fma(F a, F b, F c) { SL_LANES a.v[i] = __builtin_fmaf(a.v[i], b.v[i], c.v[i]); return a; }
// c - a · b, rounded once
static inline F fnma(F a, F b, F c) { SL_LANES a.v[i] = __builtin_fmaf(-a.v[i], b.v[i], c.v[i]); return a; }
// b where either is NaN: to keep a NaN, give it as b
static inline float max(float a, float b) { return a > b ? a : b; }
static inline F max(F a, F b) { SL_LANES a.v[i] = max(a.v[i], b.v[i]); return a; }
// to nearest integer, ties to even
static inline F round(F a) { SL_LANES a.v[i] = __builtin_nearbyintf(a.v[i]); return a; }

static inline I load_int(const void *p) { I r; memcpy(r.v, p, sizeof r.v); return r; }
static inline void store_int(void *p, I a) { memcpy(p, a.v, sizeof a.v); }
static inline I set_int(int32_t a) { I r; SL_LANES r.v[i] = a; return r; }
static inline int32_t wrapping_add(int32_t a, int32_t b) { return (int32_t)((uint32_t)a + (uint32_t)b); }
static inline I add(I a, I b) { SL_LANES a.v[i] = wrapping_add(a.v[i], b.v[i]); return a; }
static inline I max(I a, I b) { SL_LANES a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]; return a; }
static inline I bit_and(I a, I b) { SL_LANES a.v[i] &= b.v[i]; return a; }
template <int N> static inline I shift_left(I a) { SL_LANES a.v[i] = (int32_t)((uint32_t)a.v[i] << N); return a; }
template <int N> static inline I shift_right(I a) { SL_LANES a.v[i] >>= N; return a; }

// sum + the four products of bytes in each lane; those of `small` are 0 … 127, those of `bytes` signed
static inline I dot(I sum, I small, I bytes) {
    int8_t a[TILE * 4], b[TILE * 4];
    memcpy(a, small.v, sizeof a), memcpy(b, bytes.v, sizeof b);
    for (int i = 0; i < TILE * 4; i++) sum.v[i / 4] += a[i] * b[i];
    return sum;
}

static inline I bits(F a) { I r; memcpy(r.v, a.v, sizeof r.v); return r; }
static inline F from_bits(I a) { F r; memcpy(r.v, a.v, sizeof r.v); return r; }
// to nearest integer; what does not fit becomes the smallest int32, as x86 has it
static inline int32_t to_int(float a) { return std::fabs(a) < 0x1p31f ? (int32_t)__builtin_nearbyintf(a) : INT32_MIN; }
static inline I to_int(F a) { I r; SL_LANES r.v[i] = to_int(a.v[i]); return r; }
static inline F to_float(I a) { F r; SL_LANES r.v[i] = (float)a.v[i]; return r; }

static inline M first_lanes(int n) { M r; SL_LANES r.v[i] = i < n; return r; }
static inline M less(F a, F b) { M r; SL_LANES r.v[i] = a.v[i] < b.v[i]; return r; }
static inline M less_equal(F a, F b) { M r; SL_LANES r.v[i] = a.v[i] <= b.v[i]; return r; }
// a where m, b elsewhere
static inline F select(M m, F a, F b) { SL_LANES a.v[i] = m.v[i] ? a.v[i] : b.v[i]; return a; }
// bit i: lane i
static inline uint32_t lane_bits(M m) { uint32_t r = 0; SL_LANES r |= (uint32_t)m.v[i] << i; return r; }

static inline uint16_t half_at(const void *p, int i) { uint16_t h; memcpy(&h, (const char *)p + 2 * i, 2); return h; }
static inline F load_half(const void *p) { F r; SL_LANES r.v[i] = half_to_float(half_at(p, i)); return r; }
static inline F load_bf16(const void *p) { F r; SL_LANES r.v[i] = bf16_to_float(half_at(p, i)); return r; }
// to nearest even; denormals to zero
static inline void store_bf16(void *p, F a) {
    uint16_t h[TILE];
    SL_LANES h[i] = float_to_bf16(a.v[i]);
    memcpy(p, h, sizeof h);
}
// the low byte of each lane
static inline void store_bytes(void *p, I a) { SL_LANES ((uint8_t *)p)[i] = (uint8_t)a.v[i]; }

#undef SL_LANES
// clang-format on

template <class V, class Op>
static inline auto halve(V a, Op op) {
    for (int half = TILE / 2; half; half /= 2)
        for (int i = 0; i < half; i++) a.v[i] = op(a.v[i], a.v[i + half]);
    return a.v[0];
}
static inline float reduce_add(F a) {
    return halve(a, [](float x, float y) { return x + y; });
}
static inline float reduce_max(F a) {
    return halve(a, [](float x, float y) { return max(x, y); });
}
static inline int32_t reduce_add(I a) { return halve(a, wrapping_add); }
static inline int32_t reduce_max(I a) {
    return halve(a, [](int32_t x, int32_t y) { return x > y ? x : y; });
}

// Into the first or the second level of cache.
static inline void prefetch_near(const void *p) { __builtin_prefetch(p, 0, 3); }
static inline void prefetch_far(const void *p) { __builtin_prefetch(p, 0, 2); }

}  // namespace SL_TARGET
}  // namespace shardline
