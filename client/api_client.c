/* A client: from connecting to closing. */
#include "client/optclient.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "client/api.h"
#include "client/callbacks.h"
#include "client/calls.h"
#include "client/client.h"
#include "client/connection.h"
#include "client/ended.h"
#include "client/open_model.h"
#include "client/process.h"
#include "common/random.h"

enum {
    SPIN_MOST_US = 10000,
    RANDOM_UNUSED = 16 /* bits: 48 are enough for a name, and shorter */
};

struct optclient_options optclient_options_default(void)
{
    return (struct optclient_options){ .timeout_ms = 30000,
                                       .connect_timeout_ms = 30000,
                                       .backoff_min_ms = 100,
                                       .backoff_max_ms = 5000 };
}

/* A name that no other client has. Host and process tell people who it is; they do not
 * suffice, since containers may share a host's name and each have a process 1. The
 * random part does. */
static bool name_worker(char out[OPT_NAME_MAX + 1])
{
    uint64_t random;
    char host[HOST_NAME_MAX + 1] = "";
    if (gethostname(host, sizeof(host)) != 0 || host[0] == '\0') {
        memcpy(host, "worker", sizeof("worker"));
    }
    host[HOST_NAME_MAX] = '\0';
    if (!opt_random_identity(&random)) {
        return false;
    }
    snprintf(out, OPT_NAME_MAX + 1, "%s-%ld-%012" PRIx64, host, (long)getpid(),
             random >> RANDOM_UNUSED);
    return true;
}

static enum opt_status read_options(const struct optclient_options *options,
                                    struct client_settings *out,
                                    struct opt_error *error)
{
    if (api_reserved(options->reserved, RESERVED(options), "options") != OPTCLIENT_OK) {
        return opt_fail(error, OPT_UNIMPLEMENTED, "%s", optclient_error());
    }
    if ((unsigned)options->push_dtype >= OPT_DTYPE_COUNT ||
        (unsigned)options->pull_dtype >= OPT_DTYPE_COUNT) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "push_dtype %d and pull_dtype %d: expected OPTCLIENT_FP32, "
                        "OPTCLIENT_BF16 or OPTCLIENT_FP16",
                        (int)options->push_dtype, (int)options->pull_dtype);
    }
    if (options->spin_us > SPIN_MOST_US) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "spin_us is %" PRIu32 "; at most %d is possible",
                        options->spin_us, (int)SPIN_MOST_US);
    }
    /* On a machine's only core, who looks keeps the daemon from answering. */
    out->spin_us = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? options->spin_us : 0;
    out->timeout_ms = options->timeout_ms;
    out->connect_timeout_ms = options->connect_timeout_ms;
    out->push_dtype = (enum opt_dtype)options->push_dtype;
    out->pull_dtype = (enum opt_dtype)options->pull_dtype;
    out->checksum = options->checksum != 0;
    out->shares_memory = options->no_shared_memory == 0;
    if (options->worker == NULL) {
        return name_worker(out->worker) ? OPT_OK
                                        : opt_fail(error, OPT_UNAVAILABLE,
                                                   "no randomness for a worker's name");
    }
    size_t length = strlen(options->worker);
    enum opt_status status =
        length == 0 ? OPT_OK
                    : opt_name_check(options->worker, length, "worker name", error);
    if (status == OPT_OK) {
        memcpy(out->worker, options->worker, length + 1);
    }
    return status;
}

/* Everything that needs no thread. */
static struct optclient *client_new(const struct optclient_options *options,
                                    const char *address, struct opt_error *error)
{
    struct optclient *client = calloc(1, sizeof(*client));
    if (client == NULL) {
        opt_fail(error, OPT_UNAVAILABLE, "no memory for a client");
        return NULL;
    }
    if (read_options(options, &client->settings, error) != OPT_OK ||
        endpoint_read(address, options, &client->endpoint, error) != OPT_OK) {
        free(client);
        return NULL;
    }
    client->cut.segments = malloc(OPT_SEGMENTS_MAX * sizeof(*client->cut.segments));
    client->cut.places = malloc(OPT_SEGMENTS_MAX * sizeof(*client->cut.places));
    client->hash = XXH3_createState();
    if (client->cut.segments == NULL || client->cut.places == NULL ||
        client->hash == NULL || !opt_random_identity(&client->session) ||
        !process_begin()) {
        opt_fail(error, OPT_UNAVAILABLE, "no memory or no randomness for a client");
        free(client->cut.segments);
        free(client->cut.places);
        XXH3_freeState(client->hash);
        endpoint_free(&client->endpoint);
        free(client);
        return NULL;
    }
    client->process = process_id();
    client->references = 1;
    client->told_fd = -1;
    backoff_init(&client->backoff, options->backoff_min_ms, options->backoff_max_ms,
                 client->session);
    opt_arena_init(&client->arena, OPT_ARENA_BYTES);
    pthread_mutex_init(&client->lock, NULL);
    pthread_cond_init(&client->left, NULL);
    pthread_cond_init(&client->callback_due, NULL);
    return client;
}

/* Numbers left at 0 mean the defaults. */
static struct optclient_options complete(const struct optclient_options *options)
{
    struct optclient_options defaults = optclient_options_default();
    if (options == NULL) {
        return defaults;
    }
    struct optclient_options out = *options;
    out.timeout_ms = out.timeout_ms == 0 ? defaults.timeout_ms : out.timeout_ms;
    out.connect_timeout_ms = out.connect_timeout_ms == 0 ? defaults.connect_timeout_ms
                                                         : out.connect_timeout_ms;
    out.backoff_min_ms =
        out.backoff_min_ms == 0 ? defaults.backoff_min_ms : out.backoff_min_ms;
    out.backoff_max_ms =
        out.backoff_max_ms == 0 ? defaults.backoff_max_ms : out.backoff_max_ms;
    return out;
}

enum optclient_status optclient_connect(const char *address,
                                        const struct optclient_options *options,
                                        struct optclient **out)
{
    struct optclient_options completed = complete(options);
    struct opt_error error;
    struct optclient *client = client_new(&completed, address, &error);
    if (client == NULL) {
        return api_report(&error);
    }
    if (connection_start(client, &error) != OPT_OK) {
        client_lock(client);
        client->references--;
        api_leave(client);
        return api_report(&error);
    }
    struct optclient_call call;
    call_init(&call, client, NULL, OPT_MESSAGE_NONE,
              client->settings.connect_timeout_ms);
    enum optclient_status status = api_run(&call);
    call_fini(&call);
    if (status != OPTCLIENT_OK) {
        optclient_close(client);
        return status;
    }
    *out = client;
    return OPTCLIENT_OK;
}

/* Lock held. Nothing is asked any more. */
static void begin_close(struct optclient *client)
{
    client->closing = true;
    calls_cancel(client, NULL, "the client is being closed");
    client_wake(client);
}

void optclient_leave(struct optclient *client)
{
    if (client == NULL || client->process != process_id()) {
        return;
    }
    client_lock(client);
    begin_close(client);
    client_unlock(client);
}

void optclient_close(struct optclient *client)
{
    /* In a forked child there is no thread to end; in a callback, waiting for the
     * callback's thread would be for ever. */
    if (client == NULL || client->process != process_id() || callbacks_inside(client)) {
        return;
    }
    int cancel_state;
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    client_lock(client);
    begin_close(client);
    client_unlock(client);
    pthread_join(client->thread, NULL);
    callbacks_stop(client);

    client_lock(client);
    while (client->callers > 0) {
        client_await(client, &client->left);
    }
    connection_stop(client);
    ended_stop(client);
    while (client->models != NULL) {
        open_model_drop(client->models);
    }
    client->references--;
    api_leave(client);
    (void)pthread_setcancelstate(cancel_state, NULL);
}

void optclient_usage(const struct optclient *client, struct optclient_usage *out)
{
    /* Locking changes the client, what it guards stays as it is. */
    struct optclient *locked = (struct optclient *)client;
    if (client->process != process_id()) {
        *out = (struct optclient_usage){ 0 }; /* the lock may never be given back */
        return;
    }
    client_lock(locked);
    *out = client->usage;
    if (client->socket != NULL) {
        out->bytes_sent += client->socket->bytes_sent;
        out->bytes_received += client->socket->bytes_received;
    }
    client_unlock(locked);
}
