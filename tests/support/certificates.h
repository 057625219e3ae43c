/* certificates — real ones for tests, made by `optctl cert` in a folder of their own.
 */
#ifndef OPTIMD_TESTS_SUPPORT_CERTIFICATES_H
#define OPTIMD_TESTS_SUPPORT_CERTIFICATES_H

#include <stdbool.h>

enum { CERTIFICATES_PATH = 160 };

/* The files of a folder: a CA, a daemon's certificate for localhost, 127.0.0.1 and ::1,
 * and that of a client called "worker". */
struct certificates {
    char dir[64];
    char ca[CERTIFICATES_PATH];
    char cert[CERTIFICATES_PATH], key[CERTIFICATES_PATH];
    char client_cert[CERTIFICATES_PATH], client_key[CERTIFICATES_PATH];
};

/* Make the folder and its files; fails the test if that is not possible. */
void certificates_make(struct certificates *out);
void certificates_remove(const struct certificates *certificates);

/* One more, by what follows `optctl cert`, such as "client", "reader"; ends with NULL.
 * when is NULL, or how far off the clock is at that time, as faketime says it ("-40d").
 */
void certificates_add(const struct certificates *certificates, const char *when,
                      const char *const *words);

/* Whether `when` can be had here. */
bool certificates_can_shift(void);

/* The path of one of its files. */
void certificates_path(const struct certificates *certificates, const char *file,
                       char out[CERTIFICATES_PATH]);

#endif
