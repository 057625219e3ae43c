/* optclient — the worker's side of optimd: push gradients, pull weights.
 *
 *     struct optclient *client;
 *     struct optclient_model *model;
 *     struct optclient_result result;
 *     if (optclient_connect("127.0.0.1:7070", NULL, &client) != OPTCLIENT_OK) ...
 *     optclient_create(client, "mlp", "adam(lr=1e-3)", NULL, tensors, n, initial,
 *                      &model);
 *     optclient_pull(model, weights, n, NULL, &result);
 *     for (;;) {
 *         ... gradient of the mean loss over 32 samples at the weights ...
 *         struct optclient_push_options push = { .samples = 32 };
 *         optclient_push_pull(model, gradients, n, &push, weights, n, NULL, &result);
 *     }
 *     optclient_model_close(model);
 *     optclient_close(client);
 *
 * Every function may be called from any thread, never prints, exits or aborts, takes no
 * signals, and waits no longer than its deadline (half a second more at worst).
 * Failures are a code, the same numbers as gRPC's, and one sentence (optclient_error).
 * What is true of a push that fails stands in its result: it was not applied
 * (OPTCLIENT_NOT_APPLIED), or in part (OPTCLIENT_APPLIED_IN_PART, only in a model whose
 * policy is OPTCLIENT_ATOMIC_SHARD), or that is not known (OPTCLIENT_NOT_KNOWN): the
 * gradient had reached the daemon, but the call, the connection, the model or the
 * client ended before the answer came, or the answer made no sense, or the daemon does
 * not remember this worker any more. The sentence says the same. Until then the library
 * asks the daemon again, and never sends a push in a way that it could count twice.
 *
 * A client keeps one connection and one background thread (one more for callbacks, if
 * there are any), which reconnects by itself
 * (back-off with jitter), keeps the worker's lease, and resends pushes that the daemon
 * has not applied, and only those. A daemon that asks for patience (it is starting,
 * stopping or full) is asked again until the call's deadline. Waiting functions that
 * are called from a callback fail with OPTCLIENT_FAILED_PRECONDITION, because they
 * would wait for their own thread; so do all in a child after fork, where that thread
 * is missing: a child makes a client of its own.
 *
 * A thread that is cancelled (pthread_cancel) in a function of the library returns from
 * it first. Memory shared with the daemon is not inherited by a child after fork.
 *
 * Every call on a model can also fail with OPTCLIENT_UNAVAILABLE (no connection until
 * the deadline), OPTCLIENT_NOT_FOUND (the daemon does not have the model any more: it
 * was deleted, or the daemon was started anew; close the model and create it again),
 * OPTCLIENT_CANCELLED (the client or the model is being closed),
 * OPTCLIENT_FAILED_PRECONDITION (another process has taken this worker's name; there is
 * no way back but a new client), OPTCLIENT_RESOURCE_EXHAUSTED (no memory, here or
 * there) and OPTCLIENT_INTERNAL or OPTCLIENT_DATA_LOSS (the daemon's answer made no
 * sense).
 *
 * Stability. A program that was linked with liboptclient.so.0 runs with every later
 * liboptclient.so.0: functions are added and never taken away, numbers in enums keep
 * their meaning, and structures keep their size and the places of their fields. New
 * fields take the place of words in `reserved`, at the end of each structure that may
 * still get some. A caller leaves these 0 ("{ 0 }", or an initialiser that names
 * fields), which will always mean what the older library did; the library fills those
 * of its own answers with 0. An option that the library in use is too old to know is
 * refused with OPTCLIENT_UNIMPLEMENTED, not ignored. What cannot be done within these
 * rules gets another number: liboptclient.so.1, which can be installed beside this one.
 * OPTCLIENT_VERSION is the version that a program is compiled with, optclient_version
 * the one that it runs with.
 */
#ifndef OPTCLIENT_H
#define OPTCLIENT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define OPTCLIENT_VERSION_MAJOR 0
#define OPTCLIENT_VERSION_MINOR 1
#define OPTCLIENT_VERSION_PATCH 0
#define OPTCLIENT_VERSION                                                              \
    (OPTCLIENT_VERSION_MAJOR * 1000000 + OPTCLIENT_VERSION_MINOR * 1000 +              \
     OPTCLIENT_VERSION_PATCH)

#if defined(__GNUC__)
#define OPTCLIENT_API __attribute__((visibility("default")))
#else
#define OPTCLIENT_API
#endif

/* Version of the library that runs: as OPTCLIENT_VERSION, and as "0.1.0" (static
 * text). */
OPTCLIENT_API uint32_t optclient_version(void);
OPTCLIENT_API const char *optclient_version_text(void);

enum optclient_status {
    OPTCLIENT_OK = 0,
    OPTCLIENT_CANCELLED = 1,
    OPTCLIENT_UNKNOWN = 2,
    OPTCLIENT_INVALID_ARGUMENT = 3,
    OPTCLIENT_DEADLINE_EXCEEDED = 4,
    OPTCLIENT_NOT_FOUND = 5,
    OPTCLIENT_ALREADY_EXISTS = 6,
    OPTCLIENT_PERMISSION_DENIED = 7,
    OPTCLIENT_RESOURCE_EXHAUSTED = 8,
    OPTCLIENT_FAILED_PRECONDITION = 9,
    OPTCLIENT_ABORTED = 10,
    OPTCLIENT_OUT_OF_RANGE = 11,
    OPTCLIENT_UNIMPLEMENTED = 12,
    OPTCLIENT_INTERNAL = 13,
    OPTCLIENT_UNAVAILABLE = 14,
    OPTCLIENT_DATA_LOSS = 15,
    OPTCLIENT_UNAUTHENTICATED = 16
};

/* "INVALID_ARGUMENT" and so on. Static text. */
OPTCLIENT_API const char *optclient_status_name(enum optclient_status status);

/* The sentence of the calling thread's last failed optclient call: what was wrong, with
 * which value, what would be right. Borrowed until this thread's next call. Never NULL.
 */
OPTCLIENT_API const char *optclient_error(void);

enum optclient_dtype { OPTCLIENT_FP32 = 0, OPTCLIENT_BF16 = 1, OPTCLIENT_FP16 = 2 };
enum optclient_view { OPTCLIENT_TRAIN = 0, OPTCLIENT_EVAL = 1, OPTCLIENT_SLOT = 2 };

struct optclient;       /* a connection that heals itself */
struct optclient_model; /* an open model */
struct optclient_call;  /* an asynchronous call */

/* Fields that are 0 mean the defaults, given last. */
struct optclient_options {
    const char *worker; /* identity, 1-255 bytes of UTF-8; NULL: host-pid-random. "": an
                           observer, who can pull but not push */
    uint32_t timeout_ms;         /* of each call unless it says otherwise; 30,000 */
    uint32_t connect_timeout_ms; /* of optclient_connect, which waits for a daemon that
                                    is not there yet; 30,000 */
    uint32_t backoff_min_ms;     /* first wait before reconnecting; 100 */
    uint32_t backoff_max_ms;     /* longest; 5,000 */
    enum optclient_dtype push_dtype; /* gradients on the wire; FP32 */
    enum optclient_dtype pull_dtype; /* weights on the wire; FP32 */
    int checksum; /* not 0: XXH3-64 over the data of every frame, both ways; what was
                     damaged on its way is sent or asked for again */
    int no_shared_memory; /* not 0: over a Unix socket, too, everything is sent.
                             Otherwise gradients and weights are exchanged in memory
                             that this process and the daemon have in common, if the
                             daemon allows it and there is no checksum */
    uint32_t spin_us; /* microseconds, at most 10,000, that a call goes on looking for
                         its answer before it sleeps: sooner there where the worker and
                         the daemon have cores of their own, later where they share one;
                         not done where there is one core; 0 */
    const char *ca;   /* file of the CA whose daemons are believed (PEM), */
    const char *cert; /* of this client's certificate, */
    const char *key;  /* and of its key: any of them means TLS. NULL: OPTIMD_CA,
                         OPTIMD_CERT, OPTIMD_KEY of the environment, if they are there */
    const char
        *token_file;       /* with the token that this client logs in with, on its first
                              line; read each time it connects. NULL: OPTIMD_TOKEN_FILE
                              of the environment, if it is there. "": none */
    uint64_t reserved[12]; /* 0 */
};

/* The defaults given above. */
OPTCLIENT_API struct optclient_options optclient_options_default(void);

/* Connect to "HOST:PORT" ("127.0.0.1:7070", "[::1]:7070", "ps.internal:7070"), to
 * "optimd://HOST:PORT" without TLS or "optimds://HOST:PORT?ca=FILE&cert=FILE&key=FILE"
 * with it, or to "unix:/PATH" of a daemon on this machine. NULL is what OPTIMD_URL of
 * the environment says.
 * options may be NULL. Waits for a daemon that does not answer yet, or whose name or
 * socket is not there yet, until the deadline; what time does not change, such as a
 * socket without permission, fails at once. Of several addresses that a name has, each
 * but the last has a second at first.
 * OPTCLIENT_INVALID_ARGUMENT (address, worker name), OPTCLIENT_DEADLINE_EXCEEDED (with
 * what the last attempt met), OPTCLIENT_UNIMPLEMENTED (other protocol version),
 * OPTCLIENT_PERMISSION_DENIED, OPTCLIENT_UNAUTHENTICATED (the daemon does not want this
 * client, is not believed, or its socket is not to be opened by this process),
 * OPTCLIENT_FAILED_PRECONDITION (what is at the path can be no socket of a daemon),
 * OPTCLIENT_UNAVAILABLE (no resources). *out is the caller's, to be closed; it
 * is written only on success, here and everywhere. */
OPTCLIENT_API enum optclient_status
optclient_connect(const char *address, const struct optclient_options *options,
                  struct optclient **out);

/* Say goodbye (at most a second), end the thread, free the client and its models.
 * Calls still in progress end with OPTCLIENT_CANCELLED first. NULL is allowed. No other
 * call on the client may start after this one has; calls that are asynchronous can
 * still be asked for their end and must still be freed. Does nothing in a callback. */
OPTCLIENT_API void optclient_close(struct optclient *client);

/* The beginning of that: calls in progress end with OPTCLIENT_CANCELLED, and so does
 * every call from now on, while the daemon is told goodbye. Nothing is freed: a program
 * whose threads may be in any function of the client can let them come out of it, and
 * then close. Never waits. NULL is allowed. */
OPTCLIENT_API void optclient_leave(struct optclient *client);

/* A tensor of a model. */
struct optclient_tensor {
    const char *name;      /* 1-255 bytes of UTF-8, unique in the model */
    const uint64_t *shape; /* rank dimensions, each at least 1; row-major */
    size_t rank;           /* 0 (scalar) to 8 */
    int sparse; /* not 0: a table of shape[0] rows, such as an embedding: gradients come
                   by rows, and an update moves only the rows that it has. Rank at least
                   2, at most 2^32 - 1 rows of at most 2^20 elements; for the rules sgd,
                   momentum, adagrad, rmsprop and adam */
    uint64_t reserved[2]; /* 0 */
};

enum optclient_mode { OPTCLIENT_SYNC = 0, OPTCLIENT_ASYNC = 1, OPTCLIENT_BOUNDED = 2 };
enum optclient_loss { OPTCLIENT_SHRINK = 0, OPTCLIENT_WAIT = 1, OPTCLIENT_FAIL = 2 };

enum optclient_atomic {
    OPTCLIENT_ATOMIC_DEFAULT = 0, /* ROUND */
    OPTCLIENT_ATOMIC_ROUND = 1,   /* a push counts whole or not at all */
    OPTCLIENT_ATOMIC_SHARD = 2    /* SYNC: a shard counts when all have sent it */
};

/* When a push is safe, if the daemon has a data directory. */
enum optclient_durability {
    OPTCLIENT_DURABILITY_DEFAULT = 0,  /* as the daemon's setting says */
    OPTCLIENT_DURABILITY_ALWAYS = 1,   /* once its record is on the disk; a push is
                                          answered then */
    OPTCLIENT_DURABILITY_INTERVAL = 2, /* the same, but answered before: nothing is lost
                                          if the daemon is killed, a second at most if
                                          its machine loses power */
    OPTCLIENT_DURABILITY_CHECKPOINT = 3 /* with the next checkpoint */
};

/* When pushes become updates, and how they are kept. Fields that are 0 mean the
 * default; one that the mode does not know must be 0. docs/consistency.md has a table
 * of what each guarantees. */
struct optclient_policy {
    /* SYNC: a round closes when all registered workers have pushed, unless samples or
     * backup say otherwise. ASYNC: every push is an update. BOUNDED: the same, but no
     * worker gets more than staleness pushes ahead of the slowest: its push waits. */
    enum optclient_mode mode;
    /* A lost worker. SHRINK: the others go on without it. WAIT: they wait for it, until
     * their deadlines. FAIL: what they wait for, a round or a barrier, ends with
     * OPTCLIENT_ABORTED; then as SHRINK. */
    enum optclient_loss loss;
    uint32_t min_workers; /* SYNC, BOUNDED, barriers: nothing happens before so many
                             have come together; 0 means 1 */
    uint64_t samples;   /* SYNC: a round closes when its pushes together cover so many,
                           whoever they came from; 0: it is one push of every worker */
    uint32_t backup;    /* SYNC: a round closes without so many of the slowest, whose
                           pushes for it are OPTCLIENT_DROPPED when they come */
    uint32_t staleness; /* BOUNDED: at least 1 */
    int damping; /* ASYNC, BOUNDED: not 0: a gradient of staleness t is multiplied by
                    1/(1 + t) */
    double delay_compensation; /* ASYNC, BOUNDED: lambda of DC-ASGD: a gradient g
                                  becomes g + lambda g g (w now - w then), where w then
                                  are the weights that this worker last pulled, if they
                                  are of the push's basis. Dense tensors only */
    /* SHARD: a shard (up to 1 Mi elements) is updated while later ones still arrive,
     * and comes back in push_pulls of all tensors. Push tensors in the same order
     * everywhere, best the model's. Whoever goes half way leaves behind what was
     * applied: then a push ends with OPTCLIENT_ABORTED and how many of how many shards
     * were applied (with another code if its values were wrong), and must not be
     * repeated. Pulls in the middle of a round see some shards of the next step. */
    enum optclient_atomic atomic;
    uint64_t checkpoint_steps; /* a checkpoint each time the model has had so many
                                  updates more; 0: only by the daemon's clock */
    /* With OPTCLIENT_FAILED_PRECONDITION the daemon says that it has no data directory.
     * A model that is there already fits DEFAULT, and checkpoint_steps 0, whatever it
     * has. */
    enum optclient_durability durability;
    uint64_t reserved[2]; /* 0 */
};

/* Create a model, or open it if it is there with the same definition, and join its
 * rounds.
 *
 * specification  an expression, e.g. "adam(lr=1e-3) + warmup(500)"; see
 *                optimd-optimizers(7)
 * policy         NULL: SYNC, SHRINK, 1
 * tensors        count of them; borrowed for the call
 * initial        count pointers to the fp32 start values of each tensor, used only by
 *                whoever turns out to be the creator; NULL: zeros. Borrowed for the
 *                call.
 *
 * Returns when the model is ready for pushes; if its creator vanishes before, this
 * client tries to become the creator. The client's timeout counts.
 * OPTCLIENT_ALREADY_EXISTS shows how the existing one differs;
 * OPTCLIENT_INVALID_ARGUMENT names the option, tensor or limit;
 * OPTCLIENT_RESOURCE_EXHAUSTED the bytes that are missing; OPTCLIENT_PERMISSION_DENIED
 * for an observer. */
OPTCLIENT_API enum optclient_status
optclient_create(struct optclient *client, const char *name, const char *specification,
                 const struct optclient_policy *policy,
                 const struct optclient_tensor *tensors, size_t count,
                 const float *const *initial, struct optclient_model **out);

/* Open an existing model; join not 0: take part in its rounds.
 * OPTCLIENT_NOT_FOUND if there is none. */
OPTCLIENT_API enum optclient_status optclient_open(struct optclient *client,
                                                   const char *name, int join,
                                                   struct optclient_model **out);

/* Leave the rounds (waits for the daemon at most a second; a daemon that cannot be
 * reached is told later) and free. Calls in progress on it end with
 * OPTCLIENT_CANCELLED, and pushes with what the daemon says of them as the worker
 * leaves. NULL is allowed. Does nothing in a callback. */
OPTCLIENT_API void optclient_model_close(struct optclient_model *model);

/* The same, but its memory stays until optclient_model_close: what has been given by
 * optclient_gradient and optclient_weights may still be read. Other calls on the model
 * fail with OPTCLIENT_FAILED_PRECONDITION from now on. */
OPTCLIENT_API void optclient_model_leave(struct optclient_model *model);

/* What is known of a model since it was opened; no waiting. Borrowed from the model. */
OPTCLIENT_API size_t optclient_model_tensors(const struct optclient_model *model);
/* The tensor at a position, or NULL past the last. */
OPTCLIENT_API const struct optclient_tensor *
optclient_model_tensor(const struct optclient_model *model, size_t index);
/* The product of its shape; 1 for a scalar. */
OPTCLIENT_API uint64_t optclient_tensor_elements(const struct optclient_tensor *tensor);
/* Its canonical specification when it was opened; optclient_describe has the present
 * one.
 */
OPTCLIENT_API const char *
optclient_model_specification(const struct optclient_model *model);
/* Position of a tensor by name, or SIZE_MAX. */
OPTCLIENT_API size_t optclient_model_find(const struct optclient_model *model,
                                          const char *name);

/* Rows that one pull may name, of all its tensors together, beside at most 4,096
 * tensors. A push may name any number. */
#define OPTCLIENT_PULL_ROWS_MAX 8192

/* Values of one tensor in the caller's memory: fp32, row-major, all its elements; or
 * those of some rows of a sparse tensor, row after row. This structure never grows.
 *
 * A push of a sparse tensor always is by rows: rows that are named more than once are
 * summed, and rows NULL with row_count 0 is a gradient that is zero everywhere (no row
 * moves, but the tensor's step counts). A pull with rows NULL is of the whole tensor.
 * rows is borrowed as values are. */
struct optclient_values {
    size_t tensor;        /* position in the model */
    float *values;        /* read by push, written by pull */
    const uint32_t *rows; /* row_count numbers below shape[0], in any order; or NULL */
    size_t row_count;
};

/* Memory of the model's own for the gradient of a dense tensor: all its elements, fp32,
 * row-major, 64-byte aligned. Name it in optclient_values like any other memory. If
 * the daemon is on this machine and shares memory with this client, it reads a gradient
 * that is pushed from here where it is, without any copy. Otherwise it is sent, and
 * nothing else changes.
 *
 * The place stays the same until optclient_model_close; other tensors' gradients lie
 * elsewhere. Values must not be changed while a push of them is in progress. To be
 * asked for before the model's first push: while one is in progress that took its
 * values from other memory, it fails with OPTCLIENT_FAILED_PRECONDITION. From the first
 * time on, what is pushed from other memory is sent. NULL with optclient_error: an
 * unknown or sparse tensor, or no memory. After a connection was lost, gradients from
 * here are sent; open the model again to share its memory again. */
OPTCLIENT_API float *optclient_gradient(struct optclient_model *model, size_t tensor);

/* Where the weights of a tensor are after optclient_pull or optclient_push_pull (or
 * their asynchronous forms) with weights NULL and weight_count 0, which pull all
 * tensors in place: all its elements, fp32, to be read only. If the daemon is on this
 * machine and shares memory, that is where it has computed them, and nothing has been
 * copied.
 *
 * They stay as they are until the next pull in place of this model begins, or the model
 * is closed. Meanwhile the daemon's updates go elsewhere, so whoever does not need them
 * any more had better pull again or close the model. If the connection that lent them
 * is lost, they may change without notice: then the next push fails with
 * OPTCLIENT_ABORTED and was not applied, until weights have been pulled in place again.
 *
 * NULL: nothing has been pulled in place, the last such pull has failed or is still in
 * progress (only one at a time may be; another fails with
 * OPTCLIENT_FAILED_PRECONDITION), or there is no such tensor. */
OPTCLIENT_API const float *optclient_weights(const struct optclient_model *model,
                                             size_t tensor);

/* What became of a push. */
enum optclient_fate {
    OPTCLIENT_UNKNOWN_FATE = 0,
    OPTCLIENT_APPLIED = 1,   /* part of the update that made `step` */
    OPTCLIENT_DUPLICATE = 2, /* had been applied before the connection broke, as part of
                                the update that made `step`; `staleness` is not known */
    OPTCLIENT_DROPPED = 3,   /* not used; optclient_error() says why */
    OPTCLIENT_SKIPPED = 4,   /* its round was skipped: non-finite values */
    /* Only with an error: */
    OPTCLIENT_NOT_APPLIED = 5,     /* nothing of it was applied, and nothing will be */
    OPTCLIENT_APPLIED_IN_PART = 6, /* OPTCLIENT_ATOMIC_SHARD: some of its shards were,
                                      and stay so: not to be repeated as it is */
    OPTCLIENT_NOT_KNOWN = 8 /* it may have been applied, may yet be, or not at all */
};

/* Why a call has failed, where a program may want to act on it. More will be added. */
enum optclient_detail {
    OPTCLIENT_DETAIL_NONE = 0,
    OPTCLIENT_STALE_INCARNATION =
        1,                        /* it belongs to a life of this worker that is over */
    OPTCLIENT_TAKEN_FOR_DEAD = 2, /* that life ended because the daemon heard nothing */
    OPTCLIENT_TAKEN_OVER = 3,     /* another process has taken the worker's name */
    OPTCLIENT_CONTINUED = 4,      /* the worker goes on over another connection */
    OPTCLIENT_NOT_JOINED = 5,     /* the worker is not registered with the model */
    OPTCLIENT_LEFT = 6,           /* the worker has left the model meanwhile */
    OPTCLIENT_WORKER_LOST = 7,    /* another worker was lost: policy FAIL */
    OPTCLIENT_OUT_OF_ORDER = 8,   /* the push's number was passed over */
    OPTCLIENT_TOO_OLD = 9,        /* the push's number is not remembered any more */
    OPTCLIENT_REFUSED_BEFORE = 10,   /* the push was refused when it came first */
    OPTCLIENT_MODEL_GONE = 11,       /* deleted, or not the same any more */
    OPTCLIENT_STOPPING = 12,         /* the daemon is stopping */
    OPTCLIENT_NOT_FINITE = 13,       /* NaN or infinity */
    OPTCLIENT_NO_PEER = 14,          /* others have not come: to a round, a barrier */
    OPTCLIENT_MALFORMED = 15,        /* the message may not be sent so */
    OPTCLIENT_NO_HELLO = 16,         /* the connection has not said hello */
    OPTCLIENT_SECOND_HELLO = 17,     /* it has said hello before */
    OPTCLIENT_NO_FEATURE = 18,       /* what the client requires is not there */
    OPTCLIENT_NO_SERVICE = 19,       /* not served by this daemon, or not here */
    OPTCLIENT_OBSERVER = 20,         /* only a worker may */
    OPTCLIENT_NO_MODEL = 21,         /* there is no such model */
    OPTCLIENT_OTHER_DEFINITION = 22, /* the model exists, and is another one */
    OPTCLIENT_IN_USE = 23,           /* other workers use the model */
    OPTCLIENT_TOO_LARGE = 24,        /* one thing is larger than a limit */
    OPTCLIENT_TOO_MANY = 25,         /* there are as many as there may be */
    OPTCLIENT_NO_MEMORY = 26,        /* the daemon's memory does not hold it */
    OPTCLIENT_SILENT = 27,           /* nothing was heard for too long */
    OPTCLIENT_TOO_SLOW = 28,         /* a frame came more slowly than it may */
    OPTCLIENT_NO_ROOM = 29,          /* what is in flight leaves no room now */
    OPTCLIENT_NOT_READY = 30,        /* the model waits for its first weights */
    OPTCLIENT_NO_TENSOR = 31,        /* the model has no such tensor or slot */
    OPTCLIENT_NOT_CREATOR = 32,      /* only the model's creator may */
    OPTCLIENT_PASSED = 33,           /* too late: the update has been */
    OPTCLIENT_UNFIT = 34,            /* the model as it is cannot be or do that */
    OPTCLIENT_NOT_SHARED = 35,       /* no memory is shared for this */
    OPTCLIENT_AT_BARRIER = 36,       /* the worker waits at another barrier */
    OPTCLIENT_REPLACED = 37,         /* a later call asked for the same */
    OPTCLIENT_SEND_AGAIN = 38,       /* given up meanwhile: send it again */
    OPTCLIENT_NOT_DURABLE = 39,      /* the daemon's disk fails or is full at present */
    OPTCLIENT_NO_DATA_DIR = 40,      /* the daemon keeps nothing on disk */
    OPTCLIENT_RECOVERING = 41,       /* what the daemon had comes back from its disk */
    OPTCLIENT_NO_LOGIN = 42,         /* the token, certificate or user is not known */
    OPTCLIENT_NOT_ALLOWED = 43       /* the login's role or names do not allow it */
};
/* The reason of the calling thread's last failed optclient call, beside
 * optclient_error.
 */
OPTCLIENT_API enum optclient_detail optclient_detail(void);

/* What came of a call. Of a push, or a push_pull, it is written also if that fails:
 * fate, shards and detail then say whether it was applied. A push_pull that fails with
 * OPTCLIENT_APPLIED or OPTCLIENT_DUPLICATE has only not brought the weights. */
struct optclient_result {
    enum optclient_fate fate; /* pushes */
    uint64_t step;            /* updates of the model after the call */
    uint64_t staleness;       /* pushes: updates between the weights and the push */
    uint64_t epoch;           /* Lookahead sync epochs so far */
    uint64_t lost; /* pushes, waits, barriers: workers whose loss the answer told of,
                      for optclient_lost */
    uint64_t unchanged;      /* pulls: values that did not come, because what was in the
                                caller's memory still holds (since) */
    uint64_t shards_applied; /* APPLIED_IN_PART: how many of the shards that the push */
    uint64_t shards;         /* has, and how many these are; 0: that is not known */
    enum optclient_detail detail; /* pushes that fail: why */
    uint64_t held; /* pulls: values beyond the dtype that they came in (pull_dtype):
                      each is the largest that it has, 65504 in FP16, 3.39e38 in BF16 */
    int durable;   /* pushes, optclient_wait_durable: not 0: what became of it is on the
                      daemon's disk, and lost by no failure. 0: it may be lost as the
                      model's durability tells */
    uint64_t reserved[1]; /* 0 */
};

enum optclient_form { OPTCLIENT_MEAN = 0, OPTCLIENT_SUM = 1 };

struct optclient_push_options {
    uint64_t samples;         /* how many the gradient covers; 0 means 1 */
    enum optclient_form form; /* gradient of the MEAN or of the SUM of their losses */
    uint64_t basis;       /* step of the weights it was computed from; 0: that of this
                             model's last completed pull */
    uint32_t timeout_ms;  /* 0: the client's */
    uint64_t reserved[4]; /* 0 */
};
struct optclient_pull_options {
    enum optclient_view view;
    const char *slot;    /* view SLOT: its name, such as "exp_avg" */
    uint64_t min_step;   /* wait until the model has had that many updates */
    uint32_t timeout_ms; /* 0: the client's */
    uint64_t since;      /* the memory given has all that is asked for as it was at that
                            step: result.step of the last completed pull into it, of the
                            same view by the same optclient_model. What no update has
                            written since does not come, and stays as it is. 0:
                            everything comes */
    uint64_t reserved[4]; /* 0 */
};

/* Push gradients of count tensors (each at most once) as one contribution and wait for
 * its fate. In sync mode that is when the round has closed. options may be NULL; result
 * may be NULL. The values are borrowed until the call returns.
 *
 * OPTCLIENT_INVALID_ARGUMENT: NaN or infinity (names tensor and element), an unknown
 * tensor or row; a value beyond push_dtype, which is refused before anything is sent,
 * whatever the model does with values that are not finite.
 * OPTCLIENT_DEADLINE_EXCEEDED: names the workers who have not pushed;
 * not applied. OPTCLIENT_FAILED_PRECONDITION: this worker's identity was taken over by
 * another process, or it is not joined. OPTCLIENT_ABORTED: the round failed with a lost
 * worker; or this one was taken for dead meanwhile ("stale incarnation"), has joined
 * again by itself, and is to pull the weights and push again. */
OPTCLIENT_API enum optclient_status
optclient_push(struct optclient_model *model, const struct optclient_values *gradients,
               size_t count, const struct optclient_push_options *options,
               struct optclient_result *result);

/* Pull count tensors (each at most once) into the caller's memory; all of them from the
 * same step. options and result may be NULL. After a failure what is in that memory is
 * undefined, and no step can be given as since for it.
 *
 * OPTCLIENT_INVALID_ARGUMENT: an unknown tensor or row, a tensor twice, or a list of
 * rows that is too long for one request. OPTCLIENT_NOT_FOUND: no such slot; names those
 * that there are. OPTCLIENT_DEADLINE_EXCEEDED: min_step was not reached.
 */
OPTCLIENT_API enum optclient_status
optclient_pull(struct optclient_model *model, const struct optclient_values *weights,
               size_t count, const struct optclient_pull_options *options,
               struct optclient_result *result);

/* Push, and pull the weights that it made, in one round trip. The timeout is push's.
 * gradients and weights must not overlap in memory. result->step is that of the
 * weights. Fails as optclient_push and optclient_pull; a push that was applied although
 * its weights did not come is told by the sentence. */
OPTCLIENT_API enum optclient_status optclient_push_pull(
    struct optclient_model *model, const struct optclient_values *gradients,
    size_t gradient_count, const struct optclient_push_options *push,
    const struct optclient_values *weights, size_t weight_count,
    const struct optclient_pull_options *pull, struct optclient_result *result);

/* Wait until the model has had `step` updates. timeout_ms 0: the client's.
 * OPTCLIENT_DEADLINE_EXCEEDED names the workers who have not pushed. */
OPTCLIENT_API enum optclient_status
optclient_wait_step(struct optclient_model *model, uint64_t step, uint32_t timeout_ms,
                    struct optclient_result *result);

/* Wait until the model has had `epoch` Lookahead sync epochs. The same, and
 * OPTCLIENT_FAILED_PRECONDITION if the model has no Lookahead. */
OPTCLIENT_API enum optclient_status
optclient_wait_epoch(struct optclient_model *model, uint64_t epoch, uint32_t timeout_ms,
                     struct optclient_result *result);

/* Wait until the model has had `step` updates, and all that it has come to is on the
 * daemon's disk, by its journal or by a checkpoint; result->step is the step that is
 * safe. The same, and OPTCLIENT_FAILED_PRECONDITION if the daemon has no data
 * directory. A disk that is full or fails is waited for. */
OPTCLIENT_API enum optclient_status
optclient_wait_durable(struct optclient_model *model, uint64_t step,
                       uint32_t timeout_ms, struct optclient_result *result);

/* Wait until every registered worker of the model is in this function, those that rest
 * too; all go on together. One that is lost meanwhile is not waited for, or makes it
 * fail (OPTCLIENT_ABORTED, naming it), as the policy's loss says; result->lost and
 * optclient_lost tell. timeout_ms 0: the client's. After a lost connection it is asked
 * for again: nobody is counted twice, nor waits for a barrier that was passed
 * meanwhile.
 *
 * Who leaves a round open must not wait here, or the others, who wait for that round,
 * never come: rest first (optclient_rest). OPTCLIENT_DEADLINE_EXCEEDED names those who
 * have not come. OPTCLIENT_FAILED_PRECONDITION: this worker has not joined, or waits at
 * another barrier of the model already. */
OPTCLIENT_API enum optclient_status optclient_barrier(struct optclient_model *model,
                                                      uint32_t timeout_ms,
                                                      struct optclient_result *result);

/* Rest: rounds do not wait for this worker until it pushes again, but it stays
 * registered and barriers wait for it. For workers with fewer batches than the others,
 * at an epoch's end. What it has pushed before still counts.
 * OPTCLIENT_FAILED_PRECONDITION: it has not joined. */
OPTCLIENT_API enum optclient_status optclient_rest(struct optclient_model *model);

/* The name of the next worker of the model whose loss was told by an answer to a push,
 * a wait or a barrier, oldest first; not 0 if there was one. Each is given once; the
 * last 64 are kept. name has capacity bytes; 256 are always enough. Never waits. */
OPTCLIENT_API int optclient_lost(struct optclient_model *model, char *name,
                                 size_t capacity);

/* The same, asynchronous: returns at once, and the call ends by itself, at its deadline
 * at the latest. Calls on one model take effect in the order in which they were
 * started.
 *
 * gradients, weights and options are copied; the values themselves are borrowed until
 * the call has ended, which is when optclient_call_wait returns, when
 * optclient_call_done is not 0, or when on_done runs. on_done runs once, on a thread of
 * the client's that runs callbacks one after another, and may be NULL; it may start and
 * free calls but not wait for any. If it takes long, other callbacks wait, but neither
 * the connection nor its heartbeats. *out is written before on_done can run and must be
 * freed. An error here (OPTCLIENT_INVALID_ARGUMENT, OPTCLIENT_RESOURCE_EXHAUSTED, or
 * OPTCLIENT_ABORTED as optclient_weights says) means that there is no call, and that
 * nothing was pushed. */
typedef void (*optclient_on_done)(struct optclient_call *call, void *context);

OPTCLIENT_API enum optclient_status optclient_push_start(
    struct optclient_model *model, const struct optclient_values *gradients,
    size_t count, const struct optclient_push_options *options,
    optclient_on_done on_done, void *context, struct optclient_call **out);
OPTCLIENT_API enum optclient_status optclient_pull_start(
    struct optclient_model *model, const struct optclient_values *weights, size_t count,
    const struct optclient_pull_options *options, optclient_on_done on_done,
    void *context, struct optclient_call **out);
OPTCLIENT_API enum optclient_status optclient_push_pull_start(
    struct optclient_model *model, const struct optclient_values *gradients,
    size_t gradient_count, const struct optclient_push_options *push,
    const struct optclient_values *weights, size_t weight_count,
    const struct optclient_pull_options *pull, optclient_on_done on_done, void *context,
    struct optclient_call **out);

/* Not 0 once the call has ended, and in a child after fork. Never waits. */
OPTCLIENT_API int optclient_call_done(const struct optclient_call *call);
/* Wait for the end and give its status and result, as the waiting function would have.
 * May be called again, and from several threads. */
OPTCLIENT_API enum optclient_status
optclient_call_wait(struct optclient_call *call, struct optclient_result *result);
/* The same wait with a limit, as for a program that has to look at other things from
 * time to time: not 0 once the call has ended, 0 if timeout_ms have passed before. With
 * 0, and in a callback, it only looks. */
OPTCLIENT_API int optclient_call_wait_for(struct optclient_call *call,
                                          uint32_t timeout_ms);
/* End a call at once with OPTCLIENT_CANCELLED, if it has not ended: when this returns,
 * the memory lent to it is the caller's again. What may have become of a push stands in
 * its result; one that was cancelled while its values were on their way costs the
 * connection, which is made anew. Never waits. */
OPTCLIENT_API void optclient_call_cancel(struct optclient_call *call);
/* The sentence of a call that has failed, or of a push that was OPTCLIENT_DROPPED,
 * whichever thread asks; "" for others, and until it has ended. Borrowed until
 * optclient_call_free. */
OPTCLIENT_API const char *optclient_call_error(const struct optclient_call *call);
/* For programs that wait for many things at once, by poll(2) or in an event loop: a
 * descriptor that is readable while there are calls that optclient_ended would give. It
 * is the library's, until optclient_close: to be watched only, neither read nor closed.
 * -1 with optclient_error: no more descriptors (OPTCLIENT_RESOURCE_EXHAUSTED), or a
 * child after fork. */
OPTCLIENT_API int optclient_ended_fd(struct optclient *client);
/* A call without on_done that has ended since optclient_ended_fd was first called, in
 * the order in which they ended, and each once; NULL if there is none. It still has to
 * be freed; one that is freed before is not given. Never waits. */
OPTCLIENT_API struct optclient_call *optclient_ended(struct optclient *client);
/* Free a call; one that has not ended is waited for. A callback may free its own call.
 * NULL is allowed. */
OPTCLIENT_API void optclient_call_free(struct optclient_call *call);

/* Local steps: worker-held Lookahead, local SGD, DiLoCo.
 *
 * The worker keeps fast weights and an optimizer of its own. Every k steps it pushes
 * how far it has come, as if that were a gradient, and goes on from the weights that
 * the daemon makes of all workers' ways: k times less traffic than a push for each
 * step.
 *
 *     optclient_create(client, "mlp", "sgd(lr=0.5)", ...);   the outer rule, see below
 *     struct optclient_local *local;
 *     struct optclient_local_result at;
 *     optclient_local_open(model, "adam(lr=1e-3)", 8, NULL, &local);
 *     for (;;) {
 *         ... gradient of the mean loss over 32 samples at optclient_local_view ...
 *         optclient_local_step(local, gradients, n, 32, &at);
 *     }
 *     optclient_local_sync(local, &at);
 *     optclient_local_close(local);
 *
 * What is pushed is slow - fast, where slow are the weights (view TRAIN) of the last
 * synchronisation; the daemon averages it over the workers, with their samples since
 * then as weights, and applies the model's specification to it, the outer rule. With
 * sgd(lr=a) that is Lookahead with alpha = a, and of one worker it is the same bits as
 * the daemon makes of a model with lookahead(k, a); with sgd(lr=1) local SGD (federated
 * averaging); with nag(momentum_form=heavy_ball, nesterov_form=reformulated, lr=0.7,
 * momentum=0.9) DiLoCo.
 *
 * Steps are made by the calling thread alone, with the daemon's kernels. It takes 12
 * bytes a parameter besides the optimizer's slots. All tensors of the model must be
 * dense. Only one thread at a time may be in the functions of one optclient_local, and
 * as long as it is open nothing else may push to its model.
 *
 * With other dtypes than FP32 on the wire the slow weights are those that were pulled,
 * rounded, and it is the way from there that is pushed, rounded too. sync.held tells of
 * weights that the dtype does not reach. */
struct optclient_local;

/* What a synchronisation does to the first moment (momentum_buffer, exp_avg) of the
 * worker's optimizer. Its other slots and its step counts stay in any case. */
enum optclient_momentum {
    OPTCLIENT_MOMENTUM_KEEP = 0,
    OPTCLIENT_MOMENTUM_RESET = 1,   /* it becomes 0 */
    OPTCLIENT_MOMENTUM_PULLBACK = 2 /* it becomes its own slow copy, which before moves
                                       towards it by alpha */
};

/* Fields that are 0 mean the defaults, given last. */
struct optclient_local_options {
    enum optclient_momentum momentum; /* KEEP */
    double alpha;         /* PULLBACK: at most 1; as in lookahead(alpha=...) it is the
                             outer sgd's learning rate; 0.5 */
    uint64_t steps;       /* local steps made before, by a worker that comes back: where
                             schedules go on; 0 */
    uint32_t timeout_ms;  /* of each synchronisation; the client's */
    uint64_t reserved[4]; /* 0 */
};

struct optclient_local_result {
    uint64_t steps;  /* local steps so far, with those made before */
    uint64_t epochs; /* synchronisations so far */
    int stepped;     /* not 0: the call has made a local step. 0: its gradients were not
                        finite and the specification says nonfinite(skip), or it has
                        only made up for a synchronisation that was owed */
    int synced;      /* not 0: the call has synchronised, and how: */
    struct optclient_result sync; /* fate of the push; step and epoch of the weights */
    uint64_t reserved[2];         /* 0 */
};

/* Begin local steps on a model that has been opened to take part in its rounds, at its
 * present weights.
 *
 * specification  of the worker's own optimizer, as for optclient_create but without
 *                lookahead. Schedules follow the local steps
 * k              local steps from one synchronisation to the next, at least 1
 * options        may be NULL
 *
 * OPTCLIENT_INVALID_ARGUMENT names what is wrong in these.
 * OPTCLIENT_FAILED_PRECONDITION if the model was opened without joining.
 * OPTCLIENT_UNIMPLEMENTED names a sparse tensor. Fails as optclient_pull, too. *out is
 * the caller's, to be closed before the model. */
OPTCLIENT_API enum optclient_status
optclient_local_open(struct optclient_model *model, const char *specification,
                     uint64_t k, const struct optclient_local_options *options,
                     struct optclient_local **out);

/* Forget the local steps since the last synchronisation and free everything. NULL is
 * allowed. */
OPTCLIENT_API void optclient_local_close(struct optclient_local *local);

/* Where the next gradient of a tensor (its position in the model) is to be taken: the
 * fast weights, or the look-ahead point of classical nag. Borrowed until
 * optclient_local_close, always at the same place; read it only, and not during a call.
 * Each step changes it. NULL past the last tensor. */
OPTCLIENT_API const float *optclient_local_view(const struct optclient_local *local,
                                                size_t tensor);

/* Make one local step from gradients of count tensors (each at most once; those that
 * are not named stay where they are), and synchronise if it is the k-th since the last
 * synchronisation: push, wait for the round, pull.
 *
 * samples  how many the gradients are the mean over; 0 means 1
 * result   may be NULL
 *
 * OPTCLIENT_INVALID_ARGUMENT: NaN or infinity (names tensor and element), an unknown
 * tensor; no step was made. Fails as optclient_push_pull, too: the step was made then,
 * but its synchronisation is owed (optclient_local_owes), and the fast weights wait for
 * it. In any case the same call is right again: while a synchronisation is owed it
 * makes up for that and uses no gradients, as they belong to weights that are given up.
 * However often that fails, the push takes effect at most once.
 *
 * A synchronisation succeeds also if the daemon has not used the push
 * (result->sync.fate DROPPED, SKIPPED): then this worker goes on from the others'
 * weights. If the fast weights have become NaN or infinite, which takes
 * nonfinite(propagate) in the worker's own specification, a daemon that rejects such
 * gradients says so with OPTCLIENT_INVALID_ARGUMENT each time, and
 * optclient_local_restart is the way out. */
OPTCLIENT_API enum optclient_status
optclient_local_step(struct optclient_local *local,
                     const struct optclient_values *gradients, size_t count,
                     uint64_t samples, struct optclient_local_result *result);

/* Synchronise now: what is owed, or before k steps have been made, such as at the end.
 * Without any step since the last synchronisation it does nothing and succeeds. Fails
 * as optclient_push_pull, and is owed then. */
OPTCLIENT_API enum optclient_status
optclient_local_sync(struct optclient_local *local,
                     struct optclient_local_result *result);

/* Not 0: a synchronisation has failed and has to be made up for, by any of
 * optclient_local_step, optclient_local_sync and optclient_local_restart. */
OPTCLIENT_API int optclient_local_owes(const struct optclient_local *local);

/* Give up the local steps since the last synchronisation, and what is owed: pull the
 * model's weights and go on from there, with the first moment as after a
 * synchronisation. (If the fate of a push is not known it may have been applied, or may
 * still be.) Fails as optclient_pull, and nothing has changed then. */
OPTCLIENT_API enum optclient_status
optclient_local_restart(struct optclient_local *local,
                        struct optclient_local_result *result);

/* A model in words and numbers. */
struct optclient_worker_info {
    const char *name;
    uint64_t incarnation; /* counts its lives */
    uint64_t last_sequence, last_step, applied, duplicates, refused;
    uint64_t resends;    /* pushes that came again, settled or not */
    uint64_t reconnects; /* connections that went on with its session */
    int connected, pushed;
    int resting;            /* no round waits for it until it pushes */
    int away;               /* not connected, but waited for */
    uint64_t dropped;       /* pushes that came when their round had closed */
    uint64_t waits;         /* how often the others waited for it alone, */
    uint64_t waited_us;     /* and how long, in all */
    uint64_t staleness[15]; /* applied pushes of staleness 0, 1, 2-3, 4-7, ..., 8192 and
                               more */
    uint64_t reserved[8];   /* 0 */
};
/* A change of options. It has taken effect if its step is at most the model's plus one.
 */
struct optclient_change {
    uint64_t step;              /* number of the first update with it */
    const char *before, *after; /* canonical specifications */
    uint64_t reserved[2];       /* 0 */
};
struct optclient_description {
    const char *name, *specification;
    struct optclient_policy policy;
    int ready;
    uint64_t step, epoch, parameters, bytes, rounds_skipped;
    uint64_t rounds;       /* closed: applied or skipped */
    uint64_t dropped;      /* pushes that came when their round had closed */
    double mean_staleness; /* of all applied pushes */
    double lr;             /* of the next update */
    size_t slot_count, tensor_count, worker_count;
    const char *const *slots;
    const struct optclient_tensor *tensors;
    const uint64_t *tensor_steps; /* updates of each */
    const struct optclient_worker_info *workers;
    size_t change_count;
    const struct optclient_change *changes; /* the last 64 that took effect, and all
                                               that will, in order */
    uint64_t reserved[8];                   /* 0 */
};
/* Describe a model. *out is the caller's, to be freed with optclient_description_free.
 * OPTCLIENT_NOT_FOUND if there is none. */
OPTCLIENT_API enum optclient_status
optclient_describe(struct optclient *client, const char *name,
                   struct optclient_description **out);
OPTCLIENT_API void
optclient_description_free(struct optclient_description *description);

/* Names, steps and sizes of all models: *count of them, the caller's, to be freed with
 * optclient_list_free. Of a specification they have the first 1,024 bytes at most. */
struct optclient_model_info {
    const char *name, *specification;
    uint64_t step, tensors, parameters;
    uint32_t workers;
    uint32_t recovering;  /* 0; else 1 and how many percent of what the daemon had have
                             come back since it was started: until all have, the model is
                             not served, and the rest of this may be missing */
    uint64_t durability;  /* an enum optclient_durability; DEFAULT: it is not kept */
    uint64_t reserved[3]; /* 0 */
};
OPTCLIENT_API enum optclient_status optclient_list(struct optclient *client,
                                                   struct optclient_model_info **out,
                                                   size_t *count);
OPTCLIENT_API void optclient_list_free(struct optclient_model_info *models);

/* The daemon's counters: *count of them, the caller's, to be freed with
 * optclient_statistics_free. */
struct optclient_counter {
    const char *name;
    uint64_t value;
    uint64_t reserved[2]; /* 0 */
};
OPTCLIENT_API enum optclient_status optclient_statistics(struct optclient *client,
                                                         struct optclient_counter **out,
                                                         size_t *count);
OPTCLIENT_API void optclient_statistics_free(struct optclient_counter *counters);

/* Have the daemon read its configuration and its files of logins again, as at SIGHUP:
 * what may change while it runs is then as they say, or, if anything in them is wrong,
 * everything as it was (OPTCLIENT_FAILED_PRECONDITION, with file, line and key).
 * unchanged may be NULL; otherwise it gets the names of settings that are others now
 * and cannot change while the daemon runs, with commas between, cut to capacity bytes.
 * Takes the role admin. */
OPTCLIENT_API enum optclient_status optclient_reload(struct optclient *client,
                                                     char *unchanged, size_t capacity);

/* Change options of a model that runs.
 *
 * change   options and terms as in an expression, separated by commas, such as
 *          "lr=5e-4, weight_decay=0.1", "cosine(20000)" or
 *          "tensors(\"*.bias\", lr_scale=2)". A term replaces all it can say; an option
 *          that the change leaves without effect goes back to its default
 * at_step  number of the first update with it; 0: the next one
 * step     if not NULL: that number, as it came to be
 *
 * It takes effect on all tensors at once, whole or not at all.
 * OPTCLIENT_INVALID_ARGUMENT names what is wrong in it; OPTCLIENT_FAILED_PRECONDITION:
 * that update is over, or the model would need other slots; OPTCLIENT_NOT_FOUND. */
OPTCLIENT_API enum optclient_status optclient_set(struct optclient *client,
                                                  const char *name, const char *change,
                                                  uint64_t at_step, uint64_t *step);

/* Save a model to the daemon's data directory now, and wait until it is on the disk: as
 * it is when this comes, or later. The daemon does the same by itself (optimd(8)).
 *
 * out      if not NULL: which checkpoint it is
 *
 * OPTCLIENT_FAILED_PRECONDITION: the daemon has no data directory, or the model no
 * weights yet; OPTCLIENT_NOT_FOUND; OPTCLIENT_RESOURCE_EXHAUSTED (a full disk),
 * OPTCLIENT_UNAVAILABLE: it could not be written, and the daemon tries again by itself;
 * OPTCLIENT_DEADLINE_EXCEEDED: it is not there yet, but being made. */
struct optclient_checkpoint_info {
    uint64_t step;        /* updates that it has */
    uint64_t record;      /* of the daemon's journal, the last one that it has */
    char folder[128];     /* in the data directory */
    uint64_t reserved[4]; /* 0 */
};
OPTCLIENT_API enum optclient_status
optclient_checkpoint(struct optclient *client, const char *name,
                     struct optclient_checkpoint_info *out);

/* A model in a file, and back: .safetensors, which any reader of that format can read.
 * A tensor is an entry of its name and shape.
 *
 * Values go through the page cache, not through the program's memory, so a model may be
 * larger than that; but for FP32 files a temporary file of 4 bytes a value is made in
 * TMPDIR, or /var/tmp, unless it is small. */
struct optclient_export_options {
    enum optclient_view view;   /* TRAIN or EVAL */
    enum optclient_dtype dtype; /* of the weights in the file; FP32 */
    int slots; /* not 0: with the state arrays of the optimizer, as TENSOR.SLOT, fp32 */
    uint32_t timeout_ms;  /* 0: the client's */
    uint64_t reserved[4]; /* 0 */
};
/* Write the file; one of that name is replaced, when all of the new one is on the disk.
 * Everything in it is of one step, which stands in its metadata with view,
 * specification and slots. options and result may be NULL; result->step is the step,
 * result->held how many values are the largest of their dtype because they are beyond
 * it. Fails as optclient_open and optclient_pull, and: OPTCLIENT_RESOURCE_EXHAUSTED (no
 * space on the disk), OPTCLIENT_PERMISSION_DENIED, OPTCLIENT_NOT_FOUND (no such
 * folder), OPTCLIENT_UNAVAILABLE (the disk fails), OPTCLIENT_DEADLINE_EXCEEDED (with
 * slots: the model was updated all the time). Then the file is as it was. */
OPTCLIENT_API enum optclient_status
optclient_export(struct optclient *client, const char *name, const char *path,
                 const struct optclient_export_options *options,
                 struct optclient_result *result);

struct optclient_import_options {
    const char *const *sparse; /* names of the tensors that are sparse, */
    size_t sparse_count;       /* and how many these are */
    uint64_t reserved[4];      /* 0 */
};
/* Create a model of the file's tensors, with its values as initial weights: otherwise
 * as optclient_create. F32, F16 and BF16 are read. Slots in a file that
 * optclient_export has written are passed over: the new model begins at step 0. options
 * may be NULL. Fails as optclient_create, and: OPTCLIENT_ALREADY_EXISTS (the model is
 * there, whatever its definition: nothing was imported), OPTCLIENT_NOT_FOUND and
 * OPTCLIENT_PERMISSION_DENIED (of the file), OPTCLIENT_DATA_LOSS (it is damaged, or no
 * .safetensors), OPTCLIENT_INVALID_ARGUMENT (a tensor of another type). */
OPTCLIENT_API enum optclient_status
optclient_import(struct optclient *client, const char *name, const char *specification,
                 const struct optclient_policy *policy, const char *path,
                 const struct optclient_import_options *options,
                 struct optclient_model **out);

/* Delete a model and its state. OPTCLIENT_FAILED_PRECONDITION while others are joined,
 * OPTCLIENT_NOT_FOUND if there is none. */
OPTCLIENT_API enum optclient_status optclient_delete(struct optclient *client,
                                                     const char *name);

/* What this client has done so far; nothing, in a child after fork. */
struct optclient_usage {
    uint64_t bytes_sent, bytes_received; /* on the wire, frames and all */
    uint64_t pushes, pulls;              /* completed */
    uint64_t reconnects;                 /* connections after the first */
    uint64_t resends;                    /* pushes sent again on another connection */
    uint64_t
        bytes_shared;     /* gradients and weights exchanged in shared memory instead */
    uint64_t reserved[8]; /* 0 */
};
OPTCLIENT_API void optclient_usage(const struct optclient *client,
                                   struct optclient_usage *out);

#ifdef __cplusplus
}
#endif

#endif
