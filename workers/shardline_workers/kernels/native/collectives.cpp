// The entry points of ranks_api.h: what each call writes into a rank's slot, and what it reads from all of them.
#include <cstring>
#include <new>

#include "errors.h"
#include "rank_group.h"
#include "rank_sums.h"

namespace shardline {
namespace {

constexpr int64_t LEAST_SLOT = 1024, LARGEST_SLOT = (int64_t)1 << 26, SLOT_STEP = 256;
constexpr int64_t SIZES_BYTES = SL_MAX_RANKS * (int64_t)sizeof(int64_t);  // all_to_all tells them before each chunk
constexpr int64_t LARGEST = (int64_t)1 << 50;                            // bytes of a call: products stay in 64 bits

// A call without data is a round, too.
int64_t num_chunks(int64_t size, int64_t chunk) { return std::max<int64_t>(1, (size + chunk - 1) / chunk); }
int64_t length_of(int64_t size, int64_t chunk, int64_t number) {
    return std::max<int64_t>(0, std::min(chunk, size - chunk * number));
}

void copy(void *to, const void *from, int64_t bytes) {
    if (bytes) memcpy(to, from, (size_t)bytes);
}

int check_sizes(int32_t num_ranks, int64_t slot_bytes) {
    if (num_ranks < 2 || num_ranks > SL_MAX_RANKS)
        return refuse(SL_BAD_ARGUMENT, "num_ranks is %d; it must be 2 … %d", num_ranks, SL_MAX_RANKS);
    if (slot_bytes < LEAST_SLOT || slot_bytes > LARGEST_SLOT || slot_bytes % SLOT_STEP)
        return refuse(SL_BAD_ARGUMENT, "slot_bytes is %lld; it must be a multiple of %lld, %lld … %lld",
                      (long long)slot_bytes, (long long)SLOT_STEP, (long long)LEAST_SLOT, (long long)LARGEST_SLOT);
    return SL_OK;
}

int check_options(const sl_ranks_options &options) {
    if (const int status = check_sizes(options.num_ranks, options.slot_bytes)) return status;
    if (options.rank < 0 || options.rank >= options.num_ranks)
        return refuse(SL_BAD_ARGUMENT, "rank is %d; it must be 0 … %d", options.rank, options.num_ranks - 1);
    if (options.spin_ns < 0 || options.join_ns <= 0 || options.wait_ns <= 0)
        return refuse(SL_BAD_ARGUMENT, "spin_ns %lld, join_ns %lld, wait_ns %lld: limits must be positive",
                      (long long)options.spin_ns, (long long)options.join_ns, (long long)options.wait_ns);
    return SL_OK;
}

int check_data(const sl_ranks *ranks, const void *first, const void *second, int64_t size) {
    if (!ranks) return refuse(SL_BAD_ARGUMENT, "ranks is NULL");
    if (size < 0 || size > LARGEST)
        return refuse(SL_BAD_ARGUMENT, "the size is %lld; it must be 0 … 2^50", (long long)size);
    if (size && (!first || !second)) return refuse(SL_BAD_ARGUMENT, "a buffer is NULL");
    return SL_OK;
}

int check_number(int32_t number) {
    if (number >= 0 && number < SL_NUMBER_COUNT) return SL_OK;
    return refuse(SL_BAD_ARGUMENT, "number is %d; it must be 0 … %d", number, SL_NUMBER_COUNT - 1);
}

int check_rank(const RankGroup &group, int32_t rank, const char *name) {
    if (rank >= 0 && rank < group.num_ranks()) return SL_OK;
    return refuse(SL_BAD_ARGUMENT, "%s is %d; it must be 0 … %d", name, rank, group.num_ranks() - 1);
}

int check_peer(const RankGroup &group, int32_t peer, const char *name) {
    if (const int status = check_rank(group, peer, name)) return status;
    if (peer != group.rank()) return SL_OK;
    return refuse(SL_BAD_ARGUMENT, "%s is %d, the rank itself; it must be another one", name, peer);
}

// Pieces of a slot, one for each destination, behind the table of sizes.
class Exchange {
public:
    Exchange(RankGroup &group, const uint8_t *values, const int64_t *send_bytes, uint8_t *received,
             const int64_t *receive_bytes)
        : group_(group), values_(values), send_bytes_(send_bytes), received_(received), receive_bytes_(receive_bytes),
          piece_((group.slot_bytes() - SIZES_BYTES) / group.num_ranks()) {}

    int run() {
        int64_t most = 0;
        for (int rank = 0; rank < group_.num_ranks(); rank++) most = std::max(most, send_bytes_[rank]);
        int differing = -1;
        const Call call{ALL_TO_ALL, 0, 0, num_chunks(most, piece_)};
        const int status = group_.play(
            call, [&](int64_t chunk, uint8_t *slot) { write(chunk, slot); },
            [&](int64_t chunk, const uint8_t *slots) {
                if (differing < 0) differing = read(chunk, slots);
            });
        if (status == SL_OK && differing >= 0) return group_.give_up(SL_RANKS_DIFFER, differing);
        return status;
    }

private:
    void write(int64_t chunk, uint8_t *slot) const {
        copy(slot, send_bytes_, group_.num_ranks() * (int64_t)sizeof(int64_t));
        const uint8_t *values = values_;
        for (int rank = 0; rank < group_.num_ranks(); rank++) {
            const int64_t length = length_of(send_bytes_[rank], piece_, chunk);
            if (length) copy(slot + SIZES_BYTES + rank * piece_, values + chunk * piece_, length);
            values += send_bytes_[rank];
        }
    }

    // The rank that sent another size than is to be received, or -1.
    int read(int64_t chunk, const uint8_t *slots) const {
        uint8_t *received = received_;
        for (int rank = 0; rank < group_.num_ranks(); rank++) {
            const uint8_t *slot = slots + rank * group_.slot_bytes();
            if (((const int64_t *)slot)[group_.rank()] != receive_bytes_[rank]) return rank;
            const int64_t length = length_of(receive_bytes_[rank], piece_, chunk);
            if (length) copy(received + chunk * piece_, slot + SIZES_BYTES + group_.rank() * piece_, length);
            received += receive_bytes_[rank];
        }
        return -1;
    }

    RankGroup &group_;
    const uint8_t *values_;
    const int64_t *send_bytes_;
    uint8_t *received_;
    const int64_t *receive_bytes_;
    const int64_t piece_;
};

// The sum of sizes, or -1 where one of them, or the sum, is out of bounds.
int64_t total_bytes(const int64_t *bytes, int num_ranks) {
    int64_t total = 0;
    for (int rank = 0; rank < num_ranks; rank++) {
        if (bytes[rank] < 0 || bytes[rank] > LARGEST) return -1;
        total += bytes[rank];
    }
    return total;
}

}  // namespace
}  // namespace shardline

using namespace shardline;

int64_t sl_ranks_bytes(int32_t num_ranks, int64_t slot_bytes) {
    if (const int status = check_sizes(num_ranks, slot_bytes)) return status;
    return RankMemory::bytes(num_ranks, slot_bytes);
}

int sl_ranks_join(int32_t file, const sl_ranks_options *options, sl_ranks **joined) {
    if (!options || !joined) return refuse(SL_BAD_ARGUMENT, "options or joined is NULL");
    if (const int status = check_options(*options)) return status;
    auto *ranks = new (std::nothrow) sl_ranks{RankGroup(*options)};
    if (!ranks) return refuse(SL_NO_MEMORY, "no memory for a rank's group");
    if (const int status = ranks->group.join(file)) {
        delete ranks;
        return status;
    }
    *joined = ranks;
    return SL_OK;
}

void sl_ranks_leave(sl_ranks *ranks) { delete ranks; }

int sl_ranks_all_reduce(sl_ranks *ranks, void *values, int64_t count, int32_t number) {
    if (const int status = check_data(ranks, values, values, count)) return status;
    if (const int status = check_number(number)) return status;
    RankGroup &group = ranks->group;
    const int64_t width = NUMBER_BYTES[number], chunk = group.slot_bytes() / width;
    uint8_t *const bytes = (uint8_t *)values;
    return group.play(
        Call{ALL_REDUCE, number, count, num_chunks(count, chunk)},
        [&](int64_t i, uint8_t *slot) { copy(slot, bytes + i * chunk * width, length_of(count, chunk, i) * width); },
        [&](int64_t i, const uint8_t *slots) {
            SUM_RANKS[number](slots, group.slot_bytes(), group.num_ranks(), length_of(count, chunk, i),
                              bytes + i * chunk * width);
        });
}

int sl_ranks_reduce_scatter(sl_ranks *ranks, const void *values, void *reduced, int64_t count, int32_t number) {
    if (const int status = check_data(ranks, values, reduced, count)) return status;
    if (const int status = check_number(number)) return status;
    RankGroup &group = ranks->group;
    const int64_t width = NUMBER_BYTES[number], chunk = group.slot_bytes() / group.num_ranks() / width;
    return group.play(
        Call{REDUCE_SCATTER, number, count, num_chunks(count, chunk)},
        [&](int64_t i, uint8_t *slot) {
            for (int rank = 0; rank < group.num_ranks(); rank++)
                copy(slot + rank * chunk * width, (const uint8_t *)values + (rank * count + i * chunk) * width,
                     length_of(count, chunk, i) * width);
        },
        [&](int64_t i, const uint8_t *slots) {
            SUM_RANKS[number](slots + group.rank() * chunk * width, group.slot_bytes(), group.num_ranks(),
                              length_of(count, chunk, i), (uint8_t *)reduced + i * chunk * width);
        });
}

int sl_ranks_all_gather(sl_ranks *ranks, const void *values, void *gathered, int64_t bytes) {
    if (const int status = check_data(ranks, values, gathered, bytes)) return status;
    RankGroup &group = ranks->group;
    const int64_t chunk = group.slot_bytes();
    return group.play(
        Call{ALL_GATHER, 0, bytes, num_chunks(bytes, chunk)},
        [&](int64_t i, uint8_t *slot) {
            copy(slot, (const uint8_t *)values + i * chunk, length_of(bytes, chunk, i));
        },
        [&](int64_t i, const uint8_t *slots) {
            for (int rank = 0; rank < group.num_ranks(); rank++)
                copy((uint8_t *)gathered + rank * bytes + i * chunk, slots + rank * chunk, length_of(bytes, chunk, i));
        });
}

int sl_ranks_broadcast(sl_ranks *ranks, void *values, int64_t bytes, int32_t source) {
    if (const int status = check_data(ranks, values, values, bytes)) return status;
    RankGroup &group = ranks->group;
    if (const int status = check_rank(group, source, "source")) return status;
    const int64_t chunk = group.slot_bytes();
    const bool is_source = source == group.rank();
    return group.play(
        Call{BROADCAST, source, bytes, num_chunks(bytes, chunk)},
        [&](int64_t i, uint8_t *slot) {
            if (is_source) copy(slot, (uint8_t *)values + i * chunk, length_of(bytes, chunk, i));
        },
        [&](int64_t i, const uint8_t *slots) {
            if (!is_source) copy((uint8_t *)values + i * chunk, slots + source * chunk, length_of(bytes, chunk, i));
        });
}

int sl_ranks_all_to_all(sl_ranks *ranks, const void *values, const int64_t *send_bytes, void *received,
                        const int64_t *receive_bytes) {
    if (!ranks || !send_bytes || !receive_bytes) return refuse(SL_BAD_ARGUMENT, "ranks or a table of sizes is NULL");
    RankGroup &group = ranks->group;
    const int64_t sent = total_bytes(send_bytes, group.num_ranks());
    const int64_t taken = total_bytes(receive_bytes, group.num_ranks());
    if (const int status = check_data(ranks, values, values, sent)) return status;
    if (const int status = check_data(ranks, received, received, taken)) return status;
    return Exchange(group, (const uint8_t *)values, send_bytes, (uint8_t *)received, receive_bytes).run();
}

int sl_ranks_barrier(sl_ranks *ranks) {
    if (!ranks) return refuse(SL_BAD_ARGUMENT, "ranks is NULL");
    return ranks->group.play(Call{BARRIER, 0, 0, 1}, [](int64_t, uint8_t *) {}, [](int64_t, const uint8_t *) {});
}

int sl_ranks_send(sl_ranks *ranks, const void *values, int64_t bytes, int32_t destination) {
    if (const int status = check_data(ranks, values, values, bytes)) return status;
    if (const int status = check_peer(ranks->group, destination, "destination")) return status;
    return ranks->group.send((const uint8_t *)values, bytes, destination);
}

int64_t sl_ranks_waited_ns(const sl_ranks *ranks) { return ranks ? ranks->group.waited_ns() : 0; }

int sl_ranks_receive(sl_ranks *ranks, void *values, int64_t bytes, int32_t source) {
    if (const int status = check_data(ranks, values, values, bytes)) return status;
    if (const int status = check_peer(ranks->group, source, "source")) return status;
    return ranks->group.receive((uint8_t *)values, bytes, source);
}
