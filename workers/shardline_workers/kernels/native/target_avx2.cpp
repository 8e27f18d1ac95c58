// flags: -mavx2 -mfma -mf16c
// All operations for processors with AVX2 (Intel from 2013, AMD from 2015).
#define SL_TARGET avx2
#include "product_avx2.h"

#include "operations.h"
