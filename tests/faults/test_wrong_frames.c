/* After any wrong frame of a worker its next correct push is served at once, or the
 * connection has ended: nothing that a frame can say leaves a state behind which only
 * time would end.
 *
 * Each wrong frame comes twice: alone, and as the second frame of a push that was
 * begun. Then the worker pushes as it should, under the next number.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/daemon.h"
#include "tests/support/raw.h"

enum { N = 2 * OPT_BLOCK };

static const struct opt_segment halves[] = {
    { .tensor = 0, .count = OPT_BLOCK },
    { .tensor = 0, .offset = OPT_BLOCK, .count = OPT_BLOCK }
};
static const uint64_t shape[] = { N };
static const struct opt_tensor_entry tensor = {
    .name = "w", .shape = shape, .rank = 1, .elements = N
};
static float ones[N];

/* A push of one half, as it should be. */
static struct opt_request half(uint32_t model, uint64_t id, uint64_t sequence,
                               uint32_t frame)
{
    return (struct opt_request){
        .id = id,
        .message = OPT_MESSAGE_PUSH,
        .body.push = { .model = model,
                       .sequence = sequence,
                       .samples = 1,
                       .segments = &halves[frame],
                       .segment_count = 1,
                       .frame = frame,
                       .last = frame == 1 },
    };
}

/* What makes a frame wrong. */
static void too_much_data(struct opt_request *r, size_t *size)
{
    (void)r;
    *size += 4;
}

static void no_data(struct opt_request *r, size_t *size)
{
    (void)r;
    *size = 0;
}

static void endless_segment(struct opt_request *r, size_t *size)
{
    static const struct opt_segment endless = { .count = UINT64_C(1) << 63 };
    (void)size;
    r->body.push.segments = &endless;
}

static void unknown_dtype(struct opt_request *r, size_t *size)
{
    (void)size;
    r->body.push.dtype = (enum opt_dtype)9;
}

static void unknown_model(struct opt_request *r, size_t *size)
{
    (void)size;
    r->body.push.model += 1000;
}

static void unknown_tensor(struct opt_request *r, size_t *size)
{
    static const struct opt_segment other = { .tensor = 7, .count = OPT_BLOCK };
    (void)size;
    r->body.push.segments = &other;
}

static void same_half(struct opt_request *r, size_t *size)
{
    (void)size;
    r->body.push.segments = &halves[0];
}

static void frame_left_out(struct opt_request *r, size_t *size)
{
    (void)size;
    r->body.push.frame = 5;
}

static void another_basis(struct opt_request *r, size_t *size)
{
    (void)size;
    r->body.push.basis = 3;
}

static void another_sequence(struct opt_request *r, size_t *size)
{
    (void)size;
    r->body.push.sequence += 1;
}

static void old_incarnation(struct opt_request *r, size_t *size)
{
    (void)size;
    r->body.push.incarnation = 77;
    r->body.push.frame = 0;
}

static void pull_unsaid(struct opt_request *r, size_t *size)
{
    struct opt_push push = r->body.push;
    (void)size;
    r->message = OPT_MESSAGE_PUSH_PULL;
    r->body.push_pull = (struct opt_push_pull){ .push = push };
}

static void unknown_slot(struct opt_request *r, size_t *size)
{
    pull_unsaid(r, size);
    r->body.push_pull.has_pull = true;
    r->body.push_pull.pull = (struct opt_pull){ .model = r->body.push_pull.push.model,
                                                .view = OPT_VIEW_SLOT,
                                                .slot = "none" };
}

static void wrong_checksum(struct opt_request *r, size_t *size)
{
    (void)size;
    r->has_checksum = true;
    r->checksum = 1;
}

static void places_unshared(struct opt_request *r, size_t *size)
{
    static const uint64_t places[] = { 0 };
    r->body.push.places = places;
    *size = 0;
}

static void second_hello(struct opt_request *r, size_t *size)
{
    *size = 0;
    *r = (struct opt_request){
        .id = r->id,
        .message = OPT_MESSAGE_HELLO,
        .body.hello = { .protocol = 1, .worker = "w", .session = 5, .client = "x" }
    };
}

static void barrier_elsewhere(struct opt_request *r, size_t *size)
{
    *size = 0;
    *r = (struct opt_request){ .id = r->id,
                               .message = OPT_MESSAGE_BARRIER,
                               .body.barrier = { .model = 999, .sequence = 1 } };
}

static const struct wrong {
    const char *what;
    void (*spoil)(struct opt_request *request, size_t *size);
} wrongs[] = {
    { "too much data", too_much_data },
    { "no data", no_data },
    { "endless segment", endless_segment },
    { "unknown dtype", unknown_dtype },
    { "unknown model", unknown_model },
    { "unknown tensor", unknown_tensor },
    { "the same half", same_half },
    { "a frame left out", frame_left_out },
    { "another basis", another_basis },
    { "another sequence", another_sequence },
    { "old incarnation", old_incarnation },
    { "no pull", pull_unsaid },
    { "unknown slot", unknown_slot },
    { "wrong checksum", wrong_checksum },
    { "places unshared", places_unshared },
    { "second hello", second_hello },
    { "a barrier elsewhere", barrier_elsewhere },
};

static uint32_t create(int fd)
{
    uint8_t table[256];
    size_t size = opt_tensor_table_pack(&tensor, 1, table, sizeof table);
    const struct opt_request request = {
        .id = 2,
        .message = OPT_MESSAGE_CREATE,
        .body.create = { .model = "m",
                         .specification = { .expression = "sgd(lr=1)" },
                         .consistency = { .mode = OPT_ASYNC, .min_workers = 1 },
                         .join = true },
    };
    struct raw_reply reply;
    cr_assert(raw_request(fd, &request, table, size));
    cr_assert(raw_receive(fd, &reply));
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_MODEL, "%s",
                 reply.reply.message == OPT_MESSAGE_ERROR ? reply.reply.body.error.text
                                                          : "");
    uint32_t model = reply.reply.body.model.model;
    raw_reply_fini(&reply);
    return model;
}

/* Push under the number 9, as one should: answered, or the connection has ended. */
static void expect_served(int fd, uint32_t model, const char *what)
{
    for (uint32_t frame = 0; frame < 2; frame++) {
        struct opt_request push = half(model, 9, 9, frame);
        if (!raw_request(fd, &push, ones, sizeof ones / 2)) {
            return;
        }
    }
    struct raw_reply reply;
    unsigned errors = 0;
    while (raw_receive(fd, &reply)) {
        uint64_t id = reply.reply.id;
        bool error = reply.reply.message == OPT_MESSAGE_ERROR;
        cr_assert(!error || id != 9, "after %s: %s", what, reply.reply.body.error.text);
        cr_assert_leq(errors += error, 1, "after %s: a second error: %s", what,
                      error ? reply.reply.body.error.text : "");
        raw_reply_fini(&reply);
        if (id == 9) {
            return;
        }
    }
}

static void try(const struct daemon_process *daemon, const struct wrong *wrong,
                bool begun)
{
    static unsigned workers;
    char name[16];
    int fd = raw_connect(daemon->port);
    snprintf(name, sizeof name, "w%u", ++workers); /* whose numbers are all new */
    raw_hello(fd, name);
    uint32_t model = create(fd);
    if (begun) {
        struct opt_request first = half(model, 5, 5, 0);
        cr_assert(raw_request(fd, &first, ones, sizeof ones / 2));
    }
    struct opt_request request = half(model, 5, 5, 1);
    size_t size = sizeof ones / 2;
    wrong->spoil(&request, &size);
    (void)raw_request(fd, &request, ones, size);
    if (begun && (request.message == OPT_MESSAGE_HELLO ||
                  request.message == OPT_MESSAGE_BARRIER)) {
        struct opt_request rest =
            half(model, 5, 5, 1); /* it was no frame of the push */
        (void)raw_request(fd, &rest, ones, sizeof ones / 2);
    }
    expect_served(fd, model, wrong->what);
    close(fd);
}

Test(wrong_frames, leave_no_worker_stuck, .timeout = 60)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++) {
        try(&daemon, &wrongs[i], false);
        try(&daemon, &wrongs[i], true);
    }
    daemon_stop(&daemon);
}

Test(wrong_frames, a_second_hello_is_refused_and_the_connection_lives)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    int fd = raw_connect(daemon.port);
    raw_hello(fd, "w");
    uint32_t model = create(fd);
    struct opt_request hello = { .id = 7 };
    size_t size = 0;
    second_hello(&hello, &size);
    cr_assert(raw_request(fd, &hello, NULL, 0));
    raw_expect_error(fd, 7, OPT_FAILED_PRECONDITION, "hello before");
    raw_heartbeat(fd, 8);
    expect_served(fd, model, "hello");
    close(fd);
    daemon_stop(&daemon);
}
