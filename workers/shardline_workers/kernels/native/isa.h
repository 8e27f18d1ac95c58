// Which instruction sets there are, and their operations.
#pragma once
#include "work.h"

namespace shardline {

bool isa_is_available(int isa);
const Operations &operations_of(int isa);  // of an available one

// Denormals of float32 count as zero while it lives. The processors' bfloat16 products do so in any case; with this,
// those made of plain multiply-adds give the same bits. It also sets rounding to nearest even.
class FloatingPointMode {
public:
    FloatingPointMode();
    ~FloatingPointMode();
    FloatingPointMode(const FloatingPointMode &) = delete;
    FloatingPointMode &operator=(const FloatingPointMode &) = delete;

private:
    uint64_t before_;
};

}  // namespace shardline
