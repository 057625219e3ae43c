/* worker — a life of a worker of the soak, which ends by SIGTERM or worse. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "tests/soak/soak.h"

enum { TIMEOUT_MS = 30000 };

static volatile sig_atomic_t stopping;

static void on_stop(int number)
{
    (void)number;
    stopping = 1;
}

static const char *const names[SOAK_MODELS] = { "together", "alone" };
static const enum optclient_mode modes[SOAK_MODELS] = { OPTCLIENT_SYNC,
                                                        OPTCLIENT_ASYNC };

enum optclient_status soak_open(struct optclient *client, unsigned model, unsigned rows,
                                struct optclient_model **out)
{
    const uint64_t own[] = { rows, 1 };
    static const uint64_t common[] = { SOAK_COMMON };
    static const uint64_t large[] = { SOAK_LARGE };
    const struct optclient_tensor tensors[SOAK_TENSORS] = {
        { .name = "own", .shape = own, .rank = 2, .sparse = 1 },
        { .name = "common", .shape = common, .rank = 1 },
        { .name = "large", .shape = large, .rank = 1 },
    };
    const struct optclient_policy policy = { .mode = modes[model] };
    return optclient_create(client, names[model], "sgd(lr=1, aggregate=sum)", &policy,
                            tensors, SOAK_TENSORS, NULL, out);
}

static int complain(unsigned number, const char *what)
{
    fprintf(stderr, "worker %u: %s: %s\n", number, what, optclient_error());
    return EXIT_FAILURE;
}

/* Push once. False: with an error that ought not to be, or no number is left. */
static bool push_once(struct optclient_model *model, struct history *history,
                      unsigned number, float *ones)
{
    unsigned push = history_begin(history, number);
    uint32_t row = number * history_pushes(history) + push;
    const struct optclient_values values[] = {
        { .tensor = SOAK_OWN, .values = ones, .rows = &row, .row_count = 1 },
        { .tensor = SOAK_COMMONS, .values = ones },
        { .tensor = SOAK_LARGES, .values = ones },
    };
    struct optclient_result result = { .fate = OPTCLIENT_UNKNOWN_FATE };
    size_t count = push % SOAK_LARGE_EVERY == 0 ? SOAK_TENSORS : SOAK_TENSORS - 1;
    if (push == history_pushes(history)) {
        fprintf(stderr, "worker %u: the history is full\n", number);
        return false;
    }
    enum optclient_status status = optclient_push(model, values, count, NULL, &result);
    if (status == OPTCLIENT_ABORTED) {
        history_refused(history, number, push); /* taken for dead: push again */
        return true;
    }
    if (status != OPTCLIENT_OK) {
        complain(number, "push");
        return false;
    }
    history_applied(history, number, push, result.step);
    return true;
}

int soak_worker(const char *address, unsigned number,
                struct history *const histories[SOAK_MODELS])
{
    char name[16];
    struct optclient_options options = optclient_options_default();
    struct optclient_model *models[SOAK_MODELS];
    struct optclient *client;
    const struct sigaction stop = { .sa_handler = on_stop };
    float *ones = malloc(SOAK_LARGE * sizeof *ones);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigaction(SIGTERM, &stop, NULL);
    snprintf(name, sizeof name, "worker-%u", number);
    options.worker = name;
    options.timeout_ms = TIMEOUT_MS;
    options.backoff_min_ms = 10;
    options.backoff_max_ms = 500;
    options.checksum = number % 2;
    for (size_t i = 0; ones != NULL && i < SOAK_LARGE; i++) {
        ones[i] = 1.0f;
    }
    if (ones == NULL || optclient_connect(address, &options, &client) != OPTCLIENT_OK) {
        return complain(number, "connect");
    }
    for (unsigned m = 0; m < SOAK_MODELS; m++) {
        if (soak_open(client, m, SOAK_WORKERS * history_pushes(histories[m]),
                      &models[m]) != OPTCLIENT_OK) {
            return complain(number, "create");
        }
    }
    bool good = true;
    while (good && !stopping) {
        for (unsigned m = 0; m < SOAK_MODELS && good; m++) {
            good = push_once(models[m], histories[m], number, ones);
        }
    }
    optclient_close(client);
    free(ones);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
