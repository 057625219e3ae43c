/* status — how every function here says whether it worked, and why not.
 *
 * The codes are the canonical ones of gRPC with their numbers, so that they can travel
 * as they are. A function that can fail returns a code and, where a person will want to
 * know more, fills a sentence in the caller's struct opt_error. Any thread.
 */
#ifndef OPTIMD_COMMON_STATUS_H
#define OPTIMD_COMMON_STATUS_H

enum opt_status {
    OPT_OK = 0,
    OPT_CANCELLED = 1,
    OPT_UNKNOWN = 2,
    OPT_INVALID_ARGUMENT = 3,
    OPT_DEADLINE_EXCEEDED = 4,
    OPT_NOT_FOUND = 5,
    OPT_ALREADY_EXISTS = 6,
    OPT_PERMISSION_DENIED = 7,
    OPT_RESOURCE_EXHAUSTED = 8,
    OPT_FAILED_PRECONDITION = 9,
    OPT_ABORTED = 10,
    OPT_OUT_OF_RANGE = 11,
    OPT_UNIMPLEMENTED = 12,
    OPT_INTERNAL = 13,
    OPT_UNAVAILABLE = 14,
    OPT_DATA_LOSS = 15,
    OPT_UNAUTHENTICATED = 16,
    OPT_STATUS_COUNT
};

enum { OPT_ERROR_TEXT = 512 };

/* A failure for people: what was wrong, with which value, and what would be right. */
struct opt_error {
    enum opt_status status;
    char text[OPT_ERROR_TEXT];
};

/* "INVALID_ARGUMENT"; "UNKNOWN" for a number that is none of the codes. Static text. */
const char *opt_status_name(enum opt_status status);

/* Write status and sentence into error (may be NULL) and return status. A sentence that
 * is too long is cut at a character boundary and ends in "...". */
enum opt_status opt_fail(struct opt_error *error, enum opt_status status,
                         const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
