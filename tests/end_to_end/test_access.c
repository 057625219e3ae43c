/* Who may do what with a real daemon: each role and each message, names of models and
 * workers, users of Unix sockets, logins that end while they are used.
 */
#define _GNU_SOURCE /* memmem */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "client/optclient.h"
#include "server/access/login_list.h"
#include "server/messages/messages.h"
#include "tests/support/daemon.h"
#include "tests/support/logins.h"
#include "tests/support/raw.h"
#include "tests/support/wire_cases.h"

enum { WAIT_MS = 10000 };

static struct daemon_process server;
static struct logins_files files;

static void begin(const char *lines)
{
    logins_files_open(&files);
    logins_write(files.tokens, lines);
    daemon_start(&server, (const char *[]){ "--login", "everybody", "--tokens",
                                            files.tokens, NULL });
}

static void end(void)
{
    daemon_stop(&server);
    logins_files_close(&files);
}

static void reload(const char *lines, const char *event, size_t times)
{
    logins_write(files.tokens, lines);
    daemon_signal(&server, SIGHUP);
    for (int ms = 0; ms < WAIT_MS; ms += 10) {
        char *log = daemon_log(&server);
        size_t count = 0;
        for (const char *at = log; (at = strstr(at, event)) != NULL; at++) {
            count++;
        }
        free(log);
        if (count >= times) {
            return;
        }
        usleep(10000);
    }
    cr_assert_fail("the log has no %s", event);
}

static const char roles[] = "board reader sha256=@of-the-board\n"
                            "w worker sha256=@of-the-worker\n"
                            "root admin sha256=@of-the-admin\n";

static const struct {
    enum role role;
    const char *worker, *token;
} visitors[] = { { ROLE_READER, "", "of-the-board" },
                 { ROLE_WORKER, "w1", "of-the-worker" },
                 { ROLE_ADMIN, "w2", "of-the-admin" } };

/* A short wait where an answer depends on others. */
static struct opt_request quick(const struct wire_case *from, uint64_t id)
{
    struct opt_request request = from->any.as.request;
    request.id = id;
    request.timeout_ms = 100;
    request.has_checksum = false;
    return request;
}

static bool is_request(const struct wire_case *one)
{
    return one->any.kind == WIRE_REQUEST &&
           one->any.as.request.message != OPT_MESSAGE_HELLO &&
           message_row(one->any.as.request.message) != NULL;
}

Test(access, each_role_may_ask_for_what_it_is_for_and_nothing_else)
{
    begin(roles);
    bool seen[OPT_MESSAGE_LIMIT] = { false };
    for (size_t v = 0; v < sizeof visitors / sizeof *visitors; v++) {
        for (size_t i = 0; i < wire_case_count; i++) {
            const struct wire_case *one = &wire_cases[i];
            if (!is_request(one)) {
                continue;
            }
            int fd = logins_enter(server.port, visitors[v].worker, visitors[v].token);
            struct opt_request request = quick(one, 5);
            const struct message_row *row = message_row(request.message);
            enum opt_detail detail;
            enum opt_status status = logins_ask(fd, &request, one->data_size, &detail);
            bool may = visitors[v].role >= row->role;
            bool not_here =
                detail == OPT_DETAIL_NO_SERVICE || detail == OPT_DETAIL_NOT_SHARED;
            seen[request.message] = true;
            cr_expect(not_here || may == (detail != OPT_DETAIL_NOT_ALLOWED),
                      "%s of %s: %s, detail %d", one->name, visitors[v].token,
                      opt_status_name(status), (int)detail);
            cr_expect_neq(status, OPT_UNAUTHENTICATED);
            if (!may && !not_here) {
                cr_expect_eq(status, OPT_PERMISSION_DENIED);
            }
            close(fd);
        }
    }
    for (int message = 0; message < OPT_MESSAGE_LIMIT; message++) {
        cr_expect(message == OPT_MESSAGE_HELLO || seen[message] ||
                      message_row((enum opt_message)message) == NULL,
                  "nobody has tried %s", opt_message_name((enum opt_message)message));
    }
    end();
}

Test(access, nothing_but_hello_is_served_without_a_login)
{
    begin(roles);
    for (size_t i = 0; i < wire_case_count; i++) {
        const struct wire_case *one = &wire_cases[i];
        if (!is_request(one)) {
            continue;
        }
        int fd = raw_connect(server.port);
        struct opt_request request = quick(one, 9);
        enum opt_detail detail;
        enum opt_status status = logins_ask(fd, &request, one->data_size, &detail);
        cr_expect_eq(status, OPT_FAILED_PRECONDITION, "%s: %s", one->name,
                     opt_status_name(status));
        cr_expect_eq(detail, OPT_DETAIL_NO_HELLO);
        close(fd);
        /* And who was turned away cannot go on. */
        fd = raw_connect(server.port);
        cr_expect_eq(logins_hello(fd, "", "wrong", 5, NULL), OPT_UNAUTHENTICATED);
        (void)raw_request(fd, &request, NULL, 0);
        cr_expect(raw_closed(fd, WAIT_MS), "%s was served", one->name);
        close(fd);
    }
    end();
}

Test(access, a_login_for_some_models_cannot_touch_or_see_others)
{
    begin("w worker sha256=@of-the-worker models=mnist-*,shared\n"
          "board reader sha256=@of-the-board models=shared\n"
          "root admin sha256=@of-the-admin\n");
    struct optclient_options options = optclient_options_default();
    struct optclient *admin, *worker;
    options.token_file = files.token;
    logins_write_text(files.token, "of-the-admin\n");
    cr_assert_eq(optclient_connect(server.address, &options, &admin), OPTCLIENT_OK,
                 "%s", optclient_error());
    logins_write_text(files.token, "of-the-worker\n");
    cr_assert_eq(optclient_connect(server.address, &options, &worker), OPTCLIENT_OK,
                 "%s", optclient_error());
    const struct optclient_tensor tensor = { .name = "t", .rank = 0 };
    struct optclient_model *model, *other;
    cr_assert_eq(
        optclient_create(admin, "secret", "sgd(lr=1)", NULL, &tensor, 1, NULL, &model),
        OPTCLIENT_OK, "%s", optclient_error());
    cr_expect_eq(optclient_open(worker, "secret", 1, &other),
                 OPTCLIENT_PERMISSION_DENIED);
    cr_expect_not_null(strstr(optclient_error(), "may not use the model \"secret\""),
                       "%s", optclient_error());
    cr_expect_eq((int)optclient_detail(), (int)OPTCLIENT_NOT_ALLOWED);
    cr_expect_eq(
        optclient_create(worker, "secret", "sgd(lr=1)", NULL, &tensor, 1, NULL, &other),
        OPTCLIENT_PERMISSION_DENIED);
    cr_expect_eq(
        optclient_create(worker, "shared", "sgd(lr=1)", NULL, &tensor, 1, NULL, &other),
        OPTCLIENT_OK, "%s", optclient_error());
    /* Not by its number either, and names like one's own do not give it away. */
    int fd = logins_enter(server.port, "w9", "of-the-worker");
    enum opt_detail detail;
    for (uint32_t number = 1; number <= 2; number++) {
        struct opt_request pull = { .id = 3,
                                    .message = OPT_MESSAGE_PULL,
                                    .body.pull = { .model = number, .slot = "" } };
        (void)logins_ask(fd, &pull, 0, &detail);
        cr_expect_eq(detail == OPT_DETAIL_NOT_ALLOWED, number == 1, "%u", number);
    }
    struct opt_request list = { .id = 4, .message = OPT_MESSAGE_LIST };
    struct raw_reply reply;
    cr_assert(raw_request(fd, &list, NULL, 0));
    cr_assert(raw_receive(fd, &reply));
    cr_assert_gt(reply.data_size, 0);
    cr_expect_null(memmem(reply.data, reply.data_size, "secret", 6));
    cr_expect_not_null(memmem(reply.data, reply.data_size, "shared", 6));
    raw_reply_fini(&reply);
    close(fd);
    optclient_close(worker);
    optclient_close(admin);
    end();
}

Test(access, a_login_bound_to_names_speaks_for_no_other_worker)
{
    begin("w worker sha256=@of-the-worker workers=mlp-?,mlp-x*\n"
          "board reader sha256=@of-the-board\n");
    static const struct {
        const char *worker, *token, *words;
    } tries[] = { { "mlp-1", "of-the-worker", NULL },
                  { "mlp-x99", "of-the-worker", NULL },
                  { "", "of-the-worker", NULL },
                  { "mlp-12", "of-the-worker", "may not speak for the worker" },
                  { "other", "of-the-worker", "may not speak for the worker" },
                  { "mlp-1", "of-the-board", "may not speak for a worker" },
                  { "", "of-the-board", NULL } };
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        char text[OPT_ERROR_TEXT];
        int fd = raw_connect(server.port);
        enum opt_status status = logins_hello(fd, tries[i].worker, tries[i].token,
                                              strlen(tries[i].token), text);
        cr_expect_eq(status, tries[i].words == NULL ? OPT_OK : OPT_PERMISSION_DENIED,
                     "%s as %s: %s", tries[i].token, tries[i].worker, text);
        cr_expect(tries[i].words == NULL || strstr(text, tries[i].words) != NULL, "%s",
                  text);
        close(fd);
    }
    end();
}

Test(access, a_token_that_is_taken_back_or_ends_is_of_no_use_at_the_next_request)
{
    char lines[512], when[LOGIN_TIME];
    login_time_print((uint64_t)time(NULL) + 2, when);
    snprintf(lines, sizeof lines,
             "short reader sha256=@of-the-short expires=%s\n"
             "w worker sha256=@of-the-worker\n",
             when);
    begin(lines);
    int fd = logins_enter(server.port, "", "of-the-short");
    struct opt_request beat = { .id = 8, .message = OPT_MESSAGE_HEARTBEAT };
    enum opt_status status = OPT_OK;
    for (int i = 0; i < 1000 && status == OPT_OK; i++) {
        status = logins_ask(fd, &beat, 0, NULL);
        usleep(10000);
    }
    cr_expect_eq(status, OPT_UNAUTHENTICATED);
    cr_expect(raw_closed(fd, WAIT_MS));
    close(fd);
    cr_expect_eq(
        logins_hello(fd = raw_connect(server.port), "", "of-the-short", 12, NULL),
        OPT_UNAUTHENTICATED);
    close(fd);
    fd = logins_enter(server.port, "w1", "of-the-worker");
    int still = logins_enter(server.port, "w2", "of-the-worker");
    reload("w worker sha256=@another\n", " reloaded ", 1);
    cr_expect_eq(logins_ask(fd, &beat, 0, NULL), OPT_UNAUTHENTICATED);
    cr_expect(raw_closed(fd, WAIT_MS));
    close(fd);
    /* Goodbye is always understood. */
    struct opt_request bye = { .id = 9, .message = OPT_MESSAGE_GOODBYE };
    cr_expect_eq(logins_ask(still, &bye, 0, NULL), OPT_OK);
    close(still);
    end();
}

Test(access, a_client_goes_on_with_the_token_that_replaced_its_own)
{
    begin("w worker sha256=@of-the-worker\n");
    struct optclient_options options = optclient_options_default();
    struct optclient *client;
    struct optclient_model *model;
    options.worker = "w1";
    options.token_file = files.token;
    logins_write_text(files.token, "  of-the-worker \r\nand more\n");
    cr_assert_eq(optclient_connect(server.address, &options, &client), OPTCLIENT_OK,
                 "%s", optclient_error());
    const struct optclient_tensor tensor = { .name = "t", .rank = 0 };
    cr_assert_eq(
        optclient_create(client, "m", "sgd(lr=1)", NULL, &tensor, 1, NULL, &model),
        OPTCLIENT_OK, "%s", optclient_error());
    float gradient = 1, weight = 0;
    struct optclient_values push = { .values = &gradient },
                            pull = { .values = &weight };
    for (int i = 0; i < 3; i++) {
        char line[64], token[32];
        cr_assert_eq(optclient_push_pull(model, &push, 1, NULL, &pull, 1, NULL, NULL),
                     OPTCLIENT_OK, "%s", optclient_error());
        snprintf(token, sizeof token, "number-%d", i);
        snprintf(line, sizeof line, "w worker sha256=@%s\n", token);
        logins_write_text(files.token, token);
        reload(line, " reloaded ", (size_t)i + 1);
    }
    cr_assert_eq(optclient_push_pull(model, &push, 1, NULL, &pull, 1, NULL, NULL),
                 OPTCLIENT_OK, "%s", optclient_error());
    cr_expect_eq(weight, -4.0F);
    /* One that is taken back for good is told so, and asks no more. */
    reload("other worker sha256=@other\n", " reloaded ", 4);
    cr_expect_eq(optclient_push(model, &push, 1, NULL, NULL), OPTCLIENT_UNAUTHENTICATED,
                 "%s", optclient_error());
    cr_expect_eq((int)optclient_detail(), (int)OPTCLIENT_NO_LOGIN);
    cr_expect_null(strstr(optclient_error(), "number-2"));
    optclient_close(client);
    end();
}

Test(access, users_of_unix_sockets_have_the_roles_they_are_given)
{
    char users[64], address[DAEMON_PATH + 32];
    static const struct {
        const char *format, *word;
        enum optclient_status status;
    } tries[] = { { "%u=reader", "role reader", OPTCLIENT_PERMISSION_DENIED },
                  { "*=worker", "role worker", OPTCLIENT_PERMISSION_DENIED },
                  { "%u=admin,*=reader", "there is no model", OPTCLIENT_NOT_FOUND },
                  { "4242424=admin", "the login was refused",
                    OPTCLIENT_UNAUTHENTICATED } };
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        snprintf(users, sizeof users, "%s", tries[i].format);
        if (strstr(tries[i].format, "%u") != NULL) {
            snprintf(users, sizeof users, "%u%s", (unsigned)getuid(),
                     tries[i].format + 2);
        }
        daemon_start(&server, (const char *[]){ "--unix-users", users, "--unix-mode",
                                                "0600", NULL });
        snprintf(address, sizeof address, "unix:%s/socket", server.directory);
        struct optclient_options options = optclient_options_default();
        struct optclient *client = NULL;
        options.worker = "";
        enum optclient_status status = optclient_connect(address, &options, &client);
        if (status == OPTCLIENT_OK) {
            status = optclient_delete(client, "nothing");
        }
        cr_expect_eq(status, tries[i].status, "%s: %s", users, optclient_error());
        cr_expect_not_null(strstr(optclient_error(), tries[i].word), "%s: %s", users,
                           optclient_error());
        optclient_close(client);
        /* This machine's ports stay open, as long as nobody asks for a login there. */
        char tcp[32];
        snprintf(tcp, sizeof tcp, "127.0.0.1:%u", (unsigned)server.port);
        cr_expect_eq(optclient_connect(tcp, &options, &client), OPTCLIENT_OK);
        optclient_close(client);
        daemon_stop(&server);
    }
}
