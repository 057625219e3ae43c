/* ctl — the rooms of optctl, the operator's command.
 *
 * optctl.c reads the command line, with ctl_policy.c, and asks the daemon; ctl_print.c
 * and ctl_rules.c say what came of it, for people or as JSON. None of it is part of the
 * library.
 */
#ifndef OPTIMD_CLIENT_CTL_H
#define OPTIMD_CLIENT_CTL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "client/optclient.h"

/* To standard output. False, if there was no memory for it. */
bool ctl_print_models(const struct optclient_model_info *models, size_t count,
                      bool json);
bool ctl_print_description(const struct optclient_description *model, bool json);
bool ctl_print_counters(const struct optclient_counter *counters, size_t count,
                        bool json);

/* Print a value, which it takes; NULL is one that could not be made. */
bool ctl_print_json(json_t *value);

/* A policy such as "sync,samples=1797" or "bounded,staleness=4,damping": a mode, then
 * fields of struct optclient_policy by name. False: the part of wrong_size bytes at
 * *wrong is no mode, no such field, or no value of it. */
bool ctl_read_policy(const char *text, struct optclient_policy *out, const char **wrong,
                     size_t *wrong_size);
/* The same text again, loss and min_workers always told; and as JSON, to be taken. */
void ctl_print_policy(const struct optclient_policy *policy);
json_t *ctl_json_policy(const struct optclient_policy *policy);

/* The table of rules and presets, or all about one. *found: whether there is any. */
bool ctl_print_rules(const char *name, bool json, bool *found);

#endif
