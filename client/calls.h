/* calls — how calls end: answered, cancelled, refused, or because their time has
 * passed.
 *
 * Called by whoever learns of the reason, on any thread, with the client's lock held. A
 * call that has ended belongs to whoever made it: nothing here touches it afterwards.
 */
#ifndef OPTCLIENT_CALLS_H
#define OPTCLIENT_CALLS_H

#include <stdbool.h>
#include <stdint.h>

#include "client/call.h"
#include "common/status.h"

struct optclient;
struct optclient_model;

/* End a call. The status and sentence are in call->error; OPT_OK has none. */
void calls_end(struct optclient *client, struct optclient_call *call,
               enum opt_status status);

/* End one call that is in progress with OPT_CANCELLED: its memory is the caller's. */
void calls_withdraw(struct optclient *client, struct optclient_call *call);

/* End the calls of one model (NULL: all) with OPT_CANCELLED. */
void calls_cancel(struct optclient *client, struct optclient_model *model,
                  const char *reason);

/* End the calls of a model that is to be left, with OPT_CANCELLED. Pushes that are sent
 * are left to the daemon's answers, which come before the answer to leave. answered:
 * that one has come, or will not come in time, and the pushes end too. */
void calls_leave(struct optclient_model *model, bool answered);

/* The daemon has lost a model: its calls fail from now on, with MODEL_GONE as their
 * detail. */
void calls_fail_model(struct optclient_model *model, enum opt_status status,
                      const char *format, ...) __attribute__((format(printf, 3, 4)));

/* It is no use trying again: every call fails with error from now on. */
void calls_refuse(struct optclient *client, const struct opt_error *error);

/* When a call ends if nothing happens to it, by uv_hrtime. */
uint64_t calls_limit(const struct optclient *client, const struct optclient_call *call);

/* End the calls whose time has passed, and bring back those whose time has
 * come. */
void calls_expire(struct optclient *client);

/* The program has closed a descriptor that is not its own. */
void calls_descriptor_lost(struct optclient *client);

#endif
