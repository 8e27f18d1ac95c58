#include "sleepers.h"

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#endif

namespace shardline {

// No wake is lost: all operations on the number and on the count come in one order, the number's change before the look
// at the count, and the count's change before the look at the number.
#ifdef __linux__
void Sleepers::sleep_while(std::atomic<uint32_t> &value, uint32_t old) {
    count_.fetch_add(1);
    while (value.load() == old) syscall(SYS_futex, &value, FUTEX_WAIT_PRIVATE, old, nullptr, nullptr, 0);
    count_.fetch_sub(1);
}

void Sleepers::wake_all(std::atomic<uint32_t> &value) {
    if (count_.load()) syscall(SYS_futex, &value, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}
#else
void Sleepers::sleep_while(std::atomic<uint32_t> &value, uint32_t old) {
    count_.fetch_add(1);
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return value.load() != old; });
    count_.fetch_sub(1);
}

void Sleepers::wake_all(std::atomic<uint32_t> &) {
    if (!count_.load()) return;
    // Whoever has seen the old number holds the lock until it sleeps.
    const std::lock_guard<std::mutex> lock(mutex_);
    changed_.notify_all();
}
#endif

}  // namespace shardline
