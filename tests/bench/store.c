/* store — what it costs to lose nothing: steps with a journal against steps without,
 * small pushes that wait for the disk against the disk's own syncs, checkpoints and
 * recoveries against plain writing and reading of as many bytes, on the same disk.
 *
 * All daemons keep what they keep in a folder of the temporary directory, and the
 * references write and read there.
 */
#define _GNU_SOURCE /* nftw */
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "client/optclient.h"
#include "tests/bench/bench.h"
#include "tests/bench/process.h"
#include "tests/bench/trainer.h"

enum {
    PUSHERS = 64,
    SMALL = 64,       /* elements of a small push */
    STATES = 3,       /* arrays of adam: weights and two slots */
    PIECE = 1 << 20,  /* bytes that are written or read at a time */
    BESIDE = 1000,    /* elements of a push beside a checkpoint, */
    PUSHES = 1 << 20, /* of which there are so many at most */
    SYNCED = 4096,    /* that a sync makes durable, alone */
    PATH = 128
};

/* A daemon that keeps what it has, in some way, or keeps nothing. */
struct keeper {
    const char *durability; /* NULL: nothing */
    struct server server;
    char data[PATH];
    struct trainer trainer;
    unsigned steps;
};

static bool start_keeper(const struct bench *bench, struct keeper *keeper,
                         char problem[256])
{
    if (keeper->durability == NULL) {
        return server_start(&keeper->server, bench->daemon, problem);
    }
    if (!server_folder(&keeper->server, problem)) {
        return false;
    }
    snprintf(keeper->data, sizeof keeper->data, "%s/data", keeper->server.folder);
    return server_start_in(&keeper->server, bench->daemon,
                           (const char *const[]){ "--data-dir", keeper->data,
                                                  "--durability", keeper->durability,
                                                  "--checkpoint-interval", "0s", NULL },
                           problem);
}

static struct optclient *connect_to(const struct keeper *keeper, const char *worker,
                                    char problem[256])
{
    struct optclient_options options = optclient_options_default();
    struct optclient *client = NULL;
    options.worker = worker;
    if (optclient_connect(keeper->server.address, &options, &client) != OPTCLIENT_OK) {
        snprintf(problem, 256, "%.250s", optclient_error());
    }
    return client;
}

static bool failed(char problem[256])
{
    snprintf(problem, 256, "%.250s", optclient_error());
    return false;
}

/* -------------------------------------------------------------------- steps */

static bool run_steps(void *context, double *values, char problem[256])
{
    struct keeper *keeper = context;
    double seconds = trainers_run(&keeper->trainer, 1, keeper->steps, problem);
    values[0] = seconds * 1e3;
    return seconds >= 0;
}

static bool start_trainer(const struct bench *bench, struct keeper *keeper,
                          size_t tensors, size_t elements, char problem[256])
{
    const struct trainer_model model = { .address = keeper->server.address,
                                         .expression = "adam(lr=1e-3)",
                                         .tensors = tensors,
                                         .elements = elements,
                                         .workers = 1,
                                         .way = TRAINER_SENDS };
    keeper->steps = bench->quick ? 3 : 10;
    return trainer_start(&keeper->trainer, &model, 0, problem);
}

static void compare_steps(const struct bench *bench, const char *name, size_t tensors,
                          size_t elements)
{
    static const char *const ways[] = { "interval", "always" };
    static const struct report_quantity time = { "time", "ms", REPORT_LESS, 1.05, 0 };
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        struct keeper keeps = { .durability = ways[i] },
                      forgets = { .durability = NULL };
        char problem[256], row[96];
        snprintf(row, sizeof row, "%s, %s", name, ways[i]);
        const struct comparison comparison = {
            .name = row,
            .reference = "the same without a journal",
            .quantities = &time,
            .quantity_count = 1,
            .ours = { run_steps, &keeps },
            .theirs = { run_steps, &forgets },
        };
        if (start_keeper(bench, &keeps, problem) &&
            start_keeper(bench, &forgets, problem) &&
            start_trainer(bench, &keeps, tensors, elements, problem) &&
            start_trainer(bench, &forgets, tensors, elements, problem)) {
            compare(bench->report, &comparison, &bench->effort);
        } else {
            report_failure(bench->report, "store: %s", problem);
        }
        trainer_stop(&keeps.trainer);
        trainer_stop(&forgets.trainer);
        (void)server_stop(&keeps.server);
        (void)server_stop(&forgets.server);
    }
}

/* -------------------------------------------------------------------- small pushes */

struct pushers {
    struct keeper keeper;
    struct optclient *clients[PUSHERS];
    struct optclient_model *models[PUSHERS];
    size_t count, rounds;
};

static uint64_t counted(struct optclient *client, const char *name)
{
    struct optclient_counter *counters = NULL;
    uint64_t value = 0;
    size_t count = 0;
    if (optclient_statistics(client, &counters, &count) == OPTCLIENT_OK) {
        for (size_t i = 0; i < count; i++) {
            value = strcmp(counters[i].name, name) == 0 ? counters[i].value : value;
        }
        optclient_statistics_free(counters);
    }
    return value;
}

static bool open_pushers(const struct bench *bench, struct pushers *pushers,
                         char problem[256])
{
    static const uint64_t shape[] = { SMALL };
    const struct optclient_tensor tensor = { .name = "w", .shape = shape, .rank = 1 };
    const struct optclient_policy policy = { .mode = OPTCLIENT_ASYNC };
    pushers->keeper.durability = "always";
    if (!start_keeper(bench, &pushers->keeper, problem)) {
        return false;
    }
    for (size_t i = 0; i < PUSHERS; i++) {
        char name[16];
        snprintf(name, sizeof name, "w%zu", i);
        pushers->clients[i] = connect_to(&pushers->keeper, name, problem);
        if (pushers->clients[i] == NULL) {
            return false;
        }
        if (optclient_create(pushers->clients[i], "m", "sgd(lr=1e-3)", &policy, &tensor,
                             1, NULL, &pushers->models[i]) != OPTCLIENT_OK) {
            return failed(problem);
        }
    }
    return true;
}

/* Each has one push on its way at a time. */
static bool run_pushers(void *context, double *values, char problem[256])
{
    struct pushers *pushers = context;
    static float gradient[SMALL];
    const struct optclient_values value = { .tensor = 0, .values = gradient };
    struct optclient_call *calls[PUSHERS] = { NULL };
    uint64_t syncs = counted(pushers->clients[0], "journal_syncs");
    double begin = seconds_now();
    bool good = true;
    for (size_t round = 0; round < pushers->rounds && good; round++) {
        for (size_t i = 0; i < pushers->count && good; i++) {
            good = (calls[i] == NULL ||
                    optclient_call_wait(calls[i], NULL) == OPTCLIENT_OK);
            optclient_call_free(calls[i]);
            calls[i] = NULL;
            good = good && optclient_push_start(pushers->models[i], &value, 1, NULL,
                                                NULL, NULL, &calls[i]) == OPTCLIENT_OK;
        }
    }
    for (size_t i = 0; i < pushers->count; i++) {
        good = good && calls[i] != NULL &&
               optclient_call_wait(calls[i], NULL) == OPTCLIENT_OK;
        optclient_call_free(calls[i]);
    }
    size_t pushes = pushers->count * pushers->rounds;
    values[0] = (double)pushes / (seconds_now() - begin);
    syncs = counted(pushers->clients[0], "journal_syncs") - syncs;
    values[1] = syncs > 0 ? (double)pushes / (double)syncs : 0;
    return good || failed(problem);
}

/* A file of its own beside the daemon's. */
struct disk_file {
    const char *folder;
    size_t bytes;
    char *piece;
};

static int open_file(const struct disk_file *file, int flags, char problem[256])
{
    char path[PATH];
    snprintf(path, sizeof path, "%s/reference", file->folder);
    int fd = open(path, flags | O_CLOEXEC, 0600);
    if (fd < 0) {
        snprintf(problem, 256, "cannot open %s", path);
    }
    return fd;
}

/* Syncs of a little more at the end of a file, a second. */
static bool run_syncs(void *context, double *values, char problem[256])
{
    enum { SYNCS = 200 };
    const struct disk_file *file = context;
    int fd = open_file(file, O_CREAT | O_TRUNC | O_WRONLY, problem);
    if (fd < 0) {
        return false;
    }
    double begin = seconds_now();
    bool good = true;
    for (int i = 0; i < SYNCS && good; i++) {
        good = write(fd, file->piece, SYNCED) == SYNCED && fdatasync(fd) == 0;
    }
    values[0] = SYNCS / (seconds_now() - begin);
    values[1] = 1;
    close(fd);
    if (!good) {
        snprintf(problem, 256, "the disk cannot be written");
    }
    return good;
}

static void measure_pushers(const struct bench *bench, char *piece)
{
    static const struct {
        size_t count;
        double goal;
    } all[] = { { 1, 0 }, { 8, 0 }, { 64, 20 } };
    static struct pushers pushers;
    char problem[256];
    if (!open_pushers(bench, &pushers, problem)) {
        report_failure(bench->report, "store: %s", problem);
    }
    for (size_t i = 0; i < sizeof all / sizeof all[0] && pushers.models[PUSHERS - 1];
         i++) {
        struct disk_file file = { .folder = pushers.keeper.server.folder,
                                  .piece = piece };
        const struct report_quantity quantities[] = {
            { "a second", "1/s", REPORT_MORE, 0, 0 },
            { "for each sync of the journal", "", REPORT_MORE, all[i].goal, 0 },
        };
        char name[64];
        snprintf(name, sizeof name, "push 256 B, always, %zu worker%s", all[i].count,
                 all[i].count > 1 ? "s" : "");
        const struct comparison comparison = {
            .name = name,
            .reference = "syncs of 4 KiB more of a file",
            .quantities = quantities,
            .quantity_count = 2,
            .ours = { run_pushers, &pushers },
            .theirs = { run_syncs, &file },
        };
        pushers.count = all[i].count;
        pushers.rounds = (bench->quick ? 1000 : 4000) / (all[i].count + 2);
        compare(bench->report, &comparison, &bench->effort);
    }
    for (size_t i = 0; i < PUSHERS; i++) {
        optclient_model_close(pushers.models[i]);
        optclient_close(pushers.clients[i]);
    }
    (void)server_stop(&pushers.keeper.server);
}

/* ------------------------------------------------------- checkpoints and recoveries */

static int forget_entry(const char *path, const struct stat *status, int type,
                        struct FTW *place)
{
    (void)status, (void)place;
    int fd = type == FTW_F ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        close(fd);
    }
    return 0;
}

/* What the system has of the files there, it is to read from the disk again. */
static void forget(const char *folder)
{
    sync();
    (void)nftw(folder, forget_entry, 8, FTW_PHYS);
}

/* A model with some state, whose checkpoints are looked at. */
struct saved {
    const struct bench *bench;
    struct keeper keeper;
    struct disk_file file;
    size_t elements;
    struct optclient *client;
    struct optclient_model *model;
    float *gradient;
    struct optclient *pusher; /* to another model meanwhile */
    struct optclient_model *other;
    _Atomic bool saving;
    double took;
};

static bool push_once(struct saved *saved, char problem[256])
{
    const struct optclient_values value = { .tensor = 0, .values = saved->gradient };
    return optclient_push(saved->model, &value, 1, NULL, NULL) == OPTCLIENT_OK ||
           failed(problem);
}

static bool run_checkpoint(void *context, double *values, char problem[256])
{
    struct saved *saved = context;
    if (!push_once(saved, problem)) {
        return false;
    }
    double begin = seconds_now();
    if (optclient_checkpoint(saved->client, "m", NULL) != OPTCLIENT_OK) {
        return failed(problem);
    }
    values[0] = (double)saved->file.bytes / (seconds_now() - begin) / 1e9;
    return true;
}

/* ---- pushes to another model beside a checkpoint */

static void *make_checkpoint(void *context)
{
    struct saved *saved = context;
    bool good = optclient_checkpoint(saved->client, "m", NULL) == OPTCLIENT_OK;
    atomic_store(&saved->saving, false);
    return good ? saved : NULL;
}

static int ascending(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* Push until a time, or until the checkpoint is there; then how long pushes took. */
static bool push_beside(struct saved *saved, double until, double *values,
                        char problem[256])
{
    static double took[PUSHES];
    static float gradient[BESIDE];
    const struct optclient_values value = { .tensor = 0, .values = gradient };
    size_t count = 0;
    while (count < PUSHES &&
           (until > 0 ? seconds_now() < until : atomic_load(&saved->saving))) {
        double begin = seconds_now();
        if (optclient_push(saved->other, &value, 1, NULL, NULL) != OPTCLIENT_OK) {
            return failed(problem);
        }
        took[count++] = (seconds_now() - begin) * 1e3;
    }
    if (count == 0) {
        snprintf(problem, 256, "no push was made beside the checkpoint");
        return false;
    }
    qsort(took, count, sizeof *took, ascending);
    values[0] = took[count / 2];
    values[1] = took[count * 99 / 100];
    values[2] = took[count - 1];
    return true;
}

static bool run_beside(void *context, double *values, char problem[256])
{
    struct saved *saved = context;
    pthread_t thread;
    void *made = NULL;
    if (!push_once(saved, problem)) {
        return false;
    }
    double begin = seconds_now();
    atomic_store(&saved->saving, true);
    if (pthread_create(&thread, NULL, make_checkpoint, saved) != 0) {
        snprintf(problem, 256, "no thread");
        return false;
    }
    bool good = push_beside(saved, 0, values, problem);
    pthread_join(thread, &made);
    saved->took = seconds_now() - begin;
    return good && (made != NULL || failed(problem));
}

/* For as long as the checkpoint took. */
static bool run_alone(void *context, double *values, char problem[256])
{
    struct saved *saved = context;
    return push_beside(saved, seconds_now() + saved->took, values, problem);
}

static bool open_other(struct saved *saved, char problem[256])
{
    static const uint64_t shape[] = { BESIDE };
    const struct optclient_tensor tensor = { .name = "w", .shape = shape, .rank = 1 };
    saved->pusher = connect_to(&saved->keeper, "pusher", problem);
    return saved->pusher != NULL &&
           (optclient_create(saved->pusher, "other", "sgd(lr=1e-3)", NULL, &tensor, 1,
                             NULL, &saved->other) == OPTCLIENT_OK ||
            failed(problem));
}

static void measure_beside(const struct bench *bench, struct saved *saved)
{
    static const struct report_quantity times[] = {
        { "median", "ms", REPORT_LESS, 0, 0 },
        { "p99", "ms", REPORT_LESS, 0, 0 },
        { "longest", "ms", REPORT_LESS, 0, 0 },
    };
    char problem[256];
    const struct comparison comparison = {
        .name = bench->quick ? "push 4 KB beside a checkpoint of 96 MiB"
                             : "push 4 KB beside a checkpoint of 768 MiB",
        .reference = "push 4 KB alone",
        .quantities = times,
        .quantity_count = 3,
        .ours = { run_beside, saved },
        .theirs = { run_alone, saved },
    };
    if (open_other(saved, problem)) {
        compare(bench->report, &comparison, &bench->effort);
    } else {
        report_failure(bench->report, "store: %s", problem);
    }
    optclient_model_close(saved->other);
    optclient_close(saved->pusher);
}

static bool run_writing(void *context, double *values, char problem[256])
{
    const struct disk_file *file = &((struct saved *)context)->file;
    int fd = open_file(file, O_CREAT | O_TRUNC | O_WRONLY, problem);
    if (fd < 0) {
        return false;
    }
    double begin = seconds_now();
    bool good = true;
    for (size_t at = 0; at < file->bytes && good; at += PIECE) {
        good = write(fd, file->piece, PIECE) == PIECE;
    }
    good = good && fsync(fd) == 0;
    values[0] = (double)file->bytes / (seconds_now() - begin) / 1e9;
    close(fd);
    if (!good) {
        snprintf(problem, 256, "the disk cannot be written");
    }
    return good;
}

static bool run_recovery(void *context, double *values, char problem[256])
{
    struct saved *saved = context;
    const struct keeper *keeper = &saved->keeper;
    struct server *server = &saved->keeper.server;
    forget(saved->file.folder);
    double begin = seconds_now();
    if (!server_kill(server, saved->bench->daemon,
                     (const char *const[]){ "--data-dir", keeper->data, "--durability",
                                            keeper->durability, "--checkpoint-interval",
                                            "0s", NULL },
                     problem)) {
        return false;
    }
    struct optclient *client = connect_to(keeper, "reader", problem);
    struct optclient_model *model = NULL;
    if (client == NULL) {
        return false;
    }
    bool good = optclient_open(client, "m", 0, &model) == OPTCLIENT_OK;
    values[0] = (double)saved->file.bytes / (seconds_now() - begin) / 1e9;
    optclient_model_close(model);
    optclient_close(client);
    return good || failed(problem);
}

static bool run_reading(void *context, double *values, char problem[256])
{
    const struct disk_file *file = &((struct saved *)context)->file;
    int fd = open_file(file, O_RDONLY, problem);
    XXH3_state_t *state = XXH3_createState();
    if (fd < 0 || state == NULL) {
        return false;
    }
    forget(file->folder);
    double begin = seconds_now();
    size_t total = 0;
    XXH3_64bits_reset(state);
    for (ssize_t got; (got = read(fd, file->piece, PIECE)) > 0; total += (size_t)got) {
        XXH3_64bits_update(state, file->piece, (size_t)got);
    }
    values[0] = (double)total / (seconds_now() - begin) / 1e9;
    XXH3_freeState(state);
    close(fd);
    if (total != file->bytes) {
        snprintf(problem, 256, "the reference cannot be read");
    }
    return total == file->bytes;
}

static bool open_saved(struct saved *saved, char problem[256])
{
    const uint64_t shape[] = { saved->elements };
    const struct optclient_tensor tensor = { .name = "w", .shape = shape, .rank = 1 };
    saved->keeper.durability = "checkpoint";
    saved->gradient = calloc(saved->elements, sizeof *saved->gradient);
    if (saved->gradient == NULL) {
        snprintf(problem, 256, "no memory");
        return false;
    }
    for (size_t i = 0; i < saved->elements; i++) {
        saved->gradient[i] = (float)(i % 97) - 48;
    }
    if (!start_keeper(saved->bench, &saved->keeper, problem) ||
        (saved->client = connect_to(&saved->keeper, "writer", problem)) == NULL) {
        return false;
    }
    saved->file.folder = saved->keeper.server.folder;
    return optclient_create(saved->client, "m", "adam(lr=1e-3)", NULL, &tensor, 1, NULL,
                            &saved->model) == OPTCLIENT_OK ||
           failed(problem);
}

static void measure_saved(const struct bench *bench, char *piece)
{
    static const struct report_quantity rate = { "", "GB/s", REPORT_MORE, 0.8, 0 };
    struct saved saved = { .bench = bench,
                           .elements = bench->quick ? 8 << 20 : 64 << 20 };
    char problem[256];
    saved.file.bytes = saved.elements * sizeof(float) * STATES;
    saved.file.piece = piece;
    struct comparison comparison = {
        .name = bench->quick ? "checkpoint, 96 MiB of state"
                             : "checkpoint, 768 MiB of state",
        .reference = "writing and syncing as many bytes",
        .quantities = &rate,
        .quantity_count = 1,
        .ours = { run_checkpoint, &saved },
        .theirs = { run_writing, &saved },
    };
    if (open_saved(&saved, problem)) {
        compare(bench->report, &comparison, &bench->effort);
        measure_beside(bench, &saved);
        comparison.name =
            bench->quick ? "recovery, 96 MiB of state" : "recovery, 768 MiB of state";
        comparison.reference = "reading as many bytes, with their XXH3";
        comparison.ours = (struct compare_side){ run_recovery, &saved };
        comparison.theirs = (struct compare_side){ run_reading, &saved };
        optclient_model_close(saved.model);
        optclient_close(saved.client);
        saved.model = NULL;
        saved.client = NULL;
        compare(bench->report, &comparison, &bench->effort);
    } else {
        report_failure(bench->report, "store: %s", problem);
    }
    optclient_model_close(saved.model);
    optclient_close(saved.client);
    (void)server_stop(&saved.keeper.server);
    free(saved.gradient);
}

void bench_store(const struct bench *bench)
{
    char *piece = malloc(PIECE);
    if (piece == NULL) {
        report_failure(bench->report, "store: no memory");
        return;
    }
    memset(piece, 7, PIECE);
    compare_steps(bench, "step, 1 million parameters", 16, 62496);
    compare_steps(bench, "step, 25 million parameters", 160, 156288);
    measure_pushers(bench, piece);
    measure_saved(bench, piece);
    free(piece);
}
