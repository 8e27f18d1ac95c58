// 2^x in float32 lanes, for softmax and activations.
#pragma once
#include "layout.h"

namespace shardline {
namespace SL_TARGET {

constexpr float LOG2_E = 1.44269504f;

// 2^x for x ≤ 127, relative error 2e-7; 0 below 2^-125, NaN of NaN. x = n + f with |f| ≤ 1/2, and 2^f is its Taylor
// series of degree 6 with coefficients ln(2)^k / k!.
static inline F exp2(F x) {
    x = max(set(-127.f), x);
    const F n = round(x), f = sub(x, n);
    F p = set(1.5403530e-4f);
    p = fma(p, f, set(1.3333558e-3f));
    p = fma(p, f, set(9.6181291e-3f));
    p = fma(p, f, set(5.5504109e-2f));
    p = fma(p, f, set(2.4022651e-1f));
    p = fma(p, f, set(6.9314718e-1f));
    p = fma(p, f, set(1.f));
    const F scaled = from_bits(add(bits(p), shift_left<23>(to_int(n))));
    return select(less(x, set(-125.f)), set(0.f), scaled);
}

static inline float exp2(float x) {
    alignas(64) float lanes[TILE];
    store(lanes, exp2(set(x)));
    return lanes[0];
}

}  // namespace SL_TARGET
}  // namespace shardline
