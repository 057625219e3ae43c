/* frames — where pushes are in a stream of bytes to the daemon, which begins with a
 * whole frame. */
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

#endif
