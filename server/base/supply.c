/* supply — see supply.h. */
#include "server/base/supply.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <uv.h>

enum { GONE_NS = 100000000 }; /* longest wait for threads that have ended */

/* Threads of this process as the kernel counts them: one that was joined may not have
 * been taken off yet. 0: not known. */
static nlink_t count_threads(void)
{
    struct stat status;
    return stat("/proc/self/task", &status) == 0 ? status.st_nlink : 0;
}

/* Live as long as the lock is held. */
static void *wait_for_lock(void *lock)
{
    pthread_mutex_lock(lock);
    pthread_mutex_unlock(lock);
    return NULL;
}

int supply_threads(int wanted)
{
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_t *threads = calloc((size_t)wanted + 1, sizeof *threads);
    nlink_t before = count_threads();
    int count = 0;
    pthread_mutex_lock(&lock);
    while (threads != NULL && count < wanted &&
           pthread_create(&threads[count], NULL, wait_for_lock, &lock) == 0) {
        count++;
    }
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
    }
    free(threads);
    pthread_mutex_destroy(&lock);
    for (uint64_t limit = uv_hrtime() + GONE_NS;
         count_threads() > before && uv_hrtime() < limit;) {
        sched_yield();
    }
    return count;
}
