/* fake_inside — what the rooms of the fake server share: it itself and its connections
 * (fake_server.c), replies (fake_reply.c), models (fake_models.c), their values in and
 * out (fake_values.c), and what is answered to a request (fake_requests.c). The lock is
 * held in all functions here.
 */
#ifndef OPTIMD_TESTS_SUPPORT_FAKE_INSIDE_H
#define OPTIMD_TESTS_SUPPORT_FAKE_INSIDE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/un.h>

#include "tests/support/fake_server.h"

enum { MODELS = 8, CONNS = 256, WORKERS = 64, FILES = 4 };

struct fake_worker {
    char name[OPT_NAME_MAX + 1];
    uint64_t last_sequence;
};

struct fake_model {
    char name[OPT_NAME_MAX + 1]; /* "": this place is free */
    char specification[256];
    uint8_t *table;
    size_t table_size;
    struct opt_arena arena; /* of tensors */
    struct opt_tensor_entry *tensors;
    size_t count;
    float **values;
    uint64_t step;
    bool ready;
    uint64_t identity;
    struct fake_conn *creator;
    struct fake_worker workers[WORKERS];
};

struct fake_conn {
    struct fake_server *server;
    unsigned number;
    int fd;
    atomic_bool cut; /* read without the lock by its thread */
    bool ended;
    pthread_t thread;
    char worker[OPT_NAME_MAX + 1];
    /* the push whose frames are coming */
    float **gradients; /* of the model's tensors, NULL where none came */
    size_t gradient_count;
    uint64_t push_id;
};

struct fake_server {
    struct fake_options options;
    int fd;
    char address[sizeof("unix:") + sizeof(((struct sockaddr_un *)NULL)->sun_path)];
    pthread_t thread;
    pthread_mutex_t lock;   /* guards the rest */
    pthread_cond_t changed; /* a connection or a request has come */
    bool stopping;
    struct fake_conn *conns[CONNS];
    unsigned connections, frames, pushes, heartbeats;
    uint64_t made; /* models: each has the number as its identity */
    struct fake_model models[MODELS];
};

/* A reply to a request, with the checksum that it asks for. */
struct opt_reply fake_answer(const struct opt_request *request,
                             enum opt_message message, const void *data,
                             size_t data_size);
/* Count a frame; whether it is the one at which the connection is cut. */
bool fake_cut_here(struct fake_conn *conn);

void fake_model_forget(struct fake_model *model);
struct fake_model *fake_model_named(struct fake_server *server, const char *name);
struct fake_model *fake_model_numbered(struct fake_server *server, uint32_t number);
struct fake_worker *fake_worker_of(struct fake_model *model, const char *name);
void fake_reply_model(struct fake_conn *conn, const struct opt_request *request,
                      struct fake_model *model, bool created);
void fake_create(struct fake_conn *conn, const struct opt_request *request,
                 const uint8_t *data, size_t data_size);
void fake_describe(struct fake_conn *conn, const struct opt_request *request,
                   struct fake_model *model);
void fake_list(struct fake_conn *conn, const struct opt_request *request);

void fake_drop_gradients(struct fake_conn *conn);
void fake_take_segments(struct fake_model *model, float **out,
                        const struct opt_segment *segments, size_t count,
                        enum opt_dtype dtype, const uint8_t *data);
bool fake_take_push(struct fake_conn *conn, const struct opt_request *request,
                    const struct opt_push *push, const uint8_t *data,
                    struct opt_push_reply *reply);
void fake_send_weights(struct fake_conn *conn, const struct opt_request *request,
                       const struct opt_pull *pull, const struct opt_push_reply *push);

#endif
