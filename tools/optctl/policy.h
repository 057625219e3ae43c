/* policy — consistency policies on the command line: "bounded,staleness=4,damping".
 * What is read is what is printed.
 */
#ifndef OPTIMD_TOOLS_OPTCTL_POLICY_H
#define OPTIMD_TOOLS_OPTCTL_POLICY_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "client/optclient.h"

/* A mode, then fields of struct optclient_policy by name. False: the part of wrong_size
 * bytes at *wrong is no mode, no such field, or no value of it. */
bool policy_read(const char *text, struct optclient_policy *out, const char **wrong,
                 size_t *wrong_size);

/* What "durability" may be. False: that word is none of them. */
bool policy_durability(const char *text, struct optclient_policy *out);
/* The word for one; "none" for DEFAULT, which is what a model has that is not kept. */
const char *policy_durability_name(enum optclient_durability durability);

/* The same text again, loss and min_workers always told; and as JSON, to be taken. */
void policy_print(const struct optclient_policy *policy);
json_t *policy_json(const struct optclient_policy *policy);

/* Each item that may come first, or that may follow, such as "samples=", "loss=fail"
 * and "damping": for completion. */
void policy_items(bool first, void (*on_item)(const char *item, void *context),
                  void *context);

#endif
