/* fuzz_logins — any bytes, as a file of logins.
 *
 * The first byte says which: 't' tokens, otherwise certificates. What is accepted has a
 * name, a role and a proof of its own in every line; what is refused has a sentence
 * that begins with the place and quotes no digest.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/access/login_list.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void demand(bool holds, const char *what)
{
    if (!holds) {
        (void)fprintf(stderr, "fuzz_logins: %s\n", what);
        abort();
    }
}

static void check(const struct login_list *list, enum login_kind kind)
{
    for (size_t i = 0; i < list->count; i++) {
        const struct login *login = &list->logins[i];
        char time[LOGIN_TIME];
        uint64_t again = 0;
        demand(login->name[0] != '\0', "no name");
        demand(login->role > ROLE_NONE && login->role < ROLE_COUNT, "no role");
        demand((login->subjects.count > 0) == (kind == LOGIN_BY_CERTIFICATE),
               "no proof");
        demand(login->line > 0 && (i == 0 || login->line > login[-1].line), "no line");
        (void)patterns_match(&login->models, login->name);
        (void)patterns_match(&login->workers, "");
        if (login->expires_s != 0) {
            login_time_print(login->expires_s, time);
            demand(login_time_read(time, &again) && again == login->expires_s,
                   "another time");
        }
        for (size_t k = 0; k < i; k++) {
            demand(strcmp(list->logins[k].name, login->name) != 0, "a name twice");
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct login_list list = { .count = 0 };
    struct opt_error error = { .text = "" };
    if (size == 0 || size > 1 << 14) {
        return 0;
    }
    enum login_kind kind = bytes[0] == 't' ? LOGIN_BY_TOKEN : LOGIN_BY_CERTIFICATE;
    enum opt_status status = login_list_parse("file", (const char *)bytes + 1, size - 1,
                                              kind, &list, &error);
    if (status == OPT_OK) {
        check(&list, kind);
        login_list_fini(&list);
    } else {
        demand(error.status == status && strncmp(error.text, "file:", 5) == 0,
               "no sentence");
    }
    return 0;
}
