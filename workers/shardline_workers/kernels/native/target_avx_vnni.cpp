// flags: -mavx2 -mfma -mf16c -mavxvnni
// All operations for processors with AVX-VNNI but without AVX512 (Intel's of 2021 for desktops).
#define SL_TARGET avx_vnni
#include "product_avx2.h"

#include "operations.h"
