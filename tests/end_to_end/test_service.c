/* The daemon under a service manager: told when it serves and when it stops, by
 * datagrams as systemd takes them; and who may use its Unix socket.
 */
#include <criterion/criterion.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/daemon.h"

static struct daemon_process server;
static int manager = -1; /* where a manager would listen */

/* name: a path, or '@' and a name without a file. */
static void listen_at(const char *name)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    size_t size = strlen(name);
    cr_assert_lt(size, sizeof(address.sun_path));
    memcpy(address.sun_path, name, size);
    if (name[0] == '@') {
        address.sun_path[0] = '\0';
    }
    manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(manager, 0);
    cr_assert_eq(bind(manager, (const struct sockaddr *)&address,
                      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size)),
                 0);
    cr_assert_eq(setenv("NOTIFY_SOCKET", name, 1), 0);
}

static void expect_told(const char *state)
{
    char text[64] = "";
    struct pollfd end = { .fd = manager, .events = POLLIN };
    cr_assert_eq(poll(&end, 1, DAEMON_WAIT_MS), 1, "was not told %s", state);
    cr_assert_gt(recv(manager, text, sizeof(text) - 1, 0), 0);
    cr_expect_str_eq(text, state);
}

/* Without waiting for it: whoever was told that it serves is served. */
static enum optclient_status connect_once(const char *address)
{
    struct optclient_options options = optclient_options_default();
    struct optclient *client = NULL;
    options.worker = "";
    options.connect_timeout_ms = 1000;
    options.backoff_min_ms = 10000;
    enum optclient_status status = optclient_connect(address, &options, &client);
    optclient_close(client);
    return status;
}

Test(service, tells_its_manager_when_it_serves_and_when_it_stops)
{
    char directory[] = "/tmp/optimd-manager-XXXXXX", name[64], listen[64];
    cr_assert_not_null(mkdtemp(directory));
    snprintf(name, sizeof(name), "%s/notify", directory);
    snprintf(listen, sizeof(listen), "unix:%s/socket", directory);
    listen_at(name);
    daemon_spawn(&server, (const char *[]){ "--listen", listen, NULL });
    expect_told("READY=1");
    cr_expect_eq(connect_once(listen), OPTCLIENT_OK, "%s", optclient_error());
    daemon_signal(&server, SIGTERM);
    expect_told("STOPPING=1");
    cr_expect_eq(daemon_wait(&server, DAEMON_WAIT_MS), EX_OK);
    daemon_remove(&server);
    close(manager);
    unlink(name);
    rmdir(directory);
}

Test(service, tells_a_manager_whose_socket_has_no_file)
{
    char name[64];
    snprintf(name, sizeof(name), "@optimd-manager-%ld", (long)getpid());
    listen_at(name);
    daemon_start(&server, NULL);
    expect_told("READY=1");
    daemon_stop(&server);
    close(manager);
}

Test(service, does_not_say_that_it_serves_where_it_cannot)
{
    char name[64], taken[64];
    daemon_start(&server, NULL);
    snprintf(name, sizeof(name), "@optimd-manager-%ld", (long)getpid());
    snprintf(taken, sizeof(taken), "127.0.0.1:%u", (unsigned)server.port);
    listen_at(name);
    struct daemon_process other = { .pid = 0 };
    daemon_spawn(&other, (const char *[]){ "--listen", taken, NULL });
    cr_expect_eq(daemon_wait(&other, DAEMON_WAIT_MS), EX_UNAVAILABLE);
    daemon_remove(&other);
    char text[64];
    cr_expect_lt(recv(manager, text, sizeof(text), MSG_DONTWAIT), 0);
    daemon_stop(&server);
    close(manager);
}

Test(service, serves_though_its_manager_cannot_be_told)
{
    static const char *const nowhere[] = { "/tmp/there/is/nobody", "relative", "@" };
    for (size_t i = 0; i < sizeof(nowhere) / sizeof(nowhere[0]); i++) {
        cr_assert_eq(setenv("NOTIFY_SOCKET", nowhere[i], 1), 0);
        daemon_start(&server, NULL);
        cr_expect(daemon_logged(&server, "manager_not_told", DAEMON_WAIT_MS), "%s",
                  nowhere[i]);
        cr_expect_eq(connect_once(server.address), OPTCLIENT_OK, "%s",
                     optclient_error());
        daemon_stop(&server);
        server = (struct daemon_process){ 0 };
    }
}

/* As somebody of that user and one more group. */
static enum optclient_status connect_as(const char *address, uid_t user, gid_t group)
{
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        if (setgroups(1, &group) != 0 || setgid(user) != 0 || setuid(user) != 0) {
            _exit(255);
        }
        _exit((int)connect_once(address));
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) != 255);
    return (enum optclient_status)WEXITSTATUS(status);
}

/* What optimd.service does: a folder of mode 0750 and a socket of 0660, of one group.
 */
Test(service, lets_the_members_of_its_group_use_its_socket)
{
    enum { GROUP = 64000, MEMBER = 64001, STRANGER = 64002 };
    if (geteuid() != 0) {
        cr_skip_test("only root can be somebody else");
    }
    cr_assert_eq(setegid(GROUP), 0);
    daemon_start(&server, NULL);
    cr_assert_eq(setegid(0), 0);
    char path[DAEMON_PATH + 16], address[DAEMON_PATH + 32];
    struct stat file;
    snprintf(path, sizeof(path), "%s/socket", server.directory);
    snprintf(address, sizeof(address), "unix:%s", path);
    cr_assert_eq(chmod(server.directory, 0750), 0);
    cr_assert_eq(stat(path, &file), 0);
    cr_expect_eq(file.st_mode & 07777u, 0660u);
    cr_expect_eq(file.st_gid, (gid_t)GROUP);
    cr_expect_eq(connect_as(address, MEMBER, GROUP), OPTCLIENT_OK);
    cr_expect_neq(connect_as(address, STRANGER, STRANGER), OPTCLIENT_OK);
    daemon_stop(&server);
}
