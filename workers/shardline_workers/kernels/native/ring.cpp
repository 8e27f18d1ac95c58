// The entry points of ring_api.h: what comes from outside is checked here.
#include <new>

#include "errors.h"
#include "frame_ring.h"

struct sl_ring {
    shardline::FrameRing ring;
};

namespace shardline {
namespace {

constexpr int32_t MOST_SLOTS = 1 << 16, LARGEST_SLOT = 1 << 26, SLOT_STEP = 64;

int check_shape(int32_t num_readers, int32_t num_slots, int32_t slot_bytes) {
    if (num_readers < 1 || num_readers > SL_MAX_READERS)
        return refuse(SL_BAD_ARGUMENT, "num_readers is %d; it must be 1 … %d", num_readers, SL_MAX_READERS);
    if (num_slots < 2 || num_slots > MOST_SLOTS || (num_slots & (num_slots - 1)))
        return refuse(SL_BAD_ARGUMENT, "num_slots is %d; it must be a power of two, 2 … %d", num_slots, MOST_SLOTS);
    if (slot_bytes < SLOT_STEP || slot_bytes > LARGEST_SLOT || slot_bytes % SLOT_STEP)
        return refuse(SL_BAD_ARGUMENT, "slot_bytes is %d; it must be a multiple of %d, up to %d", slot_bytes, SLOT_STEP,
                      LARGEST_SLOT);
    return SL_OK;
}

int check_options(const sl_ring_options &options) {
    if (const int status = check_shape(options.num_readers, options.num_slots, options.slot_bytes)) return status;
    if (options.place < 0 || options.place > options.num_readers)
        return refuse(SL_BAD_ARGUMENT, "place is %d; it must be 0 … %d", options.place, options.num_readers);
    if (options.spin_ns < 0 || options.join_ns <= 0 || options.wait_ns <= 0)
        return refuse(SL_BAD_ARGUMENT, "spin_ns %lld, join_ns %lld, wait_ns %lld: limits must be positive",
                      (long long)options.spin_ns, (long long)options.join_ns, (long long)options.wait_ns);
    return SL_OK;
}

}  // namespace
}  // namespace shardline

using namespace shardline;

int64_t sl_ring_bytes(int32_t num_readers, int32_t num_slots, int32_t slot_bytes) {
    if (const int status = check_shape(num_readers, num_slots, slot_bytes)) return status;
    sl_ring_options options{};
    options.num_readers = num_readers;
    options.num_slots = num_slots;
    options.slot_bytes = slot_bytes;
    return RingMemory(nullptr, options).bytes();
}

int sl_ring_join(int32_t file, const sl_ring_options *options, sl_ring **joined) {
    if (!options || !joined) return refuse(SL_BAD_ARGUMENT, "options or joined is NULL");
    if (const int status = check_options(*options)) return status;
    auto *ring = new (std::nothrow) sl_ring{FrameRing(*options)};
    if (!ring) return refuse(SL_NO_MEMORY, "no memory for an end of a ring");
    if (const int status = ring->ring.join(file)) {
        delete ring;
        return status;
    }
    *joined = ring;
    return SL_OK;
}

void sl_ring_leave(sl_ring *ring) { delete ring; }

int sl_ring_write(sl_ring *ring, const void *frame, int64_t bytes) {
    if (!ring || !frame) return refuse(SL_BAD_ARGUMENT, "ring or frame is NULL");
    if (!ring->ring.is_writer()) return refuse(SL_BAD_ARGUMENT, "only the writer writes");
    if (bytes < 1) return refuse(SL_BAD_ARGUMENT, "the frame has %lld bytes; it must have 1", (long long)bytes);
    return ring->ring.write((const uint8_t *)frame, bytes);
}

int64_t sl_ring_read(sl_ring *ring, void *frame, int64_t room, int64_t limit_ns) {
    if (!ring || (room && !frame)) return refuse(SL_BAD_ARGUMENT, "ring or frame is NULL");
    if (ring->ring.is_writer()) return refuse(SL_BAD_ARGUMENT, "the writer does not read");
    if (room < 0 || limit_ns < 0)
        return refuse(SL_BAD_ARGUMENT, "room %lld, limit_ns %lld: they must be at least 0", (long long)room,
                      (long long)limit_ns);
    return ring->ring.read((uint8_t *)frame, room, limit_ns);
}
