#include "server/settings.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "common/wire.h"

/* Read a configuration with this text, and these options after it (may be NULL). */
static enum opt_status read_text(const char *text, size_t size,
                                 const char *const *options, struct settings *out,
                                 struct opt_error *error)
{
    char path[] = "/tmp/optimd-settings-XXXXXX";
    int file = mkstemp(path);
    cr_assert_geq(file, 0);
    cr_assert_eq(write(file, text, size), (ssize_t)size);
    close(file);
    char *arguments[32] = { (char *)(uintptr_t) "optimd",
                            (char *)(uintptr_t) "--config", path };
    int count = 3;
    for (; options != NULL && options[count - 3] != NULL; count++) {
        arguments[count] = (char *)(uintptr_t)options[count - 3];
    }
    enum settings_action action = SETTINGS_MISUSED;
    error->text[0] = '\0';
    enum opt_status status = settings_read(count, arguments, out, &action, error);
    unlink(path);
    return status;
}

static enum opt_status read_options(const char *const *options, struct settings *out,
                                    enum settings_action *action,
                                    struct opt_error *error)
{
    char *arguments[32] = { (char *)(uintptr_t) "optimd" };
    int count = 1;
    for (; options[count - 1] != NULL; count++) {
        arguments[count] = (char *)(uintptr_t)options[count - 1];
    }
    error->text[0] = '\0';
    return settings_read(count, arguments, out, action, error);
}

Test(settings, say_how_models_are_kept)
{
    struct settings settings;
    struct opt_error error;
    enum settings_action action;
    const char *const kept[] = { "--data-dir",
                                 "/d",
                                 "--durability",
                                 "checkpoint",
                                 "--journal-interval",
                                 "20ms",
                                 "--journal-queue",
                                 "2MiB",
                                 "--checkpoint-interval",
                                 "0s",
                                 "--recover",
                                 "previous",
                                 NULL };
    cr_assert_eq(read_options(kept, &settings, &action, &error), OPT_OK, "%s",
                 error.text);
    cr_expect_eq(settings.durability, (uint64_t)OPT_DURABILITY_CHECKPOINT);
    cr_expect_eq(settings.journal_interval, 20u);
    cr_expect_eq(settings.journal_queue, UINT64_C(2) << 20);
    cr_expect_eq(settings.checkpoint_interval, 0u);
    cr_expect_eq(settings.recover, (uint64_t)RECOVER_PREVIOUS);
    cr_assert_eq(read_options((const char *[]){ NULL }, &settings, &action, &error),
                 OPT_OK, "%s", error.text);
    cr_expect_eq(settings.durability, (uint64_t)OPT_DURABILITY_INTERVAL);
    cr_expect_eq(settings.recover, (uint64_t)RECOVER_EXACT);
    /* What is printed of these, without a data directory, is read back. */
    cr_assert_eq(read_text("durability: interval\nrecover: exact\n", 36, NULL,
                           &settings, &error),
                 OPT_OK, "%s", error.text);
}

Test(settings, have_defaults_that_fit_together)
{
    struct settings settings;
    struct opt_error error;
    enum settings_action action;
    cr_assert_eq(read_options((const char *[]){ NULL }, &settings, &action, &error),
                 OPT_OK, "%s", error.text);
    cr_expect_eq(action, SETTINGS_RUN);
    cr_expect_str_eq(settings.listen, "127.0.0.1:7070");
    cr_expect_eq(settings.max_frame, UINT64_C(64) << 20);
    cr_expect_eq(settings.lease, 5000u);
    cr_expect_geq(settings.threads, 1u);
    cr_expect_geq(settings.inflight, settings.max_frame);
    cr_expect_gt(settings.memory, UINT64_C(64) << 20);
    cr_expect_eq(settings.log_level, OPT_LOG_INFO);
}

/* Who serves connections and who computes share the cores. */
Test(settings, leave_to_computing_the_cores_that_loops_do_not_take)
{
    uint64_t cores = uv_available_parallelism();
    for (uint64_t loops = 1; loops <= 3; loops++) {
        struct settings settings;
        struct opt_error error;
        enum settings_action action;
        char text[8];
        snprintf(text, sizeof(text), "%u", (unsigned)loops);
        cr_assert_eq(read_options((const char *[]){ "--loops", text, NULL }, &settings,
                                  &action, &error),
                     OPT_OK, "%s", error.text);
        cr_expect_eq(settings.threads, cores > loops ? cores - loops : 1);
        cr_expect_eq(settings.shared_threads, cores);
    }
}

/* Nobody gets more threads than were given. */
Test(settings, share_no_more_cores_than_computing_is_given)
{
    struct settings settings;
    struct opt_error error;
    enum settings_action action;
    cr_assert_eq(read_options((const char *[]){ "--threads", "3", NULL }, &settings,
                              &action, &error),
                 OPT_OK, "%s", error.text);
    cr_expect_eq(settings.shared_threads, 3u);
    cr_assert_eq(read_options((const char *[]){ "--threads", "3", "--shared-threads",
                                                "5", NULL },
                              &settings, &action, &error),
                 OPT_OK, "%s", error.text);
    cr_expect_eq(settings.threads, 3u);
    cr_expect_eq(settings.shared_threads, 5u);
}

Test(settings, come_from_the_file_and_the_command_line_wins)
{
    static const char text[] = "# a comment\n"
                               "threads: 3\n"
                               "lease: 10s\n"
                               "memory: '1.5GiB'\n"
                               "insecure: true\n"
                               "log-level: debug\n";
    struct settings settings;
    struct opt_error error;
    const char *const options[] = { "--threads", "5", "--max-frame", "1MiB", NULL };
    cr_assert_eq(read_text(text, strlen(text), options, &settings, &error), OPT_OK,
                 "%s", error.text);
    cr_expect_eq(settings.threads, 5u);
    cr_expect_eq(settings.lease, 10000u);
    cr_expect_eq(settings.memory, UINT64_C(1536) << 20);
    cr_expect_eq(settings.inflight, settings.memory / 4);
    cr_expect(settings.insecure);
    cr_expect_eq(settings.log_level, OPT_LOG_DEBUG);
    cr_expect_eq(settings.max_frame, UINT64_C(1) << 20);
}

/* A wrong file, and what must be said about it: where, and what. */
struct bad {
    const char *name;
    const char *text;
    const char *where;
    const char *what;
};

static const struct bad bad_files[] = {
    { "junk after a number", "loops: 1\nthreads: 4x\n", ":2: threads", "\"4x\"" },
    { "junk after a size", "max-frame: 64MiBs\n", ":1: max-frame", "\"64MiBs\"" },
    { "size without unit", "max-frame: 1048576\n", ":1: max-frame", "\"1048576\"" },
    { "wrong unit", "lease: 5MiB\n", ":1: lease", "\"5MiB\"" },
    { "unknown unit", "max-frame: 64Mib\n", ":1: max-frame", "\"64Mib\"" },
    { "no number", "threads: many\n", ":1: threads", "\"many\"" },
    { "negative", "threads: -1\n", ":1: threads", "\"-1\"" },
    { "hexadecimal", "threads: 0x10\n", ":1: threads", "\"0x10\"" },
    { "infinite", "memory: 1e999GiB\n", ":1: memory", "1e999" },
    { "too large", "threads: 99999999999999999999\n", ":1: threads", "9999" },
    { "out of range", "\n\nthreads: 5000\n", ":3: threads", "1 to 1024" },
    { "empty value", "threads:\n", ":1: threads", "\"\"" },
    { "flag that is a word", "insecure: maybe\n", ":1: insecure", "neither true nor" },
    { "no level", "log-level: loud\n", ":1: log-level", "debug, info, warn" },
    { "no durability", "data-dir: /d\ndurability: never\n", ":2: durability",
      "always, interval or checkpoint" },
    { "durability of nothing", "durability: always\n", ":1: durability", "--data-dir" },
    { "journal of nothing", "\njournal-queue: 1MiB\n", ":2: journal-queue",
      "--data-dir" },
    { "nothing to recover", "recover: previous\n", ":1: recover", "--data-dir" },
    { "unknown key", "listen: 127.0.0.1:0\nthread: 4\n", ":2: unknown key \"thread\"",
      "perhaps threads" },
    { "unknown key, none near", "zzzzzzzzzzzz: 4\n", ":1: unknown key", "--help" },
    { "key of other case", "Threads: 4\n", ":1: unknown key", "perhaps threads" },
    { "duplicate", "threads: 4\nloops: 1\nthreads: 5\n", ":3: threads", "second time" },
    { "tab", "threads: 4\n\tloops: 1\n", ":", "tab character" },
    { "list", "- threads\n- loops\n", ":1: ", "the file is a list" },
    { "text", "threads\n", ":1: ", "the file is a single value" },
    { "list as value", "loops: 1\nlisten: [a, b]\n", ":2: listen: ", "a list stands" },
    { "mapping as value", "threads: { a: b }\n", ":1: threads: ", "a mapping stands" },
    { "alias", "data-dir: &x a\nport-file: *x\n", ":", "lias" },
    { "open quote", "data-dir: \"a\n", ":1: ", "end of stream" },
    { "two documents", "threads: 4\n---\nthreads: 5\n", ":2: ", "second document" },
    { "not UTF-8", "data-dir: \xC3\x28\n", ":", "UTF-8" },
    { "no address", "listen: 7070\n", ":1: listen: ", "127.0.0.1:7070" },
    { "not loopback", "\nlisten: 0.0.0.0:7070\n", ":2: listen: ", "--insecure" },
    { "order", "max-frame: 128MiB\nconnection-inflight: 64MiB\n",
      ":2: connection-inflight: 64MiB", "128MiB" },
    { "no congestion control", "\ncongestion: nope\n",
      ":2: congestion: ", "\"nope\" cannot be had here" },
};

Test(settings, a_file_may_say_nothing)
{
    static const char *const texts[] = { "", "\n", "# threads: 4\n", "---\n# no\n" };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct settings settings;
        struct opt_error error;
        cr_expect_eq(read_text(texts[i], strlen(texts[i]), NULL, &settings, &error),
                     OPT_OK, "%s", error.text);
        cr_expect_str_eq(settings.listen, "127.0.0.1:7070");
    }
}

Test(settings, of_the_file_are_undone_on_the_command_line_flags_too)
{
    static const char text[] = "insecure: true\nno-shared-memory: true\n";
    struct settings settings;
    struct opt_error error;
    const char *const options[] = { "--insecure=false", "--no-shared-memory=false",
                                    NULL };
    cr_assert_eq(read_text(text, strlen(text), options, &settings, &error), OPT_OK,
                 "%s", error.text);
    cr_expect_not(settings.insecure);
    cr_expect_not(settings.no_shared_memory);
    const char *const wrong[] = { "--insecure=no", NULL };
    cr_assert_neq(read_text(text, strlen(text), wrong, &settings, &error), OPT_OK);
    cr_expect_not_null(strstr(error.text, "--insecure: \"no\""), "%s", error.text);
}

Test(settings, wrong_files_are_refused_with_place_and_cause)
{
    for (size_t i = 0; i < sizeof(bad_files) / sizeof(bad_files[0]); i++) {
        const struct bad *bad = &bad_files[i];
        struct settings settings;
        struct opt_error error;
        enum opt_status status =
            read_text(bad->text, strlen(bad->text), NULL, &settings, &error);
        cr_expect_neq(status, OPT_OK, "%s is accepted", bad->name);
        cr_expect_not_null(strstr(error.text, bad->where), "%s: \"%s\" lacks \"%s\"",
                           bad->name, error.text, bad->where);
        cr_expect_not_null(strstr(error.text, bad->what), "%s: \"%s\" lacks \"%s\"",
                           bad->name, error.text, bad->what);
    }
}

Test(settings, a_file_of_ten_megabytes_is_refused)
{
    size_t size = 10 << 20;
    char *text = malloc(size);
    memset(text, '#', size);
    struct settings settings;
    struct opt_error error;
    cr_expect_neq(read_text(text, size, NULL, &settings, &error), OPT_OK);
    cr_expect_not_null(strstr(error.text, "262144 bytes"), "%s", error.text);
    free(text);
}

Test(settings, a_file_with_zero_bytes_is_refused)
{
    static const char text[] = "threads: 4\0\nloops: 1\n";
    struct settings settings;
    struct opt_error error;
    cr_expect_neq(read_text(text, sizeof(text) - 1, NULL, &settings, &error), OPT_OK);
    cr_expect_not_null(strstr(error.text, "zero byte after 10"), "%s", error.text);
}

Test(settings, a_directory_is_no_file)
{
    struct settings settings;
    struct opt_error error;
    enum settings_action action;
    cr_expect_neq(read_options((const char *[]){ "--config", "/tmp", NULL }, &settings,
                               &action, &error),
                  OPT_OK);
    cr_expect_not_null(strstr(error.text, "/tmp"), "%s", error.text);
}

Test(settings, misuse_is_told_from_wrong_values)
{
    struct settings settings;
    struct opt_error error;
    enum settings_action action;
    cr_expect_neq(
        read_options((const char *[]){ "--bogus", NULL }, &settings, &action, &error),
        OPT_OK);
    cr_expect_eq(action, SETTINGS_MISUSED);
    cr_expect_neq(read_options((const char *[]){ "--threads=0", NULL }, &settings,
                               &action, &error),
                  OPT_OK);
    cr_expect_eq(action, SETTINGS_RUN);
    cr_expect_not_null(strstr(error.text, "--threads"), "%s", error.text);
}

Test(settings, addresses_have_a_port)
{
    static const char *const good[] = { "127.0.0.1:0",
                                        "127.8.9.1:65535",
                                        "[::1]:7070",
                                        "localhost:1",
                                        "unix:/run/optimd.sock",
                                        "127.0.0.1:0,[::1]:0,unix:/tmp/s",
                                        "127.0.0.1:0,127.0.0.1:0",
                                        "[::]:7070,0.0.0.0:7070" };
    static const char *const bad[] = { "",
                                       "127.0.0.1",
                                       "127.0.0.1:",
                                       ":7070",
                                       "::1:7070",
                                       "127.0.0.1:65536",
                                       "[::1]7070",
                                       "[]:1",
                                       "127.0.0.1:7o",
                                       "unix:",
                                       "unix:s",
                                       "127.0.0.1:0,",
                                       "127.0.0.1:7070,127.0.0.1:7070",
                                       "unix:/tmp/s,unix:/tmp/s",
                                       ",",
                                       "127.0.0.1:0,,[::1]:0" };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct listen_addresses addresses;
        struct opt_error error;
        cr_expect_eq(listen_addresses_parse(good[i], &addresses, &error), OPT_OK,
                     "%s: %s", good[i], error.text);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct listen_addresses addresses;
        cr_expect_neq(listen_addresses_parse(bad[i], &addresses, NULL), OPT_OK, "%s",
                      bad[i]);
    }
}
