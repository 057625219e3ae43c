/* peer_memory — see peer_memory.h. */
#include "server/net/peer_memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <xxhash.h>

#include "common/dtype.h"
#include "server/base/counters.h"
#include "server/base/letter.h"
#include "server/base/region.h"
#include "server/base/version.h"

enum {
    SHARES_MAX = 64,     /* models of one connection */
    LOANS_MAX = 16,      /* requests whose weights it reads at a time */
    VERSIONS_MAX = 65536 /* and versions of all of them */
};

struct share {
    uint32_t model;
    struct region *gradients; /* or NULL */
    struct region *weights;
};

/* What was lent by the answer to one request. */
struct loan {
    struct loan *next;
    uint64_t request;
    struct version **versions; /* a reference each */
    size_t count, capacity;
};

struct peer_memory {
    struct share shares[SHARES_MAX];
    size_t share_count;
    struct loan *loans;
    struct loan *spare; /* empty ones for the next answers */
    size_t loan_count, version_count;
    size_t lending; /* answers queued that may become loans */
};

struct peer_memory *peer_memory_new(void)
{
    return calloc(1, sizeof(struct peer_memory));
}

/* ------------------------------------------------------------------ files */

static struct share *find(const struct conn *conn, uint32_t model)
{
    struct peer_memory *memory = conn->peer_memory;
    for (size_t i = 0; memory != NULL && i < memory->share_count; i++) {
        if (memory->shares[i].model == model) {
            return &memory->shares[i];
        }
    }
    return NULL;
}

static void drop(struct conn *conn, struct share *share)
{
    struct peer_memory *memory = conn->peer_memory;
    region_unref(share->gradients);
    region_unref(share->weights);
    *share = memory->shares[--memory->share_count];
}

bool peer_memory_has_room(const struct conn *conn, uint32_t model)
{
    return conn->peer_memory->share_count < SHARES_MAX || find(conn, model) != NULL;
}

static void note_offer(struct conn *conn, const struct letter *letter)
{
    struct share *old = find(conn, letter->request.body.share);
    if (old != NULL) {
        drop(conn, old);
    }
    struct peer_memory *memory = conn->peer_memory;
    if (memory->share_count == SHARES_MAX) {
        return; /* what it pushes by place is refused, the rest is sent */
    }
    struct region *gradients = letter->offers[LETTER_GRADIENTS];
    memory->shares[memory->share_count++] = (struct share){
        .model = letter->request.body.share,
        .gradients = gradients == NULL ? NULL : region_ref(gradients),
        .weights = region_ref(letter->offers[LETTER_WEIGHTS]),
    };
}

void peer_memory_note(struct conn *conn, const struct letter *letter)
{
    if (conn->peer_memory == NULL) {
        return;
    }
    if (letter->reply.message == OPT_MESSAGE_SHARE) {
        note_offer(conn, letter);
    } else if (letter->reply.message == OPT_MESSAGE_LEAVE) {
        struct share *left = find(conn, letter->request.body.leave);
        if (left != NULL) {
            drop(conn, left);
        }
    }
}

int peer_memory_send(struct conn *conn, struct letter *letter, const uint8_t *frame,
                     size_t size)
{
    struct opt_transport *transport = &conn->watch.transport;
    int files[LETTER_OFFERS] = { -1, -1 };
    size_t count = 0;
    for (size_t i = 0; i < LETTER_OFFERS; i++) {
        if (letter->offers[i] != NULL) {
            files[count++] = region_file(letter->offers[i]);
        }
    }
    if (transport->kind->hand_over(transport, frame, size, files, count) < 0) {
        return errno;
    }
    if (letter->offers[LETTER_GRADIENTS] != NULL) {
        region_close_file(letter->offers[LETTER_GRADIENTS]);
    }
    return 0;
}

void peer_memory_forget(struct conn *conn, const struct letter *letter)
{
    struct share *share = find(conn, letter->request.body.share);
    if (share != NULL) {
        drop(conn, share);
    }
}

/* ------------------------------------------------------------------ pushes */

bool peer_memory_locate(struct conn *conn, struct letter *letter)
{
    const struct opt_push *push = letter_push(letter);
    if (push == NULL || push->places == NULL) {
        return true;
    }
    const struct share *share = find(conn, push->model);
    if (share == NULL || share->gradients == NULL) {
        letter_fail(letter, OPT_FAILED_PRECONDITION, OPT_DETAIL_NOT_SHARED,
                    "values are given by place, but this connection shares no memory "
                    "for gradients of model %" PRIu32
                    "; join it and ask for that first",
                    push->model);
        return false;
    }
    size_t size = region_size(share->gradients);
    size_t limit = conn_limits(conn)->frame.frame_bytes;
    size_t element = opt_dtype_size(push->dtype);
    size_t placed = 0;
    for (size_t i = 0; i < push->segment_count; i++) {
        /* Counts are at most 2^40. */
        size_t bytes = (size_t)push->segments[i].count * element;
        if (bytes > size || push->places[i] > size - bytes) {
            letter_fail(letter, OPT_INVALID_ARGUMENT, OPT_DETAIL_MALFORMED,
                        "segment %zu of a push has %zu bytes from byte %" PRIu64
                        " on of a file that has %zu",
                        i, bytes, push->places[i], size);
            return false;
        }
        placed += bytes; /* at most the file's size, 4,096 times */
        if (placed > limit) {
            letter_fail(letter, OPT_INVALID_ARGUMENT, OPT_DETAIL_TOO_LARGE,
                        "a frame gives more than %zu bytes by place (setting "
                        "max-frame); push in smaller frames",
                        limit);
            return false;
        }
    }
    letter->region = region_ref(share->gradients);
    letter->placed = placed;
    return true;
}

void peer_memory_examine(struct conn *conn, struct letter *letter)
{
    const struct opt_push *push = letter_push(letter);
    if (letter->region == NULL) {
        return;
    }
    size_t before = 0;
    for (size_t i = 0; i < push->segment_count; i++) {
        const uint8_t *values = region_base(letter->region) + push->places[i];
        size_t count = (size_t)push->segments[i].count;
        if (letter->request.has_checksum) {
            XXH3_64bits_update(conn->hash, values, count * opt_dtype_size(push->dtype));
        }
        if (letter->nonfinite == SIZE_MAX) {
            size_t first = opt_dtype_first_nonfinite(push->dtype, values, count);
            if (first < count) {
                letter->nonfinite = before + first;
            }
        }
        before += count;
    }
    counter_add(COUNTER_DATA_SHARED, letter->placed);
}

/* ------------------------------------------------------------------ pulls */

static struct loan *find_loan(struct peer_memory *memory, uint64_t request)
{
    struct loan *loan = memory->loans;
    while (loan != NULL && loan->request != request) {
        loan = loan->next;
    }
    return loan;
}

void peer_memory_lend(struct conn *conn, struct letter *letter)
{
    struct peer_memory *memory = conn->peer_memory;
    const struct opt_pull *pull = memory == NULL ? NULL : letter_pull(letter);
    if (pull == NULL || !pull->shared || letter->dtype != OPT_FP32 ||
        letter->piece_count == 0 || memory->lending >= LETTERS_MAX ||
        memory->version_count >= VERSIONS_MAX ||
        (memory->loan_count >= LOANS_MAX &&
         find_loan(memory, letter->request.id) == NULL)) {
        return;
    }
    const struct share *share = find(conn, pull->model);
    if (share != NULL) {
        letter->weights = region_ref(share->weights);
        memory->lending++;
    }
}

bool peer_memory_place(const struct letter *letter, const struct piece *piece,
                       uint64_t from, uint64_t *place)
{
    return letter->weights != NULL && !piece->unchanged &&
           version_place(piece->version, piece->values + from, letter->weights,
                         place) &&
           *place % OPT_PLACE_ALIGNMENT == 0;
}

static struct loan *make_loan(struct peer_memory *memory, uint64_t request)
{
    struct loan *loan = memory->spare;
    if (loan != NULL) {
        memory->spare = loan->next;
    } else {
        loan = calloc(1, sizeof(*loan));
    }
    if (loan != NULL) {
        loan->request = request;
        loan->next = memory->loans;
        memory->loans = loan;
        memory->loan_count++;
    }
    return loan;
}

static bool reserve(struct loan *loan, size_t count)
{
    if (count <= loan->capacity) {
        return true;
    }
    size_t capacity = 2 * count;
    struct version **versions =
        realloc(loan->versions, capacity * sizeof(struct version *));
    if (versions == NULL) {
        return false;
    }
    loan->versions = versions;
    loan->capacity = capacity;
    return true;
}

/* Move the references of a letter's pieces that are given by place to the loan, one for
 * each version: small tensors share one. */
static bool lend(struct peer_memory *memory, struct loan *loan, struct letter *letter)
{
    for (size_t i = 0; i < letter->piece_count; i++) {
        struct piece *piece = &letter->pieces[i];
        struct version *version = piece->version;
        uint64_t place;
        bool again = loan->count > 0 && loan->versions[loan->count - 1] == version;
        if (again || !peer_memory_place(letter, piece, 0, &place)) {
            continue;
        }
        if (!reserve(loan, loan->count + 1)) {
            return false;
        }
        loan->versions[loan->count++] = version;
        memory->version_count++;
        piece->version = NULL;
    }
    return true;
}

bool peer_memory_keep(struct conn *conn, struct letter *letter)
{
    struct peer_memory *memory = conn->peer_memory;
    if (letter->weights == NULL) {
        return true;
    }
    memory->lending--;
    if (!letter->lent) {
        return true;
    }
    struct loan *loan = find_loan(memory, letter->request.id);
    if (loan == NULL) {
        loan = make_loan(memory, letter->request.id);
    }
    return loan != NULL && lend(memory, loan, letter);
}

static void take_back(struct peer_memory *memory, struct loan *loan)
{
    memory->loan_count--;
    memory->version_count -= loan->count;
    for (size_t i = 0; i < loan->count; i++) {
        version_unref(loan->versions[i]);
    }
    loan->count = 0;
    loan->next = memory->spare;
    memory->spare = loan;
}

void peer_memory_release(struct conn *conn, const struct letter *letter)
{
    struct peer_memory *memory = conn->peer_memory;
    for (size_t i = 0; memory != NULL && i < letter->request.released_count; i++) {
        struct loan **link = &memory->loans;
        while (*link != NULL && (*link)->request != letter->request.released[i]) {
            link = &(*link)->next;
        }
        if (*link != NULL) {
            struct loan *loan = *link;
            *link = loan->next;
            take_back(memory, loan);
        }
    }
}

void peer_memory_close(struct conn *conn)
{
    struct peer_memory *memory = conn->peer_memory;
    while (memory != NULL && memory->loans != NULL) {
        struct loan *loan = memory->loans;
        memory->loans = loan->next;
        take_back(memory, loan);
    }
    while (memory != NULL && memory->spare != NULL) {
        struct loan *loan = memory->spare;
        memory->spare = loan->next;
        free(loan->versions);
        free(loan);
    }
    while (memory != NULL && memory->share_count > 0) {
        drop(conn, &memory->shares[0]);
    }
}
