#define _GNU_SOURCE /* F_GET_SEALS, MADV_DONTFORK */
#include "client/shared.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/call.h"
#include "client/cutter.h"
#include "client/opened.h"
#include "client/session.h"
#include "client/uplink.h"
#include "common/dtype.h"

enum { LAYOUT_FLOATS = OPT_PLACE_ALIGNMENT / sizeof(float) };

/* ---------------------------------------------------------------- memory */

static size_t bytes_of(const struct shared *shared)
{
    return shared->floats * sizeof(float);
}

static void *map_private(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        return NULL;
    }
    (void)madvise(memory, size, MADV_HUGEPAGE);
    return memory;
}

bool shared_init(struct optclient_model *model)
{
    struct shared *shared = &model->shared;
    free(shared->at); /* opening may have begun anew */
    shared->at = malloc((model->tensor_count + 1) * sizeof(*shared->at));
    if (shared->at == NULL) {
        return false;
    }
    size_t at = 0;
    for (size_t i = 0; i < model->tensor_count; i++) {
        shared->at[i] = at;
        at += (size_t)(model->elements[i] + LAYOUT_FLOATS - 1) / LAYOUT_FLOATS *
              LAYOUT_FLOATS;
    }
    shared->floats = at;
    return true;
}

static void mapping_unref(struct mapping *mapping)
{
    if (mapping != NULL && --mapping->references == 0) {
        munmap((void *)(uintptr_t)mapping->base, mapping->size);
        free(mapping);
    }
}

void shared_fini(struct optclient_model *model)
{
    struct shared *shared = &model->shared;
    if (shared->gradients != NULL) {
        munmap(shared->gradients, bytes_of(shared));
    }
    if (shared->file >= 0) {
        close(shared->file);
    }
    if (shared->own != NULL) {
        munmap(shared->own, bytes_of(shared));
    }
    mapping_unref(shared->weights);
    mapping_unref(shared->seen);
    free(shared->at);
    free(shared->values);
    free(shared->views);
    free(shared->pieces);
}

bool shared_possible(const struct optclient *client)
{
    /* A checksum is to find what a wire damages. */
    return client->address.port[0] == '\0' && client->settings.shares_memory &&
           !client->settings.checksum;
}

bool shared_claim(struct optclient_model *model)
{
    for (const struct optclient_model *other = model->client->models; other != NULL;
         other = other->next) {
        if (other != model && other->shared.claimed && other->number == model->number) {
            return false;
        }
    }
    model->shared.claimed = true;
    return true;
}

/* ---------------------------------------------------------------- files */

/* Whether the file has so many bytes, and for good: reading past an end is a signal. */
static bool file_is_good(int file, uint64_t bytes)
{
    struct stat stat;
    int seals = fcntl(file, F_GET_SEALS);
    return seals >= 0 && (seals & F_SEAL_SHRINK) != 0 && fstat(file, &stat) == 0 &&
           stat.st_size >= 0 && (uint64_t)stat.st_size >= bytes && bytes > 0;
}

/* MAP_FAILED, or the file's memory. A child after fork does not have it: what the child
 * wrote would be in its parent's pushes, and what it read would change under it. */
static void *map_file(int file, size_t bytes, int protection)
{
    void *memory = mmap(NULL, bytes, protection, MAP_SHARED | MAP_NORESERVE, file, 0);
    if (memory != MAP_FAILED && madvise(memory, bytes, MADV_DONTFORK) != 0) {
        munmap(memory, bytes);
        return MAP_FAILED;
    }
    return memory;
}

/* Takes the file. What was shared before has been abandoned. */
static void take_gradients(struct shared *shared, int file)
{
    void *memory = map_file(file, bytes_of(shared), PROT_READ | PROT_WRITE);
    if (memory == MAP_FAILED) {
        close(file);
        return;
    }
    (void)madvise(memory, bytes_of(shared), MADV_HUGEPAGE);
    shared->gradients = memory;
    shared->file = file;
    shared->gradients_live = true;
    shared->user = NULL;
}

static void take_weights(struct shared *shared, int file, size_t bytes)
{
    struct mapping *mapping = malloc(sizeof(*mapping));
    void *base = map_file(file, bytes, PROT_READ);
    if (mapping == NULL || base == MAP_FAILED) {
        free(mapping);
        if (base != MAP_FAILED) {
            munmap(base, bytes);
        }
        return;
    }
    *mapping = (struct mapping){ .references = 1, .base = base, .size = bytes };
    shared->weights = mapping;
}

void shared_take(struct optclient_model *model, const struct opt_share_reply *reply,
                 struct uplink *uplink)
{
    struct shared *shared = &model->shared;
    int gradients = reply->gradient_bytes > 0 ? uplink_take_file(uplink) : -1;
    int weights = uplink_take_file(uplink);
    /* Memory that the caller has, or that a push has been copied to, cannot become
     * another file. */
    if (gradients >= 0 && shared->gradients == NULL &&
        reply->gradient_bytes >= bytes_of(shared) &&
        file_is_good(gradients, reply->gradient_bytes)) {
        take_gradients(shared, gradients);
        gradients = -1;
    }
    /* The same file as before, of which a pull in progress may have places. */
    if (weights >= 0 && shared->weights == NULL &&
        reply->weight_bytes <= SIZE_MAX / 2 &&
        file_is_good(weights, reply->weight_bytes)) {
        take_weights(shared, weights, (size_t)reply->weight_bytes);
    }
    if (gradients >= 0) {
        close(gradients);
    }
    if (weights >= 0) {
        close(weights);
    }
}

/* What the daemon may still read is not to be written any more. */
static void abandon(struct optclient_model *model)
{
    struct shared *shared = &model->shared;
    shared->gradients_live = false;
    if (shared->file < 0) {
        return;
    }
    if (shared->gradients_given) {
        /* The same bytes at the same addresses; what is written from now on does not
         * reach the file. */
        void *memory = mmap(shared->gradients, bytes_of(shared), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, shared->file, 0);
        if (memory == MAP_FAILED) {
            session_break(model->client, "no memory of one's own in place of shared");
        } else {
            shared->gradients = memory; /* as before */
        }
    } else {
        munmap(shared->gradients, bytes_of(shared));
        shared->gradients = NULL;
        shared->wanted = true;
    }
    close(shared->file);
    shared->file = -1;
}

void shared_reset(struct optclient_model *model)
{
    struct shared *shared = &model->shared;
    /* Not what was never had: what opening the model asks for is asked again by itself,
     * and to ask twice would make the first file another one than the daemon's. */
    shared->wanted = shared->wanted || shared->asked != 0 || shared->file >= 0 ||
                     shared->weights != NULL;
    abandon(model);
    shared->user = NULL;
    shared->asked = 0;
    shared->claimed = false;
    model->client->share_due = model->client->share_due || shared->wanted;
    mapping_unref(shared->weights);
    shared->weights = NULL;
}

/* ---------------------------------------------------------------- gradients */

static bool is_within(const struct shared *shared, const float *values, uint64_t count)
{
    uintptr_t base = (uintptr_t)shared->gradients, at = (uintptr_t)values;
    return at >= base && at - base < bytes_of(shared) &&
           count <= (bytes_of(shared) - (at - base)) / sizeof(float);
}

/* Whether all values of a cut are in the memory of gradients already. */
static bool is_in_place(const struct shared *shared, const struct cut *cut)
{
    for (size_t i = 0; i < cut->count; i++) {
        uintptr_t at = (uintptr_t)cut->places[i] - (uintptr_t)shared->gradients;
        if (!is_within(shared, cut->places[i], cut->segments[i].count) ||
            at % OPT_PLACE_ALIGNMENT != 0) {
            return false;
        }
    }
    return true;
}

static bool can_be_placed(const struct cut *cut)
{
    for (size_t i = 0; i < cut->count; i++) {
        if (cut->segments[i].row_count > 0 || cut->segments[i].count == 0) {
            return false;
        }
    }
    return cut->count > 0;
}

bool shared_place(struct optclient_call *call, const struct cut *cut, uint64_t *places,
                  size_t *copied)
{
    struct shared *shared = &call->model->shared;
    enum opt_dtype dtype = call->cutter.dtype;
    if (!shared->gradients_live || !can_be_placed(cut)) {
        return false;
    }
    uint8_t *base = (uint8_t *)shared->gradients;
    if (dtype == OPT_FP32 && is_in_place(shared, cut)) {
        for (size_t i = 0; i < cut->count; i++) {
            places[i] = (uint64_t)((const uint8_t *)cut->places[i] - base);
        }
        call->placed = true;
        return true;
    }
    if (shared->gradients_given || (shared->user != NULL && shared->user != call)) {
        return false;
    }
    shared->user = call;
    for (size_t i = 0; i < cut->count; i++) {
        const struct opt_segment *segment = &cut->segments[i];
        size_t bytes = (size_t)segment->count * opt_dtype_size(dtype);
        places[i] = shared->at[segment->tensor] * sizeof(float) +
                    segment->offset * opt_dtype_size(dtype);
        opt_dtype_narrow(dtype, cut->places[i], base + places[i],
                         (size_t)segment->count);
        *copied += bytes;
    }
    call->placed = true;
    return true;
}

void shared_end(struct optclient_call *call)
{
    struct shared *shared = call->model == NULL ? NULL : &call->model->shared;
    if (shared == NULL) {
        return;
    }
    if (call->placed) {
        call->placed = false;
        abandon(call->model);
        call->client->share_due = call->client->share_due || shared->wanted;
    }
    if (shared->user == call) {
        shared->user = NULL;
    }
}

float *shared_give(struct optclient_model *model, size_t tensor)
{
    struct shared *shared = &model->shared;
    if (shared->gradients == NULL) {
        shared->gradients = map_private(bytes_of(shared));
    }
    if (shared->gradients == NULL) {
        return NULL;
    }
    shared->gradients_given = true;
    return shared->gradients + shared->at[tensor];
}

/* ---------------------------------------------------------------- weights */

void shared_release(struct optclient *client, uint64_t request)
{
    if (client->released_count < OPT_RELEASED_MAX) {
        client->released[client->released_count++] = request;
    }
    if (client->released_count > OPT_RELEASED_MAX / 2) {
        client->heartbeat_due = true; /* no request may come for a while */
    }
}

static bool keep_piece(struct shared *shared, const struct view_piece *piece)
{
    if (shared->piece_count == shared->piece_capacity) {
        size_t capacity = 2 * shared->piece_capacity + 64;
        struct view_piece *pieces = realloc(shared->pieces, capacity * sizeof(*pieces));
        if (pieces == NULL) {
            return false;
        }
        shared->pieces = pieces;
        shared->piece_capacity = capacity;
    }
    shared->pieces[shared->piece_count++] = *piece;
    return true;
}

enum opt_status shared_weights(struct optclient_call *call,
                               const struct opt_pull_reply *reply,
                               struct opt_error *error)
{
    struct shared *shared = &call->model->shared;
    const struct mapping *mapping = shared->weights;
    if (mapping == NULL || call_pull_of(&call->request)->dtype != OPT_FP32) {
        return opt_fail(error, OPT_INTERNAL,
                        "the daemon gave weights by place, but shares no memory");
    }
    size_t bytes = 0;
    for (size_t i = 0; i < reply->segment_count; i++) {
        /* Counts are at most 2^40. */
        size_t size = (size_t)reply->segments[i].count * sizeof(float);
        if (size > mapping->size || reply->places[i] > mapping->size - size) {
            return opt_fail(error, OPT_INTERNAL,
                            "the daemon gave %zu bytes of weights at byte %" PRIu64
                            " of a file of %zu",
                            size, reply->places[i], mapping->size);
        }
        bytes += size;
    }
    enum opt_status status = sink_accept(&call->sink, reply, bytes, OPT_FP32, error);
    call->lent = true;
    for (size_t i = 0; status == OPT_OK && i < reply->segment_count; i++) {
        const struct opt_segment *segment = &reply->segments[i];
        const float *values = (const void *)(mapping->base + reply->places[i]);
        if (!call->in_place) {
            sink_put(&call->sink, segment, values);
        } else if (!keep_piece(shared, &(struct view_piece){ .tensor = segment->tensor,
                                                             .offset = segment->offset,
                                                             .count = segment->count,
                                                             .values = values })) {
            status = opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory");
        }
    }
    call->client->usage.bytes_shared += status == OPT_OK ? bytes : 0;
    return status;
}

/* ---------------------------------------------------------------- in place */

static bool make_views(struct optclient_model *model)
{
    struct shared *shared = &model->shared;
    if (shared->own != NULL) {
        return true;
    }
    free(shared->values);
    free(shared->views);
    shared->values = calloc(model->tensor_count + 1, sizeof(*shared->values));
    shared->views = calloc(model->tensor_count + 1, sizeof(*shared->views));
    if (shared->values == NULL || shared->views == NULL) {
        return false;
    }
    shared->own = map_private(bytes_of(shared));
    for (size_t i = 0; shared->own != NULL && i < model->tensor_count; i++) {
        shared->values[i] =
            (struct optclient_values){ .tensor = i,
                                       .values = shared->own + shared->at[i] };
    }
    return shared->own != NULL;
}

/* Note whether the connection that lent the weights in place has been lost meanwhile.
 */
static void look_for_loss(struct optclient_model *model)
{
    struct shared *shared = &model->shared;
    const struct optclient *client = model->client;
    if (shared->request != 0) {
        shared->torn = client->connection != shared->connection ||
                       client->uplink == NULL || !uplink_alive(client->uplink);
    }
}

/* What the caller has seen is gone. */
static void hide(struct optclient_model *model)
{
    struct shared *shared = &model->shared;
    look_for_loss(model); /* gradients may have been computed from them */
    for (size_t i = 0; shared->views != NULL && i < model->tensor_count; i++) {
        shared->views[i] = NULL;
    }
    if (shared->request != 0 && shared->connection == model->client->connection) {
        shared_release(model->client, shared->request);
    }
    shared->request = 0;
    mapping_unref(shared->seen);
    shared->seen = NULL;
}

enum opt_status shared_view_begin(struct optclient_model *model,
                                  struct opt_error *error)
{
    struct shared *shared = &model->shared;
    if (shared->filling) {
        return opt_fail(error, OPT_FAILED_PRECONDITION,
                        "weights of model \"%s\" are being pulled in place already",
                        model->name);
    }
    if (!make_views(model)) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory for weights");
    }
    hide(model);
    shared->filling = true;
    shared->piece_count = 0;
    return OPT_OK;
}

void shared_view_again(struct optclient_model *model)
{
    model->shared.piece_count = 0;
}

void shared_view_fail(struct optclient_model *model)
{
    model->shared.filling = false;
    model->shared.piece_count = 0;
}

void shared_view_close(struct optclient_model *model)
{
    hide(model);
}

static int compare_pieces(const void *a, const void *b)
{
    const struct view_piece *one = a, *other = b;
    if (one->tensor != other->tensor) {
        return one->tensor < other->tensor ? -1 : 1;
    }
    return one->offset < other->offset ? -1 : one->offset > other->offset;
}

/* The daemon answers in order, except shard by shard. */
static void sort_pieces(struct shared *shared)
{
    for (size_t i = 1; i < shared->piece_count; i++) {
        if (compare_pieces(&shared->pieces[i - 1], &shared->pieces[i]) > 0) {
            qsort(shared->pieces, shared->piece_count, sizeof(*shared->pieces),
                  compare_pieces);
            return;
        }
    }
}

/* Show a tensor of which count pieces were given by place: where they are, if they are
 * all of it in one run; else they join those that were sent. True: where they are. */
static bool show(struct optclient_model *model, const struct view_piece *pieces,
                 size_t count)
{
    struct shared *shared = &model->shared;
    size_t tensor = pieces[0].tensor;
    const float *first = pieces[0].values;
    uint64_t end = 0;
    size_t run = 0;
    while (run < count && pieces[run].offset == end &&
           pieces[run].values == first + end) {
        end += pieces[run++].count;
    }
    if (run == count && end == model->elements[tensor]) {
        shared->views[tensor] = first;
        return true;
    }
    for (size_t i = 0; i < count; i++) {
        memcpy(shared->values[tensor].values + pieces[i].offset, pieces[i].values,
               (size_t)pieces[i].count * sizeof(float));
    }
    return false;
}

void shared_view_end(struct optclient_model *model, uint64_t request)
{
    struct shared *shared = &model->shared;
    shared->filling = false;
    shared->torn = false;
    for (size_t i = 0; i < model->tensor_count; i++) {
        shared->views[i] = shared->values[i].values;
    }
    sort_pieces(shared);
    bool lent = false;
    for (size_t i = 0, next; i < shared->piece_count; i = next) {
        next = i + 1;
        while (next < shared->piece_count &&
               shared->pieces[next].tensor == shared->pieces[i].tensor) {
            next++;
        }
        lent = show(model, &shared->pieces[i], next - i) || lent;
    }
    if (lent) {
        shared->request = request;
        shared->connection = model->client->connection;
        shared->seen = shared->weights;
        shared->seen->references++;
    } else if (request != 0) {
        shared_release(model->client, request);
    }
}

enum opt_status shared_check(struct optclient_model *model, struct opt_error *error)
{
    look_for_loss(model);
    if (!model->shared.torn) {
        return OPT_OK;
    }
    return opt_fail(
        error, OPT_ABORTED,
        "the connection to %s was lost while weights of model \"%s\" were "
        "read in place, so they may have changed; the push was not applied; "
        "pull them again",
        model->client->peer, model->name);
}
