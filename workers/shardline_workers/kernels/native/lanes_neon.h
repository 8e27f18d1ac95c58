// Sixteen lanes in four NEON registers. lanes_portable.h says what each function means.
#pragma once
#include <arm_neon.h>

#include "layout.h"

namespace shardline {
namespace SL_TARGET {

constexpr int QUARTERS = 4;  // registers of a tile's 16 outputs

struct F {
    float32x4_t v[QUARTERS];
};
struct I {
    int32x4_t v[QUARTERS];
};
struct M {
    uint32x4_t v[QUARTERS];  // all bits of a lane set or none
};

// clang-format off
#define SL_QUARTERS for (int i = 0; i < QUARTERS; i++)

static inline F load(const float *p) { F r; SL_QUARTERS r.v[i] = vld1q_f32(p + 4 * i); return r; }
static inline void store(float *p, F a) { SL_QUARTERS vst1q_f32(p + 4 * i, a.v[i]); }
static inline F set(float a) { F r; SL_QUARTERS r.v[i] = vdupq_n_f32(a); return r; }
static inline F add(F a, F b) { SL_QUARTERS a.v[i] = vaddq_f32(a.v[i], b.v[i]); return a; }
static inline F sub(F a, F b) { SL_QUARTERS a.v[i] = vsubq_f32(a.v[i], b.v[i]); return a; }
static inline F mul(F a, F b) { SL_QUARTERS a.v[i] = vmulq_f32(a.v[i], b.v[i]); return a; }
static inline F div(F a, F b) { SL_QUARTERS a.v[i] = vdivq_f32(a.v[i], b.v[i]); return a; }
static inline F fma(F a, F b, F c) { SL_QUARTERS a.v[i] = vfmaq_f32(c.v[i], a.v[i], b.v[i]); return a; }
static inline F fnma(F a, F b, F c) { SL_QUARTERS a.v[i] = vfmsq_f32(c.v[i], a.v[i], b.v[i]); return a; }
// Not vmaxq: that gives NaN where either is one.
static inline F max(F a, F b) { SL_QUARTERS a.v[i] = vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]); return a; }
static inline F round(F a) { SL_QUARTERS a.v[i] = vrndnq_f32(a.v[i]); return a; }

static inline I load_int(const void *p) { I r; SL_QUARTERS r.v[i] = vld1q_s32((const int32_t *)p + 4 * i); return r; }
static inline void store_int(void *p, I a) { SL_QUARTERS vst1q_s32((int32_t *)p + 4 * i, a.v[i]); }
static inline I set_int(int32_t a) { I r; SL_QUARTERS r.v[i] = vdupq_n_s32(a); return r; }
static inline I add(I a, I b) { SL_QUARTERS a.v[i] = vaddq_s32(a.v[i], b.v[i]); return a; }
static inline I max(I a, I b) { SL_QUARTERS a.v[i] = vmaxq_s32(a.v[i], b.v[i]); return a; }
static inline I bit_and(I a, I b) { SL_QUARTERS a.v[i] = vandq_s32(a.v[i], b.v[i]); return a; }
template <int N> static inline I shift_left(I a) { SL_QUARTERS a.v[i] = vshlq_n_s32(a.v[i], N); return a; }
template <int N> static inline I shift_right(I a) { SL_QUARTERS a.v[i] = vshrq_n_s32(a.v[i], N); return a; }
#ifdef __ARM_FEATURE_DOTPROD
static inline int32x4_t dot(int32x4_t sum, int8x16_t small, int8x16_t bytes) { return vdotq_s32(sum, small, bytes); }
#else
static inline int32x4_t dot(int32x4_t sum, int8x16_t small, int8x16_t bytes) {
    const int16x8_t low = vmull_s8(vget_low_s8(small), vget_low_s8(bytes)), high = vmull_high_s8(small, bytes);
    return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
}
#endif
static inline int8x16_t as_bytes(int32x4_t a) { return vreinterpretq_s8_s32(a); }
static inline I dot(I sum, I small, I bytes) { SL_QUARTERS sum.v[i] = dot(sum.v[i], as_bytes(small.v[i]), as_bytes(bytes.v[i])); return sum; }

static inline I bits(F a) { I r; SL_QUARTERS r.v[i] = vreinterpretq_s32_f32(a.v[i]); return r; }
static inline F from_bits(I a) { F r; SL_QUARTERS r.v[i] = vreinterpretq_f32_s32(a.v[i]); return r; }
// vcvtnq alone would give the largest int32 for large numbers, and 0 for NaN.
static inline int32x4_t to_int(float32x4_t a) {
    return vbslq_s32(vcaltq_f32(a, vdupq_n_f32(0x1p31f)), vcvtnq_s32_f32(a), vdupq_n_s32(INT32_MIN));
}
static inline I to_int(F a) { I r; SL_QUARTERS r.v[i] = to_int(a.v[i]); return r; }
static inline F to_float(I a) { F r; SL_QUARTERS r.v[i] = vcvtq_f32_s32(a.v[i]); return r; }

static inline M first_lanes(int n) {
    const int32_t numbers[4] = {0, 1, 2, 3};
    M r; SL_QUARTERS r.v[i] = vcgtq_s32(vdupq_n_s32(n - 4 * i), vld1q_s32(numbers)); return r;
}
static inline M less(F a, F b) { M r; SL_QUARTERS r.v[i] = vcltq_f32(a.v[i], b.v[i]); return r; }
static inline M less_equal(F a, F b) { M r; SL_QUARTERS r.v[i] = vcleq_f32(a.v[i], b.v[i]); return r; }
static inline F select(M m, F a, F b) { SL_QUARTERS a.v[i] = vbslq_f32(m.v[i], a.v[i], b.v[i]); return a; }
static inline uint32_t lane_bits(M m) {
    const uint32_t places[4] = {1, 2, 4, 8};
    uint32_t r = 0; SL_QUARTERS r |= vaddvq_u32(vandq_u32(m.v[i], vld1q_u32(places))) << 4 * i; return r;
}

static inline float32x4_t widen_half(const void *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *)p))); }
static inline F load_half(const void *p) { F r; SL_QUARTERS r.v[i] = widen_half((const uint16_t *)p + 4 * i); return r; }
static inline float32x4_t widen_bf16(const void *p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16((const uint16_t *)p), 16)); }
static inline F load_bf16(const void *p) { F r; SL_QUARTERS r.v[i] = widen_bf16((const uint16_t *)p + 4 * i); return r; }
// clang-format on

// Not bfcvtn, which not all of them have, and which keeps denormals.
static inline uint16x4_t round_bf16(uint32x4_t u) {
    const uint32x4_t top = vshrq_n_u32(u, 16), magnitude = vandq_u32(u, vdupq_n_u32(0x7fffffff));
    const uint32x4_t odd = vandq_u32(top, vdupq_n_u32(1));
    uint32x4_t r = vshrq_n_u32(vaddq_u32(vaddq_u32(u, vdupq_n_u32(0x7fff)), odd), 16);
    r = vbslq_u32(vcgtq_u32(magnitude, vdupq_n_u32(0x7f800000)), vorrq_u32(top, vdupq_n_u32(0x40)), r);
    r = vbslq_u32(vcltq_u32(magnitude, vdupq_n_u32(0x800000)), vandq_u32(top, vdupq_n_u32(0x8000)), r);
    return vmovn_u32(r);
}
static inline void store_bf16(void *p, F a) {
    for (int i = 0; i < QUARTERS; i++) vst1_u16((uint16_t *)p + 4 * i, round_bf16(vreinterpretq_u32_f32(a.v[i])));
}
static inline int16x8_t narrow(int32x4_t a, int32x4_t b) { return vcombine_s16(vmovn_s32(a), vmovn_s32(b)); }
static inline void store_bytes(void *p, I a) {
    const int8x8_t low = vmovn_s16(narrow(a.v[0], a.v[1])), high = vmovn_s16(narrow(a.v[2], a.v[3]));
    vst1q_s8((int8_t *)p, vcombine_s8(low, high));
}

// By halving, in the order that lanes_portable.h has: 8 + 8, 4 + 4, 2 + 2, 1 + 1.
static inline float reduce_add(F a) {
    const float32x4_t four = vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
    return vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)));
}
static inline float32x4_t max(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline float reduce_max(F a) {
    const float32x4_t four = max(max(a.v[0], a.v[2]), max(a.v[1], a.v[3]));
    const float32x4_t two = max(four, vextq_f32(four, four, 2));
    return vgetq_lane_f32(max(two, vextq_f32(two, two, 1)), 0);
}
static inline int32_t reduce_add(I a) {
    return vaddvq_s32(vaddq_s32(vaddq_s32(a.v[0], a.v[2]), vaddq_s32(a.v[1], a.v[3])));
}
static inline int32_t reduce_max(I a) {
    return vmaxvq_s32(vmaxq_s32(vmaxq_s32(a.v[0], a.v[2]), vmaxq_s32(a.v[1], a.v[3])));
}

static inline void prefetch_near(const void *p) { __builtin_prefetch(p, 0, 3); }
static inline void prefetch_far(const void *p) { __builtin_prefetch(p, 0, 2); }

#undef SL_QUARTERS

}  // namespace SL_TARGET
}  // namespace shardline
