// The eight tile registers of AMX, each 16 rows of 64 bytes. Written as assembly, since GCC's intrinsics take the
// registers' numbers as text only.
#pragma once
#include "lanes_avx512.h"

namespace shardline {
namespace SL_TARGET {

template <int REGISTER>
static inline void tile_load(const void *rows, ptrdiff_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(rows), "r"(stride), "i"(REGISTER) : "memory");
}
template <int REGISTER>
static inline void tile_store(void *rows, ptrdiff_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(rows), "r"(stride), "i"(REGISTER) : "memory");
}
template <int REGISTER>
static inline void tile_zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(REGISTER));
}
// SUMS += A · B, pairs of bfloat16 to float32, see product_amx.h
template <int SUMS, int A, int B>
static inline void tile_dot_bf16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(SUMS), "i"(A), "i"(B));
}

// Gives this thread its eight tile registers, of rows of 64 bytes, while it lives: 0 … 5 of `rows` rows, at most 16,
// the last two of 16. Fewer rows take less time.
class TileShapes {
public:
    explicit TileShapes(int rows = TILE) {
        Shapes shapes;
        for (int i = 0; i < 8; i++) {
            shapes.rows[i] = (uint8_t)(i > 5 || rows > TILE ? TILE : rows);
            shapes.row_bytes[i] = 64;
        }
        asm volatile("ldtilecfg %0" : : "m"(shapes));
    }
    ~TileShapes() { asm volatile("tilerelease"); }
    TileShapes(const TileShapes &) = delete;
    TileShapes &operator=(const TileShapes &) = delete;

private:
    struct alignas(64) Shapes {  // as ldtilecfg reads them
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {};
        uint8_t rows[16] = {};
    };
};

}  // namespace SL_TARGET
}  // namespace shardline
