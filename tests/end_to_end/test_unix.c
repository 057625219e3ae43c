/* The daemon on Unix sockets: beside ports and alone, the file it makes, and whose file
 * it may remove.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/daemon.h"

static struct daemon_process server;
static char path[DAEMON_PATH + 16], address[DAEMON_PATH + 32];

static void start(void)
{
    daemon_start(&server, NULL);
    snprintf(path, sizeof(path), "%s/socket", server.directory);
    snprintf(address, sizeof(address), "unix:%s", path);
}

static struct optclient *connect_to(const char *where)
{
    struct optclient_options options = optclient_options_default();
    struct optclient *client;
    options.connect_timeout_ms = 5000;
    cr_assert_eq(optclient_connect(where, &options, &client), OPTCLIENT_OK, "%s",
                 optclient_error());
    return client;
}

static struct optclient_model *model_of(struct optclient *client)
{
    const uint64_t shape[] = { 3 };
    const struct optclient_tensor tensor = { .name = "w", .shape = shape, .rank = 1 };
    struct optclient_model *model;
    cr_assert_eq(
        optclient_create(client, "m", "sgd(lr=1)", NULL, &tensor, 1, NULL, &model),
        OPTCLIENT_OK, "%s", optclient_error());
    return model;
}

/* A second daemon for the address of the first ends with that status, and says why. */
static void expect_refused(const char *where, const char *words)
{
    struct daemon_process other = { .pid = 0 };
    daemon_spawn(&other, (const char *[]){ "--listen", where, NULL });
    cr_expect_eq(daemon_wait(&other, DAEMON_WAIT_MS), EX_UNAVAILABLE);
    char *log = daemon_log(&other);
    cr_expect_not_null(strstr(log, words), "%s", log);
    free(log);
    daemon_remove(&other);
}

Test(unix_socket, is_one_daemon_with_the_port)
{
    start();
    char tcp[32];
    snprintf(tcp, sizeof(tcp), "127.0.0.1:%u", (unsigned)server.port);
    struct optclient *here = connect_to(address), *there = connect_to(tcp);
    struct optclient_model *one = model_of(here), *same = model_of(there);
    float gradient[3] = { 1, 2, 3 }, weights[3];
    struct optclient_values push = { .values = gradient }, pull = { .values = weights };
    struct optclient_call *call;
    struct optclient_result result;
    cr_assert_eq(optclient_push_start(one, &push, 1, NULL, NULL, NULL, &call),
                 OPTCLIENT_OK);
    cr_assert_eq(optclient_push_pull(same, &push, 1, NULL, &pull, 1, NULL, &result),
                 OPTCLIENT_OK, "%s", optclient_error());
    cr_assert_eq(optclient_call_wait(call, NULL), OPTCLIENT_OK, "%s",
                 optclient_error());
    optclient_call_free(call);
    cr_expect_eq(result.step, 1);
    for (size_t i = 0; i < 3; i++) {
        cr_expect_eq(weights[i], -gradient[i]);
    }
    optclient_close(here);
    optclient_close(there);
    cr_expect(daemon_logged(&server, "unix:pid=", 0));
    daemon_stop(&server);
}

Test(unix_socket, is_open_to_owner_and_group_and_goes_with_the_daemon)
{
    start();
    struct stat file;
    cr_assert_eq(stat(path, &file), 0);
    cr_expect(S_ISSOCK(file.st_mode));
    cr_expect_eq(file.st_mode & 0777u, 0660u, "%o", file.st_mode & 0777u);
    daemon_signal(&server, SIGTERM);
    cr_expect_eq(daemon_wait(&server, DAEMON_WAIT_MS), 0);
    cr_expect_neq(stat(path, &file), 0, "it is still there");
    daemon_remove(&server);
}

Test(unix_socket, of_a_daemon_that_was_killed_is_taken_over)
{
    start();
    daemon_signal(&server, SIGKILL);
    cr_assert_eq(daemon_wait(&server, DAEMON_WAIT_MS), 128 + SIGKILL);
    cr_assert_eq(access(path, F_OK), 0, "a killed daemon cannot have removed it");
    struct daemon_process next = { .pid = 0 };
    daemon_spawn(&next, (const char *[]){ "--listen", address, NULL });
    struct optclient *client = connect_to(address);
    optclient_close(client);
    daemon_signal(&next, SIGTERM);
    cr_expect_eq(daemon_wait(&next, DAEMON_WAIT_MS), 0);
    daemon_remove(&next);
    daemon_remove(&server);
}

Test(unix_socket, of_a_living_daemon_is_left_to_it)
{
    start();
    expect_refused(address, "Address already in use");
    struct optclient *client = connect_to(address);
    optclient_close(client);
    daemon_stop(&server);
}

Test(unix_socket, replaces_no_other_file)
{
    start();
    char other[DAEMON_PATH + 16], where[DAEMON_PATH + 32];
    snprintf(other, sizeof(other), "%s/precious", server.directory);
    snprintf(where, sizeof(where), "unix:%s", other);
    int fd = open(other, O_WRONLY | O_CREAT | O_EXCL, 0600);
    cr_assert_geq(fd, 0);
    close(fd);
    expect_refused(where, "Address already in use");
    cr_expect_eq(access(other, F_OK), 0);
    expect_refused("unix:/nowhere/at/all", "No such file or directory");
    daemon_stop(&server);
}

Test(unix_socket, that_is_not_there_is_waited_for)
{
    struct optclient *client;
    struct optclient_options options = { .connect_timeout_ms = 300 };
    cr_expect_eq(optclient_connect("unix:/nowhere/optimd.sock", &options, &client),
                 OPTCLIENT_DEADLINE_EXCEEDED);
    cr_expect_not_null(strstr(optclient_error(), "No such file"), "%s",
                       optclient_error());
}
