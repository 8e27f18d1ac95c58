// What the ends of a ring share, byte for byte. Zeros are a ring that nobody has joined.
//
//   RingLine                               64 B
//   EndLine   [1 + num_readers]           192 B each, the writer's first
//   slots     [num_slots]                 SlotHead 64 B, then slot_bytes
#pragma once
#include <atomic>
#include <cstdint>

#include "ring_api.h"
#include "shared_signal.h"

namespace shardline {

struct alignas(64) RingLine {
    std::atomic<uint64_t> shape;  // what all ends must agree on; 0: nobody has come yet
};

struct EndLine {
    SharedSignal joined;                       // 1: has come; 2: and watches the others
    SharedSignal pieces;                       // written, or read, so far
    alignas(64) std::atomic<int32_t> process;  // 0: has not come
    std::atomic<int32_t> has_left;
};

struct alignas(64) SlotHead {
    int64_t frame_bytes;  // of the whole frame, in each of its pieces
};

class RingMemory {
public:
    RingMemory() = default;
    RingMemory(void *start, const sl_ring_options &options)
        : start_((uint8_t *)start), num_readers_(options.num_readers), num_slots_((uint32_t)options.num_slots),
          slot_bytes_(options.slot_bytes) {}

    int64_t bytes() const { return slots_at() + num_slots_ * slot_stride(); }
    RingLine &ring() const { return *(RingLine *)start_; }
    EndLine &end(int place) const { return ((EndLine *)(start_ + ENDS_AT))[place]; }
    SlotHead &head(uint32_t piece) const { return *(SlotHead *)slot(piece); }
    uint8_t *data(uint32_t piece) const { return slot(piece) + sizeof(SlotHead); }

private:
    static constexpr int64_t ENDS_AT = sizeof(RingLine);
    int64_t slots_at() const { return ENDS_AT + (1 + num_readers_) * (int64_t)sizeof(EndLine); }
    int64_t slot_stride() const { return (int64_t)sizeof(SlotHead) + slot_bytes_; }
    uint8_t *slot(uint32_t piece) const { return start_ + slots_at() + piece % num_slots_ * slot_stride(); }

    uint8_t *start_ = nullptr;
    int num_readers_ = 0;
    uint32_t num_slots_ = 1;
    int64_t slot_bytes_ = 0;
};

static_assert(sizeof(RingLine) == 64 && sizeof(EndLine) == 192 && sizeof(SlotHead) == 64, "as drawn above");

}  // namespace shardline
