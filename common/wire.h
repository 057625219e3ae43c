/* wire — the messages of optimd.v1 as plain structs, checked.
 *
 * The generated protobuf types do not leave wire_*.c. Reading a message checks all that
 * can be known without a model: UTF-8 and length of names, enums, counts, that segments
 * and `data` fit each other in size. Memory comes from an arena with a hard limit, so
 * that a hostile header can neither grow without bound nor leave anything behind. Any
 * thread; the arena belongs to one at a time.
 */
#ifndef OPTIMD_COMMON_WIRE_H
#define OPTIMD_COMMON_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/dtype.h"
#include "common/status.h"

enum {
    OPT_PROTOCOL = 1,
    OPT_NAME_MAX = 255,          /* bytes of a name */
    OPT_RANK_MAX = 8,            /* dimensions of a tensor */
    OPT_TENSORS_MAX = 1 << 20,   /* tensors of a model; a daemon may allow fewer */
    OPT_SEGMENTS_MAX = 4096,     /* segments of one frame */
    OPT_OPTIONS_MAX = 64,        /* options of a specification or a group */
    OPT_UNANSWERED_MAX = 1024,   /* pushes that one open asks about */
    OPT_RELEASED_MAX = 64,       /* requests that one request releases */
    OPT_TOKEN_MAX = 512,         /* bytes of a token */
    OPT_PLACE_ALIGNMENT = 64,    /* of values in a memory file */
    OPT_CHUNK_BYTES = 4 << 20,   /* advised data of one frame */
    OPT_BLOCK = 16384,           /* elements of a block */
    OPT_SHARD = 1 << 20,         /* most elements of a shard, and of a sparse row */
    OPT_ROWS_MAX = 8192,         /* rows of a frame, whatever their numbers */
    OPT_LOST_MAX = 8,            /* names of lost workers in one reply */
    OPT_STALENESS_BUCKETS = 15,  /* 0, 1, 2-3, 4-7, ..., 8192 and more */
    OPT_HEADER_BYTES = 64 << 10, /* default limit of a header part */
    OPT_FRAME_BYTES = 64 << 20,  /* default limit of a frame */
    OPT_ANSWER_BYTES = 5 << 20,  /* smallest limit that a client may set */
    OPT_ARENA_BYTES = 3 << 20    /* enough to read any message whose header part is
                                    within the default limit */
};
/* Elements of a tensor, and of all tensors of a model. */
#define OPT_ELEMENTS_MAX (UINT64_C(1) << 40)

/* Memory for one message: bump allocation from chunks, freed as a whole. */
struct opt_arena {
    struct opt_arena_chunk *chunks; /* newest first */
    size_t used;                    /* bytes handed out */
    size_t limit;                   /* never more than that */
    size_t held;                    /* bytes of the chunks */
};
void opt_arena_init(struct opt_arena *arena, size_t limit);
void *opt_arena_alloc(struct opt_arena *arena,
                      size_t size); /* 16-byte aligned, or NULL */
void opt_arena_reset(
    struct opt_arena *arena); /* keeps one chunk for the next message */
/* Overwrite all that was written to it, which may have been a secret. */
void opt_arena_wipe(struct opt_arena *arena);
void opt_arena_fini(struct opt_arena *arena);

/* Numbers of the body fields. */
enum opt_message {
    OPT_MESSAGE_NONE = 0,
    OPT_MESSAGE_ERROR = 9, /* replies only */
    OPT_MESSAGE_HELLO = 10,
    OPT_MESSAGE_CREATE = 11,
    OPT_MESSAGE_MODEL = OPT_MESSAGE_CREATE, /* the reply to create and to open */
    OPT_MESSAGE_OPEN = 12,
    OPT_MESSAGE_ASSIGN = 13,
    OPT_MESSAGE_LIST = 14,
    OPT_MESSAGE_DESCRIBE = 15,
    OPT_MESSAGE_PUSH = 16,
    OPT_MESSAGE_PULL = 17,
    OPT_MESSAGE_PUSH_PULL = 18,
    OPT_MESSAGE_WAIT = 19,
    OPT_MESSAGE_STATISTICS = 20,
    OPT_MESSAGE_LEAVE = 21,
    OPT_MESSAGE_HEARTBEAT = 22,
    OPT_MESSAGE_GOODBYE = 23,
    OPT_MESSAGE_DELETE = 24,
    OPT_MESSAGE_SET = 25,
    OPT_MESSAGE_BARRIER = 26,
    OPT_MESSAGE_REST = 27,
    OPT_MESSAGE_SHARE = 28,
    OPT_MESSAGE_CHECKPOINT = 29,
    OPT_MESSAGE_RELOAD = 30,
    OPT_MESSAGE_LIMIT
};

/* "push", "push_pull", ...; "none" for anything else. */
const char *opt_message_name(enum opt_message message);

enum opt_view { OPT_VIEW_TRAIN = 0, OPT_VIEW_EVAL = 1, OPT_VIEW_SLOT = 2 };
enum opt_mode { OPT_SYNC = 0, OPT_ASYNC = 1, OPT_BOUNDED = 2 };
enum opt_loss { OPT_LOSS_SHRINK = 0, OPT_LOSS_WAIT = 1, OPT_LOSS_FAIL = 2 };
enum opt_atomic { OPT_ATOMIC_DEFAULT = 0, OPT_ATOMIC_ROUND = 1, OPT_ATOMIC_SHARD = 2 };
enum opt_form { OPT_FORM_MEAN = 0, OPT_FORM_SUM = 1 };
/* When a push counts as safe: optimd.proto explains each (Durability). */
enum opt_durability {
    OPT_DURABILITY_DEFAULT = 0,
    OPT_DURABILITY_ALWAYS = 1,
    OPT_DURABILITY_INTERVAL = 2,
    OPT_DURABILITY_CHECKPOINT = 3,
    OPT_DURABILITY_COUNT
};

struct opt_segment {
    uint32_t tensor; /* position in the model */
    uint64_t offset; /* first element */
    uint64_t count;  /* elements; in requests 0 means up to the end of the tensor; not
                        on the wire if there are rows */
    const uint32_t *rows; /* numbers of a sparse tensor's rows, or NULL */
    size_t row_count;
};

struct opt_wire_option {
    const char *name;
    enum { OPT_VALUE_NUMBER, OPT_VALUE_WORD, OPT_VALUE_FLAG } kind;
    double number;
    const char *word;
    bool flag;
};
struct opt_wire_group {
    const char *pattern;
    const struct opt_wire_option *options;
    size_t option_count;
};
struct opt_wire_spec { /* either expression is not "" or rule is not "" */
    const char *expression;
    const char *rule;
    const struct opt_wire_option *options;
    size_t option_count;
    const struct opt_wire_group *groups;
    size_t group_count;
};

struct opt_consistency {
    enum opt_mode mode;
    enum opt_loss loss;
    uint32_t min_workers;      /* at least 1 */
    uint64_t samples;          /* sync: that a round must cover; 0: one push of each */
    uint32_t backup;           /* sync: workers that a round does without */
    uint32_t staleness;        /* bounded */
    bool damping;              /* async, bounded */
    double delay_compensation; /* async, bounded: finite, at least 0 */
    enum opt_atomic atomic;
};

/* Strings are NUL-terminated, never NULL, and checked to be UTF-8 without NUL or other
 * control characters. Pointers point into the arena. */
struct opt_hello {
    uint32_t protocol;
    const char *worker;
    uint64_t session;
    const char *client;
    const char *const *require;
    size_t require_count;
    uint32_t lease_ms;        /* 0: the daemon's default */
    uint64_t incarnation;     /* granted to the session before; 0: its first hello */
    uint64_t max_frame_bytes; /* that the client takes */
    const uint8_t *token;     /* NULL: none. A secret: not for logs or sentences */
    size_t token_size;        /* at most OPT_TOKEN_MAX */
};
struct opt_create {
    const char *model;
    struct opt_wire_spec specification;
    struct opt_consistency consistency;
    bool assigned; /* initial = ASSIGNED */
    bool join;
    enum opt_durability durability;
    uint64_t checkpoint_steps; /* 0: only on the daemon's timer */
};
struct opt_open {
    const char *model;
    bool join;
    const uint64_t *unanswered; /* sequences of pushes */
    size_t unanswered_count;
};
struct opt_assign {
    uint32_t model;
    enum opt_dtype dtype;
    const struct opt_segment *segments;
    size_t segment_count;
    bool last;
};
struct opt_push {
    uint32_t model;
    uint64_t sequence;
    uint64_t basis;
    uint64_t samples; /* at least 1 */
    enum opt_form form;
    enum opt_dtype dtype;
    const struct opt_segment *segments;
    size_t segment_count;
    uint32_t frame;
    bool last;
    uint64_t incarnation;   /* 0: the present one */
    const uint64_t *places; /* of the segments, in a memory file; NULL: in data */
};
struct opt_pull {
    uint32_t model;
    enum opt_view view;
    const char *slot;
    enum opt_dtype dtype;
    const struct opt_segment *segments;
    size_t segment_count;
    uint64_t min_step;
    bool shared;    /* weights may be given by place */
    uint64_t since; /* step of what the asker has already; 0: nothing */
};
struct opt_push_pull {
    struct opt_push push;
    struct opt_pull pull;
    bool has_pull;
};
struct opt_wait {
    uint32_t model;
    uint64_t step;
    uint64_t epoch;
    bool durable;
};
struct opt_barrier {
    uint32_t model;
    uint64_t sequence; /* at least 1 */
};
struct opt_set {
    const char *model;
    const char *change; /* may be "" */
    const struct opt_wire_option *options;
    size_t option_count;
    const struct opt_wire_group *groups;
    size_t group_count;
    uint64_t at_step; /* 0: the next update */
};

struct opt_checkpoint {
    const char *model; /* name */
    bool wait;         /* for it to be there */
};

struct opt_request {
    uint64_t id;
    uint32_t timeout_ms;
    bool has_checksum;
    uint64_t checksum;
    const uint64_t *released; /* ids of requests */
    size_t released_count;
    enum opt_message message;
    union {
        struct opt_hello hello;
        struct opt_create create;
        struct opt_open open;
        struct opt_assign assign;
        const char *describe; /* model name */
        const char *delete_;  /* model name */
        struct opt_push push;
        struct opt_pull pull;
        struct opt_push_pull push_pull;
        struct opt_wait wait;
        uint32_t leave; /* model number */
        uint32_t rest;  /* model number */
        uint32_t share; /* model number */
        struct opt_barrier barrier;
        struct opt_set set;
        struct opt_checkpoint checkpoint;
    } body;
};

struct opt_error_reply {
    enum opt_status status;
    const char *text;
    uint32_t retry_after_ms;
    enum opt_fate fate; /* of a push */
    uint64_t shards_applied, shards;
    enum opt_detail detail;
    uint64_t step; /* APPLIED */
};
struct opt_hello_reply {
    uint32_t protocol;
    const char *server;
    uint64_t incarnation;
    uint32_t lease_ms;
    uint32_t heartbeat_ms;
    uint64_t max_frame_bytes;
    uint32_t max_header_bytes;
    uint32_t chunk_bytes;
    uint32_t block_elements;
    const char *const *features; /* that may be required */
    size_t feature_count;
    const char *lost; /* if the incarnation is a new one: how it came to that, or "" */
    uint64_t inflight_bytes;
};
struct opt_settled {
    uint64_t sequence;
    enum opt_fate fate;
    uint64_t step;
    enum opt_status status;  /* REFUSED, IN_PART: of the error */
    uint64_t shards_applied; /* IN_PART */
    bool durable;            /* on the wire alone: as of an answer to the push */
};
struct opt_model_reply {
    uint32_t model;
    bool created;
    bool ready;
    uint64_t step;
    uint64_t last_sequence;
    uint64_t tensors;
    uint64_t parameters;
    uint32_t workers;
    const char *specification;
    const struct opt_settled *settled;
    size_t settled_count;
    uint64_t lost_step;
    uint64_t identity;
    uint64_t inflight_bytes;
    const uint64_t *waiting; /* sequences */
    size_t waiting_count;
    uint64_t remembered_since; /* incarnation */
};
/* Workers that were lost since the asker was last told, oldest first. */
struct opt_lost {
    const char *const *names;
    size_t count; /* at most OPT_LOST_MAX when packed */
};
struct opt_push_reply {
    enum opt_fate fate;
    uint64_t step;
    uint64_t staleness;
    const char *reason;
    uint64_t epoch;
    struct opt_lost lost;
    bool durable;
};
struct opt_pull_reply {
    uint64_t step;
    enum opt_dtype dtype;
    const struct opt_segment *segments;
    size_t segment_count;
    bool last;
    uint64_t epoch;
    const uint64_t *places; /* of the segments, in a memory file; NULL: in data */
    const struct opt_segment *unchanged; /* asked for, but not in data; no rows */
    size_t unchanged_count;
    uint64_t held; /* values in data that are the dtype's largest instead of more */
};
struct opt_push_pull_reply {
    bool has_push;
    struct opt_push_reply push;
    struct opt_pull_reply pull;
};
struct opt_wait_reply { /* to wait and to barrier */
    uint64_t step;
    uint64_t epoch;
    struct opt_lost lost;
    bool durable; /* wait */
};
struct opt_set_reply {
    uint64_t step;
    const char *specification;
};
struct opt_checkpoint_reply {
    uint64_t step;
    uint64_t record;
    const char *folder; /* in the data directory; "": not there yet */
};
struct opt_reload_reply {
    const char *unchanged; /* names of settings */
};
struct opt_share_reply {
    uint64_t gradient_bytes; /* 0: no such file */
    uint64_t weight_bytes;
};
struct opt_counter {
    const char *name;
    uint64_t value;
};
struct opt_statistics_reply {
    const struct opt_counter *counters;
    size_t count;
};

struct opt_reply {
    uint64_t id;
    bool has_checksum;
    uint64_t checksum;
    enum opt_message message;
    union {
        struct opt_error_reply error;
        struct opt_hello_reply hello;
        struct opt_model_reply model;
        struct opt_push_reply push;
        struct opt_pull_reply pull;
        struct opt_push_pull_reply push_pull;
        struct opt_wait_reply wait;
        struct opt_wait_reply barrier;
        struct opt_statistics_reply statistics;
        struct opt_set_reply set;
        struct opt_checkpoint_reply checkpoint;
        struct opt_share_reply share;
        struct opt_reload_reply reload;
    } body;
};

/* The tables that travel in `data`. */
struct opt_tensor_entry {
    const char *name;
    const uint64_t *shape;
    size_t rank;
    uint64_t elements; /* product of shape; 1 for a scalar */
    uint64_t step;
    bool sparse; /* a table of rows */
};
struct opt_model_entry {
    const char *name;
    uint32_t model;
    uint64_t step;
    uint64_t tensors;
    uint64_t parameters;
    uint32_t workers;
    const char *specification;
    uint64_t identity;
    enum opt_durability durability;
    bool recovering;  /* the daemon has just started, and it is not served yet: */
    uint32_t percent; /* so much of all models has come back */
};
struct opt_worker_entry {
    const char *name;
    uint64_t incarnation;
    bool connected;
    bool pushed;
    uint64_t last_sequence;
    uint64_t last_step;
    uint64_t applied;
    uint64_t duplicates;
    uint64_t refused;
    uint64_t dropped;
    uint64_t waits, waited_us; /* of others for it */
    uint64_t staleness[OPT_STALENESS_BUCKETS];
    bool resting;
    bool away;
    uint64_t resends;
    uint64_t reconnects;
};
struct opt_change_entry {
    uint64_t step; /* number of the first update with it */
    const char *before, *after;
};
struct opt_description {
    struct opt_model_entry summary;
    struct opt_consistency consistency;
    bool ready;
    uint64_t epoch;
    double lr;
    uint64_t bytes;
    uint64_t rounds_skipped;
    uint64_t rounds, dropped;
    double mean_staleness;
    uint64_t checkpoint_steps;
    const char *const *slots;
    size_t slot_count;
    const struct opt_tensor_entry *tensors;
    size_t tensor_count;
    /* Who packs may give one tensor at a time instead: the i-th of these. */
    struct opt_tensor_entry (*tensor_of)(const void *of, size_t i);
    const void *of;
    const struct opt_worker_entry *workers;
    size_t worker_count;
    const struct opt_change_entry *changes;
    size_t change_count;
};

/* An XXH3-64 as it stands on the wire: 0 there means that none is given, so a sum of 0
 * is given as 1. Whoever compares sums compares them in this form. */
uint64_t opt_checksum(uint64_t sum);

/* Read a header part. data_size is the size of the frame's `data`; segments that do not
 * fit it are refused (a segment with count 0 makes that a matter for the engine).
 * OPT_INVALID_ARGUMENT with a sentence if anything is wrong; OPT_UNIMPLEMENTED for an
 * unknown body; OPT_RESOURCE_EXHAUSTED if the arena is too small. *out is written only
 * on success, except that out->id is set as soon as it is known (0 before). */
enum opt_status opt_request_read(const uint8_t *header, size_t size, size_t data_size,
                                 struct opt_arena *arena, struct opt_request *out,
                                 struct opt_error *error);
enum opt_status opt_reply_read(const uint8_t *header, size_t size, size_t data_size,
                               struct opt_arena *arena, struct opt_reply *out,
                               struct opt_error *error);

/* Pack a header part. Returns its size; it is written to out only if it fits capacity.
 */
size_t opt_request_pack(const struct opt_request *request, uint8_t *out,
                        size_t capacity);
size_t opt_reply_pack(const struct opt_reply *reply, uint8_t *out, size_t capacity);

/* The tables: same rules. Packing returns the size, as above. opt_table_budget is an
 * arena limit that is enough to read any table of that many bytes. */
size_t opt_table_budget(size_t size);
enum opt_status opt_tensor_table_read(const uint8_t *data, size_t size,
                                      size_t max_tensors, struct opt_arena *arena,
                                      struct opt_tensor_entry **out, size_t *count,
                                      struct opt_error *error);
size_t opt_tensor_table_pack(const struct opt_tensor_entry *tensors, size_t count,
                             uint8_t *out, size_t capacity);
enum opt_status opt_model_table_read(const uint8_t *data, size_t size,
                                     struct opt_arena *arena,
                                     struct opt_model_entry **out, size_t *count,
                                     struct opt_error *error);
size_t opt_model_table_pack(const struct opt_model_entry *models, size_t count,
                            uint8_t *out, size_t capacity);
enum opt_status opt_description_read(const uint8_t *data, size_t size,
                                     struct opt_arena *arena,
                                     struct opt_description *out,
                                     struct opt_error *error);
size_t opt_description_pack(const struct opt_description *description, uint8_t *out,
                            size_t capacity);
/* The same in pieces: go on from *item, 0 at first, for about so many items or bytes.
 * What is written, at out + *size, adds to *size; out NULL: only measured. True at the
 * end. Nothing may change in between. */
bool opt_description_pack_some(const struct opt_description *description, size_t *item,
                               size_t items, size_t bytes, uint8_t *out, size_t *size);

/* Whether text is 1 to 255 bytes of UTF-8 without control characters; what names what
 * it is in the sentence ("tensor name"). */
enum opt_status opt_name_check(const char *text, size_t size, const char *what,
                               struct opt_error *error);

#endif
