/* fate — what becomes of a push, as far as this side can know it.
 *
 * The daemon knows a push by its number (sequence), and applies no number twice. So the
 * one thing that must never happen here is that a push gets another number while a copy
 * of it may still stand under the first; and the one thing that must never be said is
 * "not applied" while one may. All that decides about either is in this room.
 *
 * A copy is what is sent on one connection. What is known of a push is how much of the
 * present copy is out (sent), how much of earlier ones may have been left with the
 * daemon by connections that are gone (left), and how it ended (settled):
 *
 *              first frame          last frame
 *     NOTHING ------------> PARTLY ------------> WHOLE            sent
 *        ^  ^                  |                   |
 *        |  +--- NOT_TAKEN ----+-------------------+   this copy has changed nothing
 *        |                     | cut               |   left = the more of left and sent
 *        +---------------------+-------------------+
 *                              | answered, refused, found
 *                              v
 *     settled: APPLIED DUPLICATE DROPPED SKIPPED | REFUSED | IN_PART | NOT_KNOWN
 *
 *   what is known                              ends with an error as   sent again as
 *   -----------------------------------------  ----------------------  -------------
 *   settled REFUSED                            that                    a new number
 *   settled in any other way                   that                    it is not
 *   no copy WHOLE, rounds not by shards        REFUSED                 the same
 *   nothing of a copy sent                     REFUSED                 the same
 *   part of one, rounds applied by shards      NOT_KNOWN               the same
 *   one of them WHOLE                          NOT_KNOWN               the same
 *
 * A push may have been applied without being settled: the daemon cannot bring it to its
 * disk at present (NOT_DURABLE). It is sent again, under its number, until the daemon
 * says that it is there. A daemon that starts anew may have nothing of it.
 *
 * What is settled stays so: the answer to a push_pull may have told of the push when
 * the connection goes, and its weights have to be asked for again.
 *
 * A number is given up in two cases only: the daemon has settled it as REFUSED, or it
 * has been asked on a new connection and has nothing of it (fate_absent). Called by
 * the rooms that send, receive and end calls, with the client's lock held.
 */
#ifndef OPTCLIENT_FATE_H
#define OPTCLIENT_FATE_H

#include <stdbool.h>
#include <stdint.h>

#include "client/optclient.h"
#include "common/status.h"
#include "common/wire.h"

enum fate_extent { FATE_NOTHING, FATE_PARTLY, FATE_WHOLE };

/* All zeros: of a push that has not been sent. */
struct fate {
    uint64_t number;      /* 0: it has none */
    uint64_t incarnation; /* of the worker, when the push was asked for */
    bool by_shards;       /* what has come of a copy may be applied before the rest */
    bool inquired;        /* on this connection the daemon was asked about it */
    bool applied;         /* it has been, but that may still be lost (NOT_DURABLE) */
    enum fate_extent sent, left;
    enum opt_fate settled; /* UNKNOWN: it is not */
    enum opt_status code;  /* REFUSED, IN_PART: of the error it was settled with */
    enum opt_detail detail;
    uint64_t shards_applied, shards;
};

/* The first frame of a copy goes out. A push without a number gets the one after *last,
 * which becomes it. */
void fate_begin(struct fate *fate, uint64_t *last);
/* Its last frame goes out. */
void fate_send_last(struct fate *fate);
/* The connection is gone. */
void fate_cut(struct fate *fate);

/* The daemon has answered the push. */
void fate_answer(struct fate *fate, enum opt_fate settled);
/* Whether an error leaves open what became of it: the daemon refused a later frame
 * because it does not know the earlier ones, whose shards may have been applied. It
 * ends the connection, and is to be asked on the next. */
bool fate_is_untold(const struct fate *fate, const struct opt_error_reply *reply);
/* The daemon has answered it with an error. */
void fate_refuse(struct fate *fate, const struct opt_error_reply *reply);
/* Asked about it on a new connection, the daemon says that it was settled so. */
void fate_found(struct fate *fate, const struct opt_settled *settled);
/* Asked about it on a new connection, the daemon says that it has nothing of it. If it
 * remembers all pushes of that life (remembered), whatever was sent was lost; else it
 * may have forgotten. last: the highest number that is settled. */
void fate_absent(struct fate *fate, bool remembered, uint64_t last);

/* Whether the daemon may have something of it, which is worth asking about. */
bool fate_is_open(const struct fate *fate);
/* Whether it has taken effect, or the daemon has decided that it does not: dropped,
 * skipped. Then only weights may still have to come. */
bool fate_is_done(const struct fate *fate);
/* Whether it may be sent again; under another number if it was refused. */
bool fate_may_resend(const struct fate *fate);
/* It is going to be sent again. */
void fate_resend(struct fate *fate);

/* What is true of a push that ends now, with an error or without. Never UNKNOWN or
 * NOT_TAKEN. */
enum opt_fate fate_tell(const struct fate *fate);
/* The same in the result of a call. */
void fate_result(const struct fate *fate, struct optclient_result *result);
/* The same as the end of a sentence: "; the push was not applied". */
const char *fate_words(const struct fate *fate);

#endif
