/* commands — the one table of commands and options: what is read, helped with,
 * completed and documented.
 */
#ifndef OPTIMD_TOOLS_OPTCTL_COMMANDS_H
#define OPTIMD_TOOLS_OPTCTL_COMMANDS_H

#include <stddef.h>

#include "tools/optctl/ctl.h"

/* What can stand at a place of the command line. */
enum completion {
    COMPLETE_NOTHING,
    COMPLETE_COMMAND,
    COMPLETE_FILE,       /* or a folder */
    COMPLETE_MODEL,      /* the daemon is asked */
    COMPLETE_MODEL_FILE, /* a model, then a file */
    COMPLETE_NAME_FILE,  /* a new name, then a file */
    COMPLETE_RULE,       /* rules, presets and names in profiles */
    COMPLETE_PROFILE,
    COMPLETE_POLICY,
    COMPLETE_VIEW,
    COMPLETE_DTYPE,
    COMPLETE_SHELL,
    COMPLETE_CERT, /* what to do with certificates, then a file */
    COMPLETE_TOKEN /* what to do with tokens */
};

struct option_entry {
    const char *name;  /* without its dashes; NULL: no more */
    const char *value; /* what its value is called in the help; NULL: it has none */
    const char *help;
    enum completion completion; /* of the value */
    char letter;                /* "-h" as well; 0: none */
};

enum { OPTIONS_MAX = 10 };

struct command {
    const char *name;
    const char *arguments;      /* as the help says them */
    int least, most;            /* arguments; most -1: any number */
    enum completion completion; /* of the arguments */
    int (*run)(struct ctl *ctl);
    const char *summary; /* half a line */
    const char *help;    /* more, in lines */
    struct option_entry options[OPTIONS_MAX];
};

/* The table, borrowed, and the options that every command takes, which end with a name
 * that is NULL. Once, at the start (entries.h). */
void commands_register(const struct command *table, size_t count,
                       const struct option_entry *options);

const struct command *commands_table(size_t *count);
/* By name, or NULL. */
const struct command *commands_find(const char *name);
/* Those that every command takes. */
const struct option_entry *commands_options(void);

/* What they do. Each returns an exit status. */
int run_list(struct ctl *ctl);
int run_show(struct ctl *ctl);
int run_create(struct ctl *ctl);
int run_export(struct ctl *ctl);
int run_import(struct ctl *ctl);
int run_verify(struct ctl *ctl);
int run_repair(struct ctl *ctl);
int run_cert(struct ctl *ctl);
int run_token(struct ctl *ctl);
int run_set(struct ctl *ctl);
int run_checkpoint(struct ctl *ctl);
int run_delete(struct ctl *ctl);
int run_reload(struct ctl *ctl);
int run_stats(struct ctl *ctl);
int run_ping(struct ctl *ctl);
int run_rules(struct ctl *ctl);
int run_spec(struct ctl *ctl);
int run_help(struct ctl *ctl);
int run_completion(struct ctl *ctl);

#endif
