/* status — how every function here says whether it worked, and why not.
 *
 * The codes are the canonical ones of gRPC with their numbers, so that they can travel
 * as they are. A function that can fail returns a code and, where a person will want to
 * know more, fills a sentence in the caller's struct opt_error. What a program may want
 * to act on travels beside the sentence as data: the detail, and of a push its fate.
 * Any thread.
 */
#ifndef OPTIMD_COMMON_STATUS_H
#define OPTIMD_COMMON_STATUS_H

#include <stdint.h>

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

/* Why, for programs: optimd.proto explains each (Error.Detail). */
enum opt_detail {
    OPT_DETAIL_NONE = 0,
    OPT_DETAIL_STALE_INCARNATION = 1,
    OPT_DETAIL_TAKEN_FOR_DEAD = 2,
    OPT_DETAIL_TAKEN_OVER = 3,
    OPT_DETAIL_CONTINUED = 4,
    OPT_DETAIL_NOT_JOINED = 5,
    OPT_DETAIL_LEFT = 6,
    OPT_DETAIL_WORKER_LOST = 7,
    OPT_DETAIL_OUT_OF_ORDER = 8,
    OPT_DETAIL_TOO_OLD = 9,
    OPT_DETAIL_REFUSED_BEFORE = 10,
    OPT_DETAIL_MODEL_GONE = 11,
    OPT_DETAIL_STOPPING = 12,
    OPT_DETAIL_NOT_FINITE = 13,
    OPT_DETAIL_NO_PEER = 14,
    OPT_DETAIL_MALFORMED = 15,
    OPT_DETAIL_NO_HELLO = 16,
    OPT_DETAIL_SECOND_HELLO = 17,
    OPT_DETAIL_NO_FEATURE = 18,
    OPT_DETAIL_NO_SERVICE = 19,
    OPT_DETAIL_OBSERVER = 20,
    OPT_DETAIL_NO_MODEL = 21,
    OPT_DETAIL_OTHER_DEFINITION = 22,
    OPT_DETAIL_IN_USE = 23,
    OPT_DETAIL_TOO_LARGE = 24,
    OPT_DETAIL_TOO_MANY = 25,
    OPT_DETAIL_NO_MEMORY = 26,
    OPT_DETAIL_SILENT = 27,
    OPT_DETAIL_TOO_SLOW = 28,
    OPT_DETAIL_NO_ROOM = 29,
    OPT_DETAIL_NOT_READY = 30,
    OPT_DETAIL_NO_TENSOR = 31,
    OPT_DETAIL_NOT_CREATOR = 32,
    OPT_DETAIL_PASSED = 33,
    OPT_DETAIL_UNFIT = 34,
    OPT_DETAIL_NOT_SHARED = 35,
    OPT_DETAIL_AT_BARRIER = 36,
    OPT_DETAIL_REPLACED = 37,
    OPT_DETAIL_SEND_AGAIN = 38,
    OPT_DETAIL_NOT_DURABLE = 39,
    OPT_DETAIL_NO_DATA_DIR = 40,
    OPT_DETAIL_RECOVERING = 41,
    OPT_DETAIL_NO_LOGIN = 42,
    OPT_DETAIL_NOT_ALLOWED = 43,
    OPT_DETAIL_COUNT
};

/* What became of a push, or of its number: optimd.proto explains each (PushReply.Fate,
 * Error.fate). */
enum opt_fate {
    OPT_FATE_UNKNOWN = 0, /* nothing is said: no push */
    OPT_FATE_APPLIED = 1,
    OPT_FATE_DUPLICATE = 2,
    OPT_FATE_DROPPED = 3,
    OPT_FATE_SKIPPED = 4,
    OPT_FATE_REFUSED = 5,   /* not applied, and the number is used up */
    OPT_FATE_IN_PART = 6,   /* some of its shards were, and the number is used up */
    OPT_FATE_NOT_TAKEN = 7, /* this copy has changed nothing */
    OPT_FATE_NOT_KNOWN = 8, /* and never will be */
    OPT_FATE_COUNT
};

enum { OPT_ERROR_TEXT = 512 };

/* A failure: for people what was wrong, with which value, and what would be right; for
 * programs the same as far as they can act on it. */
struct opt_error {
    enum opt_status status;
    enum opt_detail detail;
    enum opt_fate fate;              /* of a push */
    uint64_t shards_applied, shards; /* IN_PART: of those it names; 0: not known */
    uint64_t step;                   /* APPLIED: the update it was part of */
    char text[OPT_ERROR_TEXT];
};

/* "INVALID_ARGUMENT"; "UNKNOWN" for a number that is none of the codes. Static text. */
const char *opt_status_name(enum opt_status status);

/* Write status and sentence into error (may be NULL) and return status; the detail
 * becomes NONE, the fate UNKNOWN. A sentence that is too long is cut at a character
 * boundary and ends in "...". */
enum opt_status opt_fail(struct opt_error *error, enum opt_status status,
                         const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The same with a detail. */
enum opt_status opt_fail_as(struct opt_error *error, enum opt_status status,
                            enum opt_detail detail, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
