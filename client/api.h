/* api — what every public function does on its way in and out: keep out whoever must
 * not wait here, hand a call over, wait for its end, and leave the sentence for
 * optclient_error. Called by the api_*.c, on the threads of the program.
 */
#ifndef OPTCLIENT_API_H
#define OPTCLIENT_API_H

#include "client/call.h"
#include "client/optclient.h"
#include "common/status.h"

/* Leave a sentence for optclient_error; returns the status. */
enum optclient_status api_fail(enum opt_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The same with a sentence that is there already. OPT_OK leaves none. */
enum optclient_status api_report(const struct opt_error *error);

/* The reserved words of an option structure: OPT_UNIMPLEMENTED, unless all of them are
 * 0, because a newer header has given them a meaning. what names the structure. */
enum optclient_status api_reserved(const uint64_t *words, size_t count,
                                   const char *what);
#define RESERVED(structure)                                                            \
    (sizeof((structure)->reserved) / sizeof((structure)->reserved[0]))

/* Whether this process and thread may wait for calls of the client; if not, the status
 * and sentence say so. */
enum optclient_status api_check(const struct optclient *client);

/* Lock held. Hand a call over: it is sent now or as soon as possible and ends some
 * time.
 */
void api_post(struct optclient *client, struct optclient_call *call);

/* Post a call and wait for its end; it is the caller's again. Leaves the sentence. The
 * caller has made sure of api_check. */
enum optclient_status api_run(struct optclient_call *call);

/* Lock held: wait until a posted call has ended, or it is limit_ns by uv_hrtime
 * (UINT64_MAX: until it has ended). */
void api_wait(struct optclient_call *call, uint64_t limit_ns);

/* Lock held: give it back, and free the client if nobody needs it any more. */
void api_leave(struct optclient *client);

#endif
