// e^x in float64, for masses of tokens: there, two candidates practically never tie.
#pragma once
#include <cstdint>
#include <cstring>

#include "layout.h"

namespace shardline {
namespace SL_TARGET {

constexpr int EXP64_CHUNK = 256;

// e^x for x ≤ 0, relative error 4e-16; below -700 it is e^-700, which adds nothing to a sum that has a 1 in it.
// x = n · ln 2 + f with |f| ≤ ln 2 / 2; e^f is its Taylor series of degree 12. No branches, so that loops of it become
// vectors.
static inline double exp64(double x) {
    constexpr double SHIFT = 0x1.8p52;  // adding it rounds to an integer, and leaves that in the lowest bits
    x = x < -700. ? -700. : x;
    const double shifted = __builtin_fma(x, 1.4426950408889634, SHIFT), n = shifted - SHIFT;
    double f = __builtin_fma(n, -0x1.62e42fefa39efp-1, x);
    f = __builtin_fma(n, -0x1.abc9e3b39803fp-56, f);
    double p = 1. / 479001600;
    p = __builtin_fma(p, f, 1. / 39916800);
    p = __builtin_fma(p, f, 1. / 3628800);
    p = __builtin_fma(p, f, 1. / 362880);
    p = __builtin_fma(p, f, 1. / 40320);
    p = __builtin_fma(p, f, 1. / 5040);
    p = __builtin_fma(p, f, 1. / 720);
    p = __builtin_fma(p, f, 1. / 120);
    p = __builtin_fma(p, f, 1. / 24);
    p = __builtin_fma(p, f, 1. / 6);
    p = __builtin_fma(p, f, 0.5);
    p = __builtin_fma(p, f, 1.);
    p = __builtin_fma(p, f, 1.);
    uint64_t n_bits, p_bits;
    memcpy(&n_bits, &shifted, 8);
    memcpy(&p_bits, &p, 8);
    p_bits += n_bits << 52;
    memcpy(&p, &p_bits, 8);
    return p;
}

// out = e^((logits - greatest) / temperature)
static inline void exp64_of(const float *logits, int count, double greatest, double temperature, double *out) {
    for (int i = 0; i < count; i++) out[i] = exp64(((double)logits[i] - greatest) / temperature);
}

}  // namespace SL_TARGET
}  // namespace shardline
