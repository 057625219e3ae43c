/* Who may log in, read from files and settings: what is right, what is refused and with
 * which words, and who somebody is by a certificate.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "server/access/access.h"
#include "server/access/logins.h"
#include "tests/support/logins.h"

#define DIGEST "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

static void expect_refused(enum login_kind kind, const char *text, const char *words)
{
    struct login_list list;
    struct opt_error error;
    cr_assert_neq(login_list_parse("file", text, strlen(text), kind, &list, &error),
                  OPT_OK, "%s", text);
    cr_expect_not_null(strstr(error.text, words), "%s: %s", text, error.text);
    cr_expect_null(strstr(error.text, DIGEST), "%s", error.text);
}

Test(login_list, what_is_wrong_is_told_with_its_line)
{
    static const struct {
        enum login_kind kind;
        const char *text, *words;
    } wrong[] = {
        { LOGIN_BY_TOKEN, "w", "file:1: the second word is no role" },
        { LOGIN_BY_TOKEN, "\n\nw worker\n", "file:3: \"w\" has no sha256=" },
        { LOGIN_BY_TOKEN, "w worker sha256=" DIGEST "0\n", "file:1: sha256 is not" },
        { LOGIN_BY_TOKEN, "w worker sha256=" DIGEST " sha256=" DIGEST,
          "sha256 is given twice" },
        { LOGIN_BY_TOKEN, "w worker sha256=" DIGEST " model=x", "perhaps models" },
        { LOGIN_BY_TOKEN, "w worker sha256=" DIGEST " subject=x", "has no place" },
        { LOGIN_BY_CERTIFICATE, "w worker sha256=" DIGEST, "has no place" },
        { LOGIN_BY_CERTIFICATE, "w worker models=x", "has no subject=" },
        { LOGIN_BY_CERTIFICATE, "w worker subject=a,,b", "file:1: subject: " },
        { LOGIN_BY_TOKEN, "w worker sha256=" DIGEST "\nw admin sha256=" DIGEST,
          "file:2: \"w\" stands in line 1 already" },
        { LOGIN_BY_TOKEN, "w worker sha256=" DIGEST "\nv admin sha256=" DIGEST,
          "file:2: this token is that of line 1" },
        { LOGIN_BY_TOKEN, "w worker expires=tomorrow sha256=" DIGEST, "is no time" },
        { LOGIN_BY_TOKEN, "w worker expires=2027-02-29T00:00:00Z sha256=" DIGEST,
          "is no time" },
        { LOGIN_BY_TOKEN, "\xff worker sha256=" DIGEST, "does not begin with a name" },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        expect_refused(wrong[i].kind, wrong[i].text, wrong[i].words);
    }
}

Test(login_list, takes_what_editors_leave)
{
    struct login_list list;
    struct opt_error error;
    static const char text[] = "# logins\r\n\t \n  w\tworker   sha256=" DIGEST
                               " models=a* expires=2028-02-29T23:59:59Z\r\n#end";
    cr_assert_eq(
        login_list_parse("file", text, strlen(text), LOGIN_BY_TOKEN, &list, &error),
        OPT_OK, "%s", error.text);
    cr_assert_eq(list.count, 1);
    const struct login *login = &list.logins[0];
    cr_expect_str_eq(login->name, "w");
    cr_expect_eq((int)login->role, (int)ROLE_WORKER);
    cr_expect_eq(login->line, 3);
    cr_expect(patterns_match(&login->models, "abc"));
    cr_expect_not(patterns_match(&login->models, "b"));
    cr_expect(patterns_match(&login->workers, "anybody"));
    char again[LOGIN_TIME];
    login_time_print(login->expires_s, again);
    cr_expect_str_eq(again, "2028-02-29T23:59:59Z");
    login_list_fini(&list);
}

/* Who comes from there with these names; NULL: turned away. */
static const char *role_of(struct access *access, const char *address,
                           const char *identity, const char *token)
{
    struct visitor visitor;
    struct opt_error error;
    visitor_init(&visitor, address, identity);
    enum opt_status status =
        access_greet(access, &visitor, (const uint8_t *)token,
                     token != NULL ? strlen(token) : 0, "", &error);
    const char *role = status == OPT_OK ? role_name(access_role(&visitor)) : "-";
    visitor_fini(&visitor);
    return role;
}

static struct access *open_access(struct access_settings settings)
{
    struct access *access;
    struct opt_error error;
    if (settings.source.tokens == NULL) {
        settings.source.tokens = "";
    }
    if (settings.source.certificates == NULL) {
        settings.source.certificates = "";
    }
    if (settings.source.users == NULL) {
        settings.source.users = "";
    }
    cr_assert_eq(access_new(&settings, &access, &error), OPT_OK, "%s", error.text);
    return access;
}

Test(access_rules, where_somebody_comes_from_decides_without_a_login)
{
    static const struct {
        const char *address, *identity;
        const char *open, *insecure, *required;
    } rows[] = {
        { "127.0.0.1:5", NULL, "admin", "admin", "-" },
        { "127.9.9.9:5", NULL, "admin", "admin", "-" },
        { "[::1]:5", NULL, "admin", "admin", "-" },
        { "[::ffff:127.0.0.1]:5", NULL, "admin", "admin", "-" },
        { "10.0.0.1:5", NULL, "-", "admin", "-" },
        { "[fe80::1]:5", NULL, "-", "admin", "-" },
        { "1.127.0.0:5", NULL, "-", "admin", "-" },
        { "", NULL, "-", "admin", "-" },
        { "unix:pid=3,uid=7", "uid=7", "admin", "admin", "-" },
        { "10.0.0.1:5", "CN=x URI:optimd:role=reader", "reader", "reader", "reader" },
        { "127.0.0.1:5", "CN=x URI:optimd:role=worker", "worker", "worker", "worker" },
        { "10.0.0.1:5", "CN=x", "-", "admin", "-" },
        { "10.0.0.1:5", "CN=x URI:optimd:role=king", "-", "admin", "-" },
        { "10.0.0.1:5", "CN=URI:optimd:role=admin", "-", "admin", "-" },
        { "10.0.0.1:5", "uid=7", "-", "admin", "-" },
    };
    struct access *open = open_access((struct access_settings){ .required = false });
    struct access *insecure = open_access((struct access_settings){ .insecure = true });
    struct access *required = open_access((struct access_settings){ .required = true });
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_expect_str_eq(role_of(open, rows[i].address, rows[i].identity, NULL),
                         rows[i].open, "%zu", i);
        cr_expect_str_eq(role_of(insecure, rows[i].address, rows[i].identity, NULL),
                         rows[i].insecure, "%zu", i);
        cr_expect_str_eq(role_of(required, rows[i].address, rows[i].identity, NULL),
                         rows[i].required, "%zu", i);
        /* A token that nobody gave out helps nobody, and hurts only who needs one. */
        cr_expect_str_eq(role_of(required, rows[i].address, rows[i].identity, "guess"),
                         "-", "%zu", i);
    }
    access_free(open);
    access_free(insecure);
    access_free(required);
}

Test(access_rules, certificates_are_what_the_table_says_first)
{
    struct logins_files files;
    logins_files_open(&files);
    logins_write_text(files.tokens, "mlp worker subject=CN=mlp-* models=mnist\n"
                                    "ops admin subject=DNS:ops.example,CN=root\n"
                                    "all reader subject=*\n");
    struct access *access =
        open_access((struct access_settings){ .source.certificates = files.tokens });
    static const char far[] = "10.0.0.1:5";
    cr_expect_str_eq(role_of(access, far, "CN=mlp-7 DNS:a", NULL), "worker");
    cr_expect_str_eq(role_of(access, far, "CN=x DNS:ops.example", NULL), "admin");
    /* What it says itself does not count beside the table. */
    cr_expect_str_eq(role_of(access, far, "CN=x URI:optimd:role=admin", NULL),
                     "reader");
    cr_expect_str_eq(role_of(access, far, "CN=mlp-7%20CN=root", NULL), "worker");
    cr_expect_str_eq(role_of(access, far, NULL, NULL), "-");
    /* A visitor that is there is looked at again when the table is another one. */
    struct visitor visitor;
    struct opt_error error;
    visitor_init(&visitor, far, "CN=mlp-7");
    cr_assert_eq(access_greet(access, &visitor, NULL, 0, "w", &error), OPT_OK);
    cr_expect(access_model(&visitor, "mnist"));
    cr_expect_not(access_model(&visitor, "other"));
    logins_write_text(files.tokens, "mlp reader subject=CN=mlp-*\n");
    struct access_settings settings = {
        .source = { .tokens = "", .certificates = files.tokens, .users = "" }
    };
    cr_assert_eq(access_reload(access, &settings, &error), OPT_OK);
    cr_expect_eq(access_check(access, &visitor, "w", ROLE_READER, "pull", &error),
                 OPT_UNAUTHENTICATED, "a reader may not speak for a worker");
    cr_expect_eq(access_check(access, &visitor, "", ROLE_READER, "pull", &error),
                 OPT_OK);
    cr_expect_eq(access_check(access, &visitor, "", ROLE_WORKER, "push", &error),
                 OPT_PERMISSION_DENIED);
    cr_expect_not_null(strstr(error.text, "has the role reader and may not push, which "
                                          "takes the role worker or admin"),
                       "%s", error.text);
    cr_expect(access_model(&visitor, "other"));
    visitor_fini(&visitor);
    access_free(access);
    logins_files_close(&files);
}
