/* history — see history.h. */
#define _GNU_SOURCE /* memfd_create */
#include "tests/support/history.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { WORKERS_MAX = 64 };

/* The mark of a push: what was told of it in the highest byte, below that the step of
 * one that was applied, or the number of parts that were. */
enum told {
    NOT_BEGUN,
    BEGUN,
    APPLIED,
    DROPPED,
    REFUSED,
    IN_PART,
    NOT_KNOWN,
    NO_FATE /* as nobody may be told */
};
enum { TOLD_AT = 56 };

static const char *const sentences[] = {
    [NOT_BEGUN] = "was never begun",      [BEGUN] = "ended before it was told its fate",
    [APPLIED] = "was told to be applied", [DROPPED] = "was told to be dropped",
    [REFUSED] = "was told not applied",   [IN_PART] = "was told applied in part",
    [NOT_KNOWN] = "was told not known",   [NO_FATE] = "was told no fate",
};

struct record { /* the shared memory */
    unsigned workers, pushes;
    atomic_uint next[WORKERS_MAX]; /* number of a worker's next push */
    atomic_uint acknowledged[WORKERS_MAX];
    atomic_uint dropped[WORKERS_MAX];
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

static uint64_t mark(enum told told, uint64_t detail)
{
    return (uint64_t)told << TOLD_AT | detail;
}

static enum told told_of(uint64_t mark)
{
    return (enum told)(mark >> TOLD_AT);
}

static uint64_t detail_of(uint64_t mark)
{
    return mark & ((UINT64_C(1) << TOLD_AT) - 1);
}

unsigned history_begin(struct history *history, unsigned worker)
{
    unsigned push = atomic_fetch_add(&history->record->next[worker], 1);
    if (push >= history->record->pushes) {
        atomic_store(&history->record->next[worker], history->record->pushes);
        return history->record->pushes;
    }
    atomic_store(mark_of(history, worker, push), mark(BEGUN, 0));
    return push;
}

static uint64_t mark_for(const struct optclient_result *result)
{
    switch (result->fate) {
    case OPTCLIENT_APPLIED:
    case OPTCLIENT_DUPLICATE:
        return mark(APPLIED, result->step);
    case OPTCLIENT_DROPPED:
    case OPTCLIENT_SKIPPED:
        return mark(DROPPED, 0);
    case OPTCLIENT_NOT_APPLIED:
        return mark(REFUSED, 0);
    case OPTCLIENT_APPLIED_IN_PART:
        return mark(IN_PART, result->shards_applied);
    case OPTCLIENT_NOT_KNOWN:
        return mark(NOT_KNOWN, 0);
    default:
        return mark(NO_FATE, 0);
    }
}

void history_told(struct history *history, unsigned worker, unsigned push,
                  const struct optclient_result *result)
{
    uint64_t told = mark_for(result);
    atomic_store(mark_of(history, worker, push), told);
    if (told_of(told) == APPLIED) {
        atomic_fetch_add(&history->record->acknowledged[worker], 1);
    } else if (told_of(told) == DROPPED) {
        atomic_fetch_add(&history->record->dropped[worker], 1);
    }
}

unsigned history_begun(const struct history *history, unsigned worker)
{
    return atomic_load(&history->record->next[worker]);
}

unsigned history_acknowledged(const struct history *history, unsigned worker)
{
    return atomic_load(&history->record->acknowledged[worker]);
}

unsigned history_taken(const struct history *history, unsigned worker)
{
    return history_acknowledged(history, worker) +
           atomic_load(&history->record->dropped[worker]);
}

/* ---------------------------------------------------------------- the verdict */

/* How often the parts of a push count. */
struct counts {
    unsigned parts, applied; /* all, and those that count once */
    bool once;               /* none counts more often, or in between */
};

static struct counts count(const struct history *history, const float *times,
                           unsigned parts, size_t at)
{
    const struct record *record = history->record;
    struct counts counts = { .parts = parts, .once = true };
    for (unsigned part = 0; part < parts; part++) {
        float applied = times[part * (size_t)record->workers * record->pushes + at];
        counts.applied += applied == 1.0f;
        counts.once &= applied == 0.0f || applied == 1.0f;
    }
    return counts;
}

static void note(uint64_t mark, const struct counts *counts,
                 struct history_verdict *out)
{
    enum told told = told_of(mark);
    bool unknown = told == BEGUN || told == NOT_KNOWN;
    out->begun += told != NOT_BEGUN;
    out->acknowledged += told == APPLIED;
    out->dropped += told == DROPPED;
    out->refused += told == REFUSED;
    out->in_part += told == IN_PART;
    out->not_known += told == NOT_KNOWN;
    out->untold += told == BEGUN;
    out->unknown += unknown;
    out->unknown_applied += unknown && counts->applied > 0;
}

static bool may_be(uint64_t mark, const struct counts *counts, bool splits)
{
    bool whole = counts->applied == 0 || counts->applied == counts->parts;
    if (!counts->once || !(whole || splits)) {
        return false;
    }
    switch (told_of(mark)) {
    case APPLIED:
        return counts->applied == counts->parts;
    case IN_PART:
        return counts->applied > 0 &&
               (detail_of(mark) == 0 || counts->applied == detail_of(mark));
    case BEGUN:
    case NOT_KNOWN:
        return true;
    case NO_FATE:
        return false;
    default:
        return counts->applied == 0;
    }
}

/* "push 3 of worker 2 was told not applied (0) and counts 0 1 0 times" */
static void tell(const struct history *history, const float *times, unsigned parts,
                 size_t at, char *out, size_t size)
{
    const struct record *record = history->record;
    uint64_t mark = atomic_load(&record->marks[at]);
    size_t end = (size_t)snprintf(out, size,
                                  "push %zu of worker %zu %s (%" PRIu64 ") and counts",
                                  at % record->pushes, at / record->pushes,
                                  sentences[told_of(mark)], detail_of(mark));
    for (unsigned part = 0; part < parts && end < size - 24; part++) {
        float applied = times[part * (size_t)record->workers * record->pushes + at];
        end += (size_t)snprintf(out + end, size - end, " %g", (double)applied);
    }
    snprintf(out + end, size - end, " times");
}

/* The first that is wrong, and the one before it, in whose place it may have been read.
 */
static void complain(const struct history *history, const float *times, unsigned parts,
                     size_t at, struct history_verdict *out)
{
    char before[160];
    out->wrong++;
    if (out->problem[0] != '\0') {
        return;
    }
    tell(history, times, parts, at, out->problem, sizeof out->problem);
    if (at % history->record->pushes > 0) {
        size_t end = strlen(out->problem);
        tell(history, times, parts, at - 1, before, sizeof before);
        snprintf(out->problem + end, sizeof out->problem - end, "; %s", before);
    }
}

void history_judge(const struct history *history, const float *times, unsigned parts,
                   bool splits, struct history_verdict *out)
{
    const struct record *record = history->record;
    *out = (struct history_verdict){ 0 };
    for (unsigned w = 0; w < record->workers; w++) {
        uint64_t last = 0; /* step: they ascend */
        for (unsigned p = 0; p < record->pushes; p++) {
            size_t at = (size_t)w * record->pushes + p;
            uint64_t mark = atomic_load(&record->marks[at]);
            struct counts counts = count(history, times, parts, at);
            bool good = may_be(mark, &counts, splits);
            if (told_of(mark) == APPLIED) {
                good &= detail_of(mark) >= last;
                last = detail_of(mark);
            }
            note(mark, &counts, out);
            if (!good) {
                complain(history, times, parts, at, out);
            }
        }
    }
}
