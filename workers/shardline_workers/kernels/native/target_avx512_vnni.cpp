// flags: -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mfma -mf16c -mprefer-vector-width=512
// All operations for processors with AVX512 VNNI but without its bfloat16 (Intel's servers of 2019 to 2021), or with a slow
// one (Intel's later servers).
#define SL_TARGET avx512_vnni
#include "product_avx512.h"

#include "operations.h"
