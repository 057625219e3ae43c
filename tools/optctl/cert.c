/* cert — a CA for a start and certificates of it; asks no daemon. See commands.h.
 *
 *   optctl cert init DIR                  DIR/ca.crt, DIR/ca.key
 *   optctl cert server NAME ...           NAME.crt, NAME.key beside them
 *   optctl cert client NAME --role ROLE   NAME.crt, NAME.key
 *   optctl cert show FILE
 *   optctl cert renew FILE                the same key, new dates
 */
#include <errno.h>
#include <limits.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/quantity.h"
#include "common/tls_parts.h"
#include "tools/optctl/certificate.h"
#include "tools/optctl/commands.h"

enum { CA_DAYS = 3650, DAYS = 365, DAYS_MOST = 36500, DATE = 32 };

static int read_days(const struct ctl *ctl, long standard, long *out)
{
    const char *text = ctl_value(ctl, "days");
    uint64_t days = 0;
    *out = standard;
    if (text == NULL) {
        return EXIT_SUCCESS;
    }
    if (opt_quantity_count(text, &days, NULL) != OPT_OK || days < 1 ||
        days > DAYS_MOST) {
        return ctl_wrong(ctl, "--days is a number from 1 to %d, not '%s'", DAYS_MOST,
                         text);
    }
    *out = (long)days;
    return EXIT_SUCCESS;
}

/* DIR/NAME.ENDING. */
static int make_path(const struct ctl *ctl, const char *dir, const char *name,
                     const char *ending, char out[PATH_MAX])
{
    int size = snprintf(out, PATH_MAX, "%s/%s.%s", dir, name, ending);
    return size < 0 || size >= PATH_MAX
               ? ctl_wrong(ctl, "the path of %s.%s is too long", name, ending)
               : EXIT_SUCCESS;
}

static int say_made(const struct ctl *ctl, const char *certificate, const char *key)
{
    if (ctl->json) {
        return ctl_answer(
            ctl, json_pack("{s:s, s:s?}", "certificate", certificate, "key", key));
    }
    printf("%s\n", certificate);
    if (key != NULL) {
        printf("%s (keep it to yourself)\n", key);
    }
    return ctl_done(ctl);
}

/* Make it, and write it to DIR/FILE.crt and DIR/FILE.key. */
static int make(const struct ctl *ctl, const struct certificate_wish *wish,
                const struct certificate *ca, const char *dir, const char *file)
{
    char path[PATH_MAX], key[PATH_MAX];
    struct opt_error error;
    struct certificate made;
    int code = make_path(ctl, dir, file, "crt", path);
    code = code == EXIT_SUCCESS ? make_path(ctl, dir, file, "key", key) : code;
    if (code != EXIT_SUCCESS) {
        return code;
    }
    enum opt_status status = certificate_make(wish, ca, &made, &error);
    if (status == OPT_INVALID_ARGUMENT) {
        return ctl_wrong(ctl, "%s", error.text);
    }
    if (status != OPT_OK) {
        return ctl_refused(ctl, &error);
    }
    status = certificate_write(&made, path, key, false, &error);
    certificate_free(&made);
    return status == OPT_OK ? say_made(ctl, path, key) : ctl_refused(ctl, &error);
}

static int init(const struct ctl *ctl)
{
    if (ctl->count != 2) {
        return ctl_wrong(ctl, "usage: optctl cert init DIR");
    }
    const char *dir = ctl->arguments[1];
    if (mkdir(dir, 0700) != 0 && errno != EEXIST) {
        struct opt_error error;
        opt_fail(&error, OPT_FAILED_PRECONDITION, "\"%s\" cannot be made: %s", dir,
                 strerror(errno));
        return ctl_refused(ctl, &error);
    }
    char name[] = "optimd CA", *names[] = { name };
    struct certificate_wish wish = { .use = CERTIFICATE_CA,
                                     .names = names,
                                     .count = 1 };
    int code = read_days(ctl, CA_DAYS, &wish.days);
    return code == EXIT_SUCCESS ? make(ctl, &wish, NULL, dir, "ca") : code;
}

/* The CA of a folder. */
static int read_ca(const struct ctl *ctl, const char *dir, struct certificate *out)
{
    char path[PATH_MAX], key[PATH_MAX];
    struct opt_error error;
    int code = make_path(ctl, dir, "ca", "crt", path);
    code = code == EXIT_SUCCESS ? make_path(ctl, dir, "ca", "key", key) : code;
    if (code != EXIT_SUCCESS) {
        return code;
    }
    return certificate_read(path, key, out, &error) == OPT_OK
               ? EXIT_SUCCESS
               : ctl_refused(ctl, &error);
}

static const char *dir_of(const struct ctl *ctl)
{
    const char *dir = ctl_value(ctl, "dir");
    return dir != NULL ? dir : ".";
}

static int issue(const struct ctl *ctl, enum certificate_use use)
{
    struct certificate ca;
    struct certificate_wish wish = { .use = use,
                                     .names = ctl->arguments + 1,
                                     .count = (size_t)ctl->count - 1,
                                     .role = ctl_value(ctl, "role") };
    if (wish.count < 1 || (use == CERTIFICATE_CLIENT && wish.count > 1)) {
        return ctl_wrong(ctl, use == CERTIFICATE_CLIENT
                                  ? "usage: optctl cert client NAME [--role ROLE]"
                                  : "usage: optctl cert server NAME ...");
    }
    if (wish.role != NULL && use != CERTIFICATE_CLIENT) {
        return ctl_wrong(ctl, "only a client has a role");
    }
    if (wish.role != NULL && strcmp(wish.role, "worker") != 0 &&
        strcmp(wish.role, "reader") != 0 && strcmp(wish.role, "admin") != 0) {
        return ctl_wrong(ctl, "--role is worker, reader or admin, not '%s'", wish.role);
    }
    int code = read_days(ctl, DAYS, &wish.days);
    code = code == EXIT_SUCCESS ? read_ca(ctl, dir_of(ctl), &ca) : code;
    if (code != EXIT_SUCCESS) {
        return code;
    }
    code = make(ctl, &wish, &ca, dir_of(ctl), wish.names[0]);
    certificate_free(&ca);
    return code;
}

/* ------------------------------------------------------------------------- showing */

static void print_time(const ASN1_TIME *time, char out[DATE])
{
    struct tm parts;
    if (ASN1_TIME_to_tm(time, &parts) != 1 ||
        strftime(out, DATE, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0) {
        snprintf(out, DATE, "unknown");
    }
}

static int show_one(const struct ctl *ctl, X509 *certificate, const char *names)
{
    char issuer[OPT_TLS_TEXT], begin[DATE], end[DATE];
    int days = 0, seconds = 0;
    bool is_ca = X509_check_ca(certificate) == 1;
    X509_NAME_oneline(X509_get_issuer_name(certificate), issuer, sizeof(issuer));
    print_time(X509_get0_notBefore(certificate), begin);
    print_time(X509_get0_notAfter(certificate), end);
    (void)ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(certificate));
    if (ctl->json) {
        return ctl_answer(ctl, json_pack("{s:s, s:s, s:b, s:s, s:s, s:i}", "names",
                                         names, "issuer", issuer, "ca", is_ca, "begins",
                                         begin, "ends", end, "days_left", days));
    }
    printf("names   %s\nissuer  %s\nfor     %s\nbegins  %s\nends    %s (%s%d days%s)\n",
           names, issuer, is_ca ? "a CA" : "an end of connections", begin, end,
           days < 0 || seconds < 0 ? "" : "in ", abs(days),
           days < 0 || seconds < 0 ? " ago" : "");
    return ctl_done(ctl);
}

static int show(const struct ctl *ctl)
{
    struct certificate found;
    struct opt_error error;
    if (ctl->count != 2) {
        return ctl_wrong(ctl, "usage: optctl cert show FILE");
    }
    if (certificate_read(ctl->arguments[1], NULL, &found, &error) != OPT_OK) {
        return ctl_refused(ctl, &error);
    }
    char *names = opt_tls_names(found.certificate);
    int code = names == NULL ? EXIT_FAILED : show_one(ctl, found.certificate, names);
    free(names);
    certificate_free(&found);
    return code;
}

/* The folder of a file. */
static void folder_of(const char *path, char out[PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    snprintf(out, PATH_MAX, "%.*s", slash == NULL ? 1 : (int)(slash - path),
             slash == NULL ? "." : path);
    if (out[0] == '\0') {
        snprintf(out, PATH_MAX, "/");
    }
}

static int renew(const struct ctl *ctl)
{
    struct certificate ca, old, made;
    struct opt_error error;
    char folder[PATH_MAX];
    long days = 0;
    if (ctl->count != 2) {
        return ctl_wrong(ctl, "usage: optctl cert renew FILE");
    }
    const char *path = ctl->arguments[1];
    folder_of(path, folder);
    const char *dir = ctl_value(ctl, "dir");
    int code = read_days(ctl, DAYS, &days);
    code = code == EXIT_SUCCESS ? read_ca(ctl, dir != NULL ? dir : folder, &ca) : code;
    if (code != EXIT_SUCCESS) {
        return code;
    }
    enum opt_status status = certificate_read(path, NULL, &old, &error);
    if (status == OPT_OK) {
        status = certificate_renew(&old, &ca, days, &made, &error);
        certificate_free(&old);
    }
    if (status == OPT_OK) {
        status = certificate_write(&made, path, NULL, true, &error);
        certificate_free(&made);
    }
    certificate_free(&ca);
    return status == OPT_OK ? say_made(ctl, path, NULL) : ctl_refused(ctl, &error);
}

int run_cert(struct ctl *ctl)
{
    const char *what = ctl->arguments[0];
    if (strcmp(what, "init") == 0) {
        return init(ctl);
    }
    if (strcmp(what, "server") == 0) {
        return issue(ctl, CERTIFICATE_SERVER);
    }
    if (strcmp(what, "client") == 0) {
        return issue(ctl, CERTIFICATE_CLIENT);
    }
    if (strcmp(what, "show") == 0) {
        return show(ctl);
    }
    if (strcmp(what, "renew") == 0) {
        return renew(ctl);
    }
    return ctl_wrong(ctl,
                     "there is no 'cert %s'; right would be init, server, client, "
                     "show or renew",
                     what);
}
