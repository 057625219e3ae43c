/* frames — see frames.h. */
#include "tests/fates/frames.h"

#include <stdbool.h>

enum {
    PREFIX = 4,
    FIRST_BODY = 9, /* field numbers of a Request and a Reply: the body, */
    PUSH = 16,      /* which can be these */
    PULL = 17,
    PUSH_PULL = 18,
    PULL_IN_BOTH = 2, /* of a PushPullReply */
    PULL_LAST = 4,    /* of a PullReply */
    TYPE_VARINT = 0,  /* of protobuf */
    TYPE_64 = 1,
    TYPE_BYTES = 2
};

/* A field of a message: bytes until its end, or a number. */
struct field {
    uint64_t number, value;
    const uint8_t *at, *end;
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

/* The next field of a message of which so much is here; false: there is none. */
static bool next_field(const uint8_t **at, const uint8_t *end, struct field *field)
{
    if (*at >= end) {
        return false;
    }
    uint64_t tag = varint(at, end);
    uint64_t size = 0;
    *field = (struct field){ .number = tag >> 3 };
    if ((tag & 7) == TYPE_VARINT) {
        field->value = varint(at, end);
    } else if ((tag & 7) == TYPE_64) {
        size = 8;
    } else if ((tag & 7) == TYPE_BYTES) {
        size = varint(at, end);
    } else {
        return false;
    }
    field->at = *at;
    *at += size < (uint64_t)(end - *at) ? size : (uint64_t)(end - *at);
    field->end = *at;
    return true;
}

/* The body of a request or a reply, or a field of number 0. */
static struct field body_of(const uint8_t *at, const uint8_t *end)
{
    struct field field;
    while (next_field(&at, end, &field)) {
        if (field.number >= FIRST_BODY) {
            return field;
        }
    }
    return (struct field){ 0 };
}

static bool is_push(struct field body)
{
    return body.number == PUSH || body.number == PUSH_PULL;
}

static bool has_weights(struct field body)
{
    return body.number == PULL || body.number == PUSH_PULL;
}

/* Whether a reply with weights is the last of its answer. */
static bool is_last(struct field message)
{
    bool in_both = message.number == PUSH_PULL;
    struct field field;
    while (next_field(&message.at, message.end, &field)) {
        if (in_both && field.number == PULL_IN_BOTH) {
            return is_last(field);
        }
        if (!in_both && field.number == PULL_LAST) {
            return field.value != 0;
        }
    }
    return false;
}

/* The first frame of a kind that ends behind from; false: there is none. */
static bool find(bool (*is)(struct field body), const uint8_t *bytes, size_t from,
                 size_t until, size_t *begin, size_t *end)
{
    for (*begin = 0; *begin + PREFIX <= until; *begin = *end) {
        *end = *begin + PREFIX + size_of(bytes + *begin);
        size_t here = *end < until ? *end : until;
        if (*end > from && is(body_of(bytes + *begin + PREFIX, bytes + here))) {
            return true;
        }
    }
    return false;
}

size_t frames_first_push(const uint8_t *bytes, size_t from, size_t until)
{
    size_t begin, end;
    if (!find(is_push, bytes, from, until, &begin, &end)) {
        return until;
    }
    return begin > from ? begin : from;
}

size_t frames_last_byte_of_push(const uint8_t *bytes, size_t from, size_t until)
{
    size_t begin = 0, end = 0;
    while (find(is_push, bytes, from, until, &begin, &end)) {
        if (begin >= from && end <= until) {
            return end - 1;
        }
        from = end;
    }
    return 0;
}

size_t frames_middle_of_answer(const uint8_t *bytes, size_t from, size_t until,
                               size_t *begin)
{
    size_t end;
    if (!find(has_weights, bytes, from, until, begin, &end)) {
        *begin = until;
        return 0;
    }
    if (end > until) {
        return 0;
    }
    if (is_last(body_of(bytes + *begin + PREFIX, bytes + end))) {
        return end;
    }
    size_t half = end + PREFIX < until ? end + size_of(bytes + end) / 2 : until;
    return half < until ? half : 0;
}
