// One end of a ring: joins, writes or reads pieces of frames, finds out that another end is gone.
#pragma once
#include "ring_memory.h"
#include "watched_process.h"

namespace shardline {

class FrameRing {
public:
    explicit FrameRing(const sl_ring_options &options) : options_(options), memory_(nullptr, options) {}
    ~FrameRing();
    FrameRing(const FrameRing &) = delete;
    FrameRing &operator=(const FrameRing &) = delete;

    int join(int file);
    int write(const uint8_t *frame, int64_t bytes);
    int64_t read(uint8_t *frame, int64_t room, int64_t limit_ns);

    bool is_writer() const { return options_.place == SL_RING_WRITER; }

private:
    int map(int file);
    int claim();
    int meet(uint32_t step);
    int make_room();
    int wait(SharedSignal &signal, uint32_t number, int place, int64_t limit_ns, int status_when_late);
    bool is_gone(int place) const;
    int give_up(int status, int place);
    bool is_peer(int place) const { return place != options_.place && (is_writer() || place == SL_RING_WRITER); }
    EndLine &own() const { return memory_.end(options_.place); }

    const sl_ring_options options_;
    void *mapped_ = nullptr;
    RingMemory memory_;
    bool has_claimed_ = false;  // this end's line is ours
    uint32_t num_pieces_ = 0;   // written or read so far
    int broken_status_ = SL_OK, broken_place_ = 0;
    WatchedProcess watched_[1 + SL_MAX_READERS];
};

}  // namespace shardline
