#include "shared_signal.h"

#include <ctime>

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#endif

#include "pause.h"
#include "pool.h"

namespace shardline {
namespace {

constexpr int PAUSES_PER_LOOK = 16;  // at the clock, which costs about as much as one pause

// Not the private kind of futex: other processes wait on the same page under other addresses.
#ifdef __linux__
void wait_while(std::atomic<uint32_t> &number, uint32_t seen, const timespec &longest) {
    syscall(SYS_futex, &number, FUTEX_WAIT, seen, &longest, nullptr, 0);
}

void wake_all(std::atomic<uint32_t> &number) { syscall(SYS_futex, &number, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0); }
#else
void wait_while(std::atomic<uint32_t> &, uint32_t, const timespec &) {
    const timespec between_looks{0, 50'000};
    nanosleep(&between_looks, nullptr);
}

void wake_all(std::atomic<uint32_t> &) {}
#endif

}  // namespace

// No wake is lost: all four accesses come in one order, the number's change before the look at the sleepers, and a
// sleeper's entry before its look at the number.
void SharedSignal::publish(uint32_t number) {
    number_.store(number);
    if (num_sleepers_.load()) wake_all(number_);
}

bool SharedSignal::spin(uint32_t number, int64_t spin_ns) const {
    if (has_reached(number)) return true;
    const int64_t start = wall_ns();
    do {
        for (int i = 0; i < PAUSES_PER_LOOK; i++) {
            if (has_reached(number)) return true;
            pause_briefly();
        }
    } while (wall_ns() - start < spin_ns);
    return has_reached(number);
}

void SharedSignal::sleep(uint32_t number, int64_t longest_ns) {
    const timespec longest{(time_t)(longest_ns / 1'000'000'000), (long)(longest_ns % 1'000'000'000)};
    num_sleepers_.fetch_add(1);
    const uint32_t seen = number_.load();
    if ((int32_t)(seen - number) < 0) wait_while(number_, seen, longest);
    num_sleepers_.fetch_sub(1);
}

}  // namespace shardline
