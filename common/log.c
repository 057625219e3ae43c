#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/log_record.h"

static const char *const level_names[] = {
    [OPT_LOG_DEBUG] = "debug",
    [OPT_LOG_INFO] = "info",
    [OPT_LOG_WARN] = "warn",
    [OPT_LOG_ERROR] = "error",
};

static _Atomic int lowest = OPT_LOG_INFO;
static _Atomic int descriptor = STDERR_FILENO;

bool opt_log_level_parse(const char *word, enum opt_log_level *out)
{
    for (int level = OPT_LOG_DEBUG; level <= OPT_LOG_ERROR; level++) {
        if (strcmp(word, level_names[level]) == 0) {
            *out = (enum opt_log_level)level;
            return true;
        }
    }
    return false;
}

const char *opt_log_level_name(enum opt_log_level level)
{
    assert(level <= OPT_LOG_ERROR);
    return level_names[level];
}

void opt_log_set_level(enum opt_log_level level)
{
    atomic_store_explicit(&lowest, (int)level, memory_order_relaxed);
}

bool opt_log_enabled(enum opt_log_level level)
{
    return (int)level >= atomic_load_explicit(&lowest, memory_order_relaxed);
}

void opt_log_set_descriptor(int to)
{
    atomic_store_explicit(&descriptor, to, memory_order_relaxed);
}

/* ---------------------------------------------------------------- the writer */

/* Records that wait to be written, one behind the other; the writer takes all of them
 * at once, and writes from the half that nobody adds to. */
static struct {
    pthread_mutex_t lock;    /* guards the rest, but for the half being written */
    pthread_cond_t filled;   /* or it is to end */
    pthread_cond_t finished; /* the thread has ended */
    bool running, ending;
    uint64_t dropped; /* not told yet */
    size_t size;      /* bytes that wait */
    size_t half;      /* which they are in */
    char *halves[2];  /* OPT_LOG_QUEUE / 2 each */
} writer = { .lock = PTHREAD_MUTEX_INITIALIZER };

enum { HALF = OPT_LOG_QUEUE / 2 };

/* Write one record; false if it could not be. */
static bool write_out(const char *bytes, size_t size)
{
    static _Atomic bool torn; /* the line before has no end */
    int to = atomic_load_explicit(&descriptor, memory_order_relaxed);
    if (atomic_load(&torn) && write(to, "\n", 1) == 1) {
        atomic_store(&torn, false);
    }
    for (size_t done = 0; done < size;) {
        ssize_t written = write(to, bytes + done, size - done);
        if (written > 0) {
            done += (size_t)written;
        } else if (written < 0 && errno == EAGAIN) {
            struct pollfd room = { .fd = to, .events = POLLOUT };
            (void)poll(&room, 1, -1);
        } else if (written == 0 || errno != EINTR) {
            if (done > 0) {
                atomic_store(&torn, true);
            }
            return false;
        }
    }
    return true;
}

/* Tell how many records were dropped; false if that could not be written either. */
static bool write_dropped(uint64_t count)
{
    struct opt_record record;
    opt_record_begin(&record, opt_log_level_name(OPT_LOG_WARN), "log_dropped");
    opt_record_number(&record, "records", count);
    opt_record_end(&record);
    return write_out(record.bytes, record.size);
}

/* Write what was taken, a record at a time. Returns how many could not be. */
static uint64_t write_all(const char *bytes, size_t size)
{
    uint64_t failed = 0;
    while (size > 0) {
        const char *end = memchr(bytes, '\n', size);
        size_t one = (size_t)(end - bytes) + 1;
        failed += !write_out(bytes, one);
        bytes += one;
        size -= one;
    }
    return failed;
}

static void *writer_thread(void *argument)
{
    pthread_mutex_lock(&writer.lock);
    for (;;) {
        while (writer.size == 0 && !writer.ending) {
            pthread_cond_wait(&writer.filled, &writer.lock);
        }
        if (writer.size == 0) {
            break;
        }
        const char *bytes = writer.halves[writer.half];
        size_t size = writer.size;
        uint64_t dropped = writer.dropped;
        writer.half = 1 - writer.half;
        writer.size = 0;
        writer.dropped = 0;
        pthread_mutex_unlock(&writer.lock);
        dropped += write_all(bytes, size); /* they came after what was taken */
        bool told = dropped == 0 || write_dropped(dropped);
        pthread_mutex_lock(&writer.lock);
        writer.dropped += told ? 0 : dropped;
    }
    writer.running = false;
    pthread_cond_broadcast(&writer.finished);
    pthread_mutex_unlock(&writer.lock);
    return argument;
}

bool opt_log_start(void)
{
    pthread_condattr_t monotonic;
    sigset_t all, before;
    pthread_t thread;
    char *halves = malloc(OPT_LOG_QUEUE);
    if (halves == NULL || pthread_condattr_init(&monotonic) != 0) {
        free(halves);
        return false;
    }
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&writer.filled, NULL);
    pthread_cond_init(&writer.finished, &monotonic);
    pthread_condattr_destroy(&monotonic);
    writer.halves[0] = halves;
    writer.halves[1] = halves + HALF;
    writer.ending = false;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_mutex_lock(&writer.lock);
    bool started = pthread_create(&thread, NULL, writer_thread, NULL) == 0;
    writer.running = started;
    pthread_mutex_unlock(&writer.lock);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started) {
        pthread_detach(thread);
    } else {
        free(halves);
    }
    return started;
}

bool opt_log_stop(unsigned timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&writer.lock);
    bool waits = writer.running;
    if (waits) {
        writer.ending = true;
        pthread_cond_signal(&writer.filled);
    }
    while (writer.running &&
           pthread_cond_timedwait(&writer.finished, &writer.lock, &until) == 0) {
    }
    bool ended = !writer.running;
    pthread_mutex_unlock(&writer.lock);
    if (waits && ended) {
        free(writer.halves[0]);
    }
    return ended;
}

/* Hand a record to the writer; false if there is none. */
static bool enqueue(const struct opt_record *record)
{
    pthread_mutex_lock(&writer.lock);
    bool running = writer.running;
    if (running && record->size <= HALF - writer.size) {
        memcpy(writer.halves[writer.half] + writer.size, record->bytes, record->size);
        writer.size += record->size;
        pthread_cond_signal(&writer.filled);
    } else if (running) {
        writer.dropped++;
    }
    pthread_mutex_unlock(&writer.lock);
    return running;
}

static void write_record(enum opt_log_level level, const char *event,
                         const char *format, struct opt_record_arguments *arguments,
                         uint64_t suppressed)
{
    struct opt_record record;
    opt_record_begin(&record, opt_log_level_name(level), event);
    opt_record_pairs(&record, format, arguments);
    if (suppressed > 0) {
        opt_record_number(&record, "suppressed", suppressed);
    }
    opt_record_end(&record);
    if (!enqueue(&record)) {
        (void)write_out(record.bytes, record.size);
    }
}

void opt_log(enum opt_log_level level, const char *event, const char *format, ...)
{
    if (!opt_log_enabled(level)) {
        return;
    }
    struct opt_record_arguments arguments;
    va_start(arguments.list, format);
    write_record(level, event, format, &arguments, 0);
    va_end(arguments.list);
}

/* Seconds of the monotonic clock, from 1, so that 0 is never. */
static uint64_t second_now(void)
{
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) {
        return 1;
    }
    return (uint64_t)now.tv_sec + 1;
}

void opt_log_limited(struct opt_log_site *site, enum opt_log_level level,
                     const char *event, const char *format, ...)
{
    if (!opt_log_enabled(level)) {
        return;
    }
    uint64_t now = second_now();
    uint64_t window = atomic_load(&site->window);
    if (window != now && atomic_compare_exchange_strong(&site->window, &window, now)) {
        atomic_store(&site->written, 0);
    }
    if (atomic_fetch_add(&site->written, 1) >= OPT_LOG_BURST) {
        atomic_fetch_add(&site->suppressed, 1);
        return;
    }
    struct opt_record_arguments arguments;
    va_start(arguments.list, format);
    write_record(level, event, format, &arguments,
                 atomic_exchange(&site->suppressed, 0));
    va_end(arguments.list);
}
