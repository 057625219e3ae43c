/* frames — where pushes are in a stream of bytes to the daemon, and answers with
 * weights in one from it. A stream begins with a whole frame. */
#ifndef OPTIMD_TESTS_FATES_FRAMES_H
#define OPTIMD_TESTS_FATES_FRAMES_H

#include <stddef.h>
#include <stdint.h>

/* Where the first push that ends behind `from` begins, or `from` if that lies in it;
 * until: there is none. */
size_t frames_first_push(const uint8_t *bytes, size_t from, size_t until);

/* The last byte of the first frame of a push that begins at `from` or later and is all
 * here; 0: there is none. */
size_t frames_last_byte_of_push(const uint8_t *bytes, size_t from, size_t until);

/* How much comes of an answer with weights if it is cut in the middle: its first frame,
 * and half of the next one if it has more. 0: the first answer that ends behind `from`
 * is not that far; *begin is where it begins, until if there is none. */
size_t frames_middle_of_answer(const uint8_t *bytes, size_t from, size_t until,
                               size_t *begin);

#endif
