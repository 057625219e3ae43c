#define _GNU_SOURCE /* F_GET_SEALS, MADV_DONTFORK */
#include "client/shm.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/call.h"
#include "client/client.h"
#include "client/cutter.h"
#include "client/open_model.h"
#include "client/socket.h"
#include "common/dtype.h"

enum { LAYOUT_FLOATS = OPT_PLACE_ALIGNMENT / sizeof(float) };

/* ---------------------------------------------------------------- memory */

static size_t bytes_of(const struct shm *shm)
{
    return shm->floats * sizeof(float);
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

bool shm_init(struct optclient_model *model)
{
    struct shm *shm = &model->shm;
    free(shm->at); /* opening may have begun anew */
    shm->at = malloc((model->tensor_count + 1) * sizeof(*shm->at));
    if (shm->at == NULL) {
        return false;
    }
    size_t at = 0;
    for (size_t i = 0; i < model->tensor_count; i++) {
        shm->at[i] = at;
        at += (size_t)(model->elements[i] + LAYOUT_FLOATS - 1) / LAYOUT_FLOATS *
              LAYOUT_FLOATS;
    }
    shm->floats = at;
    return true;
}

static void mapping_unref(struct mapping *mapping)
{
    if (mapping != NULL && --mapping->references == 0) {
        munmap((void *)(uintptr_t)mapping->base, mapping->size);
        free(mapping);
    }
}

void shm_fini(struct optclient_model *model)
{
    struct shm *shm = &model->shm;
    if (shm->gradients != NULL) {
        munmap(shm->gradients, bytes_of(shm));
    }
    if (shm->file >= 0) {
        close(shm->file);
    }
    if (shm->own != NULL) {
        munmap(shm->own, bytes_of(shm));
    }
    mapping_unref(shm->weights);
    mapping_unref(shm->seen);
    free(shm->at);
    free(shm->values);
    free(shm->views);
    free(shm->pieces);
}

bool shm_possible(const struct optclient *client)
{
    /* A checksum is to find what a wire damages. */
    return client->endpoint.address.port[0] == '\0' && client->settings.shares_memory &&
           !client->settings.checksum;
}

bool shm_claim(struct optclient_model *model)
{
    for (const struct optclient_model *other = model->client->models; other != NULL;
         other = other->next) {
        if (other != model && other->shm.claimed && other->number == model->number) {
            return false;
        }
    }
    model->shm.claimed = true;
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
static void take_gradients(struct shm *shm, int file)
{
    void *memory = map_file(file, bytes_of(shm), PROT_READ | PROT_WRITE);
    if (memory == MAP_FAILED) {
        close(file);
        return;
    }
    (void)madvise(memory, bytes_of(shm), MADV_HUGEPAGE);
    shm->gradients = memory;
    shm->file = file;
    shm->gradients_live = true;
    shm->user = NULL;
}

static void take_weights(struct shm *shm, int file, size_t bytes)
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
    shm->weights = mapping;
}

void shm_take(struct optclient_model *model, const struct opt_share_reply *reply,
              struct socket *socket)
{
    struct shm *shm = &model->shm;
    int gradients = reply->gradient_bytes > 0 ? socket_take_file(socket) : -1;
    int weights = socket_take_file(socket);
    /* Memory that the caller has, or that a push has been copied to, cannot become
     * another file. */
    if (gradients >= 0 && shm->gradients == NULL &&
        reply->gradient_bytes >= bytes_of(shm) &&
        file_is_good(gradients, reply->gradient_bytes)) {
        take_gradients(shm, gradients);
        gradients = -1;
    }
    /* The same file as before, of which a pull in progress may have places. */
    if (weights >= 0 && shm->weights == NULL && reply->weight_bytes <= SIZE_MAX / 2 &&
        file_is_good(weights, reply->weight_bytes)) {
        take_weights(shm, weights, (size_t)reply->weight_bytes);
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
    struct shm *shm = &model->shm;
    shm->gradients_live = false;
    if (shm->file < 0) {
        return;
    }
    if (shm->gradients_given) {
        /* The same bytes at the same addresses; what is written from now on does not
         * reach the file. */
        void *memory = mmap(shm->gradients, bytes_of(shm), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, shm->file, 0);
        if (memory == MAP_FAILED) {
            client_disconnect(model->client,
                              "no memory of one's own in place of shared");
        } else {
            shm->gradients = memory; /* as before */
        }
    } else {
        munmap(shm->gradients, bytes_of(shm));
        shm->gradients = NULL;
        shm->wanted = true;
    }
    close(shm->file);
    shm->file = -1;
}

void shm_reset(struct optclient_model *model)
{
    struct shm *shm = &model->shm;
    /* Not what was never had: what opening the model asks for is asked again by itself,
     * and to ask twice would make the first file another one than the daemon's. */
    shm->wanted =
        shm->wanted || shm->asked != 0 || shm->file >= 0 || shm->weights != NULL;
    abandon(model);
    shm->user = NULL;
    shm->asked = 0;
    shm->claimed = false;
    model->client->share_due = model->client->share_due || shm->wanted;
    mapping_unref(shm->weights);
    shm->weights = NULL;
}

/* ---------------------------------------------------------------- gradients */

static bool is_within(const struct shm *shm, const float *values, uint64_t count)
{
    uintptr_t base = (uintptr_t)shm->gradients, at = (uintptr_t)values;
    return at >= base && at - base < bytes_of(shm) &&
           count <= (bytes_of(shm) - (at - base)) / sizeof(float);
}

/* Whether all values of a cut are in the memory of gradients already. */
static bool is_in_place(const struct shm *shm, const struct cut *cut)
{
    for (size_t i = 0; i < cut->count; i++) {
        uintptr_t at = (uintptr_t)cut->places[i] - (uintptr_t)shm->gradients;
        if (!is_within(shm, cut->places[i], cut->segments[i].count) ||
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

bool shm_place(struct optclient_call *call, const struct cut *cut, uint64_t *places,
               size_t *copied)
{
    struct shm *shm = &call->model->shm;
    enum opt_dtype dtype = call->cutter.dtype;
    if (!shm->gradients_live || !can_be_placed(cut)) {
        return false;
    }
    uint8_t *base = (uint8_t *)shm->gradients;
    if (dtype == OPT_FP32 && is_in_place(shm, cut)) {
        for (size_t i = 0; i < cut->count; i++) {
            places[i] = (uint64_t)((const uint8_t *)cut->places[i] - base);
        }
        call->placed = true;
        return true;
    }
    if (shm->gradients_given || (shm->user != NULL && shm->user != call)) {
        return false;
    }
    shm->user = call;
    for (size_t i = 0; i < cut->count; i++) {
        const struct opt_segment *segment = &cut->segments[i];
        size_t bytes = (size_t)segment->count * opt_dtype_size(dtype);
        places[i] = shm->at[segment->tensor] * sizeof(float) +
                    segment->offset * opt_dtype_size(dtype);
        opt_dtype_narrow(dtype, cut->places[i], base + places[i],
                         (size_t)segment->count);
        *copied += bytes;
    }
    call->placed = true;
    return true;
}

void shm_end(struct optclient_call *call)
{
    struct shm *shm = call->model == NULL ? NULL : &call->model->shm;
    if (shm == NULL) {
        return;
    }
    if (call->placed) {
        call->placed = false;
        abandon(call->model);
        call->client->share_due = call->client->share_due || shm->wanted;
    }
    if (shm->user == call) {
        shm->user = NULL;
    }
}

float *shm_give(struct optclient_model *model, size_t tensor)
{
    struct shm *shm = &model->shm;
    if (shm->gradients == NULL) {
        shm->gradients = map_private(bytes_of(shm));
    }
    if (shm->gradients == NULL) {
        return NULL;
    }
    shm->gradients_given = true;
    return shm->gradients + shm->at[tensor];
}

/* ---------------------------------------------------------------- weights */

void shm_release(struct optclient *client, uint64_t request)
{
    if (client->released_count < OPT_RELEASED_MAX) {
        client->released[client->released_count++] = request;
    }
    if (client->released_count > OPT_RELEASED_MAX / 2) {
        client->heartbeat_due = true; /* no request may come for a while */
    }
}

static bool keep_piece(struct shm *shm, const struct view_piece *piece)
{
    if (shm->piece_count == shm->piece_capacity) {
        size_t capacity = 2 * shm->piece_capacity + 64;
        struct view_piece *pieces = realloc(shm->pieces, capacity * sizeof(*pieces));
        if (pieces == NULL) {
            return false;
        }
        shm->pieces = pieces;
        shm->piece_capacity = capacity;
    }
    shm->pieces[shm->piece_count++] = *piece;
    return true;
}

enum opt_status shm_weights(struct optclient_call *call,
                            const struct opt_pull_reply *reply, struct opt_error *error)
{
    struct shm *shm = &call->model->shm;
    const struct mapping *mapping = shm->weights;
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
        } else if (!keep_piece(shm, &(struct view_piece){ .tensor = segment->tensor,
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
    struct shm *shm = &model->shm;
    if (shm->own != NULL) {
        return true;
    }
    free(shm->values);
    free(shm->views);
    shm->values = calloc(model->tensor_count + 1, sizeof(*shm->values));
    shm->views = calloc(model->tensor_count + 1, sizeof(*shm->views));
    if (shm->values == NULL || shm->views == NULL) {
        return false;
    }
    shm->own = map_private(bytes_of(shm));
    for (size_t i = 0; shm->own != NULL && i < model->tensor_count; i++) {
        shm->values[i] =
            (struct optclient_values){ .tensor = i, .values = shm->own + shm->at[i] };
    }
    return shm->own != NULL;
}

/* Note whether the connection that lent the weights in place has been lost meanwhile.
 */
static void look_for_loss(struct optclient_model *model)
{
    struct shm *shm = &model->shm;
    const struct optclient *client = model->client;
    if (shm->request != 0) {
        shm->torn = client->connection != shm->connection || client->socket == NULL ||
                    !socket_alive(client->socket);
    }
}

/* What the caller has seen is gone. */
static void hide(struct optclient_model *model)
{
    struct shm *shm = &model->shm;
    look_for_loss(model); /* gradients may have been computed from them */
    for (size_t i = 0; shm->views != NULL && i < model->tensor_count; i++) {
        shm->views[i] = NULL;
    }
    if (shm->request != 0 && shm->connection == model->client->connection) {
        shm_release(model->client, shm->request);
    }
    shm->request = 0;
    mapping_unref(shm->seen);
    shm->seen = NULL;
}

enum opt_status shm_view_begin(struct optclient_model *model, struct opt_error *error)
{
    struct shm *shm = &model->shm;
    if (shm->filling) {
        return opt_fail(error, OPT_FAILED_PRECONDITION,
                        "weights of model \"%s\" are being pulled in place already",
                        model->name);
    }
    if (!make_views(model)) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory for weights");
    }
    hide(model);
    shm->filling = true;
    shm->piece_count = 0;
    return OPT_OK;
}

void shm_view_again(struct optclient_model *model)
{
    model->shm.piece_count = 0;
}

void shm_view_fail(struct optclient_model *model)
{
    model->shm.filling = false;
    model->shm.piece_count = 0;
}

void shm_view_close(struct optclient_model *model)
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
static void sort_pieces(struct shm *shm)
{
    for (size_t i = 1; i < shm->piece_count; i++) {
        if (compare_pieces(&shm->pieces[i - 1], &shm->pieces[i]) > 0) {
            qsort(shm->pieces, shm->piece_count, sizeof(*shm->pieces), compare_pieces);
            return;
        }
    }
}

/* Show a tensor of which count pieces were given by place: where they are, if they are
 * all of it in one run; else they join those that were sent. True: where they are. */
static bool show(struct optclient_model *model, const struct view_piece *pieces,
                 size_t count)
{
    struct shm *shm = &model->shm;
    size_t tensor = pieces[0].tensor;
    const float *first = pieces[0].values;
    uint64_t end = 0;
    size_t run = 0;
    while (run < count && pieces[run].offset == end &&
           pieces[run].values == first + end) {
        end += pieces[run++].count;
    }
    if (run == count && end == model->elements[tensor]) {
        shm->views[tensor] = first;
        return true;
    }
    for (size_t i = 0; i < count; i++) {
        memcpy(shm->values[tensor].values + pieces[i].offset, pieces[i].values,
               (size_t)pieces[i].count * sizeof(float));
    }
    return false;
}

void shm_view_end(struct optclient_model *model, uint64_t request)
{
    struct shm *shm = &model->shm;
    shm->filling = false;
    shm->torn = false;
    for (size_t i = 0; i < model->tensor_count; i++) {
        shm->views[i] = shm->values[i].values;
    }
    sort_pieces(shm);
    bool lent = false;
    for (size_t i = 0, next; i < shm->piece_count; i = next) {
        next = i + 1;
        while (next < shm->piece_count &&
               shm->pieces[next].tensor == shm->pieces[i].tensor) {
            next++;
        }
        lent = show(model, &shm->pieces[i], next - i) || lent;
    }
    if (lent) {
        shm->request = request;
        shm->connection = model->client->connection;
        shm->seen = shm->weights;
        shm->seen->references++;
    } else if (request != 0) {
        shm_release(model->client, request);
    }
}

enum opt_status shm_check(struct optclient_model *model, struct opt_error *error)
{
    look_for_loss(model);
    if (!model->shm.torn) {
        return OPT_OK;
    }
    return opt_fail(
        error, OPT_ABORTED,
        "the connection to %s was lost while weights of model \"%s\" were "
        "read in place, so they may have changed; the push was not applied; "
        "pull them again",
        model->client->endpoint.peer, model->name);
}
