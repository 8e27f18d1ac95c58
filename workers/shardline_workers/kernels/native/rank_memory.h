// What a group of ranks shares, byte for byte. Zeros are a group that nobody has joined.
//
//   GroupLine                            64 B
//   RankLine      [num_ranks]           192 B each
//   Mailbox       [from][to]            192 B each
//   slots         [2 buffers][num_ranks][slot_bytes]
//   mail          [from][to][2 places][slot_bytes / 4]
#pragma once
#include <atomic>
#include <cstdint>

#include "ranks_api.h"
#include "shared_signal.h"

namespace shardline {

constexpr int NUM_BUFFERS = 2, NUM_PLACES = 2;
constexpr int64_t MAIL_SHARE = 4;  // a mailbox's place has this part of a slot

// What a rank does in a round: equal on all ranks, but for the chunks, of which the largest number counts.
struct Call {
    int32_t kind;    // enum CallKind
    int32_t detail;  // kind of number, or source
    int64_t size;    // bytes or numbers; 0 where ranks may have other sizes
    int64_t num_chunks;
};

struct alignas(64) GroupLine {
    std::atomic<uint64_t> shape;   // what all ranks must agree on; 0: nobody has come yet
    std::atomic<uint32_t> broken;  // 0, or why: see RankGroup
};

struct RankLine {
    SharedSignal round;                       // written by this rank so far
    alignas(64) Call calls[NUM_BUFFERS];      // of this rank's latest even and odd round
    alignas(64) std::atomic<int32_t> process;  // 0: has not joined
    std::atomic<int32_t> has_left;
};

// Chunks from one rank to another.
struct Mailbox {
    SharedSignal filled;   // by the sender
    SharedSignal emptied;  // by the receiver
    alignas(64) int64_t message_bytes[NUM_PLACES];
};

class RankMemory {
public:
    RankMemory() = default;
    RankMemory(void *start, int num_ranks, int64_t slot_bytes)
        : start_((uint8_t *)start), num_ranks_(num_ranks), slot_bytes_(slot_bytes) {}

    static int64_t bytes(int num_ranks, int64_t slot_bytes) {
        return RankMemory(nullptr, num_ranks, slot_bytes).mail_at(num_ranks * num_ranks, 0);
    }

    GroupLine &group() const { return *(GroupLine *)start_; }
    RankLine &rank(int rank) const { return ((RankLine *)(start_ + RANKS_AT))[rank]; }
    Mailbox &mailbox(int from, int to) const { return ((Mailbox *)(start_ + mailboxes_at()))[from * num_ranks_ + to]; }
    uint8_t *slot(int buffer, int rank) const {
        return start_ + slots_at() + (buffer * num_ranks_ + rank) * slot_bytes_;
    }
    uint8_t *mail(int from, int to, int place) const { return start_ + mail_at(from * num_ranks_ + to, place); }
    int64_t mail_bytes() const { return slot_bytes_ / MAIL_SHARE; }

private:
    static constexpr int64_t RANKS_AT = sizeof(GroupLine);
    int64_t mailboxes_at() const { return RANKS_AT + num_ranks_ * (int64_t)sizeof(RankLine); }
    int64_t slots_at() const { return mailboxes_at() + num_ranks_ * num_ranks_ * (int64_t)sizeof(Mailbox); }
    int64_t mail_at(int mailbox, int place) const {
        return slots_at() + NUM_BUFFERS * num_ranks_ * slot_bytes_ + (mailbox * NUM_PLACES + place) * mail_bytes();
    }

    uint8_t *start_ = nullptr;
    int num_ranks_ = 0;
    int64_t slot_bytes_ = 0;
};

static_assert(sizeof(GroupLine) == 64 && sizeof(RankLine) == 192 && sizeof(Mailbox) == 192, "as drawn above");

}  // namespace shardline
