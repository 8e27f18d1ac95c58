// Where a matrix product goes.
#pragma once
#include "layout.h"

namespace shardline {
namespace SL_TARGET {

// Which columns of out the tiles go to.
struct Columns {
    float *out;  // where column 16 · first_tile goes
    ptrdiff_t stride;
    int first_tile;
    int num_outputs;  // columns of tiles beyond are not written
};

}  // namespace SL_TARGET
}  // namespace shardline
