// What gates are turned by, in float32 lanes.
#pragma once
#include "exponential.h"

namespace shardline {
namespace SL_TARGET {

// x / (1 + 2^-y)
static inline F over_one_and_exp2(F x, F y) {
    // 2^-y of very negative y would leave exp2's range; there the result is 0 as it is.
    const F minus = max(set(LOG2_E * -88.f), sub(set(0.f), y));
    const F limited = select(less(set(126.f), minus), set(126.f), minus);
    return div(x, add(set(1.f), exp2(limited)));
}

// x / (1 + e^-x)
static inline F silu(F x) { return over_one_and_exp2(x, mul(x, set(LOG2_E))); }

// x / 2 · (1 + tanh(u)) = x / (1 + e^-2u) with u = sqrt(2 / pi) · (x + 0.044715 · x³): so no digits are lost where tanh
// is near -1.
static inline F gelu_tanh(F x) {
    constexpr float FACTOR = 2.f * LOG2_E * 0.7978845608f;
    const F inner = fma(mul(mul(x, x), set(0.044715f)), x, x);
    return over_one_and_exp2(x, mul(inner, set(FACTOR)));
}

static inline F gated(int activation, F gate, F up) {
    return mul(activation == SL_GELU_TANH ? gelu_tanh(gate) : silu(gate), up);
}

}  // namespace SL_TARGET
}  // namespace shardline
