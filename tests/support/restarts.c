/* restarts — see restarts.h. */
#define _GNU_SOURCE /* nftw */
#include "tests/support/restarts.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OPTIONS_MAX = 48, PATH_BYTES = 512, END_MS = 20000 };

static size_t add(const char **all, size_t count, const char *const *more)
{
    for (size_t i = 0; more != NULL && more[i] != NULL; i++) {
        cr_assert_lt(count, (size_t)OPTIONS_MAX - 1);
        all[count++] = more[i];
    }
    all[count] = NULL;
    return count;
}

void restarts_failpoint(const char *points)
{
    static char program[PATH_MAX];
    ssize_t size = readlink("/proc/self/exe", program, sizeof program - 1);
    cr_assert_gt(size, 0);
    program[size] = '\0';
    char *tests = strstr(program, "/tests/");
    for (char *next = tests; next != NULL; next = strstr(next + 1, "/tests/")) {
        tests = next;
    }
    cr_assert_not_null(tests, "%s", program);
    snprintf(tests, sizeof program - (size_t)(tests - program),
             "/tests/failing/optimd");
    setenv("OPTIMD_DAEMON", program, 1);
    if (points != NULL) {
        setenv("OPTIMD_FAILPOINT", points, 1);
    } else {
        unsetenv("OPTIMD_FAILPOINT");
    }
}

void restarts_begin(struct restarts *restarts, const char *const *options)
{
    char data[] = "/tmp/optimd-data-XXXXXX";
    const char *all[OPTIONS_MAX] = { "--data-dir", restarts->data };
    cr_assert_not_null(mkdtemp(data));
    snprintf(restarts->data, sizeof restarts->data, "%s", data);
    restarts->options = options;
    add(all, 2, options);
    daemon_start(&restarts->daemon, all);
    cr_assert(daemon_logged(&restarts->daemon, "info recovered", DAEMON_WAIT_MS));
}

int restarts_kill(struct restarts *restarts, int number)
{
    daemon_signal(&restarts->daemon, number);
    int code = daemon_wait(&restarts->daemon, END_MS);
    cr_assert_neq(code, -1, "it did not end");
    return code;
}

static void spawn(struct restarts *restarts, const char *const *more)
{
    struct daemon_process *daemon = &restarts->daemon;
    char listen[DAEMON_PATH + 48];
    snprintf(listen, sizeof listen, "127.0.0.1:%u,unix:%s/socket",
             (unsigned)daemon->port, daemon->directory);
    const char *all[OPTIONS_MAX] = { "--listen", listen, "--data-dir", restarts->data };
    size_t count = add(all, 4, restarts->options);
    count = add(all, count, daemon_transport_options());
    add(all, count, more);
    /* What the one before has said is not said by this one. */
    cr_assert_eq(truncate(daemon->log, 0), 0);
    daemon_spawn(daemon, all);
}

void restarts_again_with(struct restarts *restarts, const char *const *more, bool wait)
{
    spawn(restarts, more);
    if (wait && !daemon_logged(&restarts->daemon, "info recovered", END_MS)) {
        char *log = daemon_log(&restarts->daemon);
        cr_assert_fail("it has not recovered: %s", log);
    }
}

void restarts_again(struct restarts *restarts, bool wait)
{
    restarts_again_with(restarts, NULL, wait);
}

void restarts_fails(struct restarts *restarts, const char *const *more, int code,
                    const char *words)
{
    char all[1024], *rest = all;
    snprintf(all, sizeof all, "%s", words);
    spawn(restarts, more);
    int ended = daemon_wait(&restarts->daemon, END_MS);
    char *log = daemon_log(&restarts->daemon);
    cr_assert_eq(ended, code, "it ended with %d: %s", ended, log);
    for (char *word; (word = strtok_r(rest, "|", &rest)) != NULL;) {
        cr_assert_not_null(strstr(log, word), "\"%s\" is not in: %s", word, log);
    }
    free(log);
}

static int remove_one(const char *path, const struct stat *status, int kind,
                      struct FTW *at)
{
    (void)status, (void)kind, (void)at;
    return remove(path);
}

void restarts_end(struct restarts *restarts)
{
    if (restarts->daemon.pid > 0) {
        daemon_stop(&restarts->daemon);
    } else {
        daemon_remove(&restarts->daemon);
    }
    nftw(restarts->data, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* The last name in a folder that contains this. */
static bool last_in(const char *folder, const char *part, char out[PATH_BYTES])
{
    DIR *names = opendir(folder);
    char found[256] = "";
    cr_assert_not_null(names, "%s", folder);
    for (struct dirent *entry = readdir(names); entry != NULL; entry = readdir(names)) {
        if (entry->d_name[0] != '.' && strstr(entry->d_name, part) != NULL &&
            strcmp(entry->d_name, found) > 0) {
            snprintf(found, sizeof found, "%s", entry->d_name);
        }
    }
    closedir(names);
    snprintf(out, PATH_BYTES, "%s/%s", folder, found);
    return found[0] != '\0';
}

const char *restarts_journal(const struct restarts *restarts)
{
    static char path[PATH_BYTES];
    char folder[PATH_BYTES];
    snprintf(folder, sizeof folder, "%s/journal", restarts->data);
    cr_assert(last_in(folder, ".journal", path));
    return path;
}

const char *restarts_checkpoint(const struct restarts *restarts, const char *file)
{
    static char path[2 * PATH_BYTES];
    char models[PATH_BYTES], model[PATH_BYTES], checkpoint[PATH_BYTES];
    snprintf(models, sizeof models, "%s/models", restarts->data);
    cr_assert(last_in(models, "", model));
    cr_assert(last_in(model, "-step-", checkpoint));
    snprintf(path, sizeof path, "%s/%s", checkpoint, file);
    return path;
}
