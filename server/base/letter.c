/* letter — see letter.h. A letter belongs to one thread at a time, so nothing here
 * takes a lock. */
#include "server/base/letter.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/buffer.h"
#include "server/base/quota.h"
#include "server/base/region.h"
#include "server/base/version.h"

enum { ALIGNMENT = 64, SMALL_BYTES = 4 << 10, PIECES_KEPT = 16 };

void letters_append(struct letters *letters, struct letter *letter)
{
    letter->next = NULL;
    if (letters->first == NULL) {
        letters->first = letter;
    } else {
        letters->last->next = letter;
    }
    letters->last = letter;
}

struct letter *letters_take(struct letters *letters)
{
    struct letter *letter = letters->first;
    if (letter != NULL) {
        letters->first = letter->next;
        letter->next = NULL;
    }
    return letter;
}

struct letter *letter_new(struct mailbox *home, struct conn *conn, struct peer *peer,
                          size_t arena_limit)
{
    struct letter *letter = malloc(sizeof(*letter));
    if (letter == NULL) {
        return NULL;
    }
    *letter = (struct letter){ .small = NULL };
    opt_arena_init(&letter->arena, arena_limit);
    letter_renew(letter, home, conn, peer, arena_limit);
    return letter;
}

void letter_drop_last(struct letter *letter, size_t most)
{
    for (; letter->piece_count > 0 && most > 0; most--) {
        version_unref(letter->pieces[--letter->piece_count].version);
    }
}

void letter_drop_pieces(struct letter *letter)
{
    letter_drop_last(letter, letter->piece_count);
    letter->planned = false;
    letter->filled = 0;
    letter->copied = 0;
    if (letter->piece_capacity > PIECES_KEPT) {
        free(letter->pieces);
        letter->pieces = NULL;
        letter->piece_capacity = 0;
    }
}

bool letter_pieces(struct letter *letter, size_t count)
{
    letter_drop_pieces(letter);
    if (count > letter->piece_capacity) {
        size_t capacity = count < PIECES_KEPT ? PIECES_KEPT : count;
        struct piece *pieces = calloc(capacity, sizeof(*pieces));
        if (pieces == NULL) {
            return false;
        }
        free(letter->pieces);
        letter->pieces = pieces;
        letter->piece_capacity = capacity;
    } else if (count > 0) {
        memset(letter->pieces, 0, count * sizeof(*letter->pieces));
    }
    letter->piece_count = count;
    return true;
}

/* Give back what request and answer own. */
static void empty(struct letter *letter)
{
    letter_refund(letter, letter->paid);
    letter_drop_pieces(letter);
    free(letter->table);
    letter_drop_data(letter);
    region_unref(letter->region);
    region_unref(letter->weights);
    for (size_t i = 0; i < LETTER_OFFERS; i++) {
        region_unref(letter->offers[i]);
    }
}

void letter_renew(struct letter *letter, struct mailbox *home, struct conn *conn,
                  struct peer *peer, size_t arena_limit)
{
    empty(letter);
    opt_arena_reset(&letter->arena);
    letter->arena.limit = arena_limit;
    *letter = (struct letter){
        .kind = LETTER_REQUEST,
        .home = home,
        .conn = conn,
        .peer = peer,
        .arena = letter->arena,
        .small = letter->small,
        .pieces = letter->pieces,
        .piece_capacity = letter->piece_capacity,
        .nonfinite = SIZE_MAX,
        .socket = -1,
    };
}

void letter_free(struct letter *letter)
{
    if (letter == NULL) {
        return;
    }
    empty(letter);
    free(letter->pieces);
    free(letter->small);
    opt_arena_fini(&letter->arena);
    free(letter);
}

static uint8_t *take_small(struct letter *letter, size_t *capacity)
{
    if (letter->small == NULL) {
        letter->small = aligned_alloc(ALIGNMENT, SMALL_BYTES);
    }
    *capacity = SMALL_BYTES;
    return letter->small;
}

bool letter_data(struct letter *letter, size_t size)
{
    if (size > letter->data_capacity) {
        size_t capacity = 0;
        uint8_t *data = size <= SMALL_BYTES ? take_small(letter, &capacity)
                                            : buffer_take(size, &capacity);
        if (data == NULL) {
            return false;
        }
        letter_drop_data(letter);
        letter->data = data;
        letter->data_capacity = capacity;
    }
    letter->data_size = size;
    return true;
}

void letter_forget(struct letter *letter)
{
    opt_arena_fini(&letter->arena);
    letter->ahead = 0;
    letter->request = (struct opt_request){ .id = 0 };
    letter->reply = (struct opt_reply){ .id = 0 };
}

void letter_drop_data(struct letter *letter)
{
    if (letter->data != letter->small) {
        buffer_give(letter->data, letter->data_capacity);
    }
    letter->data = NULL;
    letter->data_size = 0;
    letter->data_capacity = 0;
}

size_t letter_memory(const struct letter *letter)
{
    size_t data =
        letter->data != letter->small ? buffer_capacity(letter->data_size) : 0;
    return sizeof(*letter) + letter->arena.held + letter->ahead +
           (letter->small != NULL ? SMALL_BYTES : 0) + data + letter->table_size +
           letter->piece_capacity * sizeof(*letter->pieces);
}

bool letter_pay(struct letter *letter, size_t bytes)
{
    if (letter->room != NULL) {
        if (!quota_take(letter->room, bytes, letter->guest)) {
            return false;
        }
        letter->paid += bytes;
    }
    return true;
}

bool letter_table(struct letter *letter, size_t size)
{
    letter->table = malloc(size + 1);
    if (letter->table == NULL) {
        letter_fail(letter, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                    "no memory for a table of %zu bytes", size);
        return false;
    }
    letter->table_size = size;
    return true;
}

bool letter_pay_or_fail(struct letter *letter, size_t bytes)
{
    enum { RETRY_MS = 200 };
    if (letter_pay(letter, bytes)) {
        return true;
    }
    letter_fail(letter, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_ROOM,
                "no room for %zu bytes of an answer at present: requests in flight and "
                "answers that peers have not read take what the setting inflight "
                "allows; try again later",
                bytes);
    letter->reply.body.error.retry_after_ms = RETRY_MS;
    return false;
}

void letter_refund(struct letter *letter, size_t bytes)
{
    bytes = bytes < letter->paid ? bytes : letter->paid;
    if (bytes > 0) {
        quota_give(letter->room, bytes, letter->guest);
        letter->paid -= bytes;
    }
}

const struct opt_push *letter_push(const struct letter *letter)
{
    if (letter->kind != LETTER_REQUEST) {
        return NULL;
    }
    switch (letter->request.message) {
    case OPT_MESSAGE_PUSH:
        return &letter->request.body.push;
    case OPT_MESSAGE_PUSH_PULL:
        return &letter->request.body.push_pull.push;
    default:
        return NULL;
    }
}

const struct opt_pull *letter_pull(const struct letter *letter)
{
    switch (letter->request.message) {
    case OPT_MESSAGE_PULL:
        return &letter->request.body.pull;
    case OPT_MESSAGE_PUSH_PULL:
        return &letter->request.body.push_pull.pull;
    default:
        return NULL;
    }
}

const char *letter_text(struct letter *letter, const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = opt_arena_alloc(&letter->arena, size);
    return copy == NULL ? "" : memcpy(copy, text, size);
}

void letter_refuse(struct letter *letter, const struct opt_error *error)
{
    const char *text = letter_text(letter, error->text);
    if (text[0] == '\0') {
        /* Without memory the code alone is worth more than no answer. */
        text = opt_status_name(error->status);
    }
    const struct opt_push *push = letter_push(letter);
    bool untold = push != NULL && push->frame == 0 && error->fate == OPT_FATE_UNKNOWN;
    letter->silent = false;
    letter->reply = (struct opt_reply){
        .id = letter->request.id,
        .message = OPT_MESSAGE_ERROR,
        .body.error = { .status = error->status,
                        .text = text,
                        .fate = untold ? OPT_FATE_NOT_TAKEN : error->fate,
                        .shards_applied = error->shards_applied,
                        .shards = error->shards,
                        .detail = error->detail,
                        .step = error->step },
    };
}

void letter_fail(struct letter *letter, enum opt_status status, enum opt_detail detail,
                 const char *format, ...)
{
    char sentence[2 * OPT_ERROR_TEXT];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(sentence, sizeof(sentence), format, arguments);
    va_end(arguments);
    struct opt_error error;
    opt_fail_as(&error, status, detail, "%s", length > 0 ? sentence : "");
    letter_refuse(letter, &error);
}

void letter_return(struct letter *letter)
{
    letter->answered_ns = uv_hrtime();
    mailbox_post(letter->home, letter);
}
