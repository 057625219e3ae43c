/* messages — the table of requests; see messages.h. */
#include "server/messages/messages.h"

#include "server/messages/serve.h"

/* clang-format off */
static const struct message_row rows[OPT_MESSAGE_LIMIT] = {
    /*                        hello  worker role         data           served by */
    [OPT_MESSAGE_HELLO]      = { false, false, ROLE_NONE,   DATA_NONE,     serve_hello },
    [OPT_MESSAGE_CREATE]     = { true,  false, ROLE_WORKER, DATA_TABLE,    serve_create },
    [OPT_MESSAGE_OPEN]       = { true,  false, ROLE_READER, DATA_NONE,     serve_open },
    [OPT_MESSAGE_ASSIGN]     = { true,  true,  ROLE_WORKER, DATA_VALUES,   serve_assign },
    [OPT_MESSAGE_LIST]       = { true,  false, ROLE_READER, DATA_NONE,     serve_list },
    [OPT_MESSAGE_DESCRIBE]   = { true,  false, ROLE_READER, DATA_NONE,     serve_describe },
    [OPT_MESSAGE_PUSH]       = { true,  true,  ROLE_WORKER, DATA_GRADIENT, serve_push },
    [OPT_MESSAGE_PULL]       = { true,  false, ROLE_READER, DATA_NONE,     serve_pull },
    [OPT_MESSAGE_PUSH_PULL]  = { true,  true,  ROLE_WORKER, DATA_GRADIENT, serve_push_pull },
    [OPT_MESSAGE_WAIT]       = { true,  false, ROLE_READER, DATA_NONE,     serve_wait },
    [OPT_MESSAGE_STATISTICS] = { true,  false, ROLE_READER, DATA_NONE,     serve_statistics },
    [OPT_MESSAGE_LEAVE]      = { true,  true,  ROLE_WORKER, DATA_NONE,     serve_leave },
    [OPT_MESSAGE_HEARTBEAT]  = { true,  false, ROLE_READER, DATA_NONE,     serve_heartbeat },
    [OPT_MESSAGE_GOODBYE]    = { true,  false, ROLE_NONE,   DATA_NONE,     serve_goodbye },
    [OPT_MESSAGE_DELETE]     = { true,  false, ROLE_ADMIN,  DATA_NONE,     serve_delete },
    [OPT_MESSAGE_SET]        = { true,  false, ROLE_ADMIN,  DATA_NONE,     serve_set },
    [OPT_MESSAGE_BARRIER]    = { true,  true,  ROLE_WORKER, DATA_NONE,     serve_barrier },
    [OPT_MESSAGE_REST]       = { true,  true,  ROLE_WORKER, DATA_NONE,     serve_rest },
    [OPT_MESSAGE_CHECKPOINT] = { true,  false, ROLE_ADMIN,  DATA_NONE,     serve_checkpoint },
    [OPT_MESSAGE_RELOAD]     = { true,  false, ROLE_ADMIN,  DATA_NONE,     serve_reload },
    [OPT_MESSAGE_SHARE]      = { true,  false, ROLE_READER, DATA_NONE,     serve_share },
};
/* clang-format on */

const struct message_row *message_row(enum opt_message message)
{
    if ((unsigned)message >= OPT_MESSAGE_LIMIT || rows[message].serve == NULL) {
        return NULL;
    }
    return &rows[message];
}
