/* history — see history.h. */
#define _GNU_SOURCE /* memfd_create */
#include "tests/history.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { WORKERS_MAX = 64 };

/* Marks of a push beside the step at which it was applied. */
static const uint64_t not_begun = 0;
static const uint64_t begun = UINT64_MAX;
static const uint64_t refused = UINT64_MAX - 1;

struct record { /* the shared memory */
    unsigned workers, pushes;
    atomic_uint next[WORKERS_MAX]; /* number of a worker's next push */
    atomic_uint acknowledged[WORKERS_MAX];
    _Atomic uint64_t marks[];
};

struct history {
    int fd;
    size_t size;
    struct record *record;
};

static void must(bool good, const char *what)
{
    if (!good) {
        perror(what);
        abort();
    }
}

static size_t size_of(unsigned workers, unsigned pushes)
{
    return sizeof(struct record) + (size_t)workers * pushes * sizeof(uint64_t);
}

static struct history *map(int fd, size_t size)
{
    struct history *history = malloc(sizeof *history);
    must(history != NULL, "history");
    *history = (struct history){ .fd = fd, .size = size };
    history->record = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    must(history->record != MAP_FAILED, "history");
    return history;
}

struct history *history_new(unsigned workers, unsigned pushes)
{
    int fd = memfd_create("history", 0); /* programs that are started inherit it */
    must(workers <= WORKERS_MAX && fd >= 0 &&
             ftruncate(fd, (off_t)size_of(workers, pushes)) == 0,
         "history");
    struct history *history = map(fd, size_of(workers, pushes));
    history->record->workers = workers;
    history->record->pushes = pushes;
    return history;
}

struct history *history_open(int fd)
{
    struct record record;
    must(pread(fd, &record, sizeof record, 0) == (ssize_t)sizeof record, "history");
    return map(fd, size_of(record.workers, record.pushes));
}

int history_fd(const struct history *history)
{
    return history->fd;
}

void history_free(struct history *history)
{
    munmap(history->record, history->size);
    close(history->fd);
    free(history);
}

unsigned history_workers(const struct history *history)
{
    return history->record->workers;
}

unsigned history_pushes(const struct history *history)
{
    return history->record->pushes;
}

static _Atomic uint64_t *mark_of(const struct history *history, unsigned worker,
                                 unsigned push)
{
    struct record *record = history->record;
    return &record->marks[(size_t)worker * record->pushes + push];
}

unsigned history_begin(struct history *history, unsigned worker)
{
    unsigned push = atomic_load(&history->record->next[worker]);
    if (push < history->record->pushes) {
        atomic_store(mark_of(history, worker, push), begun);
        atomic_store(&history->record->next[worker], push + 1);
    }
    return push;
}

void history_applied(struct history *history, unsigned worker, unsigned push,
                     uint64_t step)
{
    atomic_store(mark_of(history, worker, push), step);
    atomic_fetch_add(&history->record->acknowledged[worker], 1);
}

void history_refused(struct history *history, unsigned worker, unsigned push)
{
    atomic_store(mark_of(history, worker, push), refused);
}

unsigned history_begun(const struct history *history, unsigned worker)
{
    return atomic_load(&history->record->next[worker]);
}

unsigned history_acknowledged(const struct history *history, unsigned worker)
{
    return atomic_load(&history->record->acknowledged[worker]);
}

/* What is said of a push, and whether times can be. */
static const char *judge_one(uint64_t mark, float times, struct history_verdict *out)
{
    if (mark == not_begun) {
        return times == 0.0f ? NULL : "was never begun";
    }
    out->begun++;
    if (mark == begun) {
        out->unknown++;
        out->unknown_applied += times == 1.0f;
        return times == 0.0f || times == 1.0f ? NULL : "has an unknown fate";
    }
    if (mark == refused) {
        out->refused++;
        return times == 0.0f ? NULL : "was refused";
    }
    out->acknowledged++;
    return times == 1.0f ? NULL : "was acknowledged";
}

void history_judge(const struct history *history, const float *times,
                   struct history_verdict *out)
{
    const struct record *record = history->record;
    *out = (struct history_verdict){ 0 };
    for (unsigned w = 0; w < record->workers; w++) {
        uint64_t last = 0;
        for (unsigned p = 0; p < record->pushes; p++) {
            uint64_t mark = atomic_load(mark_of(history, w, p));
            float applied = times[(size_t)w * record->pushes + p];
            const char *wrong = judge_one(mark, applied, out);
            if (wrong == NULL && mark != begun && mark != refused &&
                mark != not_begun) {
                wrong = mark >= last ? NULL : "has an earlier step than one before it";
                last = mark;
            }
            if (wrong != NULL && out->problem[0] == '\0') {
                snprintf(out->problem, sizeof out->problem,
                         "push %u of worker %u %s (mark %" PRIx64
                         ") and was applied %g times",
                         p, w, wrong, mark, (double)applied);
            }
        }
    }
}
