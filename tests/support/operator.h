/* operator — optctl as an operator uses it: one process for each command, against a
 * real daemon.
 */
#ifndef OPTIMD_TESTS_SUPPORT_OPERATOR_H
#define OPTIMD_TESTS_SUPPORT_OPERATOR_H

#include <jansson.h>

#include "tests/support/daemon.h"

/* Of the last command. */
extern char operator_out[1 << 17];   /* both streams */
extern char operator_error[1 << 13]; /* standard error alone */

/* The daemon that commands are sent to, by OPTIMD_SERVER: started and stopped by these,
 * for .init and .fini of a test. */
extern struct daemon_process operator_server;
void operator_start(void);
void operator_stop(void);

/* Run optctl with these arguments, which end with NULL; returns its exit status. */
int operator_run(const char *const *arguments);
#define RUN(...) operator_run((const char *const[]){ __VA_ARGS__, NULL })

/* What it said as JSON; fails the test if it is none. */
json_t *operator_json(void);
/* A member that is text. */
const char *operator_text(const json_t *object, const char *key);

/* A file of its own with this text; *path is where. */
void operator_write_file(const char *text, char path[64]);

#endif
