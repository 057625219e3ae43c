/* messages — one row and one file for each kind of request.
 *
 * A row says what the request needs before it is looked at, what its data is, and who
 * serves it. The loop uses the row to decide how data is received; the engine checks
 * the needs and calls serve, which answers the letter, or keeps it until it can.
 */
#ifndef OPTIMD_SERVER_MESSAGES_MESSAGES_H
#define OPTIMD_SERVER_MESSAGES_MESSAGES_H

#include <stdbool.h>
#include <stddef.h>

#include "common/wire.h"
#include "server/access/role.h"

struct engine;
struct letter;

enum message_data {
    DATA_NONE,     /* a frame with data is refused */
    DATA_GRADIENT, /* values, scanned for NaN and infinity on arrival */
    DATA_VALUES,   /* values */
    DATA_TABLE     /* a serialized table */
};

struct message_row {
    bool needs_hello;  /* the connection has said hello */
    bool needs_worker; /* and is not an observer */
    enum role role;    /* the least that may; NONE: its login is not even looked at */
    enum message_data data;
    void (*serve)(struct engine *engine,
                  struct letter *letter); /* in the engine's turn */
};

/* The row of a request, or NULL for a message that no request has. Any thread. */
const struct message_row *message_row(enum opt_message message);

#endif
