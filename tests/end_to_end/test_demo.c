/* demo — the program behind `make demo`: that it trains, and that it never leaves a
 * process or a file behind, however it ends. */
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

enum { TEXT_MAX = 1 << 16, LIMIT_MS = 50000, ARGUMENTS_MAX = 24 };

static char out[64]; /* folder of a run */

/* A run of the demo and what it has said so far, on both streams. */
struct run {
    pid_t pid;
    int fd;
    char text[TEXT_MAX];
    size_t length;
};
static struct run demo;

static void make_folder(void)
{
    snprintf(out, sizeof out, "/tmp/optimd-test-demo-XXXXXX");
    cr_assert_not_null(mkdtemp(out));
    /* What the demo leaves running becomes a child of this test, and is then seen. */
    cr_assert_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
}

static void remove_folder(void)
{
    char *paths[] = { out, NULL };
    FTS *tree = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    for (FTSENT *entry; tree != NULL && (entry = fts_read(tree)) != NULL;) {
        if (entry->fts_info != FTS_D) {
            remove(entry->fts_accpath);
        }
    }
    fts_close(tree);
}

TestSuite(demo, .init = make_folder, .fini = remove_folder, .timeout = 120);

static const char *built(const char *name)
{
    static char paths[4][256];
    static size_t next;
    const char *build = getenv("OPTIMD_BUILD");
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", build != NULL ? build : "build", name);
    return path;
}

/* Start the demo with these arguments besides those that every run has. */
static void start(const char *const *more)
{
    const char *argv[ARGUMENTS_MAX] = { built("client/examples/demo"),
                                        "--daemon",
                                        built("optimd"),
                                        "--worker",
                                        built("client/examples/worker"),
                                        "--out",
                                        out };
    size_t n = 7;
    while (*more != NULL && n < ARGUMENTS_MAX - 1) {
        argv[n++] = *more++;
    }
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    /* The workers and the daemon inherit neither end: a closed pipe is the demo's end.
     */
    fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    fcntl(ends[1], F_SETFD, FD_CLOEXEC);
    demo = (struct run){ .pid = fork(), .fd = ends[0] };
    cr_assert_neq(demo.pid, -1);
    if (demo.pid == 0) {
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

/* Read until these words have come; NULL: until the end. */
static void read_until(const char *words)
{
    long long deadline = now_ms() + LIMIT_MS;
    while (words == NULL || strstr(demo.text, words) == NULL) {
        struct pollfd wait = { .fd = demo.fd, .events = POLLIN };
        long long left = deadline - now_ms();
        cr_assert(left > 0 && poll(&wait, 1, (int)left) == 1,
                  "\"%s\" did not come within %d ms after:\n%s",
                  words != NULL ? words : "the end", LIMIT_MS, demo.text);
        ssize_t got =
            read(demo.fd, demo.text + demo.length, sizeof demo.text - 1 - demo.length);
        cr_assert_geq(got, 0);
        if (got == 0) {
            cr_assert_null(words, "the demo ended without \"%s\":\n%s", words,
                           demo.text);
            break;
        }
        demo.length += (size_t)got;
        demo.text[demo.length] = '\0';
    }
}

/* Wait for the demo's end; its status as waitpid's. */
static int finish(void)
{
    read_until(NULL);
    close(demo.fd);
    int status;
    cr_assert_eq(waitpid(demo.pid, &status, 0), demo.pid);
    return status;
}

static void expect_no_process(void)
{
    errno = 0;
    pid_t left = waitpid(-1, NULL, WNOHANG);
    cr_assert(left == -1 && errno == ECHILD, "something still runs after:\n%s",
              demo.text);
}

static size_t count_files(const char *beginning)
{
    DIR *folder = opendir(out);
    cr_assert_not_null(folder);
    size_t n = 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        n += strncmp(entry->d_name, beginning, strlen(beginning)) == 0;
    }
    closedir(folder);
    return n;
}

static bool failed_with(int status, const char *words)
{
    return WIFEXITED(status) && WEXITSTATUS(status) == 1 &&
           strstr(demo.text, words) != NULL;
}

/* The text after these words up to the end of the line; the test's to free. */
static char *line_after(const char *words)
{
    const char *at = strstr(demo.text, words);
    cr_assert_not_null(at, "no \"%s\" in:\n%s", words, demo.text);
    at += strlen(words);
    return strndup(at, strcspn(at, "\n"));
}

/* Longer than any test waits: it has to be ended. */
static const char *const endless[] = { "--epochs", "100000", NULL };

/* A child of the demo by the name of its program. */
static pid_t child_of_demo(const char *name)
{
    DIR *processes = opendir("/proc");
    cr_assert_not_null(processes);
    pid_t found = 0;
    for (struct dirent *entry; found == 0 && (entry = readdir(processes)) != NULL;) {
        char path[300], line[512] = "";
        snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
        FILE *file = fopen(path, "r");
        if (file == NULL) {
            continue;
        }
        /* pid (name) state parent ... */
        char *open = fgets(line, sizeof line, file) ? strchr(line, '(') : NULL;
        char *close = open ? strrchr(open, ')') : NULL;
        if (close != NULL && strlen(close) > 4) {
            *close = '\0';
            if (strtol(close + 4, NULL, 10) == demo.pid &&
                strcmp(open + 1, name) == 0) {
                found = (pid_t)strtol(line, NULL, 10);
            }
        }
        fclose(file);
    }
    closedir(processes);
    cr_assert_neq(found, 0, "the demo has no child named %s", name);
    return found;
}

/* ---------------------------------------------------------------- the run itself */

Test(demo, trains_and_leaves_only_what_it_says)
{
    start((const char *const[]){ "--workers", "3", "--epochs", "20", "--floor", "90",
                                 NULL });
    int status = finish();
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s", demo.text);
    expect_no_process();
    cr_assert_not_null(strstr(demo.text, "17226 parameters"), "%s", demo.text);
    cr_assert_not_null(strstr(demo.text, "together"), "%s", demo.text);
    cr_assert_eq(count_files("data-"), 0);
    cr_assert_eq(count_files("optimd.log"), 1);
    if (strstr(demo.text, "gnuplot is not installed") == NULL) {
        cr_assert_eq(count_files("loss.svg"), 1, "%s", demo.text);
    }
}

Test(demo, gives_the_same_weights_for_the_same_seed)
{
    static const char *const seeds[] = { "7", "7", "8" };
    char *weights[3];
    for (size_t i = 0; i < 3; i++) {
        start((const char *const[]){ "--workers", "2", "--epochs", "2", "--floor", "0",
                                     "--seed", seeds[i], NULL });
        int status = finish();
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s", demo.text);
        weights[i] = line_after("weights");
    }
    cr_assert_str_eq(weights[0], weights[1]);
    cr_assert_str_neq(weights[0], weights[2]);
    for (size_t i = 0; i < 3; i++) {
        free(weights[i]);
    }
}

Test(demo, takes_any_optimizer)
{
    start((const char *const[]){ "--workers", "2", "--epochs", "3", "--floor", "30",
                                 "--optimizer",
                                 "lamb(lr=0.02) + lookahead(k=5, alpha=0.5)", NULL });
    int status = finish();
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s", demo.text);
    cr_assert_not_null(strstr(demo.text, "lookahead"), "%s", demo.text);
    expect_no_process();
}

Test(demo, fails_below_the_floor)
{
    start((const char *const[]){ "--workers", "1", "--epochs", "1", "--floor", "100",
                                 NULL });
    cr_assert(failed_with(finish(), "the accuracy is below 100 %"), "%s", demo.text);
    expect_no_process();
}

/* ---------------------------------------------------------------- ends of all kinds */

static void expect_end_by(int signal)
{
    start(endless);
    read_until("step ");
    cr_assert_eq(kill(demo.pid, signal), 0);
    cr_assert(failed_with(finish(), "interrupted"), "%s", demo.text);
    expect_no_process();
    cr_assert_eq(count_files("data-"), 0);
}

Test(demo, stops_everything_on_control_c)
{
    expect_end_by(SIGINT);
}

Test(demo, stops_everything_when_it_is_terminated)
{
    expect_end_by(SIGTERM);
}

Test(demo, takes_everything_along_when_it_is_killed)
{
    start(endless);
    read_until("step ");
    cr_assert_eq(kill(demo.pid, SIGKILL), 0);
    /* What it had started is now this test's to wait for: it must end by itself. */
    size_t ended = 0;
    while (waitpid(-1, NULL, 0) > 0) {
        ended++;
    }
    cr_assert_eq(errno, ECHILD);
    cr_assert_eq(ended, 1 + 1 + 4, "%zu processes instead of demo, optimd, 4 workers",
                 ended);
}

Test(demo, stops_everything_when_a_worker_dies)
{
    start(endless);
    read_until("step ");
    cr_assert_eq(kill(child_of_demo("worker"), SIGKILL), 0);
    cr_assert(failed_with(finish(), "was killed by signal 9"), "%s", demo.text);
    expect_no_process();
}

Test(demo, stops_everything_when_the_daemon_dies)
{
    start(endless);
    read_until("step ");
    cr_assert_eq(kill(child_of_demo("optimd"), SIGKILL), 0);
    cr_assert(failed_with(finish(), "optimd was killed by signal 9"), "%s", demo.text);
    expect_no_process();
}

Test(demo, passes_on_what_a_worker_has_to_complain_about)
{
    start((const char *const[]){ "--optimizer", "adamm(lr=1)", NULL });
    cr_assert(failed_with(finish(), "INVALID_ARGUMENT"), "%s", demo.text);
    cr_assert_not_null(strstr(demo.text, "adamm"), "%s", demo.text);
    expect_no_process();

    start((const char *const[]){ "--data", "fashion", "--data-dir", out, NULL });
    cr_assert(failed_with(finish(), "train-images-idx3-ubyte.gz"), "%s", demo.text);
    expect_no_process();
}

Test(demo, says_what_it_cannot_start)
{
    start((const char *const[]){ "--daemon", "/nowhere/optimd", NULL });
    cr_assert(failed_with(finish(), "optimd ended with status 127"), "%s", demo.text);
    expect_no_process();

    start((const char *const[]){ "--worker", "/nowhere/worker", NULL });
    cr_assert(failed_with(finish(), "ended with status 127"), "%s", demo.text);
    expect_no_process();
}

Test(demo, refuses_options_that_mean_nothing)
{
    static const char *const wrong[][3] = {
        { "--workers", "0", "no whole number from 1 to 64" },
        { "--workers", "2x", "no whole number" },
        { "--workers", "-1", "no whole number" },
        { "--floor", "101", "no whole number from 0 to 100" },
        { "--color", "red", "unrecognized option" },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        start((const char *const[]){ wrong[i][0], wrong[i][1], NULL });
        int status = finish();
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 64, "%s", demo.text);
        cr_assert_not_null(strstr(demo.text, wrong[i][2]), "%s", demo.text);
    }
}
