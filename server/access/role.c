/* role — see role.h. */
#include "server/access/role.h"

#include <string.h>

static const char *const names[ROLE_COUNT] = { [ROLE_NONE] = "none",
                                               [ROLE_READER] = "reader",
                                               [ROLE_WORKER] = "worker",
                                               [ROLE_ADMIN] = "admin" };

const char *role_name(enum role role)
{
    return names[(unsigned)role < ROLE_COUNT ? role : ROLE_NONE];
}

bool role_parse(const char *word, enum role *out)
{
    for (int role = ROLE_READER; role < ROLE_COUNT; role++) {
        if (strcmp(word, names[role]) == 0) {
            *out = (enum role)role;
            return true;
        }
    }
    return false;
}

const char *role_or_more(enum role least)
{
    switch (least) {
    case ROLE_NONE:
    case ROLE_COUNT:
        break;
    case ROLE_READER:
        return "reader, worker or admin";
    case ROLE_WORKER:
        return "worker or admin";
    case ROLE_ADMIN:
        return "admin";
    }
    return "anybody";
}
