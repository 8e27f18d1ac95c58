#include "rank_group.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "errors.h"
#include "pool.h"

namespace shardline {
namespace {

constexpr uint64_t LAYOUT = 1;                // of rank_memory.h
constexpr int64_t LOOK_NS = 20'000'000;       // how often a sleeper looks whether the others live
constexpr int REASON_BITS = 8;

uint64_t shape_of(const sl_ranks_options &options) {
    return LAYOUT << 56 | (uint64_t)options.num_ranks << 48 | (uint64_t)options.slot_bytes;
}

// Why a group is broken, in a word: which rank failed, how, and who found that. Never 0, statuses being negative.
uint32_t broken_word(int status, int peer, int finder) {
    return (uint32_t)-status << 2 * REASON_BITS | (uint32_t)peer << REASON_BITS | (uint32_t)finder;
}

const char *failure_of(int status) {
    if (status == SL_RANK_LOST) return "died or left the group";
    if (status == SL_RANK_LATE) return "did not come within the limit";
    return "made another call, or the same with other sizes";
}

}  // namespace

RankGroup::~RankGroup() {
    if (has_claimed_) memory_.rank(rank()).has_left.store(1);
    if (mapped_) munmap(mapped_, (size_t)RankMemory::bytes(num_ranks(), slot_bytes()));
}

int RankGroup::join(int file) {
    const int64_t bytes = RankMemory::bytes(num_ranks(), slot_bytes());
    struct stat status;
    if (fstat(file, &status)) return refuse(SL_BAD_ARGUMENT, "file %d: %s", file, strerror(errno));
    if (status.st_size < bytes)
        return refuse(SL_BAD_ARGUMENT, "the shared file has %lld bytes; %d ranks need %lld", (long long)status.st_size,
                      num_ranks(), (long long)bytes);
    void *mapped = mmap(nullptr, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED)
        return refuse(SL_NO_MEMORY, "mapping %lld shared bytes: %s", (long long)bytes, strerror(errno));
    mapped_ = mapped;
    memory_ = RankMemory(mapped, num_ranks(), slot_bytes());

    uint64_t shape = 0;
    if (!memory_.group().shape.compare_exchange_strong(shape, shape_of(options_)) && shape != shape_of(options_))
        return refuse(SL_BAD_ARGUMENT, "num_ranks is %d and slot_bytes %lld, but another rank joined with %d and %lld",
                      num_ranks(), (long long)slot_bytes(), (int)(shape >> 48 & 0xff),
                      (long long)(shape & 0xffffffffffff));
    int32_t process = 0;
    if (!memory_.rank(rank()).process.compare_exchange_strong(process, (int32_t)getpid()))
        return refuse(SL_BAD_ARGUMENT, "rank %d is taken: process %d has joined as it", rank(), process);
    has_claimed_ = true;

    // Twice: once anybody's join is over, everybody watches everybody.
    if (const int failed = meet_to_join()) return failed;
    for (int peer = 0; peer < num_ranks(); peer++)
        if (peer != rank()) watched_[peer].watch(memory_.rank(peer).process.load());
    return meet_to_join();
}

int RankGroup::meet_to_join() {
    Call call{JOIN, 0, 0, 1};
    if (const int failed = begin_round()) return failed;
    return meet(call, options_.join_ns);
}

int RankGroup::begin_round() {
    if (memory_.group().broken.load(std::memory_order_relaxed)) return tell_broken();
    round_++;
    return SL_OK;
}

int RankGroup::meet(Call &call, int64_t limit_ns) {
    RankLine &own = memory_.rank(rank());
    own.calls[buffer()] = call;
    own.round.publish(round_);
    for (int peer = 0; peer < num_ranks(); peer++) {
        if (peer == rank()) continue;
        if (const int status = wait(memory_.rank(peer).round, round_, peer, limit_ns)) return status;
        if (const int status = compare(call, peer)) return status;
    }
    return SL_OK;
}

int RankGroup::compare(Call &call, int peer) {
    const Call &other = memory_.rank(peer).calls[buffer()];
    if (other.kind != call.kind || other.detail != call.detail || other.size != call.size)
        return give_up(SL_RANKS_DIFFER, peer);
    call.num_chunks = std::max(call.num_chunks, other.num_chunks);
    return SL_OK;
}

int RankGroup::wait(SharedSignal &signal, uint32_t number, int peer, int64_t limit_ns) {
    if (signal.spin(number, options_.spin_ns)) return SL_OK;
    const int64_t end = wall_ns() + limit_ns;
    for (;;) {
        signal.sleep(number, std::min(LOOK_NS, limit_ns));
        // Whether the rank is gone is asked first: what it did before it went counts.
        const bool is_lost = is_gone(peer), is_late = wall_ns() >= end;
        if (signal.has_reached(number)) return SL_OK;
        if (memory_.group().broken.load()) return tell_broken();
        if (is_lost) return give_up(SL_RANK_LOST, peer);
        if (is_late) return give_up(SL_RANK_LATE, peer);
    }
}

bool RankGroup::is_gone(int peer) {
    return memory_.rank(peer).has_left.load() || watched_[peer].has_ended();
}

int RankGroup::give_up(int status, int peer) {
    uint32_t whole = 0;
    memory_.group().broken.compare_exchange_strong(whole, broken_word(status, peer, rank()));
    return tell_broken();
}

int RankGroup::tell_broken() const {
    const uint32_t word = memory_.group().broken.load(), mask = (1u << REASON_BITS) - 1;
    const int status = -(int)(word >> 2 * REASON_BITS);
    const int peer = (int)(word >> REASON_BITS & mask), finder = (int)(word & mask);
    const int32_t process = memory_.rank(peer).process.load();
    if (!process)
        return refuse(status, "rank %d has not joined within rank %d's limit; the group is broken", peer, finder);
    return refuse(status, "rank %d (process %d) %s, as rank %d found; the group is broken", peer, process,
                  failure_of(status), finder);
}

int RankGroup::wait_for_mail(SharedSignal &signal, uint32_t number, int peer) {
    const int64_t began = wall_ns();
    const int status = wait(signal, number, peer, options_.wait_ns);
    waited_ns_ += wall_ns() - began;
    return status;
}

int RankGroup::send(const uint8_t *values, int64_t bytes, int destination) {
    Mailbox &box = memory_.mailbox(rank(), destination);
    int64_t sent = 0;
    do {  // an empty message is one, too
        if (memory_.group().broken.load(std::memory_order_relaxed)) return tell_broken();
        const uint32_t number = num_sent_[destination];
        const uint32_t freed = number - (NUM_PLACES - 1);
        if (const int status = wait_for_mail(box.emptied, freed, destination)) return status;
        const int place = (int)(number % NUM_PLACES);
        const int64_t length = std::min(bytes - sent, memory_.mail_bytes());
        if (length) memcpy(memory_.mail(rank(), destination, place), values + sent, (size_t)length);
        box.message_bytes[place] = bytes;
        box.filled.publish(++num_sent_[destination]);
        sent += length;
    } while (sent < bytes);
    return SL_OK;
}

int RankGroup::receive(uint8_t *values, int64_t bytes, int source) {
    Mailbox &box = memory_.mailbox(source, rank());
    int64_t received = 0;
    do {
        if (memory_.group().broken.load(std::memory_order_relaxed)) return tell_broken();
        const uint32_t number = num_received_[source];
        if (const int status = wait_for_mail(box.filled, number + 1, source)) return status;
        const int place = (int)(number % NUM_PLACES);
        if (box.message_bytes[place] != bytes) return give_up(SL_RANKS_DIFFER, source);
        const int64_t length = std::min(bytes - received, memory_.mail_bytes());
        if (length) memcpy(values + received, memory_.mail(source, rank(), place), (size_t)length);
        box.emptied.publish(++num_received_[source]);
        received += length;
    } while (received < bytes);
    return SL_OK;
}

}  // namespace shardline
