/* proxy_faults — see proxy_faults.h. Bytes go on in pieces: as they came, or, if frames
 * are to be tampered with, a frame a piece.
 */
#include "tests/support/proxy_faults.h"

#include <stdlib.h>
#include <string.h>

enum {
    PREFIX = 4,              /* of a frame: how long the rest is, little-endian */
    FRAME_MAX = 64 << 20,    /* what claims to be longer is passed on as it is */
    HEADER_MAX = 64 << 10,   /* values come behind it */
    VALUES_MIN = 1 << 10,    /* a frame that is shorter has none worth a fault */
    SWAP_MS = 30,            /* how long a frame waits to be overtaken */
    FULL = 64 << 10,         /* bytes that are not gone yet, */
    FULL_OF_FRAMES = 8 << 20 /* if frames are to be whole */
};

struct piece {
    struct piece *next;
    uint64_t due_ns;
    size_t size, gone;
    uint8_t bytes[];
};

struct lane {
    struct piece *first, *last;
    size_t held;          /* bytes in pieces */
    uint64_t last_due_ns; /* order is kept */
    uint64_t free_ns;     /* when the rate allows the next byte */
    uint8_t *frame;       /* one that is not complete */
    size_t frame_size, frame_capacity;
    struct piece *swapped; /* waits for the one behind it to go first */
};

uint64_t lane_random(uint64_t *state, uint64_t n)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (z ^ z >> 31) % n;
}

static bool by_frame(const struct lane_faults *faults)
{
    return faults->duplicate_one_in > 0 || faults->swap_one_in > 0 ||
           faults->damage_one_in > 0;
}

static bool one_in(uint64_t *random, uint32_t n)
{
    return n > 0 && lane_random(random, n) == 0;
}

struct lane *lane_new(void)
{
    struct lane *lane = calloc(1, sizeof *lane);
    if (lane == NULL) {
        abort();
    }
    return lane;
}

void lane_free(struct lane *lane)
{
    if (lane == NULL) {
        return;
    }
    while (lane->first != NULL) {
        struct piece *piece = lane->first;
        lane->first = piece->next;
        free(piece);
    }
    free(lane->swapped);
    free(lane->frame);
    free(lane);
}

static struct piece *piece_new(const uint8_t *bytes, size_t size)
{
    struct piece *piece = malloc(sizeof *piece + size);
    if (piece == NULL) {
        abort();
    }
    *piece = (struct piece){ .size = size };
    memcpy(piece->bytes, bytes, size);
    return piece;
}

static void append(struct lane *lane, const struct lane_faults *faults,
                   uint64_t *random, struct piece *piece, uint64_t now_ns)
{
    uint64_t wait_ms = faults->delay_ms;
    if (faults->jitter_ms > 0) {
        wait_ms += lane_random(random, faults->jitter_ms + 1);
    }
    piece->due_ns = now_ns + wait_ms * 1000000;
    if (piece->due_ns < lane->last_due_ns) {
        piece->due_ns = lane->last_due_ns;
    }
    lane->last_due_ns = piece->due_ns;
    lane->held += piece->size;
    if (lane->first == NULL) {
        lane->first = piece;
    } else {
        lane->last->next = piece;
    }
    lane->last = piece;
}

/* A bit of the values, which are the frame's tail. */
static void damage(struct piece *piece, uint64_t *random)
{
    size_t header = piece->size / 2 < HEADER_MAX ? piece->size / 2 : HEADER_MAX;
    size_t at = header + (size_t)lane_random(random, piece->size - header);
    piece->bytes[at] ^= (uint8_t)(1u << lane_random(random, 8));
}

/* A whole frame has come. Returns in how many ways it was tampered with. */
static unsigned add_frame(struct lane *lane, const struct lane_faults *faults,
                          uint64_t *random, const uint8_t *bytes, size_t size,
                          uint64_t now_ns)
{
    struct piece *piece = piece_new(bytes, size);
    unsigned tampered = 0;
    if (size >= VALUES_MIN && one_in(random, faults->damage_one_in)) {
        damage(piece, random);
        tampered++;
    }
    struct piece *again =
        one_in(random, faults->duplicate_one_in) ? piece_new(bytes, size) : NULL;
    if (lane->swapped == NULL && one_in(random, faults->swap_one_in)) {
        tampered++;
        lane->swapped = piece;
        piece->due_ns = now_ns + (uint64_t)SWAP_MS * 1000000;
    } else {
        append(lane, faults, random, piece, now_ns);
        if (lane->swapped != NULL) {
            append(lane, faults, random, lane->swapped, now_ns);
            lane->swapped = NULL;
        }
    }
    if (again != NULL) {
        append(lane, faults, random, again, now_ns);
        tampered++;
    }
    return tampered;
}

static size_t frame_length(const uint8_t *prefix)
{
    return PREFIX + ((size_t)prefix[0] | (size_t)prefix[1] << 8 |
                     (size_t)prefix[2] << 16 | (size_t)prefix[3] << 24);
}

static void gather(struct lane *lane, const uint8_t *bytes, size_t size)
{
    if (lane->frame_size + size > lane->frame_capacity) {
        lane->frame_capacity = 2 * (lane->frame_size + size);
        lane->frame = realloc(lane->frame, lane->frame_capacity);
        if (lane->frame == NULL) {
            abort();
        }
    }
    memcpy(lane->frame + lane->frame_size, bytes, size);
    lane->frame_size += size;
}

unsigned lane_put(struct lane *lane, const struct lane_faults *faults, uint64_t *random,
                  const uint8_t *bytes, size_t size, uint64_t now_ns)
{
    gather(lane, bytes, size);
    size_t at = 0;
    unsigned tampered = 0;
    while (by_frame(faults) && lane->frame_size - at >= PREFIX) {
        size_t length = frame_length(lane->frame + at);
        if (length > FRAME_MAX || lane->frame_size - at < length) {
            break;
        }
        tampered += add_frame(lane, faults, random, lane->frame + at, length, now_ns);
        at += length;
    }
    if (!by_frame(faults)) {
        append(lane, faults, random, piece_new(lane->frame, lane->frame_size), now_ns);
        at = lane->frame_size;
    }
    lane->frame_size -= at;
    memmove(lane->frame, lane->frame + at, lane->frame_size);
    return tampered;
}

void lane_finish(struct lane *lane)
{
    static const struct lane_faults none;
    uint64_t random = 0;
    if (lane->swapped != NULL) {
        append(lane, &none, &random, lane->swapped, lane->last_due_ns);
        lane->swapped = NULL;
    }
    if (lane->frame_size > 0) {
        append(lane, &none, &random, piece_new(lane->frame, lane->frame_size),
               lane->last_due_ns);
        lane->frame_size = 0;
    }
}

/* Nothing came behind a frame that was to be overtaken. */
static void give_up_swap(struct lane *lane, uint64_t now_ns)
{
    static const struct lane_faults none;
    uint64_t random = 0;
    if (lane->swapped != NULL && lane->swapped->due_ns <= now_ns) {
        append(lane, &none, &random, lane->swapped, now_ns);
        lane->swapped = NULL;
    }
}

size_t lane_due(struct lane *lane, const struct lane_faults *faults, uint64_t now_ns,
                const uint8_t **bytes)
{
    give_up_swap(lane, now_ns);
    const struct piece *piece = lane->first;
    if (piece == NULL || piece->due_ns > now_ns) {
        return 0;
    }
    size_t left = piece->size - piece->gone;
    if (faults->bytes_per_second > 0) {
        uint64_t byte_ns = UINT64_C(1000000000) / faults->bytes_per_second;
        if (lane->free_ns > now_ns) {
            return 0;
        }
        /* A tenth of a second's worth at a time, or one byte. */
        size_t most = faults->bytes_per_second / 10 + 1;
        left = left < most ? left : most;
        lane->free_ns = now_ns + left * byte_ns;
    }
    *bytes = piece->bytes + piece->gone;
    return left;
}

void lane_taken(struct lane *lane, size_t size)
{
    struct piece *piece = lane->first;
    piece->gone += size;
    lane->held -= size;
    if (piece->gone == piece->size) {
        lane->first = piece->next;
        free(piece);
    }
}

uint64_t lane_when(const struct lane *lane, const struct lane_faults *faults)
{
    uint64_t when = lane->swapped != NULL ? lane->swapped->due_ns : UINT64_MAX;
    if (lane->first != NULL) {
        uint64_t due = lane->first->due_ns;
        due = faults->bytes_per_second > 0 && lane->free_ns > due ? lane->free_ns : due;
        when = due < when ? due : when;
    }
    return when;
}

bool lane_open(const struct lane *lane, const struct lane_faults *faults)
{
    size_t full = by_frame(faults) ? FULL_OF_FRAMES : FULL;
    return lane->held + lane->frame_size < full;
}

bool lane_empty(const struct lane *lane)
{
    return lane->first == NULL && lane->swapped == NULL && lane->frame_size == 0;
}
