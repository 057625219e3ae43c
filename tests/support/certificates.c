/* certificates — see certificates.h. */
#include "tests/support/certificates.h"

#include <criterion/criterion.h>
#include <glob.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/sanitized.h"

enum { WORDS = 16 };

static bool find_shifter(char out[CERTIFICATES_PATH])
{
    glob_t found;
    bool is_there = glob("/usr/lib/*/faketime/libfaketime.so.1", 0, NULL, &found) == 0;
    if (is_there) {
        snprintf(out, CERTIFICATES_PATH, "%s", found.gl_pathv[0]);
        globfree(&found);
    }
    return is_there;
}

bool certificates_can_shift(void)
{
    char path[CERTIFICATES_PATH];
    return !IS_SANITIZED && find_shifter(path);
}

static void become(const char *when, char *const *words)
{
    const char *build = getenv("OPTIMD_BUILD");
    char program[256], shifter[CERTIFICATES_PATH];
    snprintf(program, sizeof(program), "%s/optctl", build == NULL ? "build" : build);
    if (when != NULL && find_shifter(shifter)) {
        setenv("LD_PRELOAD", shifter, 1);
        setenv("FAKETIME", when, 1);
    }
    if (freopen("/dev/null", "w", stdout) == NULL) {
        _exit(126);
    }
    execv(program, words);
    _exit(127);
}

static void run(const char *when, const char *const *given)
{
    char *words[WORDS] = { (char *)"optctl", (char *)"cert" };
    for (size_t i = 0; given[i] != NULL; i++) {
        cr_assert_lt(i + 3, (size_t)WORDS);
        words[i + 2] = (char *)(uintptr_t)given[i];
    }
    fflush(NULL);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        become(when, words);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0, "optctl cert %s: %d", given[0], status);
}

void certificates_add(const struct certificates *certificates, const char *when,
                      const char *const *words)
{
    const char *all[WORDS] = { NULL };
    size_t count = 0;
    for (; words[count] != NULL; count++) {
        cr_assert_lt(count + 3, (size_t)WORDS);
        all[count] = words[count];
    }
    all[count] = "--dir";
    all[count + 1] = certificates->dir;
    run(when, all);
}

void certificates_path(const struct certificates *certificates, const char *file,
                       char out[CERTIFICATES_PATH])
{
    snprintf(out, CERTIFICATES_PATH, "%s/%s", certificates->dir, file);
}

void certificates_make(struct certificates *out)
{
    memset(out, 0, sizeof(*out));
    snprintf(out->dir, sizeof(out->dir), "/tmp/optimd-certificates-XXXXXX");
    cr_assert_not_null(mkdtemp(out->dir));
    run(NULL, (const char *[]){ "init", out->dir, NULL });
    certificates_add(
        out, NULL, (const char *[]){ "server", "localhost", "127.0.0.1", "::1", NULL });
    certificates_add(out, NULL,
                     (const char *[]){ "client", "worker", "--role", "worker", NULL });
    certificates_path(out, "ca.crt", out->ca);
    certificates_path(out, "localhost.crt", out->cert);
    certificates_path(out, "localhost.key", out->key);
    certificates_path(out, "worker.crt", out->client_cert);
    certificates_path(out, "worker.key", out->client_key);
}

void certificates_remove(const struct certificates *certificates)
{
    glob_t found;
    char pattern[CERTIFICATES_PATH];
    certificates_path(certificates, "*", pattern);
    if (glob(pattern, 0, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc; i++) {
            unlink(found.gl_pathv[i]);
        }
        globfree(&found);
    }
    rmdir(certificates->dir);
}
