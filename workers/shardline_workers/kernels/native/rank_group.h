// One rank's side of a group: joins, meets the others, finds out that one is gone. Knows no collective.
#pragma once
#include "rank_memory.h"
#include "watched_process.h"

namespace shardline {

enum CallKind { JOIN, ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, BROADCAST, ALL_TO_ALL, BARRIER };

class RankGroup {
public:
    explicit RankGroup(const sl_ranks_options &options) : options_(options) {}
    ~RankGroup();
    RankGroup(const RankGroup &) = delete;
    RankGroup &operator=(const RankGroup &) = delete;

    int join(int file);

    int rank() const { return options_.rank; }
    int num_ranks() const { return options_.num_ranks; }
    int64_t slot_bytes() const { return options_.slot_bytes; }

    // Goes through a call's rounds: write(chunk, slot) fills this rank's slot, read(chunk, slots) takes from all ranks'
    // slots, which lie slot_bytes apart.
    template <class Write, class Read> int play(Call call, Write write, Read read) {
        for (int64_t chunk = 0; chunk < call.num_chunks; chunk++) {
            if (const int status = begin_round()) return status;
            write(chunk, memory_.slot(buffer(), rank()));
            if (const int status = meet(call, options_.wait_ns)) return status;
            read(chunk, memory_.slot(buffer(), 0));
        }
        return SL_OK;
    }

    int send(const uint8_t *values, int64_t bytes, int destination);
    int receive(uint8_t *values, int64_t bytes, int source);
    // So far, in sends and receives, for the other rank.
    int64_t waited_ns() const { return waited_ns_; }

    // Breaks the group; gives the status.
    int give_up(int status, int peer);

private:
    int meet_to_join();
    int begin_round();
    int meet(Call &call, int64_t limit_ns);
    int compare(Call &call, int peer);
    int wait(SharedSignal &signal, uint32_t number, int peer, int64_t limit_ns);
    int wait_for_mail(SharedSignal &signal, uint32_t number, int peer);
    bool is_gone(int peer);
    int tell_broken() const;
    int buffer() const { return (int)(round_ % NUM_BUFFERS); }

    const sl_ranks_options options_;
    void *mapped_ = nullptr;
    RankMemory memory_;
    bool has_claimed_ = false;  // this rank's line is ours
    uint32_t round_ = 0;
    uint32_t num_sent_[SL_MAX_RANKS] = {}, num_received_[SL_MAX_RANKS] = {};  // chunks, by peer
    int64_t waited_ns_ = 0;
    WatchedProcess watched_[SL_MAX_RANKS];
};

}  // namespace shardline

struct sl_ranks {
    shardline::RankGroup group;
};
