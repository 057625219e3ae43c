/* dispatch — see dispatch.h. */
#include "server/net/dispatch.h"

#include "common/wire.h"
#include "server/base/letter.h"
#include "server/messages/messages.h"
#include "server/net/peer_memory.h"

/* Why a request cannot be read. */
static enum opt_detail unreadable(enum opt_status status)
{
    return status == OPT_UNIMPLEMENTED        ? OPT_DETAIL_NO_SERVICE
           : status == OPT_RESOURCE_EXHAUSTED ? OPT_DETAIL_TOO_LARGE
                                              : OPT_DETAIL_MALFORMED;
}

const struct message_row *dispatch(const struct conn *conn, struct letter *letter,
                                   const uint8_t *header, size_t size, size_t data_size)
{
    struct opt_request *request = &letter->request;
    struct opt_error error;
    enum opt_status status =
        opt_request_read(header, size, data_size, &letter->arena, request, &error);
    if (status != OPT_OK) {
        uint64_t id = request->id;
        /* What has been read of it is not needed any more, its memory is. */
        if (!conn->let_in) { /* there may be a token in it */
            opt_arena_wipe(&letter->arena);
        }
        opt_arena_reset(&letter->arena);
        *request = (struct opt_request){ .id = id };
        letter_fail(letter, status, unreadable(status), "%s", error.text);
        return NULL;
    }
    const char *name = opt_message_name(request->message);
    const struct message_row *row = message_row(request->message);
    if (row == NULL) {
        letter_fail(letter, OPT_UNIMPLEMENTED, OPT_DETAIL_NO_SERVICE,
                    "this daemon does not serve %s", name);
        return NULL;
    }
    if (!conn->said_hello && request->message != OPT_MESSAGE_HELLO) {
        letter_fail(letter, OPT_FAILED_PRECONDITION, OPT_DETAIL_NO_HELLO,
                    "%s came before hello, which is the first request of a connection",
                    name);
        return NULL;
    }
    if (request->message == OPT_MESSAGE_SHARE && conn->peer_memory == NULL) {
        letter_fail(letter, OPT_FAILED_PRECONDITION, OPT_DETAIL_NO_SERVICE,
                    "no memory is shared on this connection; it takes a Unix socket, "
                    "and a daemon that is not told no-shared-memory");
        return NULL;
    }
    if (request->message == OPT_MESSAGE_SHARE &&
        !peer_memory_has_room(conn, request->body.share)) {
        letter_fail(letter, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_TOO_MANY,
                    "this connection shares memory for as many models as it may");
        return NULL;
    }
    if (row->data == DATA_NONE && data_size > 0) {
        letter_fail(letter, OPT_INVALID_ARGUMENT, OPT_DETAIL_MALFORMED,
                    "%s has no data, but %zu bytes came with it", name, data_size);
        return NULL;
    }
    size_t table_limit = conn->loop->all->limits.table_bytes;
    if (row->data == DATA_TABLE && data_size > table_limit) {
        letter_fail(letter, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_TOO_LARGE,
                    "%s: a table of %zu bytes is longer than the limit of %zu "
                    "(setting max-table)",
                    name, data_size, table_limit);
        return NULL;
    }
    return row;
}

enum opt_dtype dispatch_dtype(const struct letter *letter)
{
    const struct opt_push *push = letter_push(letter);
    if (push != NULL) {
        return push->dtype;
    }
    return letter->request.message == OPT_MESSAGE_ASSIGN
               ? letter->request.body.assign.dtype
               : OPT_FP32;
}

bool dispatch_is_part(const struct letter *letter)
{
    const struct opt_push *push = letter_push(letter);
    return push != NULL && (push->frame > 0 || !push->last);
}
