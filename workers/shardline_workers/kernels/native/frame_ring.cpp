#include "frame_ring.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "errors.h"
#include "pool.h"

namespace shardline {
namespace {

constexpr uint64_t LAYOUT = 1;           // of ring_memory.h
constexpr int64_t LOOK_NS = 100'000'000;  // how often a sleeper looks whether the other end lives

uint64_t shape_of(const sl_ring_options &options) {
    return LAYOUT << 56 | (uint64_t)options.num_readers << 48 | (uint64_t)(options.num_slots - 1) << 32 |
           (uint64_t)options.slot_bytes;
}

const char *role_of(int place) { return place == SL_RING_WRITER ? "writer" : "reader"; }

}  // namespace

FrameRing::~FrameRing() {
    if (has_claimed_) own().has_left.store(1);
    if (mapped_) munmap(mapped_, (size_t)memory_.bytes());
}

int FrameRing::join(int file) {
    if (const int status = map(file)) return status;
    if (const int status = claim()) return status;
    // Twice: once anybody's join is over, everybody watches everybody.
    if (const int status = meet(1)) return status;
    for (int place = 0; place <= options_.num_readers; place++)
        if (is_peer(place)) watched_[place].watch(memory_.end(place).process.load());
    return meet(2);
}

int FrameRing::map(int file) {
    const int64_t bytes = memory_.bytes();
    struct stat status;
    if (fstat(file, &status)) return refuse(SL_BAD_ARGUMENT, "file %d: %s", file, strerror(errno));
    if (status.st_size < bytes)
        return refuse(SL_BAD_ARGUMENT, "the shared file has %lld bytes; the ring needs %lld",
                      (long long)status.st_size, (long long)bytes);
    void *mapped = mmap(nullptr, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED)
        return refuse(SL_NO_MEMORY, "mapping %lld shared bytes: %s", (long long)bytes, strerror(errno));
    mapped_ = mapped;
    memory_ = RingMemory(mapped, options_);
    return SL_OK;
}

int FrameRing::claim() {
    uint64_t shape = 0;
    if (!memory_.ring().shape.compare_exchange_strong(shape, shape_of(options_)) && shape != shape_of(options_))
        return refuse(SL_BAD_ARGUMENT,
                      "the ring is for %d readers with %d slots of %d bytes, but another end joined with %d, %d and %d",
                      options_.num_readers, options_.num_slots, options_.slot_bytes, (int)(shape >> 48 & 0xff),
                      (int)(shape >> 32 & 0xffff) + 1, (int)(shape & 0xffffffff));
    int32_t process = 0;
    if (!own().process.compare_exchange_strong(process, (int32_t)getpid()))
        return refuse(SL_BAD_ARGUMENT, "place %d is taken: process %d has joined there", options_.place, process);
    has_claimed_ = true;
    return SL_OK;
}

int FrameRing::meet(uint32_t step) {
    own().joined.publish(step);
    for (int place = 0; place <= options_.num_readers; place++) {
        if (!is_peer(place)) continue;
        if (const int status = wait(memory_.end(place).joined, step, place, options_.join_ns, SL_RING_LATE))
            return status;
    }
    return SL_OK;
}

int FrameRing::write(const uint8_t *frame, int64_t bytes) {
    for (int place = 1; place <= options_.num_readers; place++)
        if (is_gone(place)) return give_up(SL_RING_LOST, place);
    for (int64_t written = 0; written < bytes;) {
        if (const int status = make_room()) return status;
        const int64_t length = std::min(bytes - written, (int64_t)options_.slot_bytes);
        memory_.head(num_pieces_).frame_bytes = bytes;
        memcpy(memory_.data(num_pieces_), frame + written, (size_t)length);
        own().pieces.publish(++num_pieces_);
        written += length;
    }
    return SL_OK;
}

// Until every reader has read what lies in the next slot.
int FrameRing::make_room() {
    if (broken_status_) return give_up(broken_status_, broken_place_);
    const uint32_t read = num_pieces_ + 1 - (uint32_t)options_.num_slots;
    for (int place = 1; place <= options_.num_readers; place++)
        if (const int status = wait(memory_.end(place).pieces, read, place, options_.wait_ns, SL_RING_LATE))
            return status;
    return SL_OK;
}

int64_t FrameRing::read(uint8_t *frame, int64_t room, int64_t limit_ns) {
    if (broken_status_) return give_up(broken_status_, broken_place_);
    SharedSignal &written = memory_.end(SL_RING_WRITER).pieces;
    if (const int status = wait(written, num_pieces_ + 1, SL_RING_WRITER, limit_ns, SL_RING_EMPTY)) return status;
    const int64_t bytes = memory_.head(num_pieces_).frame_bytes;
    if (bytes > room) return bytes;
    for (int64_t received = 0; received < bytes;) {
        if (const int status = wait(written, num_pieces_ + 1, SL_RING_WRITER, options_.wait_ns, SL_RING_LATE))
            return status;
        const int64_t length = std::min(bytes - received, (int64_t)options_.slot_bytes);
        memcpy(frame + received, memory_.data(num_pieces_), (size_t)length);
        own().pieces.publish(++num_pieces_);
        received += length;
    }
    return bytes;
}

int FrameRing::wait(SharedSignal &signal, uint32_t number, int place, int64_t limit_ns, int status_when_late) {
    if (signal.spin(number, std::min(options_.spin_ns, limit_ns))) return SL_OK;
    const int64_t end = wall_ns() + limit_ns;
    for (;;) {
        signal.sleep(number, std::clamp<int64_t>(end - wall_ns(), 0, LOOK_NS));
        // Whether the end is gone is asked first: what it did before it went counts.
        const bool is_lost = is_gone(place), is_late = wall_ns() >= end;
        if (signal.has_reached(number)) return SL_OK;
        if (is_lost) return give_up(SL_RING_LOST, place);
        if (is_late) return give_up(status_when_late, place);
    }
}

bool FrameRing::is_gone(int place) const {
    return memory_.end(place).has_left.load() || watched_[place].has_ended();
}

int FrameRing::give_up(int status, int place) {
    if (status == SL_RING_EMPTY) return refuse(status, "the writer sent nothing within the reader's limit");
    broken_status_ = status;
    broken_place_ = place;
    const int32_t process = memory_.end(place).process.load();
    if (!process) return refuse(status, "%s %d has not joined within the limit", role_of(place), place);
    if (status == SL_RING_LOST)
        return refuse(status, "%s %d (process %d) died or left the ring", role_of(place), place, process);
    return refuse(status, "%s %d (process %d) did nothing for longer than the limit of %lld ms", role_of(place), place,
                  process, (long long)(options_.wait_ns / 1'000'000));
}

}  // namespace shardline
