/* What is wrong in a data directory stops the start, with exit status 65 and a sentence
 * that names the file, or is said and gone round, if the operator has asked for that.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/restarts.h"

static struct restarts server;
static const char *const options[] = {
    "--durability", "always", "--checkpoint-interval", "0s", "--grace", "60s", NULL
};
static const char *const previous[] = { "--recover", "previous", NULL };

enum { ELEMENTS = 5000, DAMAGED = 65, UNAVAILABLE = 69 };
static float gradient[ELEMENTS];
static const uint64_t shape[] = { ELEMENTS };

/* ---------------------------------------------------------------- a run */

static struct optclient *client;
static struct optclient_model *model;

static void begin_with(const char *specification)
{
    const struct optclient_tensor tensor = { .name = "w", .shape = shape, .rank = 1 };
    struct optclient_options asked = test_options();
    asked.worker = "w";
    restarts_begin(&server, options);
    client = test_connect(server.daemon.address, &asked);
    expect_ok(
        optclient_create(client, "m", specification, NULL, &tensor, 1, NULL, &model));
}

static void begin(void)
{
    begin_with("sgd(lr=1)");
}

static void push(unsigned count)
{
    struct optclient_values values = { .values = gradient };
    for (size_t i = 0; i < ELEMENTS; i++) {
        gradient[i] = -1;
    }
    for (unsigned i = 0; i < count; i++) {
        expect_ok(optclient_push(model, &values, 1, NULL, NULL));
    }
}

/* All elements have had so many pushes. */
static void expect_step(uint64_t step)
{
    struct optclient_values values = { .values = gradient };
    struct optclient_result result;
    expect_ok(optclient_pull(model, &values, 1, NULL, &result));
    cr_assert_eq(result.step, step, "step %zu, not %zu", (size_t)result.step,
                 (size_t)step);
    for (size_t i = 0; i < ELEMENTS; i++) {
        cr_assert_eq(gradient[i], (float)step);
    }
}

static void end(void)
{
    optclient_close(client);
    restarts_end(&server);
}

static off_t size_of(const char *path)
{
    struct stat status;
    cr_assert_eq(stat(path, &status), 0, "%s", path);
    return status.st_size;
}

static void flip(const char *path, off_t at)
{
    int file = open(path, O_RDWR | O_CLOEXEC);
    unsigned char byte;
    cr_assert_geq(file, 0, "%s", path);
    cr_assert_eq(pread(file, &byte, 1, at), 1);
    byte ^= 1;
    cr_assert_eq(pwrite(file, &byte, 1, at), 1);
    close(file);
}

static void expect_logged(const char *words)
{
    cr_assert(daemon_logged(&server.daemon, words, DAEMON_WAIT_MS), "%s", words);
}

/* ---------------------------------------------------------------- the journal */

Test(recovery_damage, torn_tail_is_cut_and_told, .timeout = 60)
{
    begin();
    push(3);
    restarts_kill(&server, SIGKILL);
    const char *path = restarts_journal(&server);
    int file = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    cr_assert_eq(write(file, "oRec and then nothing", 21), 21);
    close(file);
    restarts_again(&server, true);
    expect_logged("journal_torn");
    expect_logged("bytes=21");
    push(2);
    expect_step(5);
    restarts_kill(&server, SIGKILL);
    restarts_again(&server, true);
    expect_step(5);
    end();
}

/* The offset of the header of the second to last record that is large. */
static off_t before_last(const char *path)
{
    return size_of(path) - 2 * (off_t)sizeof gradient;
}

Test(recovery_damage, in_the_journal_stops_the_start, .timeout = 60)
{
    begin();
    push(5);
    restarts_kill(&server, SIGKILL);
    const char *path = restarts_journal(&server);
    off_t at = before_last(path);
    flip(path, at);
    restarts_fails(&server, NULL, DAMAGED,
                   ".journal is damaged at byte|--recover=previous|optctl verify");
    /* Nothing has changed, so with the right byte all is there. */
    flip(path, at);
    restarts_again(&server, true);
    expect_step(5);
    end();
}

Test(recovery_damage, is_gone_round_if_the_operator_says_so, .timeout = 60)
{
    begin();
    push(5);
    restarts_kill(&server, SIGKILL);
    const char *path = restarts_journal(&server);
    flip(path, before_last(path));
    restarts_again_with(&server, previous, true);
    expect_logged("journal_cut");
    expect_logged("damaged-");
    /* The last two records have gone, and the client goes on with what is there. */
    expect_step(3);
    push(1);
    expect_step(4);
    restarts_kill(&server, SIGKILL);
    restarts_again(&server, true);
    expect_step(4);
    end();
}

Test(recovery_damage, missing_segments_are_named, .timeout = 60)
{
    begin();
    push(2);
    restarts_kill(&server, SIGKILL);
    restarts_again(&server, true);
    push(2);
    restarts_kill(&server, SIGKILL);
    restarts_again(&server, true);
    push(1);
    restarts_kill(&server, SIGKILL);
    char second[600], away[700];
    snprintf(second, sizeof second, "%s/journal/00000000000000000002.journal",
             server.data);
    snprintf(away, sizeof away, "%s/../away-%d", server.data, (int)getpid());
    cr_assert_eq(rename(second, away), 0);
    restarts_fails(&server, NULL, DAMAGED, "segments 1 and 3, but none between");
    cr_assert_eq(rename(away, second), 0);
    restarts_again(&server, true);
    expect_step(5);
    end();
}

Test(recovery_damage, of_another_directory_is_named, .timeout = 60)
{
    begin();
    push(1);
    restarts_kill(&server, SIGKILL);
    char format[600];
    snprintf(format, sizeof format, "%s/format", server.data);
    flip(format, size_of(format) - 3);
    restarts_fails(&server, NULL, DAMAGED, "format");
    flip(format, size_of(format) - 3);
    restarts_again(&server, true);
    expect_step(1);
    end();
}

/* ---------------------------------------------------------------- memory */

Test(recovery_damage, too_little_memory_is_told_with_the_setting, .timeout = 60)
{
    static const char *const little[] = { "--memory", "1MiB", NULL };
    static const uint64_t large[] = { 400000 };
    const struct optclient_tensor tensor = { .name = "w", .shape = large, .rank = 1 };
    struct optclient_model *other;
    begin();
    push(1);
    expect_ok(optclient_create(client, "large", "adam(lr=1)", NULL, &tensor, 1, NULL,
                               &other));
    restarts_kill(&server, SIGKILL);
    restarts_fails(&server, little, UNAVAILABLE, "needs|--memory");
    restarts_again(&server, true);
    expect_step(1);
    end();
}

/* ---------------------------------------------------------------- models */

Test(recovery_damage, deleted_models_stay_deleted, .timeout = 60)
{
    begin();
    push(2);
    optclient_model_close(model);
    expect_ok(optclient_delete(client, "m"));
    restarts_kill(&server, SIGKILL);
    restarts_again(&server, true);
    struct optclient_model_info *models;
    size_t count;
    expect_ok(optclient_list(client, &models, &count));
    cr_assert_eq(count, 0);
    optclient_list_free(models);
    end();
}

/* ---------------------------------------------------------------- checkpoints */

/* Two checkpoints, of steps 3 and 5, each made when the daemon stopped, and then a
 * journal to step 6. */
static void begin_with_checkpoints(void)
{
    begin();
    push(3);
    cr_assert_eq(restarts_kill(&server, SIGTERM), 0);
    restarts_again(&server, true);
    push(2);
    cr_assert_eq(restarts_kill(&server, SIGTERM), 0);
    restarts_again(&server, true);
    push(1);
    restarts_kill(&server, SIGKILL);
    cr_assert_not_null(strstr(restarts_checkpoint(&server, ""), "-step-5/"));
}

Test(recovery_damage, in_any_file_of_a_checkpoint_stops_the_start, .timeout = 60)
{
    static const struct {
        const char *file, *words;
        int part; /* the byte that is wrong is at so many eighths of the file */
    } cases[] = {
        { "weights.safetensors", "weights.safetensors|--recover=previous|verify", 4 },
        { "weights.safetensors", "weights.safetensors|--recover=previous", 0 },
        { "weights.safetensors", "weights.safetensors|--recover=previous", 8 },
        { "manifest.json", "manifest|--recover=previous", 3 },
        { "manifest.xxh3", "manifest|--recover=previous", 0 },
    };
    begin_with_checkpoints();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *path = restarts_checkpoint(&server, cases[i].file);
        off_t size = size_of(path), at = size * cases[i].part / 8;
        at = at == size ? size - 1 : at;
        flip(path, at);
        restarts_fails(&server, NULL, DAMAGED, cases[i].words);
        flip(path, at);
    }
    restarts_again(&server, true);
    expect_step(6);
    end();
}

Test(recovery_damage, of_the_newest_checkpoint_takes_the_one_before_and_the_journal,
     .timeout = 60)
{
    begin_with_checkpoints();
    const char *path = restarts_checkpoint(&server, "weights.safetensors");
    flip(path, size_of(path) / 2);
    restarts_again_with(&server, previous, true);
    expect_logged("checkpoint_damaged");
    expect_logged("checkpoint_set_aside");
    expect_step(6); /* the journal has had all that came after step 3 */
    push(1);
    restarts_kill(&server, SIGKILL);
    restarts_again(&server, true);
    expect_step(7);
    end();
}

/* Without the journal there is no more than the checkpoint. */
Test(recovery_damage, of_the_journal_and_the_newest_checkpoint_takes_what_is_left,
     .timeout = 60)
{
    begin_with_checkpoints();
    char folder[600], away[600];
    const char *path = restarts_checkpoint(&server, "weights.safetensors");
    flip(path, size_of(path) / 2);
    snprintf(folder, sizeof folder, "%s/journal", server.data);
    snprintf(away, sizeof away, "%s/journal-away", server.data);
    cr_assert_eq(rename(folder, away), 0);
    restarts_fails(&server, NULL, DAMAGED, "--recover=previous");
    restarts_again_with(&server, previous, true);
    expect_logged("updates_lost");
    expect_step(3);
    push(2);
    expect_step(5);
    cr_assert_eq(restarts_kill(&server, SIGTERM), 0);
    restarts_again(&server, true);
    expect_step(5);
    end();
}

Test(recovery_damage, is_a_checkpoint_of_another_directory, .timeout = 60)
{
    begin_with_checkpoints();
    char other[600];
    const char *path = restarts_checkpoint(&server, "");
    char *at = strstr(path, "/models/");
    cr_assert_not_null(at);
    snprintf(other, sizeof other, "%s/models/0011223344556677", server.data);
    char first[600];
    snprintf(first, sizeof first, "%s/models/%.16s", server.data, at + 8);
    cr_assert_eq(rename(first, other), 0);
    restarts_fails(&server, NULL, DAMAGED, "0011223344556677");
    cr_assert_eq(rename(other, first), 0);
    restarts_again(&server, true);
    expect_step(6);
    end();
}

Test(recovery_damage, is_a_model_whose_checkpoints_are_missing, .timeout = 60)
{
    begin_with_checkpoints();
    char models[600], away[600];
    snprintf(models, sizeof models, "%s/models", server.data);
    snprintf(away, sizeof away, "%s/away", server.data);
    cr_assert_eq(rename(models, away), 0);
    cr_assert_eq(mkdir(models, 0700), 0);
    restarts_fails(&server, NULL, DAMAGED,
                   "there is no checkpoint of it in models/|--recover=previous");
    cr_assert_eq(rmdir(models), 0);
    cr_assert_eq(rename(away, models), 0);
    restarts_again(&server, true);
    expect_step(6);
    end();
}
