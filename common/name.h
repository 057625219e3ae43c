/* name — text from and for the wire: UTF-8 without control characters.
 *
 * Beside opt_name_check (wire.h), what the wire needs for longer texts. Any thread, no
 * state.
 */
#ifndef OPTIMD_COMMON_NAME_H
#define OPTIMD_COMMON_NAME_H

#include <stddef.h>

#include "common/status.h"

/* How many bytes from the start are well-formed UTF-8 without control characters. */
size_t opt_text_good(const char *text, size_t size);

/* OPT_INVALID_ARGUMENT, with the place, if not all of them are; what names the text. */
enum opt_status opt_text_check(const char *text, size_t size, const char *what,
                               struct opt_error *error);

/* Copy text into out, every byte that would be refused by opt_text_check replaced by a
 * question mark, cut at a character's boundary if it is longer than capacity - 1.
 * Returns its length. */
size_t opt_text_clean(const char *text, char *out, size_t capacity);

#endif
