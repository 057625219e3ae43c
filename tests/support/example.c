/* example — see example.h. */
#include "tests/support/example.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LIMIT_MS = 50000, ARGUMENTS_MAX = 24 };

struct example example;

void example_make_folder(void)
{
    snprintf(example.out, sizeof example.out, "/tmp/optimd-test-example-XXXXXX");
    cr_assert_not_null(mkdtemp(example.out));
    /* What a program leaves running becomes a child of this test, and is then seen. */
    cr_assert_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
}

void example_remove_folder(void)
{
    char *paths[] = { example.out, NULL };
    FTS *tree = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    for (FTSENT *entry; tree != NULL && (entry = fts_read(tree)) != NULL;) {
        if (entry->fts_info != FTS_D) {
            remove(entry->fts_accpath);
        }
    }
    fts_close(tree);
}

const char *example_built(const char *name)
{
    static char paths[4][256];
    static size_t next;
    const char *build = getenv("OPTIMD_BUILD");
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", build != NULL ? build : "build", name);
    return path;
}

void example_start(const char *name, const char *const *more)
{
    char program[64];
    snprintf(program, sizeof program, "client/examples/%s", name);
    const char *argv[ARGUMENTS_MAX] = { example_built(program), "--daemon",
                                        example_built("optimd"), "--out", example.out };
    size_t n = 5;
    while (*more != NULL && n < ARGUMENTS_MAX - 1) {
        argv[n++] = *more++;
    }
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    /* What it starts inherits neither end: a closed pipe is the program's end.
     */
    fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    fcntl(ends[1], F_SETFD, FD_CLOEXEC);
    example.fd = ends[0];
    example.length = 0;
    example.text[0] = '\0';
    example.pid = fork();
    cr_assert_neq(example.pid, -1);
    if (example.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        execv(argv[0], (char *const *)(const void *)argv);
        _exit(127);
    }
    close(ends[1]);
}

static long long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

void example_read_until(const char *words)
{
    long long deadline = now_ms() + LIMIT_MS;
    while (words == NULL || strstr(example.text, words) == NULL) {
        struct pollfd wait = { .fd = example.fd, .events = POLLIN };
        long long left = deadline - now_ms();
        cr_assert(left > 0 && poll(&wait, 1, (int)left) == 1,
                  "\"%s\" did not come within %d ms after:\n%s",
                  words != NULL ? words : "the end", LIMIT_MS, example.text);
        ssize_t got = read(example.fd, example.text + example.length,
                           sizeof example.text - 1 - example.length);
        cr_assert_geq(got, 0);
        if (got == 0) {
            cr_assert_null(words, "it ended without \"%s\":\n%s", words, example.text);
            break;
        }
        example.length += (size_t)got;
        example.text[example.length] = '\0';
    }
}

int example_finish(void)
{
    example_read_until(NULL);
    close(example.fd);
    int status;
    cr_assert_eq(waitpid(example.pid, &status, 0), example.pid);
    return status;
}

void example_expect(int exit_status, const char *words)
{
    int status = example_finish();
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == exit_status, "%s",
              example.text);
    cr_assert_not_null(strstr(example.text, words), "no \"%s\" in:\n%s", words,
                       example.text);
}

void example_expect_no_process(void)
{
    errno = 0;
    pid_t left = waitpid(-1, NULL, WNOHANG);
    cr_assert(left == -1 && errno == ECHILD, "something still runs after:\n%s",
              example.text);
}

size_t example_count_files(const char *beginning)
{
    DIR *folder = opendir(example.out);
    cr_assert_not_null(folder);
    size_t n = 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        n += strncmp(entry->d_name, beginning, strlen(beginning)) == 0;
    }
    closedir(folder);
    return n;
}
