/* Data directories of every format that was ever written are read: tests/store/formats
 * has one of each, in a folder named after the version that wrote it, as a daemon left
 * it that was killed. What comes back is what a daemon without a past makes of the same
 * pushes, bit for bit.
 *
 *     OPTIMD_FORMAT=tests/store/formats/0.2.0 build/tests/store/test_store_formats
 *
 * writes one of the present format, before a release that changes it.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"

enum { SIZE = 6, ROWS = 4, BEFORE = 60, AFTER = 40 };

static const char folder[] = "tests/store/formats";

/* A model of a dense tensor and a sparse one, or of the first alone. */
static const struct kind {
    const char *name, *specification, *slot;
    enum optclient_mode mode;
    int sparse;
} kinds[] = {
    { "dense", "adam(lr=0.01) + lookahead(k=5, alpha=0.5)", "exp_avg_sq",
      OPTCLIENT_SYNC, 0 },
    { "sparse", "adagrad(lr=0.5)", "sum", OPTCLIENT_ASYNC, 1 },
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static struct optclient *connect_to(const char *address)
{
    struct optclient_options options = test_options();
    options.worker = "w";
    return test_connect(address, &options);
}

static void push_some(struct optclient_model *model, const struct kind *kind, int from,
                      int count)
{
    for (int step = from; step < from + count; step++) {
        float gradient[SIZE], row[2];
        const uint32_t number = (uint32_t)(step % ROWS);
        for (int i = 0; i < SIZE; i++) {
            gradient[i] = (float)((step * 7 + i * 3) % 11 - 5) / 8;
        }
        row[0] = gradient[0];
        row[1] = gradient[1];
        const struct optclient_values values[] = {
            { .tensor = 0, .values = gradient },
            { .tensor = 1, .values = row, .rows = &number, .row_count = 1 },
        };
        expect_ok(optclient_push(model, values, kind->sparse ? 2 : 1, NULL, NULL));
    }
}

static struct optclient_model *create(struct optclient *client, const struct kind *kind)
{
    static const uint64_t vector[] = { SIZE }, table[] = { ROWS, 2 };
    const struct optclient_tensor tensors[] = {
        { .name = "w", .shape = vector, .rank = 1 },
        { .name = "table", .shape = table, .rank = 2, .sparse = 1 },
    };
    static const float start[SIZE] = { 1, -2, 3, -4, 5, -6 }, rows[ROWS * 2] = { 0.5f };
    const float *const initial[] = { start, rows };
    const struct optclient_policy policy = { .mode = kind->mode };
    struct optclient_model *model;
    expect_ok(optclient_create(client, kind->name, kind->specification, &policy,
                               tensors, kind->sparse ? 2 : 1, initial, &model));
    return model;
}

/* All that a daemon is to have lived through. */
static void live(const char *address, bool checkpoints)
{
    struct optclient *client = connect_to(address);
    for (size_t k = 0; k < KINDS; k++) {
        struct optclient_model *model = create(client, &kinds[k]);
        push_some(model, &kinds[k], 0, BEFORE);
        if (checkpoints) {
            expect_ok(optclient_checkpoint(client, kinds[k].name, NULL));
        }
        expect_ok(optclient_set(client, kinds[k].name, "lr=0.25", 0, NULL));
        push_some(model, &kinds[k], BEFORE, AFTER);
    }
    /* Their worker is not to leave: it is there when the daemon is killed. */
}

static float *pull(struct optclient *client, const struct kind *kind, size_t tensor,
                   const char *slot, uint64_t *step)
{
    struct optclient_model *model;
    struct optclient_result result;
    float *values = calloc(SIZE + ROWS * 2, sizeof *values);
    struct optclient_values weights = { .tensor = tensor, .values = values };
    struct optclient_pull_options options = { .view = slot == NULL ? OPTCLIENT_TRAIN
                                                                   : OPTCLIENT_SLOT,
                                              .slot = slot };
    cr_assert_not_null(values);
    expect_ok(optclient_open(client, kind->name, 0, &model));
    expect_ok(optclient_pull(model, &weights, 1, &options, &result));
    optclient_model_close(model);
    *step = result.step;
    return values;
}

static void expect_same(struct optclient *a, struct optclient *b, const char *version)
{
    for (size_t k = 0; k < KINDS; k++) {
        for (size_t tensor = 0; tensor <= (size_t)kinds[k].sparse; tensor++) {
            for (int slot = 0; slot < 2; slot++) {
                uint64_t step, expected;
                const char *name = slot ? kinds[k].slot : NULL;
                float *is = pull(a, &kinds[k], tensor, name, &step);
                float *was = pull(b, &kinds[k], tensor, name, &expected);
                cr_expect_eq(step, expected, "%s of %s", kinds[k].name, version);
                cr_expect_eq(memcmp(is, was, (SIZE + ROWS * 2) * sizeof *is), 0,
                             "%s of %s, tensor %zu, %s", kinds[k].name, version, tensor,
                             slot ? kinds[k].slot : "weights");
                free(is);
                free(was);
            }
        }
    }
}

static void expect_sample(const char *version)
{
    char command[512], data[DAEMON_PATH + 16];
    struct daemon_process daemon, fresh;
    char at[] = "/tmp/optimd-format-XXXXXX";
    cr_assert_not_null(mkdtemp(at));
    snprintf(command, sizeof command, "cp -r %s/%s %s/data", folder, version, at);
    cr_assert_eq(system(command), 0);
    snprintf(data, sizeof data, "%s/data", at);
    daemon_start(&daemon, (const char *[]){ "--data-dir", data, NULL });
    daemon_start(&fresh, NULL);
    live(fresh.address, false);
    struct optclient_options options = test_options();
    options.worker = "";
    struct optclient *a = test_connect(daemon.address, &options);
    struct optclient *b = test_connect(fresh.address, &options);
    expect_same(a, b, version);
    optclient_close(a);
    optclient_close(b);
    daemon_remove(&fresh);
    daemon_stop(&daemon);
    snprintf(command, sizeof command, "rm -r %s", at);
    cr_assert_eq(system(command), 0);
}

Test(store_formats, of_every_version_are_read, .timeout = 60)
{
    const char *make = getenv("OPTIMD_FORMAT");
    if (make != NULL) {
        struct daemon_process daemon;
        daemon_start(&daemon, (const char *[]){ "--data-dir", make, NULL });
        live(daemon.address, true);
        daemon_signal(&daemon, SIGKILL);
        daemon_remove(&daemon);
    }
    DIR *samples = opendir(folder);
    size_t count = 0;
    cr_assert_not_null(samples, "%s is not there: run it from the top", folder);
    for (struct dirent *entry; (entry = readdir(samples)) != NULL;) {
        if (entry->d_name[0] != '.') {
            expect_sample(entry->d_name);
            count++;
        }
    }
    closedir(samples);
    cr_expect_geq(count, 1);
}
