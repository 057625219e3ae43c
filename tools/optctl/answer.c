/* answer — what became of it: sentences and JSON, and the daemon that is asked; see
 * ctl.h.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/optim/number.h"
#include "tools/optctl/commands.h"

/* ---------------------------------------------------------------- JSON */

static void put_scalar(const json_t *value)
{
    char number[OPT_NUMBER_TEXT];
    if (json_is_real(value)) {
        opt_number_print(json_real_value(value), number);
        fputs(number, stdout);
    } else {
        (void)json_dumpf(value, stdout, JSON_ENCODE_ANY);
    }
}

/* jansson prints reals with a fixed number of digits: 0.0005 as
 * 0.00050000000000000001. */
static void put_value(const json_t *value, int depth)
{
    enum { INDENT = 2 };
    json_t *all = (json_t *)value, *member;
    const char *key;
    size_t i;
    if (json_is_array(value) && json_array_size(value) > 0) {
        json_array_foreach(all, i, member)
        {
            printf("%s\n%*s", i > 0 ? "," : "[", (depth + 1) * INDENT, "");
            put_value(member, depth + 1);
        }
        printf("\n%*s]", depth * INDENT, "");
    } else if (json_is_object(value) && json_object_size(value) > 0) {
        i = 0;
        json_object_foreach(all, key, member)
        {
            json_t *name = json_string(key);
            printf("%s\n%*s", i++ > 0 ? "," : "{", (depth + 1) * INDENT, "");
            put_scalar(name);
            fputs(": ", stdout);
            put_value(member, depth + 1);
            json_decref(name);
        }
        printf("\n%*s}", depth * INDENT, "");
    } else {
        put_scalar(value);
    }
}

json_t *ctl_count(uint64_t count)
{
    return json_integer(count > INT64_MAX ? INT64_MAX : (json_int_t)count);
}

int ctl_answer(const struct ctl *ctl, json_t *value)
{
    if (value == NULL) {
        fputs("optctl: no memory\n", stderr);
        return EXIT_FAILED;
    }
    put_value(value, 0);
    putchar('\n');
    json_decref(value);
    return ctl_done(ctl);
}

int ctl_done(const struct ctl *ctl)
{
    (void)ctl;
    if (ferror(stdout) == 0 && fflush(stdout) == 0) {
        return EXIT_SUCCESS;
    }
    fputs("optctl: the answer cannot be written\n", stderr);
    return EXIT_FAILED;
}

/* ---------------------------------------------------------------- failures */

static void complain(const struct ctl *ctl, const char *status, const char *sentence)
{
    json_t *error = ctl->json ? json_pack("{s:{s:s, s:s}}", "error", "status", status,
                                          "message", sentence)
                              : NULL;
    if (error == NULL) {
        fprintf(stderr, "optctl: %s\n", sentence);
        return;
    }
    (void)json_dumpf(error, stderr, 0);
    fputc('\n', stderr);
    json_decref(error);
}

int ctl_wrong(const struct ctl *ctl, const char *format, ...)
{
    char sentence[OPT_ERROR_TEXT];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof(sentence), format, arguments);
    va_end(arguments);
    complain(ctl, "USAGE", sentence);
    if (!ctl->json) {
        fprintf(stderr, "See optctl help%s%s.\n", ctl->command == NULL ? "" : " ",
                ctl->command == NULL ? "" : ctl->command->name);
    }
    return EXIT_WRONG;
}

int ctl_failed(const struct ctl *ctl, enum optclient_status status)
{
    complain(ctl, optclient_status_name(status), optclient_error());
    return EXIT_FAILED;
}

int ctl_refused(const struct ctl *ctl, const struct opt_error *error)
{
    complain(ctl, opt_status_name(error->status), error->text);
    return EXIT_FAILED;
}

/* ---------------------------------------------------------------- the daemon */

enum { TOLD_MS = 300 };

int ctl_connect(struct ctl *ctl, const char *worker)
{
    struct optclient_options options = optclient_options_default();
    options.worker = worker;
    options.ca = ctl->ca;
    options.cert = ctl->cert;
    options.key = ctl->key;
    options.token_file = ctl->token_file;
    options.timeout_ms = ctl->timeout_ms;
    /* Who sits at a terminal is told soon that there is nobody, and not left to wonder
     * until the time is over. */
    bool tells = isatty(STDERR_FILENO) && ctl->timeout_ms > TOLD_MS;
    options.connect_timeout_ms = tells ? TOLD_MS : ctl->timeout_ms;
    enum optclient_status status =
        optclient_connect(ctl->server, &options, &ctl->client);
    if (tells && status == OPTCLIENT_DEADLINE_EXCEEDED) {
        fprintf(stderr, "optctl: %s; trying on\n", optclient_error());
        options.connect_timeout_ms = ctl->timeout_ms - TOLD_MS;
        status = optclient_connect(ctl->server, &options, &ctl->client);
    }
    if (status == OPTCLIENT_INVALID_ARGUMENT) {
        return ctl_wrong(ctl, "%s", optclient_error()); /* no such address can be */
    }
    return status == OPTCLIENT_OK ? EXIT_SUCCESS : ctl_failed(ctl, status);
}
