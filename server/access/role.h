/* role — what somebody may do at all, whichever model it is done to.
 *
 * Roles are steps: a worker may do all that a reader may, an admin everything. What
 * each request takes stands in the table of messages (server/messages). Any thread.
 */
#ifndef OPTIMD_SERVER_ACCESS_ROLE_H
#define OPTIMD_SERVER_ACCESS_ROLE_H

#include <stdbool.h>

enum role {
    ROLE_NONE,   /* nobody in particular: may say hello */
    ROLE_READER, /* pulls, describes, lists, reads statistics */
    ROLE_WORKER, /* pushes as well, and creates models */
    ROLE_ADMIN,  /* changes and deletes models, and the daemon */
    ROLE_COUNT
};

/* "reader". Static text. */
const char *role_name(enum role role);
/* The reverse; false if the word is none of the three that can be given. */
bool role_parse(const char *word, enum role *out);
/* Who may do what takes this role, for sentences: "worker or admin". Static text. */
const char *role_or_more(enum role least);

#endif
