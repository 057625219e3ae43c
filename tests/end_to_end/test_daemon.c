/* The daemon as a process: its command line, its start, its end, who may connect. */
#define _GNU_SOURCE /* SIGSTKFLT and others beside POSIX */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "server/store/file.h"
#include "tests/support/daemon.h"
#include "tests/support/raw.h"
#include "tests/support/sanitized.h"

enum {
    EXIT_USAGE = 64,
    EXIT_UNAVAILABLE = 69,
    EXIT_CONFIG = 78,
    EXIT_NO_NAMESPACE = 125,
    WAIT_MS = 5000
};

/* ThreadSanitizer holds signals back while a thread waits for another. */
enum { AT_ONCE_MS = UNDER_THREAD_SANITIZER ? 5000 : 1000 };

/* Run to its end; *log and *out are the caller's to free, and may be NULL. */
static int run(const char *const *options, char **log, char **out)
{
    struct daemon_process daemon = { .pid = 0 };
    daemon_spawn(&daemon, options);
    int code = daemon_wait(&daemon, WAIT_MS);
    if (log != NULL) {
        *log = daemon_log(&daemon);
    }
    if (out != NULL) {
        *out = daemon_output(&daemon);
    }
    daemon_remove(&daemon);
    return code;
}

static void expect(const char *const *options, int code, const char *text)
{
    char *log = NULL;
    int got = run(options, &log, NULL);
    cr_expect_eq(got, code, "exit status %d instead of %d: %s", got, code, log);
    cr_expect_not_null(strstr(log, text), "\"%s\" does not say \"%s\"", log, text);
    free(log);
}

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "re");
    cr_assert_not_null(file, "%s is missing (tests run at the top of the tree)", path);
    char *text = NULL;
    size_t size = 0;
    cr_assert_gt(getdelim(&text, &size, '\0', file), 0);
    fclose(file);
    return text;
}

Test(daemon, says_its_version)
{
    char *out = NULL;
    cr_expect_eq(run((const char *[]){ "--version", NULL }, NULL, &out), 0);
    cr_expect_str_eq(out, "optimd " OPTIMD_VERSION "\n");
    free(out);
}

Test(daemon, help_manual_and_sample_name_every_setting)
{
    char *help = NULL, *all = NULL;
    cr_expect_eq(run((const char *[]){ "--help", NULL }, NULL, &help), 0);
    cr_expect_eq(run((const char *[]){ "--check-config", NULL }, NULL, &all), 0);
    char *manual = read_file("server/optimd.8");
    char *sample = read_file("deploy/optimd.yaml");
    size_t count = 0;
    char *rest;
    for (char *line = strtok_r(all, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest), count++) {
        char option[64];
        int size = (int)strcspn(line, ":");
        snprintf(option, sizeof(option), "--%.*s ", size, line);
        char *flag = strstr(help, option);
        if (flag == NULL) {
            snprintf(option, sizeof(option), "--%.*s[", size, line);
            flag = strstr(help, option);
        }
        cr_expect_not_null(flag, "--help lacks %.*s", size, line);
        snprintf(option, sizeof(option), ".It Fl \\-%.*s", size, line);
        cr_expect_not_null(strstr(manual, option), "optimd.8 lacks %.*s", size, line);
        snprintf(option, sizeof(option), "%.*s:", size, line);
        cr_expect_not_null(strstr(sample, option), "optimd.yaml lacks %.*s", size,
                           line);
    }
    cr_expect_gt(count, 20);
    free(help);
    free(all);
    free(manual);
    free(sample);
}

Test(daemon, checks_the_sample_configuration)
{
    char *out = NULL;
    char *log = NULL;
    int code = run(
        (const char *[]){ "--check-config", "--config", "deploy/optimd.yaml", NULL },
        &log, &out);
    cr_expect_eq(code, 0, "%s", log);
    cr_expect_not_null(strstr(out, "max-frame: 64MiB\n"), "%s", out);
    free(out);
    free(log);
}

Test(daemon, prints_settings_that_it_can_read)
{
    char *first = NULL;
    const char *const options[] = { "--check-config", "--threads", "3",
                                    "--lease",        "1500ms",    "--data-dir",
                                    "it's here",      NULL };
    cr_assert_eq(run(options, NULL, &first), 0);
    struct daemon_process daemon = { .directory = "/tmp/optimd-test-XXXXXX" };
    cr_assert_not_null(mkdtemp(daemon.directory));
    char path[DAEMON_PATH + 16];
    snprintf(path, sizeof(path), "%s/config", daemon.directory);
    FILE *file = fopen(path, "we");
    fputs(first, file);
    fclose(file);
    daemon_spawn(&daemon, (const char *[]){ "--check-config", "--config", path, NULL });
    cr_assert_eq(daemon_wait(&daemon, WAIT_MS), 0);
    char *second = daemon_output(&daemon);
    cr_expect_str_eq(second, first);
    cr_expect_not_null(strstr(first, "lease: 1500ms\n"));
    cr_expect_not_null(strstr(first, "data-dir: 'it''s here'\n"));
    free(first);
    free(second);
    daemon_remove(&daemon);
}

Test(daemon, refuses_wrong_usage)
{
    expect((const char *[]){ "--thread-count=3", NULL }, EXIT_USAGE,
           "--thread-count=3");
    expect((const char *[]){ "--lissten", "x", NULL }, EXIT_USAGE, "perhaps --listen");
    expect((const char *[]){ "--listen", NULL }, EXIT_USAGE, "no value after");
    expect((const char *[]){ "start", NULL }, EXIT_USAGE, "start");
}

Test(daemon, refuses_wrong_values_before_it_opens_a_port)
{
    expect((const char *[]){ "--threads", "many", NULL }, EXIT_CONFIG, "--threads");
    expect((const char *[]){ "--threads", "0", NULL }, EXIT_CONFIG, "1 to 1024");
    expect((const char *[]){ "--memory", "64", NULL }, EXIT_CONFIG, "--memory");
    expect((const char *[]){ "--listen", "127.0.0.1", NULL }, EXIT_CONFIG, "listen");
    expect((const char *[]){ "--listen", "127.0.0.1:70000", NULL }, EXIT_CONFIG,
           "70000");
    expect((const char *[]){ "--heartbeat", "9s", NULL }, EXIT_CONFIG,
           "--heartbeat: 9s is more than lease with its 5s");
    expect((const char *[]){ "--config", "/nowhere/optimd.yaml", NULL }, EXIT_CONFIG,
           "/nowhere/optimd.yaml");
}

Test(daemon, refuses_addresses_that_others_reach)
{
    expect((const char *[]){ "--listen", "0.0.0.0:0", NULL }, EXIT_CONFIG,
           "--insecure");
    expect((const char *[]){ "--listen", "[::]:0", NULL }, EXIT_CONFIG, "--insecure");
    expect((const char *[]){ "--listen", "192.0.2.1:0", NULL }, EXIT_CONFIG,
           "other machines");
}

static void leave_network(void)
{
    if (unshare(CLONE_NEWNET) != 0) {
        _exit(EXIT_NO_NAMESPACE);
    }
}

/* One port for both families; in a namespace of its own, so that even this test offers
 * nothing to other machines. */
Test(daemon, serves_both_families_on_one_port)
{
    static const char *const orders[] = { "[::]:7070,0.0.0.0:7070",
                                          "0.0.0.0:7070,[::]:7070" };
    pid_t child = fork();
    int status = 0;
    if (child == 0) {
        leave_network();
        _exit(0);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    if (status != 0) {
        cr_skip_test("no right to make a network namespace");
    }
    daemon_prepare(leave_network);
    for (int i = 0; i < 2; i++) {
        struct daemon_process daemon;
        daemon_start(&daemon,
                     (const char *[]){ "--insecure", "--listen", orders[i], NULL });
        cr_expect_eq(daemon.port, 7070);
        daemon_stop(&daemon);
    }
}

/* A loopback address, so that even this test offers nothing to other machines. */
Test(daemon, warns_when_it_is_insecure)
{
    struct daemon_process daemon;
    daemon_start(&daemon, (const char *[]){ "--insecure", NULL });
    cr_expect(daemon_logged(&daemon, "warn insecure", WAIT_MS));
    daemon_stop(&daemon);
}

Test(daemon, announces_its_port_and_stops_when_asked)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    int fd = raw_connect(daemon.port);
    raw_hello(fd, "");
    raw_heartbeat(fd, 1);
    char *log = daemon_log(&daemon);
    cr_expect_not_null(strstr(log, " started "), "%s", log);
    free(log);
    char port_file[DAEMON_PATH + 16];
    snprintf(port_file, sizeof(port_file), "%s/port", daemon.directory);
    daemon_signal(&daemon, SIGTERM);
    raw_expect_error(fd, 0, OPT_UNAVAILABLE, "stopping");
    cr_expect(raw_closed(fd, WAIT_MS));
    close(fd);
    cr_expect_eq(daemon_wait(&daemon, WAIT_MS), 0);
    cr_expect_neq(access(port_file, F_OK), 0, "the port file is still there");
    log = daemon_log(&daemon);
    cr_expect_not_null(strstr(log, " stopped "), "%s", log);
    free(log);
    daemon_remove(&daemon);
}

/* A file of the daemon's folder with some words of somebody else's. */
static void leave_words(const struct daemon_process *daemon, const char *name,
                        char path[DAEMON_PATH + 16])
{
    snprintf(path, DAEMON_PATH + 16, "%s/%s", daemon->directory, name);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    fputs("words", file);
    fclose(file);
}

static void expect_words_in(const char *path)
{
    char text[16] = "";
    FILE *file = fopen(path, "r");
    cr_assert_not_null(file, "%s is gone", path);
    cr_expect_not_null(fgets(text, sizeof(text), file));
    cr_expect_str_eq(text, "words", "%s was written to", path);
    fclose(file);
    unlink(path);
}

Test(daemon, leaves_the_port_file_of_another_one)
{
    struct daemon_process daemon;
    char other[DAEMON_PATH + 16], port_file[DAEMON_PATH + 16];
    daemon_start(&daemon, NULL);
    leave_words(&daemon, "other", other);
    snprintf(port_file, sizeof(port_file), "%s/port", daemon.directory);
    cr_assert_eq(rename(other, port_file), 0);
    daemon_signal(&daemon, SIGTERM);
    cr_expect_eq(daemon_wait(&daemon, WAIT_MS), 0);
    expect_words_in(port_file);
    daemon_remove(&daemon);
}

/* Whoever may write beside the port file could else have any file overwritten. */
Test(daemon, writes_its_port_through_no_link)
{
    struct daemon_process first, second = { 0 }, third = { 0 };
    char words[DAEMON_PATH + 16], name[DAEMON_PATH + 16], link[DAEMON_PATH + 24],
        log[DAEMON_PATH + 16];
    daemon_start(&first, NULL);
    leave_words(&first, "words", words);
    snprintf(name, sizeof(name), "%s/second", first.directory);
    snprintf(link, sizeof(link), "%s.new", name);
    cr_assert_eq(symlink(words, link), 0);
    const char *const options[] = { "--listen", "127.0.0.1:0", "--port-file", name,
                                    NULL };
    snprintf(second.directory, sizeof(second.directory), "/tmp/optimd-test-XXXXXX");
    cr_assert_not_null(mkdtemp(second.directory));
    leave_words(&second, "log", log); /* is there when it is looked at */
    daemon_spawn(&second, options);
    cr_expect(daemon_logged(&second, " started ", WAIT_MS));
    cr_expect_eq(access(name, R_OK), 0);
    daemon_stop(&second);
    cr_expect_neq(access(name, F_OK), 0);

    cr_assert_eq(rename(link, name), 0);
    daemon_spawn(&third, options);
    cr_expect_eq(daemon_wait(&third, WAIT_MS), EX_UNAVAILABLE);
    cr_expect(daemon_logged(&third, "not a plain file", 0));
    daemon_remove(&third);
    unlink(name);
    expect_words_in(words);
    daemon_stop(&first);
}

Test(daemon, stops_on_interrupt)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    daemon_signal(&daemon, SIGINT);
    cr_expect_eq(daemon_wait(&daemon, WAIT_MS), 0);
    daemon_remove(&daemon);
}

/* A peer that neither reads nor closes holds up an orderly stop for a while. */
static void fill_output(void)
{
    if (dup2(open("/dev/full", O_WRONLY), STDOUT_FILENO) < 0) {
        _exit(126);
    }
}

static void close_output(void)
{
    close(STDOUT_FILENO);
}

Test(daemon, stops_at_once_at_the_second_signal)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    int fd = raw_connect(daemon.port);
    raw_hello(fd, "");
    daemon_signal(&daemon, SIGTERM);
    cr_assert(daemon_logged(&daemon, " stopping ", WAIT_MS));
    int code = -1;
    for (int waited = 0; code < 0 && waited < 1000 + AT_ONCE_MS; waited += 100) {
        daemon_signal(&daemon, SIGTERM); /* within a second it is the same wish */
        code = daemon_wait(&daemon, 100);
    }
    cr_expect_eq(code, 128 + SIGTERM);
    close(fd);
    daemon_remove(&daemon);
}

Test(daemon, takes_a_signal_within_a_second_for_the_same_wish)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    int fd = raw_connect(daemon.port); /* it waits for this one to hang up */
    raw_hello(fd, "");
    daemon_signal(&daemon, SIGTERM);
    cr_assert(daemon_logged(&daemon, " stopping ", WAIT_MS));
    daemon_signal(&daemon, SIGTERM);
    daemon_signal(&daemon, SIGINT);
    close(fd);
    cr_expect_eq(daemon_wait(&daemon, WAIT_MS), 0);
    daemon_remove(&daemon);
}

Test(daemon, goes_on_at_signals_that_mean_nothing_to_it)
{
    const int numbers[] = { SIGUSR1, SIGUSR2, SIGALRM,  SIGVTALRM, SIGPROF,
                            SIGIO,   SIGPWR,  SIGXCPU,  SIGSTKFLT, SIGPIPE,
                            SIGXFSZ, SIGTTOU, SIGRTMIN, SIGRTMAX };
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    int fd = raw_connect(daemon.port);
    raw_hello(fd, "");
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        daemon_signal(&daemon, numbers[i]);
        raw_heartbeat(fd, i + 1);
    }
    cr_expect(daemon_logged(&daemon, "signal_ignored signal=10 name=USR1", WAIT_MS));
    close(fd);
    daemon_stop(&daemon);
}

Test(daemon, says_so_if_its_answer_cannot_be_printed)
{
    const char *const questions[] = { "--help", "--version", "--check-config" };
    for (int i = 0; i < 6; i++) {
        struct daemon_process daemon = { .pid = 0 };
        daemon_prepare(i < 3 ? fill_output : close_output);
        daemon_spawn(&daemon, (const char *[]){ questions[i % 3], NULL });
        cr_expect_eq(daemon_wait(&daemon, WAIT_MS), EX_IOERR, "%s", questions[i % 3]);
        daemon_remove(&daemon);
    }
}

Test(daemon, keeps_its_data_directory_to_itself)
{
    struct daemon_process first;
    daemon_start(&first, NULL);
    char directory[DAEMON_PATH + 16];
    snprintf(directory, sizeof(directory), "%s-data", first.directory);
    struct daemon_process second;
    daemon_start(&second, (const char *[]){ "--data-dir", directory, NULL });
    struct stat status;
    cr_assert_eq(stat(directory, &status), 0);
    cr_expect_eq(status.st_mode & 0777, 0700u);
    const char *const third[] = { "--listen", "127.0.0.1:0", "--data-dir", directory,
                                  NULL };
    expect(third, EXIT_UNAVAILABLE, "in use");
    /* Nothing needs to be cleaned up after a daemon that was killed. */
    daemon_signal(&second, SIGKILL);
    cr_expect_eq(daemon_wait(&second, WAIT_MS), 128 + SIGKILL);
    daemon_remove(&second);
    daemon_start(&second, (const char *[]){ "--data-dir", directory, NULL });
    daemon_stop(&second);
    daemon_stop(&first);
    cr_expect_eq(file_remove(AT_FDCWD, directory, directory, NULL), OPT_OK);
}

/* Links to somebody else's file in place of the lock. */
Test(daemon, writes_to_no_file_but_its_own_in_the_data_directory)
{
    char directory[] = "/tmp/optimd-test-XXXXXX", victim[64], lock[64];
    cr_assert_not_null(mkdtemp(directory));
    snprintf(victim, sizeof(victim), "%s/victim", directory);
    snprintf(lock, sizeof(lock), "%s/lock", directory);
    FILE *file = fopen(victim, "we");
    cr_assert_not_null(file);
    fputs("precious", file);
    fclose(file);
    for (int i = 0; i < 3; i++) {
        const char *words = i == 0 ? "symbolic link" : "lock: it is not a file";
        int made = i == 0   ? symlink(victim, lock)
                   : i == 1 ? link(victim, lock)
                            : mkfifo(lock, 0600);
        cr_assert_eq(made, 0);
        expect((const char *[]){ "--listen", "127.0.0.1:0", "--data-dir", directory,
                                 NULL },
               EXIT_UNAVAILABLE, words);
        char *text = read_file(victim);
        cr_expect_str_eq(text, "precious");
        free(text);
        unlink(lock);
    }
    unlink(victim);
    rmdir(directory);
}

Test(daemon, refuses_a_data_directory_it_cannot_use)
{
    const char *const options[] = { "--listen", "127.0.0.1:0", "--data-dir",
                                    "/proc/optimd", NULL };
    expect(options, EXIT_UNAVAILABLE, "/proc/optimd");
}

Test(daemon, refuses_a_port_that_is_taken)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    char address[32];
    snprintf(address, sizeof(address), "127.0.0.1:%u", (unsigned)daemon.port);
    expect((const char *[]){ "--listen", address, NULL }, EXIT_UNAVAILABLE, address);
    daemon_stop(&daemon);
}

Test(daemon, tells_the_connection_that_is_one_too_many)
{
    struct daemon_process daemon;
    daemon_start(&daemon, (const char *[]){ "--max-connections", "2", NULL });
    int first = raw_connect(daemon.port);
    raw_hello(first, "");
    int second = raw_connect(daemon.port);
    raw_hello(second, "w");
    int third = raw_connect(daemon.port);
    raw_expect_error(third, 0, OPT_RESOURCE_EXHAUSTED, "2 connections");
    cr_expect(raw_closed(third, WAIT_MS));
    close(third);
    raw_heartbeat(first, 5);
    /* A place that is given up is somebody else's. */
    close(second);
    cr_assert(daemon_logged(&daemon, "connection_closed", WAIT_MS));
    int fourth = raw_connect(daemon.port);
    raw_hello(fourth, "");
    close(fourth);
    close(first);
    daemon_stop(&daemon);
}

/* The value of a variable in the daemon's environment, "" if it is not set. */
static void variable_of(const struct daemon_process *daemon, const char *name,
                        char value[64])
{
    char path[64], *entry = NULL;
    size_t room = 0, length = strlen(name);
    snprintf(path, sizeof path, "/proc/%d/environ", (int)daemon->pid);
    FILE *file = fopen(path, "re");
    cr_assert_not_null(file);
    value[0] = '\0';
    while (getdelim(&entry, &room, '\0', file) > 0) {
        if (strncmp(entry, name, length) == 0 && entry[length] == '=') {
            snprintf(value, 64, "%s", entry + length + 1);
        }
    }
    free(entry);
    fclose(file);
}

Test(daemon, has_its_team_sleep_unless_told_otherwise)
{
    static const char *const policies[] = { NULL, "active" };
    unsetenv("GOMP_SPINCOUNT");
    for (int i = 0; i < 2; i++) {
        struct daemon_process daemon;
        char value[64];
        if (policies[i] == NULL) {
            unsetenv("OMP_WAIT_POLICY");
        } else {
            setenv("OMP_WAIT_POLICY", policies[i], 1);
        }
        daemon_start(&daemon, (const char *[]){ "--threads", "2", NULL });
        variable_of(&daemon, "OMP_WAIT_POLICY", value);
        cr_assert_str_eq(value, policies[i] == NULL ? "passive" : policies[i]);
        daemon_stop(&daemon);
    }
}

Test(daemon, serves_connections_on_all_its_loops)
{
    enum { CONNECTIONS = 12 };
    struct daemon_process daemon;
    daemon_start(&daemon, (const char *[]){ "--loops", "3", NULL });
    int fds[CONNECTIONS];
    for (int i = 0; i < CONNECTIONS; i++) {
        fds[i] = raw_connect(daemon.port);
        raw_hello(fds[i], "");
    }
    for (int i = 0; i < CONNECTIONS; i++) {
        raw_heartbeat(fds[i], 1);
        close(fds[i]);
    }
    daemon_stop(&daemon);
}
