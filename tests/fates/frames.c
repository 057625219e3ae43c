/* frames — see frames.h. */
#include "tests/fates/frames.h"

#include <stdbool.h>

enum {
    PREFIX = 4,
    FIRST_BODY = 10, /* field numbers of a Request: its body, */
    PUSH = 16,       /* which can be these */
    PUSH_PULL = 18,
    TYPE_VARINT = 0, /* of protobuf */
    TYPE_64 = 1,
    TYPE_BYTES = 2
};

static size_t size_of(const uint8_t *frame)
{
    return (size_t)frame[0] | (size_t)frame[1] << 8 | (size_t)frame[2] << 16 |
           (size_t)frame[3] << 24;
}

static uint64_t varint(const uint8_t **at, const uint8_t *end)
{
    uint64_t value = 0;
    for (unsigned shift = 0; *at < end && shift < 64; shift += 7) {
        uint8_t byte = *(*at)++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            break;
        }
    }
    return value;
}

/* Whether the body of a request, of which so much is here, is a push. */
static bool is_push(const uint8_t *at, const uint8_t *end)
{
    while (at < end) {
        uint64_t tag = varint(&at, end);
        if (tag >> 3 >= FIRST_BODY) {
            return tag >> 3 == PUSH || tag >> 3 == PUSH_PULL;
        }
        if ((tag & 7) == TYPE_VARINT) {
            varint(&at, end);
        } else if ((tag & 7) == TYPE_64) {
            at += 8;
        } else if ((tag & 7) == TYPE_BYTES) {
            uint64_t size = varint(&at, end);
            at += size < (uint64_t)(end - at) ? size : (uint64_t)(end - at);
        } else {
            return false;
        }
    }
    return false;
}

/* The first push that ends behind from; false: there is none. */
static bool find(const uint8_t *bytes, size_t from, size_t until, size_t *begin,
                 size_t *end)
{
    for (*begin = 0; *begin + PREFIX <= until; *begin = *end) {
        *end = *begin + PREFIX + size_of(bytes + *begin);
        size_t here = *end < until ? *end : until;
        if (*end > from && is_push(bytes + *begin + PREFIX, bytes + here)) {
            return true;
        }
    }
    return false;
}

size_t frames_first_push(const uint8_t *bytes, size_t from, size_t until)
{
    size_t begin, end;
    if (!find(bytes, from, until, &begin, &end)) {
        return until;
    }
    return begin > from ? begin : from;
}

size_t frames_last_byte_of_push(const uint8_t *bytes, size_t from, size_t until)
{
    size_t begin = 0, end = 0;
    while (find(bytes, from, until, &begin, &end)) {
        if (begin >= from && end <= until) {
            return end - 1;
        }
        from = end;
    }
    return 0;
}
