/* ctl — the rooms of optctl, the operator's command.
 *
 * optctl.c reads the command line and asks the daemon; ctl_print.c and ctl_rules.c say
 * what came of it, for people or as JSON. None of it is part of the library.
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

/* The table of rules and presets, or all about one. *found: whether there is any. */
bool ctl_print_rules(const char *name, bool json, bool *found);

#endif
