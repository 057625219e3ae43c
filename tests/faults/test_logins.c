/* Hostile and broken logins: tokens that are wrong in every way, files that are broken
 * when they are read again, and secrets looked for where they must not be.
 */
#define _GNU_SOURCE /* memmem */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/daemon.h"
#include "tests/support/logins.h"
#include "tests/support/raw.h"
#include "tests/support/sanitized.h"

enum { WAIT_MS = 10000 };

/* Not on one line with anything that a search could find by mistake. */
#define TOKEN "optimd_zX81qGm0Yd3hV6tRk2Wc9Lb4Ns7Pf5Ju"

static struct daemon_process server;
static struct logins_files files;
static char config[LOGINS_PATH + 16];

static void begin(const char *lines, const char *configuration)
{
    logins_files_open(&files);
    snprintf(config, sizeof config, "%s/optimd.yaml", files.folder);
    logins_write(files.tokens, lines);
    logins_write_text(config, configuration);
    daemon_start(&server, (const char *[]){ "--login", "everybody", "--tokens",
                                            files.tokens, "--config", config, NULL });
}

static void end(void)
{
    daemon_stop(&server);
    unlink(config);
    logins_files_close(&files);
}

static enum opt_status try_token(const void *token, size_t size, char *text)
{
    int fd = raw_connect(server.port);
    enum opt_status status = logins_hello(fd, "", token, size, text);
    cr_expect(status == OPT_OK || raw_closed(fd, WAIT_MS));
    close(fd);
    return status;
}

Test(logins, whatever_is_wrong_with_a_token_the_answer_is_the_same)
{
    begin("w worker sha256=@" TOKEN "\n"
          "old worker sha256=@expired-token expires=2001-01-01T00:00:00Z\n"
          "gone worker sha256=@gone-token\n",
          "");
    logins_write(files.tokens,
                 "w worker sha256=@" TOKEN "\n"
                 "old worker sha256=@expired-token expires=2001-01-01T00:00:00Z\n");
    daemon_signal(&server, SIGHUP);
    cr_assert(daemon_logged(&server, " reloaded ", WAIT_MS));
    char first[OPT_ERROR_TEXT], text[OPT_ERROR_TEXT], token[OPT_TOKEN_MAX];
    cr_assert_eq(try_token(NULL, 0, first), OPT_UNAUTHENTICATED);
    const size_t size = strlen(TOKEN);
    memcpy(token, TOKEN, size);
    cr_assert_eq(try_token(token, size, text), OPT_OK);
    for (size_t bit = 0; bit < size * 8; bit += 13) {
        token[bit / 8] = (char)(token[bit / 8] ^ (1 << bit % 8));
        cr_expect_eq(try_token(token, size, text), OPT_UNAUTHENTICATED, "bit %zu", bit);
        cr_expect_str_eq(text, first);
        token[bit / 8] = (char)(token[bit / 8] ^ (1 << bit % 8));
    }
    memset(token + size, 'x', sizeof token - size);
    const size_t sizes[] = { 1, size - 1, size + 1, OPT_TOKEN_MAX };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        cr_expect_eq(try_token(token, sizes[i], text), OPT_UNAUTHENTICATED);
        cr_expect_str_eq(text, first);
    }
    const char *const others[] = { "expired-token", "gone-token", "", "\n" };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        cr_expect_eq(try_token(others[i], strlen(others[i]), text), OPT_UNAUTHENTICATED,
                     "%s", others[i]);
        cr_expect_str_eq(text, first);
    }
    end();
}

Test(logins, many_that_fail_cost_few_lines_of_the_log)
{
    enum { TRIES = 300 };
    begin("root admin sha256=@" TOKEN "\n", "");
    for (int i = 0; i < TRIES; i++) {
        cr_expect_eq(try_token("guess", 5, NULL), OPT_UNAUTHENTICATED);
    }
    int fd = logins_enter(server.port, "", TOKEN);
    cr_expect_eq(raw_counter(fd, "logins_refused"), TRIES);
    close(fd);
    char *log = daemon_log(&server);
    size_t lines = 0;
    for (const char *at = log; (at = strstr(at, "login_refused")) != NULL; at++) {
        lines++;
    }
    cr_expect_lt(lines, TRIES / 2, "%zu lines", lines);
    cr_expect_gt(lines, 0);
    free(log);
    end();
}

Test(logins, files_that_are_broken_when_read_again_change_nothing)
{
    begin("root admin sha256=@" TOKEN "\n", "log-level: info\nlease: 7s\n");
    static const struct {
        const char *tokens, *configuration, *words;
    } tries[] = {
        { "root admin sha256=12\n", "log-level: error\nlease: 8s\n",
          "tokens:1: sha256 is not a SHA-256" },
        { "root admin sha256=@" TOKEN "\nother admin\n", "log-level: error\n",
          "tokens:2: \\\"other\\\" has no sha256=" },
        { "root reader sha256=@" TOKEN "\n", "log-level: error\nleese: 3s\n",
          "optimd.yaml:2: unknown key \\\"leese\\\"; perhaps lease" },
        { "root reader sha256=@" TOKEN "\n", "lease: 8\n", "optimd.yaml:1: lease" },
        { "root reader sha256=@" TOKEN "\n", "unix-users: nobody-of-that-name=admin\n",
          "unix-users: there is no user" },
    };
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        logins_write(files.tokens, tries[i].tokens);
        logins_write_text(config, tries[i].configuration);
        daemon_signal(&server, SIGHUP);
        cr_expect(daemon_logged(&server, tries[i].words, WAIT_MS), "%s",
                  tries[i].words);
        /* Still an admin, with the lease there was. */
        int fd = logins_enter(server.port, "", TOKEN);
        const struct opt_request delete = { .id = 3,
                                            .message = OPT_MESSAGE_DELETE,
                                            .body.delete_ = "nothing" };
        cr_expect_eq(logins_ask(fd, &delete, 0, NULL), OPT_NOT_FOUND);
        close(fd);
    }
    cr_expect_eq(unlink(files.tokens), 0);
    logins_write_text(config, "log-level: info\n");
    daemon_signal(&server, SIGHUP);
    cr_expect(daemon_logged(&server, "tokens: No such file", WAIT_MS));
    close(logins_enter(server.port, "", TOKEN));
    /* Made whole, all of it is taken up; what cannot change is named. */
    logins_write(files.tokens, "root admin sha256=@another\n");
    logins_write_text(config, "lease: 8s\nloops: 2\nmax-frame: 32MiB\n");
    daemon_signal(&server, SIGHUP);
    cr_expect(daemon_logged(&server, " reloaded ", WAIT_MS));
    cr_expect(daemon_logged(&server, "setting_not_changed setting=max-frame", 0));
    cr_expect(daemon_logged(&server, "setting_not_changed setting=loops", 0));
    cr_expect_not(daemon_logged(&server, "setting_not_changed setting=lease", 0));
    cr_expect_eq(try_token(TOKEN, strlen(TOKEN), NULL), OPT_UNAUTHENTICATED);
    int fd = raw_connect(server.port);
    const struct opt_request hello = {
        .id = 7,
        .message = OPT_MESSAGE_HELLO,
        .body.hello = { .protocol = OPT_PROTOCOL,
                        .worker = "w",
                        .session = 4,
                        .client = "test",
                        .token = (const uint8_t *)"another",
                        .token_size = strlen("another") },
    };
    struct raw_reply reply;
    cr_assert(raw_request(fd, &hello, NULL, 0));
    cr_assert(raw_receive(fd, &reply));
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_HELLO);
    cr_expect_eq(reply.reply.body.hello.lease_ms, 8000);
    raw_reply_fini(&reply);
    close(fd);
    end();
}

/* ---------------------------------------------------------------- secrets */

/* Whether the bytes are somewhere in the memory of the daemon that it can write to. */
static bool in_memory(pid_t pid, const char *bytes, size_t size)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%ld/maps", (long)pid);
    FILE *maps = fopen(path, "re");
    snprintf(path, sizeof path, "/proc/%ld/mem", (long)pid);
    int memory = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert(maps != NULL && memory >= 0, "%s", strerror(errno));
    bool found = false;
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long begin_at, end_at;
        char rights[8];
        if (sscanf(line, "%lx-%lx %7s", &begin_at, &end_at, rights) != 3 ||
            rights[1] != 'w' || strstr(line, "memfd") != NULL ||
            end_at - begin_at > (64UL << 20)) {
            continue;
        }
        char *copy = malloc(end_at - begin_at);
        cr_assert_not_null(copy);
        ssize_t got = pread(memory, copy, end_at - begin_at, (off_t)begin_at);
        found = found || (got > 0 && memmem(copy, (size_t)got, bytes, size) != NULL);
        free(copy);
    }
    fclose(maps);
    close(memory);
    return found;
}

/* Whether memory of the daemon that holds the name of a login is left out of dumps. */
static bool is_left_out(pid_t pid)
{
    char path[64], line[512];
    bool any = false;
    snprintf(path, sizeof path, "/proc/%ld/smaps", (long)pid);
    FILE *maps = fopen(path, "re");
    cr_assert_not_null(maps);
    while (fgets(line, sizeof line, maps) != NULL) {
        any = any || (strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " dd") != NULL);
    }
    fclose(maps);
    return any;
}

Test(logins, a_token_is_nowhere_once_it_has_been_looked_at)
{
    if (IS_SANITIZED) { /* which keeps what was freed, and maps terabytes */
        cr_skip_test("memory is looked through");
    }
    begin("w worker sha256=@" TOKEN "\n", "log-level: debug\n");
    /* Whole and in pieces, right and almost right, and in a hello that is wrong. */
    int fd = logins_enter(server.port, "w1", TOKEN);
    cr_expect_eq(try_token(TOKEN "x", sizeof TOKEN, NULL), OPT_UNAUTHENTICATED);
    struct opt_request hello = {
        .id = 7,
        .message = OPT_MESSAGE_HELLO,
        .body.hello = { .protocol = OPT_PROTOCOL,
                        .worker = "w3",
                        .session = 5,
                        .client = "test",
                        .token = (const uint8_t *)TOKEN,
                        .token_size = strlen(TOKEN) },
    };
    size_t size;
    uint8_t *frame = raw_frame(&hello, NULL, 0, &size);
    int slow = raw_connect(server.port);
    for (size_t i = 0; i < size; i++) {
        cr_assert(raw_send(slow, frame + i, 1));
    }
    struct raw_reply reply;
    cr_assert(raw_receive(slow, &reply));
    cr_expect_eq(reply.reply.message, OPT_MESSAGE_HELLO);
    raw_reply_fini(&reply);
    free(frame);
    hello.body.hello.session = 0;
    int wrong = raw_connect(server.port);
    cr_assert(raw_request(wrong, &hello, NULL, 0));
    raw_expect_error(wrong, 7, OPT_INVALID_ARGUMENT, "session");
    raw_heartbeat(fd, 12);
    cr_expect_not(in_memory(server.pid, TOKEN, strlen(TOKEN)), "it is in memory");
    cr_expect(is_left_out(server.pid));
    char *log = daemon_log(&server);
    cr_expect_null(strstr(log, TOKEN));
    cr_expect_null(strstr(log, "zX81qGm0"));
    free(log);
    close(wrong);
    close(slow);
    close(fd);
    end();
}

Test(logins, nothing_secret_is_told_by_settings_errors_or_process_lists)
{
    static const char *const lines[] = { "w worker sha256=" TOKEN "\n",
                                         "w worker " TOKEN "\n",
                                         "w worker " TOKEN "=1\n", "w " TOKEN "\n",
                                         "w worker sha256=@" TOKEN "\n" };
    logins_files_open(&files);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        bool right = i + 1 == sizeof lines / sizeof *lines;
        logins_write(files.tokens, lines[i]);
        daemon_spawn(&server, (const char *[]){ "--check-config", "--tokens",
                                                files.tokens, NULL });
        cr_expect_eq(daemon_wait(&server, WAIT_MS), right ? 0 : EX_CONFIG, "%s",
                     lines[i]);
        char *out = daemon_output(&server), *log = daemon_log(&server);
        char digest[LOGINS_HEX];
        cr_expect_null(strstr(log, TOKEN), "%s", log);
        cr_expect_null(strstr(out, TOKEN), "%s", out);
        cr_expect_null(strstr(out, logins_digest(TOKEN, digest)), "%s", out);
        cr_expect(right || strstr(log, "tokens:1: ") != NULL, "%s", log);
        free(out);
        free(log);
        daemon_remove(&server);
    }
    logins_write_text(files.token, TOKEN "\n");
    logins_write(files.tokens, "w worker sha256=@" TOKEN "\n");
    daemon_start(&server, (const char *[]){ "--login", "everybody", "--tokens",
                                            files.tokens, NULL });
    struct optclient_options options = optclient_options_default();
    struct optclient *client;
    options.token_file = files.token;
    cr_expect_eq(optclient_connect(server.address, &options, &client), OPTCLIENT_OK,
                 "%s", optclient_error());
    char path[64], line[4096];
    snprintf(path, sizeof path, "/proc/%ld/cmdline", (long)server.pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = read(fd, line, sizeof line);
    cr_assert_gt(got, 0);
    cr_expect_null(memmem(line, (size_t)got, TOKEN, strlen(TOKEN)));
    close(fd);
    optclient_close(client);
    /* Files that anybody may write are those of anybody. */
    cr_assert_eq(chmod(files.tokens, 0666), 0);
    daemon_signal(&server, SIGHUP);
    cr_expect(daemon_logged(&server, "every user may write to it", WAIT_MS));
    end();
}
