/* optctl token and optctl reload with a real daemon: from the first login to one that
 * is taken back while it is used.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/logins.h"
#include "tests/support/operator.h"

static struct logins_files files;

static void begin(void)
{
    logins_files_open(&files);
}

static void end(void)
{
    logins_files_close(&files);
}

/* The token that was printed, as a file. */
static void keep_token(char token[128])
{
    json_t *said = operator_json();
    snprintf(token, 128, "%s", operator_text(said, "token"));
    json_decref(said);
    logins_write_text(files.token, token);
}

Test(token, is_added_listed_used_and_revoked, .init = begin, .fini = end)
{
    char token[128], text[8192] = "";
    const char *file = files.tokens;
    cr_assert_eq(
        RUN("token", "add", "root", "--role", "admin", "--file", file, "--json"), 0,
        "%s", operator_error);
    keep_token(token);
    cr_expect_eq(strncmp(token, "optimd_", 7), 0);
    cr_expect_gt(strlen(token), 40);
    struct stat made;
    cr_assert_eq(stat(file, &made), 0);
    cr_expect_eq(made.st_mode & 0777u, 0600u);
    FILE *stream = fopen(file, "re");
    cr_assert_not_null(stream);
    cr_assert_gt(fread(text, 1, sizeof text - 1, stream), 0);
    fclose(stream);
    cr_expect_null(strstr(text, token + 7), "the token stands in the file");

    operator_server = (struct daemon_process){ .pid = 0 };
    daemon_start(&operator_server,
                 (const char *[]){ "--login", "everybody", "--tokens", file, NULL });
    setenv("OPTIMD_SERVER", operator_server.address, 1);
    cr_expect_eq(RUN("list"), 1);
    cr_expect_not_null(strstr(operator_error, "the login was refused"), "%s",
                       operator_error);
    cr_expect_eq(RUN("list", "--token-file", files.token), 0, "%s", operator_error);
    setenv("OPTIMD_TOKEN_FILE", files.token, 1);
    cr_expect_eq(RUN("list"), 0, "%s", operator_error);

    cr_expect_eq(chmod(file, 0640), 0);
    cr_expect_eq(RUN("token", "add", "board", "--role", "reader", "--models",
                     "mnist-*,m", "--expires", "30d", "--file", file),
                 0, "%s", operator_error);
    cr_expect_eq(stat(file, &made), 0);
    cr_expect_eq(made.st_mode & 0777u, 0640u, "the mode is kept");
    cr_expect_eq(RUN("reload"), 0, "%s", operator_error);
    cr_expect_not_null(strstr(operator_out, "has read its configuration again"), "%s",
                       operator_out);
    cr_expect_eq(RUN("token", "list", "--file", file, "--json"), 0);
    json_t *all = operator_json();
    cr_assert_eq(json_array_size(all), 2);
    const json_t *board = json_array_get(all, 1);
    cr_expect_str_eq(operator_text(board, "name"), "board");
    cr_expect_str_eq(operator_text(board, "role"), "reader");
    cr_expect_str_eq(operator_text(board, "models"), "mnist-*,m");
    cr_expect_str_eq(operator_text(board, "workers"), "*");
    cr_expect_eq(strlen(operator_text(board, "expires")), 20);
    json_decref(all);
    cr_expect_eq(RUN("token", "list", "--file", file), 0);
    cr_expect_not_null(strstr(operator_out, "models=mnist-*,m"), "%s", operator_out);

    /* Only an admin may have it read again. */
    cr_expect_eq(RUN("token", "add", "w", "--role", "worker", "--file", file, "--json"),
                 0);
    char other[128];
    json_t *said = operator_json();
    snprintf(other, sizeof other, "%s", operator_text(said, "token"));
    json_decref(said);
    cr_expect_eq(RUN("reload"), 0, "%s", operator_error);
    logins_write_text(files.token, other);
    cr_expect_eq(RUN("reload"), 1);
    cr_expect_not_null(
        strstr(operator_error, "\"w\" has the role worker and may not reload"), "%s",
        operator_error);
    /* Taken back, and the daemon told. */
    logins_write_text(files.token, token);
    cr_expect_eq(RUN("token", "revoke", "w", "--file", file), 0, "%s", operator_error);
    cr_expect_eq(RUN("reload"), 0, "%s", operator_error);
    logins_write_text(files.token, other);
    cr_expect_eq(RUN("list"), 1);
    cr_expect_not_null(strstr(operator_error, "the login was refused"), "%s",
                       operator_error);
    logins_write_text(files.token, token);
    /* A broken file changes nothing, and the sentence comes to who has asked. */
    logins_write_text(file, "root admin\n");
    cr_expect_eq(RUN("reload"), 1);
    cr_expect_not_null(strstr(operator_error, "everything is as it was: tokens: "),
                       "%s", operator_error);
    cr_expect_eq(RUN("list"), 0, "%s", operator_error);
    unsetenv("OPTIMD_TOKEN_FILE");
    daemon_stop(&operator_server);
}

Test(token, wrong_words_are_refused_and_the_file_stays, .init = begin, .fini = end)
{
    static const char kept[] = "# the first\nroot admin sha256=@secret\n\n# the end";
    logins_write(files.tokens, kept);
    const struct {
        const char *words[10];
        int status;
        const char *says;
    } tries[] = {
        { { "token", "sell", "x" }, 64, "right would be add, list or revoke" },
        { { "token", "add", "x", "--role", "worker" }, 64, "needs --file" },
        { { "token", "add", "--role", "worker", "--file", files.tokens },
          64,
          "one NAME" },
        { { "token", "add", "x", "--file", files.tokens }, 64, "needs --role" },
        { { "token", "add", "x", "--role", "king", "--file", files.tokens },
          64,
          "--role" },
        { { "token", "add", "a b", "--role", "worker", "--file", files.tokens },
          64,
          "no blanks" },
        { { "token", "add", "x", "--role", "worker", "--expires", "soon", "--file",
            files.tokens },
          64,
          "30d" },
        { { "token", "add", "x", "--role", "worker", "--models", "a b", "--file",
            files.tokens },
          64,
          "blank" },
        { { "token", "add", "root", "--role", "worker", "--file", files.tokens },
          1,
          "revoke it first" },
        { { "token", "revoke", "nobody", "--file", files.tokens }, 1, "no login" },
        { { "token", "list", "--file", "/nowhere/at/all" }, 1, "No such file" },
        { { "token", "add", "x", "--role", "worker", "--file", "/nowhere/at/all" },
          1,
          "No such file" },
    };
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        cr_expect_eq(operator_run(tries[i].words), tries[i].status, "%zu: %s", i,
                     operator_error);
        cr_expect_not_null(strstr(operator_error, tries[i].says), "%zu: %s", i,
                           operator_error);
    }
    cr_expect_eq(RUN("token", "add", "x", "--role", "worker", "--file", files.tokens),
                 0, "%s", operator_error);
    cr_expect_eq(RUN("token", "revoke", "x", "--file", files.tokens), 0);
    char text[1024] = "", wanted[1024], digest[LOGINS_HEX];
    FILE *stream = fopen(files.tokens, "re");
    cr_assert_not_null(stream);
    cr_assert_gt(fread(text, 1, sizeof text - 1, stream), 0);
    fclose(stream);
    snprintf(wanted, sizeof wanted, "# the first\nroot admin sha256=%s\n\n# the end\n",
             logins_digest("secret", digest));
    cr_expect_str_eq(text, wanted);
}
