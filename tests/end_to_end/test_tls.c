/* The daemon with TLS and real certificates: who is served, who is not and what they
 * are told, what half a handshake can hold, and certificates that change while workers
 * train.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "client/optclient.h"
#include "common/log.h"
#include "common/tls.h"
#include "tests/support/certificates.h"
#include "tests/support/daemon.h"
#include "tests/support/operator.h"
#include "tests/support/raw.h"
#include "tests/support/sanitized.h"

enum { WAIT_MS = 10000, SOON_MS = 2000, MANY = 1000, IDLE_MOST = 64 << 20 };

static struct certificates files;
static struct daemon_process server;

static void start_with(const char *const *more)
{
    const char *options[24] = { "--tls-cert", files.cert,        "--tls-key",
                                files.key,    "--tls-client-ca", files.ca };
    for (size_t i = 0; more != NULL && more[i] != NULL; i++) {
        options[6 + i] = more[i];
    }
    unsetenv("OPTIMD_TRANSPORT");
    daemon_start(&server, options);
}

static void start(void)
{
    certificates_make(&files);
    start_with(NULL);
}

static void make(void)
{
    certificates_make(&files);
}

static void stop(void)
{
    daemon_stop(&server);
    certificates_remove(&files);
}

static void clean(void)
{
    certificates_remove(&files);
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Connect with these files; *out is NULL if that fails. */
static enum optclient_status try(const char *address, const char *ca, const char *cert,
                                 const char *key, struct optclient **out)
{
    struct optclient_options options = optclient_options_default();
    options.connect_timeout_ms = WAIT_MS;
    options.ca = ca;
    options.cert = cert;
    options.key = key;
    *out = NULL;
    return optclient_connect(address, &options, out);
}

static struct optclient *connect_well(void)
{
    struct optclient *client;
    cr_assert_eq(
        try(server.address, files.ca, files.client_cert, files.client_key, &client),
        OPTCLIENT_OK, "%s", optclient_error());
    return client;
}

/* That fails soon, with this status and words. */
static void expect_refused(const char *address, const char *ca, const char *cert,
                           const char *key, enum optclient_status status,
                           const char *words)
{
    struct optclient *client;
    int64_t begin = now_ms();
    cr_expect_eq(try(address, ca, cert, key, &client), status, "%s: %s", words,
                 optclient_error());
    cr_expect_not_null(strstr(optclient_error(), words), "%s lacks %s",
                       optclient_error(), words);
    cr_expect_lt(now_ms() - begin, IS_SANITIZED ? WAIT_MS : SOON_MS, "%s", words);
    optclient_close(client);
}

static struct optclient_model *model_of(struct optclient *client, const char *name)
{
    const uint64_t shape[] = { 3 };
    const struct optclient_tensor tensor = { .name = "w", .shape = shape, .rank = 1 };
    const struct optclient_policy policy = { .mode = OPTCLIENT_ASYNC };
    struct optclient_model *model;
    cr_assert_eq(
        optclient_create(client, name, "sgd(lr=1)", &policy, &tensor, 1, NULL, &model),
        OPTCLIENT_OK, "%s", optclient_error());
    return model;
}

static void push_one(struct optclient_model *model)
{
    float gradient[3] = { 1, 2, 3 };
    struct optclient_values push = { .values = gradient };
    struct optclient_result result;
    cr_assert_eq(optclient_push(model, &push, 1, NULL, &result), OPTCLIENT_OK, "%s",
                 optclient_error());
}

static void expect_weights(struct optclient_model *model, float factor)
{
    float weights[3] = { 9, 9, 9 };
    struct optclient_values pull = { .values = weights };
    struct optclient_result result;
    cr_assert_eq(optclient_pull(model, &pull, 1, NULL, &result), OPTCLIENT_OK, "%s",
                 optclient_error());
    for (int i = 0; i < 3; i++) {
        cr_expect_eq(weights[i], -factor * (float)(i + 1));
    }
}

/* A plain connection. */
static int dial(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons(server.port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

/* ------------------------------------------------------------------- who is served */

Test(tls, serves_who_shows_a_certificate, .init = start, .fini = stop)
{
    struct optclient *client = connect_well();
    struct optclient_model *model = model_of(client, "m");
    push_one(model);
    push_one(model);
    expect_weights(model, 2);
    optclient_close(client);
}

Test(tls, is_reached_by_name_address_and_environment, .init = start, .fini = stop)
{
    char url[1024];
    struct optclient *client;
    snprintf(url, sizeof(url), "optimds://localhost:%u/?ca=%s&cert=%s&key=%%2f%s",
             (unsigned)server.port, files.ca, files.client_cert, files.client_key + 1);
    cr_assert_eq(optclient_connect(url, NULL, &client), OPTCLIENT_OK, "%s",
                 optclient_error());
    optclient_close(client);
    setenv("OPTIMD_URL", url, 1);
    cr_assert_eq(optclient_connect(NULL, NULL, &client), OPTCLIENT_OK, "%s",
                 optclient_error());
    optclient_close(client);
    setenv("OPTIMD_CA", files.ca, 1);
    setenv("OPTIMD_CERT", files.client_cert, 1);
    setenv("OPTIMD_KEY", files.client_key, 1);
    cr_assert_eq(optclient_connect(server.address, NULL, &client), OPTCLIENT_OK, "%s",
                 optclient_error());
    optclient_close(client);
    /* The Unix socket beside it is as open as ever. */
    snprintf(url, sizeof(url), "unix:%s/socket", server.directory);
    cr_assert_eq(optclient_connect(url, NULL, &client), OPTCLIENT_OK, "%s",
                 optclient_error());
    optclient_close(client);
    cr_expect_eq(RUN("--server", server.address, "ping"), 0, "%s", operator_out);
    unsetenv("OPTIMD_CA");
    cr_expect_eq(RUN("--server", server.address, "--ca", files.ca, "ping"), 0, "%s",
                 operator_out);
}

Test(tls, tells_whoever_is_not_believed, .init = start, .fini = stop)
{
    struct certificates others;
    certificates_make(&others);
    expect_refused(server.address, files.ca, NULL, NULL, OPTCLIENT_UNAUTHENTICATED,
                   "wants a certificate of its CA");
    expect_refused(server.address, files.ca, others.client_cert, others.client_key,
                   OPTCLIENT_UNAUTHENTICATED, "certificate of CN=worker");
    expect_refused(server.address, files.ca, others.client_cert, others.client_key,
                   OPTCLIENT_UNAUTHENTICATED, "not of a CA that is believed");
    /* A daemon's own certificate is not one for clients. */
    expect_refused(server.address, files.ca, files.cert, files.key,
                   OPTCLIENT_UNAUTHENTICATED, "not made for this end");
    expect_refused(server.address, others.ca, files.client_cert, files.client_key,
                   OPTCLIENT_UNAUTHENTICATED, "daemon's certificate is not believed");
    cr_expect(daemon_logged(&server, "connection_refused", WAIT_MS));
    /* Nobody was let in, and the daemon has counted that. */
    char address[DAEMON_PATH + 32];
    snprintf(address, sizeof(address), "unix:%s/socket", server.directory);
    cr_assert_eq(RUN("--server", address, "--json", "stats"), 0);
    json_t *counters = operator_json();
    cr_expect_eq(json_integer_value(json_object_get(counters, "handshakes")), 0);
    cr_expect_geq(json_integer_value(json_object_get(counters, "handshakes_failed")),
                  4);
    json_decref(counters);
    certificates_remove(&others);
}

Test(tls, tells_whose_time_is_over_or_has_not_come, .init = start, .fini = stop)
{
    char cert[CERTIFICATES_PATH], key[CERTIFICATES_PATH];
    if (!certificates_can_shift()) {
        cr_skip("needs libfaketime, and a build without sanitizers");
    }
    certificates_add(&files, "-40d",
                     (const char *[]){ "client", "old", "--days", "30", NULL });
    certificates_add(&files, "+40d", (const char *[]){ "client", "early", NULL });
    certificates_path(&files, "old.crt", cert);
    certificates_path(&files, "old.key", key);
    /* One's own is looked at before anybody is asked. */
    expect_refused(server.address, files.ca, cert, key, OPTCLIENT_INVALID_ARGUMENT,
                   "it has expired on");
    certificates_path(&files, "early.crt", cert);
    certificates_path(&files, "early.key", key);
    expect_refused(server.address, files.ca, cert, key, OPTCLIENT_INVALID_ARGUMENT,
                   "it is not valid before");
}

Test(tls, asks_nobody_or_does_not_insist_if_told_so, .init = make, .fini = clean)
{
    struct certificates others;
    struct optclient *client;
    certificates_make(&others);
    start_with((const char *[]){ "--tls-clients", "optional", NULL });
    cr_expect_eq(try(server.address, files.ca, NULL, NULL, &client), OPTCLIENT_OK, "%s",
                 optclient_error());
    optclient_close(client);
    expect_refused(server.address, files.ca, others.client_cert, others.client_key,
                   OPTCLIENT_UNAUTHENTICATED, "not of a CA that is believed");
    daemon_stop(&server);
    start_with((const char *[]){ "--tls-clients", "none", NULL });
    cr_expect_eq(
        try(server.address, files.ca, others.client_cert, others.client_key, &client),
        OPTCLIENT_OK, "%s", optclient_error());
    optclient_close(client);
    daemon_stop(&server);
    certificates_remove(&others);
}

Test(tls, is_not_believed_under_another_name, .init = make, .fini = clean)
{
    char cert[CERTIFICATES_PATH], key[CERTIFICATES_PATH];
    certificates_add(&files, NULL,
                     (const char *[]){ "server", "elsewhere.example", NULL });
    certificates_path(&files, "elsewhere.example.crt", cert);
    certificates_path(&files, "elsewhere.example.key", key);
    unsetenv("OPTIMD_TRANSPORT");
    daemon_start(&server,
                 (const char *[]){ "--tls-cert", cert, "--tls-key", key, NULL });
    expect_refused(server.address, files.ca, NULL, NULL, OPTCLIENT_UNAUTHENTICATED,
                   "not for 127.0.0.1 but for CN=elsewhere.example");
    daemon_stop(&server);
}

/* ------------------------------------------------------------------- who is confused
 */

Test(tls, tells_who_speaks_plainly, .init = start, .fini = stop)
{
    struct optclient *client;
    expect_refused(server.address, NULL, NULL, NULL, OPTCLIENT_UNAUTHENTICATED,
                   "for TLS alone");
    cr_expect(daemon_logged(&server, "does not speak TLS", WAIT_MS));
    cr_expect_eq(try(server.address, files.ca, files.client_cert, NULL, &client),
                 OPTCLIENT_INVALID_ARGUMENT);
    cr_expect_not_null(strstr(optclient_error(), "no key"), "%s", optclient_error());
}

Test(tls, tells_who_speaks_it_to_a_plain_address, .init = make, .fini = clean)
{
    unsetenv("OPTIMD_TRANSPORT");
    daemon_start(&server, NULL);
    expect_refused(server.address, files.ca, NULL, NULL, OPTCLIENT_FAILED_PRECONDITION,
                   "does not speak TLS at this address");
    cr_expect(daemon_logged(&server, "the peer speaks TLS", WAIT_MS));
    daemon_stop(&server);
}

Test(tls, refuses_tls_1_2, .init = start, .fini = stop)
{
    char command[512];
    snprintf(command, sizeof(command),
             "openssl s_client -tls1_2 -connect 127.0.0.1:%u </dev/null 2>&1 | "
             "grep -q 'alert protocol version'",
             (unsigned)server.port);
    if (system("command -v openssl >/dev/null") != 0) { /* NOLINT: of our making */
        cr_skip("needs openssl");
    }
    cr_expect_eq(system(command), 0); /* NOLINT */
    cr_expect(daemon_logged(&server, "does not speak TLS 1.3", WAIT_MS));
}

Test(tls, is_refused_in_addresses_that_make_no_sense, .init = make, .fini = clean)
{
    static const struct {
        const char *address, *words;
    } wrong[] = {
        { "optimds://127.0.0.1:1?cb=x", "\"cb\"" },
        { "optimds://127.0.0.1:1?ca=x&ca=y", "twice" },
        { "optimds://127.0.0.1:1?ca=", "without a file" },
        { "optimds://127.0.0.1:1?ca=%4", "hexadecimal" },
        { "optimds://127.0.0.1:1?ca=a%00b", "hexadecimal" },
        { "optimds://127.0.0.1:1/model", "expected the end" },
        { "optimd://127.0.0.1:1?ca=x", "optimd:// has no TLS" },
        { "optimds://unix:/tmp/x", "expected the end" },
        { "optimds://127.0.0.1", "no port" },
        { "optimds://127.0.0.1:1?ca=/nowhere/ca.crt", "/nowhere/ca.crt" },
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        expect_refused(wrong[i].address, NULL, NULL, NULL, OPTCLIENT_INVALID_ARGUMENT,
                       wrong[i].words);
    }
    expect_refused("optimd://127.0.0.1:1", files.ca, NULL, NULL,
                   OPTCLIENT_INVALID_ARGUMENT, "optimd:// has no TLS");
    expect_refused("127.0.0.1:1", files.key, NULL, NULL, OPTCLIENT_INVALID_ARGUMENT,
                   "has no certificate in PEM form");
    expect_refused("127.0.0.1:1", files.ca, files.client_cert, files.key,
                   OPTCLIENT_INVALID_ARGUMENT, "does not belong");
}

/* ------------------------------------------------------------------- the start */

/* It ends with EX_CONFIG and says these words. */
static void expect_no_start(const char *const *options, const char *words)
{
    struct daemon_process daemon = { .pid = 0 };
    daemon_spawn(&daemon, options);
    cr_expect_eq(daemon_wait(&daemon, WAIT_MS), EX_CONFIG, "%s", words);
    char *log = daemon_log(&daemon);
    cr_expect_not_null(strstr(log, words), "%s: %s", words, log);
    free(log);
    daemon_remove(&daemon);
}

Test(tls, does_not_start_with_files_that_are_no_good, .init = make, .fini = clean)
{
    char old[CERTIFICATES_PATH], old_key[CERTIFICATES_PATH];
    expect_no_start((const char *[]){ "--tls-cert", files.cert, NULL },
                    "needs both a certificate and its key");
    expect_no_start((const char *[]){ "--tls-client-ca", files.ca, NULL },
                    "only asked for with TLS");
    expect_no_start((const char *[]){ "--tls-cert", files.cert, "--tls-key", files.key,
                                      "--tls-clients", "required", NULL },
                    "give tls-client-ca");
    expect_no_start((const char *[]){ "--tls-cert", files.cert, "--tls-key",
                                      files.client_key, NULL },
                    "does not belong");
    expect_no_start(
        (const char *[]){ "--tls-cert", "/nowhere", "--tls-key", files.key, NULL },
        "\"/nowhere\" cannot be read: No such file");
    expect_no_start(
        (const char *[]){ "--tls-cert", files.key, "--tls-key", files.key, NULL },
        "has no certificate in PEM form");
    /* Others may reach it only if they have to show who they are. */
    expect_no_start((const char *[]){ "--listen", "0.0.0.0:0", "--tls-cert", files.cert,
                                      "--tls-key", files.key, NULL },
                    "can be reached from other machines");
    expect_no_start((const char *[]){ "--listen", "0.0.0.0:0", "--tls-cert", files.cert,
                                      "--tls-key", files.key, "--tls-client-ca",
                                      files.ca, "--tls-clients", "optional", NULL },
                    "can be reached from other machines");
    if (certificates_can_shift()) {
        certificates_add(
            &files, "-40d",
            (const char *[]){ "server", "old.example", "--days", "30", NULL });
        certificates_path(&files, "old.example.crt", old);
        certificates_path(&files, "old.example.key", old_key);
        expect_no_start(
            (const char *[]){ "--tls-cert", old, "--tls-key", old_key, NULL },
            "it has expired on");
    }
}

Test(tls, may_be_reached_by_others_if_they_show_certificates, .init = make,
     .fini = clean)
{
    start_with((const char *[]){ "--listen", "0.0.0.0:0", NULL });
    struct optclient *client = connect_well();
    optclient_close(client);
    daemon_stop(&server);
}

/* ------------------------------------------------------------------- renewal */

static void replace(const char *from, const char *to)
{
    cr_assert_eq(rename(from, to), 0);
}

Test(tls, takes_new_certificates_while_workers_train, .init = start, .fini = stop)
{
    struct certificates others;
    struct optclient *client = connect_well(), *late;
    struct optclient_model *model = model_of(client, "m");
    push_one(model);
    certificates_make(&others);
    /* What is broken changes nothing. */
    replace(others.cert, files.cert);
    daemon_signal(&server, SIGHUP);
    cr_assert(daemon_logged(&server, "reload_failed", WAIT_MS));
    push_one(model);
    late = connect_well();
    optclient_close(late);
    /* What is whole is what new connections get; old ones go on. */
    replace(others.key, files.key);
    replace(others.ca, files.ca);
    daemon_signal(&server, SIGHUP);
    cr_assert(daemon_logged(&server, "reloaded", WAIT_MS));
    push_one(model);
    expect_weights(model, 3);
    expect_refused(server.address, files.ca, files.client_cert, files.client_key,
                   OPTCLIENT_UNAUTHENTICATED, "not of a CA that is believed");
    cr_expect_eq(
        try(server.address, files.ca, others.client_cert, others.client_key, &late),
        OPTCLIENT_OK, "%s", optclient_error());
    optclient_close(late);
    push_one(model);
    expect_weights(model, 4);
    optclient_close(client);
    certificates_remove(&others);
}

/* The last day has begun by the time that it is looked at, or not. */
static void expect_days(const json_t *certificate, int days)
{
    int left = (int)json_integer_value(json_object_get(certificate, "days_left"));
    cr_expect(left == days || left == days - 1, "%d days, of %d", left, days);
}

Test(tls, renews_a_certificate_for_the_same_key, .init = start, .fini = stop)
{
    cr_assert_eq(RUN("cert", "show", files.cert, "--json"), 0, "%s", operator_out);
    json_t *before = operator_json();
    cr_expect_str_eq(operator_text(before, "names"),
                     "CN=localhost DNS:localhost IP:127.0.0.1 IP:::1");
    expect_days(before, 365);
    json_decref(before);
    cr_assert_eq(RUN("cert", "renew", files.cert, "--days", "30"), 0, "%s",
                 operator_out);
    cr_assert_eq(RUN("cert", "show", files.cert, "--json"), 0);
    json_t *after = operator_json();
    cr_expect_str_eq(operator_text(after, "names"),
                     "CN=localhost DNS:localhost IP:127.0.0.1 IP:::1");
    expect_days(after, 30);
    json_decref(after);
    daemon_signal(&server, SIGHUP);
    cr_assert(daemon_logged(&server, "reloaded", WAIT_MS));
    struct optclient *client = connect_well();
    optclient_close(client);
    struct stat key;
    cr_assert_eq(stat(files.key, &key), 0);
    cr_expect_eq(key.st_mode & 0777, 0600U);
    cr_expect_eq(RUN("cert", "client", "worker", "--dir", files.dir), 1);
    cr_expect_not_null(strstr(operator_out, "File exists"), "%s", operator_out);
    cr_expect_eq(RUN("cert", "client", "a/b", "--dir", files.dir), 64, "%s",
                 operator_out);
    cr_expect_eq(RUN("cert", "server", "no name", "--dir", files.dir), 64, "%s",
                 operator_out);
    cr_expect_eq(RUN("cert", "client", "x", "--role", "king", "--dir", files.dir), 64);
    cr_expect_eq(RUN("cert", "sell"), 64);
}

/* ------------------------------------------------------------------- half handshakes
 */

Test(tls, does_not_wait_for_half_a_handshake, .init = make, .fini = clean)
{
    start_with((const char *[]){ "--hello-timeout", "300ms", NULL });
    static const uint8_t begun[] = { 0x16, 3, 1, 2, 0, 1, 0 };
    int silent = dial(), half = dial();
    cr_assert_eq(write(half, begun, sizeof(begun)), (ssize_t)sizeof(begun));
    cr_expect(raw_closed(silent, WAIT_MS));
    cr_expect(raw_closed(half, WAIT_MS));
    cr_expect(daemon_logged(&server, "no handshake of TLS within 300 ms", WAIT_MS));
    close(silent);
    close(half);
    struct optclient *client = connect_well();
    optclient_close(client);
    daemon_stop(&server);
}

/* Bytes that come one by one are no excuse. */
Test(tls, does_not_wait_for_a_handshake_in_drops, .init = make, .fini = clean)
{
    enum { DROP_MS = 20, MOST = 500 };
    start_with((const char *[]){ "--hello-timeout", "300ms", NULL });
    /* A record's header that announces 512 bytes, and then its beginning. */
    static const uint8_t begun[] = { 0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3 };
    struct pollfd peer = { .fd = dial(), .events = POLLIN };
    int drops = 0;
    while (drops < MOST && poll(&peer, 1, DROP_MS) == 0) {
        uint8_t byte = drops < (int)sizeof(begun) ? begun[drops] : 0;
        (void)!send(peer.fd, &byte, 1, MSG_NOSIGNAL);
        drops++;
    }
    cr_expect_geq(drops, 5);
    cr_expect_lt(drops, MOST);
    cr_expect(daemon_logged(&server, "no handshake of TLS within 300 ms", WAIT_MS));
    close(peer.fd);
    daemon_stop(&server);
}

Test(tls, bounds_the_handshakes_that_run_at_once, .init = make, .fini = clean)
{
    start_with((const char *[]){ "--max-handshakes", "2", NULL });
    int first = dial(), second = dial();
    int third = dial();
    cr_expect(raw_closed(third, WAIT_MS));
    cr_expect(daemon_logged(&server, "handshake_refused", WAIT_MS));
    close(first);
    close(second);
    close(third);
    /* Whoever comes back later is served. */
    struct optclient *client = connect_well();
    optclient_close(client);
    daemon_stop(&server);
}

/* What breaks TLS later on is named in the log, and harms nobody else. */
Test(tls, ends_a_connection_whose_records_are_damaged, .init = start, .fini = stop)
{
    struct opt_tls *tls = NULL;
    struct opt_error error;
    const struct opt_tls_files own = { .ca = files.ca,
                                       .cert = files.client_cert,
                                       .key = files.client_key };
    const struct opt_socket_tuning tuning = { .local = "", .other = "" };
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons(server.port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct opt_transport peer;
    static const uint8_t record[] = { 0x17, 3,  3,  0,  20, 1,  2,  3,  4,
                                      5,    6,  7,  8,  9,  10, 11, 12, 13,
                                      14,   15, 16, 17, 18, 19, 20 };
    struct optclient *client = connect_well();
    struct optclient_model *model = model_of(client, "m");
    cr_assert_eq(opt_tls_client(&own, &tls, &error), OPT_OK, "%s", error.text);
    cr_assert_eq(opt_transport_dial(&peer, (struct sockaddr *)&address, sizeof(address),
                                    &tuning, &error),
                 OPT_OK);
    cr_assert_eq(opt_tls_dial(tls, "127.0.0.1", &peer, &error), OPT_OK);
    while (!peer.is_open) {
        struct pollfd due = { .fd = peer.fd, .events = peer.awaits };
        cr_assert_eq(poll(&due, 1, WAIT_MS), 1);
        cr_assert_eq(peer.kind->open(&peer, &error), OPT_OK, "%s", error.text);
    }
    cr_assert_eq(send(peer.fd, record, sizeof(record), MSG_NOSIGNAL),
                 (ssize_t)sizeof(record));
    cr_expect(daemon_logged(&server, "connection_broken", WAIT_MS));
    cr_expect(daemon_logged(&server, "TLS failed", WAIT_MS));
    push_one(model);
    expect_weights(model, 1);
    peer.kind->close(&peer);
    opt_tls_free(tls);
    optclient_close(client);
}

/* ------------------------------------------------------------------- many */

/* Go on with all of them until they are open; how many are. */
static size_t open_all(struct opt_transport *peers, size_t count)
{
    size_t open = 0, gone = 0;
    int64_t deadline = now_ms() + 6 * WAIT_MS;
    while (open + gone < count && now_ms() < deadline) {
        open = gone = 0;
        for (size_t i = 0; i < count; i++) {
            struct opt_transport *peer = &peers[i];
            struct opt_error error;
            struct pollfd due = { .fd = peer->fd, .events = peer->awaits };
            if (!peer->is_open && peer->fd >= 0 && poll(&due, 1, 0) > 0 &&
                peer->kind->open(peer, &error) != OPT_OK) {
                peer->kind->close(peer);
            }
            open += peer->is_open;
            gone += peer->fd < 0;
        }
    }
    return open;
}

Test(tls, serves_a_thousand_that_come_at_once, .init = make, .fini = clean,
     .timeout = 120)
{
    start_with((const char *[]){ "--max-handshakes", "2000", "--max-connections",
                                 "1500", "--hello-timeout", "60s", NULL });
    struct opt_tls *tls = NULL;
    struct opt_error error;
    const struct opt_tls_files own = { .ca = files.ca,
                                       .cert = files.client_cert,
                                       .key = files.client_key };
    const struct opt_socket_tuning tuning = { .local = "", .other = "" };
    static struct opt_transport peers[MANY];
    cr_assert_eq(opt_tls_client(&own, &tls, &error), OPT_OK, "%s", error.text);
    size_t before = daemon_memory(&server);
    for (size_t i = 0; i < MANY; i++) {
        struct sockaddr_in address = { .sin_family = AF_INET,
                                       .sin_port = htons(server.port),
                                       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        cr_assert_eq(opt_transport_dial(&peers[i], (struct sockaddr *)&address,
                                        sizeof(address), &tuning, &error),
                     OPT_OK, "%s", error.text);
        cr_assert_eq(opt_tls_dial(tls, "127.0.0.1", &peers[i], &error), OPT_OK);
    }
    cr_expect_eq(open_all(peers, MANY), (size_t)MANY);
    /* A worker that trains meanwhile is served, and what the idle ones hold is little.
     */
    struct optclient *client = connect_well();
    struct optclient_model *model = model_of(client, "m");
    push_one(model);
    expect_weights(model, 1);
    size_t after = daemon_memory(&server);
    fprintf(stderr, "%d idle connections: %zu KiB\n", MANY, (after - before) >> 10);
    if (!IS_SANITIZED) {
        cr_expect_lt(after - before, (size_t)IDLE_MOST);
    }
    for (size_t i = 0; i < MANY; i++) {
        if (peers[i].fd >= 0) {
            peers[i].kind->close(&peers[i]);
        }
    }
    opt_tls_free(tls);
    optclient_close(client);
    daemon_stop(&server);
}
