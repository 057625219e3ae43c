/* logins — files of tokens for tests, and hellos with a token. Every wait has a
 * deadline; what does not come fails the test.
 */
#ifndef OPTIMD_TESTS_SUPPORT_LOGINS_H
#define OPTIMD_TESTS_SUPPORT_LOGINS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/wire.h"

enum { LOGINS_PATH = 96, LOGINS_HEX = 65 };

/* A folder of its own with a file of logins in it, and one with a token. */
struct logins_files {
    char folder[LOGINS_PATH];
    char tokens[LOGINS_PATH + 16];
    char token[LOGINS_PATH + 16];
};
void logins_files_open(struct logins_files *files);
void logins_files_close(struct logins_files *files);

/* SHA-256 of a text, as 64 digits. */
const char *logins_digest(const char *token, char out[LOGINS_HEX]);

/* Replace the file by these lines. Each "@token " in them becomes the digest of that
 * token: "w worker sha256=@secret models=a*". */
void logins_write(const char *path, const char *lines);
/* Replace the file by that text as it is. */
void logins_write_text(const char *path, const char *text);

/* Say hello with a token (NULL: none), and take the answer: OPT_OK, or the status of
 * the error, whose sentence goes to text (of OPT_ERROR_TEXT bytes; may be NULL). */
enum opt_status logins_hello(int socket, const char *worker, const void *token,
                             size_t size, char *text);

/* A connection of an observer, or a worker, that was let in. */
int logins_enter(unsigned port, const char *worker, const char *token);

/* Make that request, with zeros as data, and take its answer: the status, and the
 * detail. The answer may have the id 0. */
enum opt_status logins_ask(int socket, const struct opt_request *request,
                           size_t data_size, enum opt_detail *detail);

#endif
