/* Logins over TLS, with a real daemon and real certificates: roles of certificates,
 * tokens without them, and what it takes to be reached by other machines.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/certificates.h"
#include "tests/support/daemon.h"
#include "tests/support/logins.h"

enum { WAIT_MS = 10000 };

static struct certificates certificates;
static struct logins_files files;
static struct daemon_process server;

static void begin(void)
{
    unsetenv("OPTIMD_TRANSPORT");
    certificates_make(&certificates);
    logins_files_open(&files);
}

static void end(void)
{
    certificates_remove(&certificates);
    logins_files_close(&files);
}

/* Connect as an observer with the certificate of that name ("": none) and the token in
 * the file, if it is to be used. */
static enum optclient_status enter(const char *name, bool with_token,
                                   struct optclient **out)
{
    char cert[CERTIFICATES_PATH], key[CERTIFICATES_PATH], file[64];
    struct optclient_options options = optclient_options_default();
    snprintf(file, sizeof file, "%s.crt", name);
    certificates_path(&certificates, file, cert);
    snprintf(file, sizeof file, "%s.key", name);
    certificates_path(&certificates, file, key);
    options.worker = "";
    options.connect_timeout_ms = WAIT_MS;
    options.ca = certificates.ca;
    options.cert = name[0] != '\0' ? cert : NULL;
    options.key = name[0] != '\0' ? key : NULL;
    options.token_file = with_token ? files.token : "";
    *out = NULL;
    return optclient_connect(server.address, &options, out);
}

/* What it is told when it asks for a deletion, which takes an admin. */
static void expect_role(const char *name, bool with_token, const char *words)
{
    struct optclient *client;
    enum optclient_status status = enter(name, with_token, &client);
    if (status == OPTCLIENT_OK) {
        cr_expect_neq(optclient_delete(client, "nothing"), OPTCLIENT_OK);
    }
    cr_expect_not_null(strstr(optclient_error(), words), "%s: %s lacks %s", name,
                       optclient_error(), words);
    optclient_close(client);
}

Test(access_tls, a_certificate_has_the_role_it_says_or_the_table_gives, .init = begin,
     .fini = end)
{
    static const char *const roles[] = { "reader", "worker", "admin" };
    for (size_t i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "the-%s", roles[i]);
        certificates_add(&certificates, NULL,
                         (const char *[]){ "client", name, "--role", roles[i], NULL });
    }
    certificates_add(&certificates, NULL, (const char *[]){ "client", "plain", NULL });
    const char *const options[] = {
        "--tls-cert",      certificates.cert, "--tls-key", certificates.key,
        "--tls-client-ca", certificates.ca,   "--login",   "everybody",
        "--cert-roles",    files.tokens,      NULL
    };
    const char *without[9] = { NULL };
    memcpy(without, options, 8 * sizeof *options);
    daemon_start(&server, without);
    expect_role("the-reader", false, "role reader and may not delete");
    expect_role("the-worker", false, "role worker and may not delete");
    expect_role("the-admin", false, "there is no model \"nothing\"");
    expect_role("plain", false, "the login was refused");
    daemon_stop(&server);

    logins_write_text(files.tokens, "boss admin subject=CN=plain\n");
    daemon_start(&server, options);
    expect_role("plain", false, "there is no model \"nothing\"");
    expect_role("the-admin", false, "the login was refused");
    logins_write_text(files.tokens, "boss admin subject=CN=the-*\n");
    daemon_signal(&server, SIGHUP);
    cr_assert(daemon_logged(&server, " reloaded ", WAIT_MS));
    expect_role("plain", false, "the login was refused");
    expect_role("the-reader", false, "there is no model \"nothing\"");
    daemon_stop(&server);
}

Test(access_tls, a_token_is_enough_where_certificates_are_not_asked_for, .init = begin,
     .fini = end)
{
    logins_write(files.tokens, "w worker sha256=@secret\n");
    logins_write_text(files.token, "secret\n");
    daemon_start(&server,
                 (const char *[]){ "--tls-cert", certificates.cert, "--tls-key",
                                   certificates.key, "--tokens", files.tokens,
                                   "--login", "everybody", NULL });
    expect_role("", true, "\"w\" has the role worker and may not delete");
    expect_role("", false, "the login was refused");
    char url[512];
    struct optclient *client = NULL;
    snprintf(url, sizeof url, "optimds://%s?ca=%s&token_file=%s", server.address,
             certificates.ca, files.token);
    cr_expect_eq(optclient_connect(url, NULL, &client), OPTCLIENT_OK, "%s",
                 optclient_error());
    optclient_close(client);
    daemon_stop(&server);
}

Test(access_tls, other_machines_reach_only_a_daemon_that_knows_who_comes, .init = begin,
     .fini = end)
{
    logins_write(files.tokens, "w worker sha256=@secret\n");
    const char *cert = certificates.cert, *key = certificates.key,
               *ca = certificates.ca, *tokens = files.tokens;
    const struct {
        const char *options[8];
        int status;
    } tries[] = {
        { { NULL }, EX_CONFIG },
        { { "--tokens", tokens }, EX_CONFIG },
        { { "--login", "everybody" }, EX_CONFIG },
        { { "--tls-cert", cert, "--tls-key", key }, EX_CONFIG },
        { { "--tls-cert", cert, "--tls-key", key, "--tokens", tokens }, EX_OK },
        { { "--tls-cert", cert, "--tls-key", key, "--tls-client-ca", ca }, EX_OK },
        { { "--insecure" }, EX_OK },
    };
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        const char *options[12] = { "--check-config", "--listen", "0.0.0.0:7070" };
        memcpy(options + 3, tries[i].options, sizeof tries[i].options);
        daemon_spawn(&server, options);
        cr_expect_eq(daemon_wait(&server, WAIT_MS), tries[i].status, "%zu", i);
        char *log = daemon_log(&server);
        cr_expect(tries[i].status == EX_OK ||
                      strstr(log, "can be reached from other machines") != NULL,
                  "%zu: %s", i, log);
        free(log);
        daemon_remove(&server);
    }
}
