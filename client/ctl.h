/* ctl — the rooms of optctl, the operator's command.
 *
 * optctl.c reads the command line, with ctl_policy.c, and asks the daemon; ctl_print.c
 * and ctl_rules.c say what came of it, for people or as JSON; ctl_spec.c reads and
 * prints specifications. None of it is part of the library.
 */
#ifndef OPTIMD_CLIENT_CTL_H
#define OPTIMD_CLIENT_CTL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "client/optclient.h"
#include "common/optim/spec.h"
#include "common/status.h"

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

/* The table of rules and presets, or all about one, which may be a profile's. *found:
 * whether there is any. */
bool ctl_print_rules(const char *name, bool json, bool *found);

/* What a profile offers, and what not. *found: whether there is that profile. */
bool ctl_print_profile(const char *profile, bool json, bool *found);

/* A specification from a YAML file, or one sentence. */
enum opt_status ctl_read_spec(const char *path, struct opt_spec *out,
                              struct opt_error *error);

/* As an expression, as YAML and as a message. */
bool ctl_print_spec(const struct opt_spec *spec, bool json);

/* An expression as YAML; false with a sentence if it is none. */
bool ctl_print_yaml(const char *expression, struct opt_error *error);

#endif
