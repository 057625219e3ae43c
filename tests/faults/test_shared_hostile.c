/* A worker on the daemon's machine that means no good, or is broken, and has memory in
 * common with the daemon: what it can reach through that, and what is left of it.
 */
#define _GNU_SOURCE /* F_GET_SEALS, fallocate, mremap */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"
#include "tests/support/raw.h"

enum { ELEMENTS = OPT_SHARD + OPT_BLOCK, BYTES = ELEMENTS * 4, TIMEOUT_S = 60 };

static struct daemon_process server;

/* A worker that is nothing but a socket, and the files that it was given. */
struct peer {
    int fd;
    uint32_t model;
    uint64_t id, sequence;
    int files[2]; /* gradients, weights */
    uint64_t bytes[2];
    float *gradients;
    const float *weights;
};

static void begin(const char *const *options)
{
    setenv("OPTIMD_TRANSPORT", "shared", 1);
    daemon_start(&server, options);
}

static void end(void)
{
    daemon_stop(&server);
}

static struct raw_reply ask(struct peer *peer, struct opt_request request,
                            const void *data, size_t size)
{
    request.id = ++peer->id;
    cr_assert(raw_request(peer->fd, &request, data, size));
    struct raw_reply reply;
    cr_assert(raw_receive(peer->fd, &reply), "closed instead of an answer");
    return reply;
}

static void expect_error(struct peer *peer, struct opt_request request,
                         enum opt_status status, const char *text)
{
    request.id = ++peer->id;
    cr_assert(raw_request(peer->fd, &request, NULL, 0));
    raw_expect_error(peer->fd, peer->id, status, text);
}

static struct peer connect_as(const char *worker, const char *specification)
{
    struct peer peer = { .fd = raw_connect(server.port), .files = { -1, -1 } };
    raw_hello(peer.fd, worker);
    peer.id = 1000;
    const uint64_t shape[] = { ELEMENTS };
    const struct opt_tensor_entry entry = {
        .name = "w", .shape = shape, .rank = 1, .elements = ELEMENTS
    };
    uint8_t table[256];
    size_t size = opt_tensor_table_pack(&entry, 1, table, sizeof(table));
    struct raw_reply reply =
        ask(&peer,
            (struct opt_request){
                .message = OPT_MESSAGE_CREATE,
                .body.create = { .model = "m",
                                 .specification = { .expression = specification,
                                                    .rule = "" },
                                 .consistency = { .mode = OPT_ASYNC, .min_workers = 1 },
                                 .join = true } },
            table, size);
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_MODEL, "%s",
                 reply.reply.body.error.text);
    peer.model = reply.reply.body.model.model;
    peer.sequence = reply.reply.body.model.last_sequence;
    raw_reply_fini(&reply);
    return peer;
}

static void disconnect(struct peer *peer)
{
    if (peer->gradients != NULL) {
        munmap(peer->gradients, peer->bytes[0]);
        munmap((void *)(uintptr_t)peer->weights, peer->bytes[1]);
    }
    for (int i = 0; i < 2; i++) {
        if (peer->files[i] >= 0) {
            close(peer->files[i]);
        }
    }
    close(peer->fd);
}

/* Read the answer to share, which comes with files. */
static void receive_files(struct peer *peer)
{
    uint8_t bytes[256];
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(peer->files))];
    } control;
    struct iovec part = { .iov_base = bytes, .iov_len = 4 };
    struct msghdr message = { .msg_iov = &part,
                              .msg_iovlen = 1,
                              .msg_control = control.bytes,
                              .msg_controllen = sizeof(control.bytes) };
    struct pollfd due = { .fd = peer->fd, .events = POLLIN };
    cr_assert_eq(poll(&due, 1, RAW_WAIT_MS), 1);
    cr_assert_eq(recvmsg(peer->fd, &message, MSG_CMSG_CLOEXEC), 4);
    size_t size = bytes[0];
    cr_assert_eq(recv(peer->fd, bytes, size, MSG_WAITALL), (ssize_t)size);
    struct opt_arena arena;
    opt_arena_init(&arena, 1 << 16);
    struct opt_reply reply;
    struct opt_error error;
    cr_assert_eq(opt_reply_read(bytes, size, 0, &arena, &reply, &error), OPT_OK);
    cr_assert_eq(reply.message, OPT_MESSAGE_SHARE, "%s",
                 reply.message == OPT_MESSAGE_ERROR ? reply.body.error.text : "");
    peer->bytes[0] = reply.body.share.gradient_bytes;
    peer->bytes[1] = reply.body.share.weight_bytes;
    opt_arena_fini(&arena);
    const struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    cr_assert_not_null(rights);
    cr_assert_eq(rights->cmsg_len, CMSG_LEN(sizeof(peer->files)));
    memcpy(peer->files, CMSG_DATA(rights), sizeof(peer->files));
}

static void share(struct peer *peer)
{
    const struct opt_request request = { .id = ++peer->id,
                                         .message = OPT_MESSAGE_SHARE,
                                         .body.share = peer->model };
    cr_assert(raw_request(peer->fd, &request, NULL, 0));
    receive_files(peer);
    peer->gradients = mmap(NULL, peer->bytes[0], PROT_READ | PROT_WRITE, MAP_SHARED,
                           peer->files[0], 0);
    void *weights =
        mmap(NULL, peer->bytes[1], PROT_READ, MAP_SHARED, peer->files[1], 0);
    cr_assert(peer->gradients != MAP_FAILED && weights != MAP_FAILED);
    peer->weights = weights;
}

/* A push of the whole tensor from the begin of the file. */
static const uint64_t at_begin[] = { 0 };
static const struct opt_segment whole[] = { { .count = ELEMENTS } };

static struct opt_request push_at(struct peer *peer, const uint64_t *places)
{
    return (struct opt_request){ .message = OPT_MESSAGE_PUSH,
                                 .body.push = { .model = peer->model,
                                                .sequence = ++peer->sequence,
                                                .samples = 1,
                                                .segments = whole,
                                                .segment_count = 1,
                                                .places = places,
                                                .last = true } };
}

static void push_well(struct peer *peer)
{
    struct raw_reply reply = ask(peer, push_at(peer, at_begin), NULL, 0);
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_PUSH, "%s",
                 reply.reply.body.error.text);
    cr_assert_eq(reply.reply.body.push.fate, OPT_FATE_APPLIED);
    raw_reply_fini(&reply);
}

static struct opt_request pull_of(const struct peer *peer)
{
    return (struct opt_request){
        .message = OPT_MESSAGE_PULL,
        .body.pull = { .model = peer->model, .slot = "", .shared = true }
    };
}

/* Pull everything; whether the first frame came by place. Returns the request's id. */
static uint64_t pull(struct peer *peer, bool *placed)
{
    struct raw_reply reply = ask(peer, pull_of(peer), NULL, 0);
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_PULL, "%s",
                 reply.reply.body.error.text);
    uint64_t id = reply.reply.id;
    *placed = reply.reply.body.pull.places != NULL;
    while (!reply.reply.body.pull.last) {
        raw_reply_fini(&reply);
        cr_assert(raw_receive(peer->fd, &reply));
        cr_assert_eq(reply.reply.id, id);
    }
    raw_reply_fini(&reply);
    return id;
}

static uint64_t counter(const struct peer *peer, const char *name)
{
    return raw_counter(peer->fd, name);
}

/* ------------------------------------------------------------------ the files */

Test(shared_hostile, nobody_else_can_write_the_weights, .timeout = TIMEOUT_S)
{
    begin(NULL);
    struct peer peer = connect_as("w", "sgd(lr=1)");
    share(&peer);
    int file = peer.files[1];
    char byte = 1;
    cr_expect_eq(write(file, &byte, 1), -1);
    cr_expect_eq(pwrite(file, &byte, 1, 4096), -1);
    cr_expect_eq(ftruncate(file, 0), -1);
    cr_expect_eq(ftruncate(file, (off_t)peer.bytes[1] + 4096), -1);
    cr_expect_eq(fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096),
                 -1);
    cr_expect_eq(fcntl(file, F_ADD_SEALS, F_SEAL_WRITE), -1);
    cr_expect_eq(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0),
                 MAP_FAILED);
    cr_expect_eq(
        mprotect((void *)(uintptr_t)peer.weights, 4096, PROT_READ | PROT_WRITE), -1);
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
    int again = open(path, O_RDWR);
    if (again >= 0) {
        cr_expect_eq(write(again, &byte, 1), -1);
        cr_expect_eq(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0),
                     MAP_FAILED);
        close(again);
    }
    disconnect(&peer);
    end();
}

Test(shared_hostile, the_file_of_gradients_cannot_be_cut_short, .timeout = TIMEOUT_S)
{
    begin(NULL);
    struct peer peer = connect_as("w", "sgd(lr=1)");
    share(&peer);
    cr_expect_eq(ftruncate(peer.files[0], 0), -1);
    cr_expect_eq(ftruncate(peer.files[0], 1 << 30), -1);
    cr_expect_eq(fcntl(peer.files[0], F_ADD_SEALS, F_SEAL_WRITE), -1);
    /* Its pages can be given up: they are zeros then. */
    peer.gradients[0] = 5;
    cr_expect_eq(fallocate(peer.files[0], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                           (off_t)peer.bytes[0]),
                 0);
    push_well(&peer);
    bool placed;
    (void)pull(&peer, &placed);
    cr_expect(placed);
    cr_expect(peer.weights[0] == 0);
    disconnect(&peer);
    end();
}

/* ------------------------------------------------------------------ places */

static void expect_refused_push(struct peer *peer, struct opt_request request,
                                enum opt_status status, const char *text)
{
    expect_error(peer, request, status, text);
    raw_heartbeat(peer->fd, ++peer->id);
}

Test(shared_hostile, places_outside_of_the_file_are_refused, .timeout = TIMEOUT_S)
{
    begin(NULL);
    struct peer peer = connect_as("w", "sgd(lr=1)");
    expect_refused_push(&peer, push_at(&peer, at_begin), OPT_FAILED_PRECONDITION,
                        "shares no memory");
    share(&peer);
    cr_assert_eq(peer.bytes[0], (uint64_t)BYTES);
    const uint64_t outside[] = {
        64, BYTES, BYTES - 64, UINT64_MAX - 63, (uint64_t)1 << 63, (uint64_t)1 << 40
    };
    for (size_t i = 0; i < sizeof(outside) / sizeof(*outside); i++) {
        expect_refused_push(&peer, push_at(&peer, &outside[i]), OPT_INVALID_ARGUMENT,
                            "of a file that has");
    }
    const uint64_t crooked[] = { 4 };
    expect_refused_push(&peer, push_at(&peer, crooked), OPT_INVALID_ARGUMENT,
                        "multiple of 64");
    struct opt_request push = push_at(&peer, at_begin);
    static const struct opt_segment vast[] = { { .count = OPT_ELEMENTS_MAX } };
    push.body.push.segments = vast;
    expect_refused_push(&peer, push, OPT_INVALID_ARGUMENT, "of a file that has");
    push = push_at(&peer, at_begin);
    push.body.push.model = peer.model + 1;
    expect_refused_push(&peer, push, OPT_FAILED_PRECONDITION, "shares no memory");
    cr_expect_eq(counter(&peer, "pushes_applied"), 0u);
    push_well(&peer);
    disconnect(&peer);
    end();
}

/* The loop looks at what a frame names, so that must be bounded as data is. */
Test(shared_hostile, a_frame_cannot_name_more_than_it_could_carry, .timeout = TIMEOUT_S)
{
    begin(NULL);
    struct peer peer = connect_as("w", "sgd(lr=1)");
    share(&peer);
    enum { TIMES = 64 };
    struct opt_segment segments[TIMES];
    uint64_t places[TIMES] = { 0 };
    for (size_t i = 0; i < TIMES; i++) {
        segments[i] = whole[0];
    }
    struct opt_request push = push_at(&peer, places);
    push.body.push.segments = segments;
    push.body.push.segment_count = TIMES;
    expect_refused_push(&peer, push, OPT_INVALID_ARGUMENT, "smaller frames");
    disconnect(&peer);
    end();
}

Test(shared_hostile, tcp_has_no_memory_to_share, .timeout = TIMEOUT_S)
{
    begin(NULL);
    unsetenv("OPTIMD_TRANSPORT");
    struct peer peer = connect_as("w", "sgd(lr=1)");
    expect_error(
        &peer,
        (struct opt_request){ .message = OPT_MESSAGE_SHARE, .body.share = peer.model },
        OPT_FAILED_PRECONDITION, "Unix socket");
    expect_refused_push(&peer, push_at(&peer, at_begin), OPT_FAILED_PRECONDITION,
                        "shares no memory");
    disconnect(&peer);
    end();
}

/* ------------------------------------------------------------------ values */

Test(shared_hostile, what_is_not_finite_is_refused, .timeout = TIMEOUT_S)
{
    begin(NULL);
    struct peer peer = connect_as("w", "adam(lr=0.1)");
    share(&peer);
    const size_t places[] = { 0, OPT_BLOCK - 1, ELEMENTS - 1 };
    for (size_t i = 0; i < 3; i++) {
        peer.gradients[places[i]] = i == 1 ? INFINITY : NAN;
        expect_refused_push(&peer, push_at(&peer, at_begin), OPT_INVALID_ARGUMENT,
                            "not finite");
        peer.gradients[places[i]] = 1;
    }
    cr_expect_eq(counter(&peer, "pushes_applied"), 0u);
    push_well(&peer);
    disconnect(&peer);
    end();
}

struct scribbler {
    float *gradients;
    atomic_bool over;
};

/* Turn values into NaN and back, all the time. */
static void *scribble(void *argument)
{
    struct scribbler *scribbler = argument;
    while (!atomic_load(&scribbler->over)) {
        for (size_t i = 0; i < ELEMENTS; i += 61) {
            scribbler->gradients[i] = NAN;
        }
        for (size_t i = 0; i < ELEMENTS; i += 61) {
            scribbler->gradients[i] = 1;
        }
    }
    return NULL;
}

static void expect_finite_after_scribbling(const char *specification)
{
    struct peer peer = connect_as("w", specification);
    share(&peer);
    struct scribbler scribbler = { .gradients = peer.gradients };
    pthread_t thread;
    pthread_create(&thread, NULL, scribble, &scribbler);
    uint64_t applied = counter(&peer, "pushes_applied");
    for (int i = 0; i < 3000 && counter(&peer, "pushes_applied") < applied + 20; i++) {
        struct raw_reply reply = ask(&peer, push_at(&peer, at_begin), NULL, 0);
        raw_reply_fini(&reply); /* applied, or refused because it was seen */
    }
    atomic_store(&scribbler.over, true);
    pthread_join(thread, NULL);
    struct opt_request request = pull_of(&peer);
    request.body.pull.shared = false;
    struct raw_reply reply = ask(&peer, request, NULL, 0);
    for (;;) {
        const float *values = (const void *)reply.data;
        for (size_t i = 0; i < reply.data_size / sizeof(*values); i++) {
            if (!isfinite(values[i])) {
                cr_assert_fail("%s: weight %zu is %g", specification, i,
                               (double)values[i]);
            }
        }
        bool last = reply.reply.body.pull.last;
        raw_reply_fini(&reply);
        if (last) {
            break;
        }
        cr_assert(raw_receive(peer.fd, &reply));
    }
    disconnect(&peer);
}

Test(shared_hostile, values_changed_after_the_look_never_become_nan, .timeout = 120)
{
    static const char *const specifications[] = {
        "sgd(lr=0.1)", "adam(lr=0.01)", "lamb(lr=0.01)",
        "momentum(lr=0.01) + clip(global_norm, 1)"
    };
    for (size_t i = 0; i < sizeof(specifications) / sizeof(*specifications); i++) {
        begin(NULL);
        expect_finite_after_scribbling(specifications[i]);
        end();
    }
}

/* ------------------------------------------------------------------ what is lent */

Test(shared_hostile, who_never_gives_back_is_sent_the_rest, .timeout = TIMEOUT_S)
{
    begin(NULL);
    struct peer peer = connect_as("w", "sgd(lr=1)");
    share(&peer);
    push_well(&peer);
    uint64_t ids[64];
    size_t lent = 0;
    bool placed = true;
    while (placed && lent < 64) {
        ids[lent] = pull(&peer, &placed);
        lent += placed;
    }
    cr_expect_eq(lent, 16u, "%zu", lent);
    struct opt_request beat = { .message = OPT_MESSAGE_HEARTBEAT,
                                .released = ids,
                                .released_count = lent };
    struct raw_reply reply = ask(&peer, beat, NULL, 0);
    raw_reply_fini(&reply);
    (void)pull(&peer, &placed);
    cr_expect(placed, "there is room again");
    disconnect(&peer);
    end();
}

/* Nothing is lent for what the peer has already; a sanitizer sees whether an address is
 * made of it all the same. */
Test(shared_hostile, weights_that_have_not_changed_have_no_place, .timeout = TIMEOUT_S)
{
    begin(NULL);
    struct peer peer = connect_as("w", "sgd(lr=1)");
    share(&peer);
    push_well(&peer);
    struct opt_request request = pull_of(&peer);
    request.body.pull.since = 1;
    struct raw_reply reply = ask(&peer, request, NULL, 0);
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_PULL);
    cr_expect_eq(reply.reply.body.pull.unchanged_count, 1u);
    cr_expect_eq(reply.data_size, 0u);
    raw_reply_fini(&reply);
    push_well(&peer);
    disconnect(&peer);
    end();
}

Test(shared_hostile, what_is_lent_stays_until_it_is_given_back, .timeout = TIMEOUT_S)
{
    begin(NULL);
    struct peer peer = connect_as("w", "sgd(lr=1)");
    share(&peer);
    for (size_t i = 0; i < ELEMENTS; i++) {
        peer.gradients[i] = -1;
    }
    push_well(&peer);
    struct opt_request request = pull_of(&peer);
    struct raw_reply reply = ask(&peer, request, NULL, 0);
    cr_assert_not_null(reply.reply.body.pull.places);
    const float *first = peer.weights + reply.reply.body.pull.places[0] / sizeof(float);
    uint64_t id = reply.reply.id;
    while (!reply.reply.body.pull.last) {
        raw_reply_fini(&reply);
        cr_assert(raw_receive(peer.fd, &reply));
    }
    raw_reply_fini(&reply);
    cr_assert(*first == 1);
    for (int i = 0; i < 5; i++) {
        push_well(&peer);
        cr_assert(*first == 1);
    }
    /* To give back what was never lent does nothing. */
    const uint64_t others[] = { 0, id + 1, id - 1, UINT64_MAX };
    struct opt_request beat = { .message = OPT_MESSAGE_HEARTBEAT,
                                .released = others,
                                .released_count = 4 };
    reply = ask(&peer, beat, NULL, 0);
    raw_reply_fini(&reply);
    push_well(&peer);
    push_well(&peer);
    cr_assert(*first == 1);
    beat.released = &id;
    beat.released_count = 1;
    reply = ask(&peer, beat, NULL, 0);
    raw_reply_fini(&reply);
    bool placed;
    (void)pull(&peer, &placed); /* what is current now is lent, so the next goes */
    push_well(&peer);
    cr_assert(*first == 9, "where the first was: %g", (double)*first);
    disconnect(&peer);
    end();
}

/* ------------------------------------------------------------------ what is left */

static size_t descriptors(void)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%ld/fd", (long)server.pid);
    DIR *directory = opendir(path);
    cr_assert_not_null(directory);
    size_t count = 0;
    while (readdir(directory) != NULL) {
        count++;
    }
    closedir(directory);
    return count;
}

/* Ask until the daemon has noticed: each question is a round trip. */
static void expect_memory(const struct peer *peer, uint64_t bytes)
{
    uint64_t used, until = test_now_ms() + RAW_WAIT_MS;
    do {
        used = counter(peer, "memory_used");
        if (used <= bytes) {
            return;
        }
    } while (test_now_ms() < until);
    cr_assert_fail("%llu bytes are used, not %llu", (unsigned long long)used,
                   (unsigned long long)bytes);
}

Test(shared_hostile, workers_that_die_leave_nothing_behind, .timeout = TIMEOUT_S)
{
    begin((const char *[]){ "--grace", "0", NULL });
    struct peer stays = connect_as("stays", "sgd(lr=1)");
    share(&stays);
    push_well(&stays);
    size_t files = 0;
    uint64_t memory = 0;
    for (int i = 0; i < 30; i++) {
        char name[16];
        snprintf(name, sizeof(name), "w%d", i % 3);
        struct peer peer = connect_as(name, "sgd(lr=1)");
        share(&peer);
        peer.gradients[1] = 1;
        push_well(&peer);
        bool placed;
        (void)pull(&peer, &placed);
        cr_assert(placed);
        disconnect(&peer); /* without a word, with weights in its hands */
        push_well(&stays);
        if (i == 5) {
            files = descriptors();
            memory = counter(&stays, "memory_used");
        }
    }
    expect_memory(&stays, memory);
    for (int i = 0; i < 2000 && descriptors() > files; i++) {
        raw_heartbeat(stays.fd, ++stays.id);
    }
    cr_expect_leq(descriptors(), files);
    bool placed;
    (void)pull(&stays, &placed);
    cr_expect(placed);
    disconnect(&stays);
    end();
}

Test(shared_hostile, to_ask_again_and_again_takes_no_more, .timeout = TIMEOUT_S)
{
    begin(NULL);
    struct peer peer = connect_as("w", "sgd(lr=1)");
    share(&peer);
    uint64_t memory = counter(&peer, "memory_used");
    size_t files = descriptors();
    for (int i = 0; i < 100; i++) {
        const struct opt_request request = { .id = ++peer.id,
                                             .message = OPT_MESSAGE_SHARE,
                                             .body.share = peer.model };
        close(peer.files[0]);
        close(peer.files[1]);
        cr_assert(raw_request(peer.fd, &request, NULL, 0));
        receive_files(&peer);
    }
    expect_memory(&peer, memory);
    cr_expect_leq(descriptors(), files);
    disconnect(&peer);
    end();
}

/* A heartbeat that hands count descriptors to the daemon, which wants none. */
static void hand_over(struct peer *peer, int count)
{
    enum { MOST = 100 };
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(MOST * sizeof(int))];
    } control = { .bytes = { 0 } };
    int files[MOST];
    cr_assert_leq(count, MOST);
    for (int i = 0; i < count; i++) {
        files[i] = peer->files[1];
    }
    const struct opt_request beat = { .id = ++peer->id,
                                      .message = OPT_MESSAGE_HEARTBEAT };
    size_t size = 0;
    uint8_t *frame = raw_frame(&beat, NULL, 0, &size);
    struct iovec part = { .iov_base = frame, .iov_len = size };
    struct msghdr message = { .msg_iov = &part,
                              .msg_iovlen = 1,
                              .msg_control = control.bytes,
                              .msg_controllen =
                                  CMSG_SPACE((size_t)count * sizeof(int)) };
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
    memcpy(CMSG_DATA(rights), files, (size_t)count * sizeof(int));
    cr_assert_eq(sendmsg(peer->fd, &message, MSG_NOSIGNAL), (ssize_t)size);
    free(frame);
    struct raw_reply reply;
    cr_assert(raw_receive(peer->fd, &reply), "closed instead of an answer");
    cr_expect_eq(reply.reply.message, OPT_MESSAGE_HEARTBEAT);
    raw_reply_fini(&reply);
}

Test(shared_hostile, files_that_are_sent_to_the_daemon_are_not_kept,
     .timeout = TIMEOUT_S)
{
    begin(NULL);
    struct peer peer = connect_as("w", "sgd(lr=1)");
    share(&peer);
    size_t files = descriptors();
    for (int i = 0; i < 50; i++) {
        hand_over(&peer, 1 + i * 2);
    }
    cr_expect_leq(descriptors(), files);
    push_well(&peer);
    disconnect(&peer);
    end();
}

Test(shared_hostile, files_that_nobody_reads_end_the_connection, .timeout = TIMEOUT_S)
{
    begin((const char *[]){ "--write-timeout", "300ms", NULL });
    struct peer good = connect_as("good", "sgd(lr=1)");
    struct peer peer = connect_as("w", "sgd(lr=1)");
    /* Answers fill the socket until the one with the files does not fit. */
    struct opt_request request = { .message = OPT_MESSAGE_STATISTICS };
    for (int i = 0; i < 2000; i++) {
        request.id = ++peer.id;
        struct pollfd due = { .fd = peer.fd, .events = POLLOUT };
        if (poll(&due, 1, 20) != 1 || !raw_request(peer.fd, &request, NULL, 0)) {
            break;
        }
        if (i % 8 == 0) {
            request.message = OPT_MESSAGE_SHARE;
            request.body.share = peer.model;
        } else {
            request.message = OPT_MESSAGE_STATISTICS;
        }
    }
    cr_expect(daemon_logged(&server, "reads nothing", DAEMON_WAIT_MS));
    raw_heartbeat(good.fd, ++good.id);
    disconnect(&peer);
    disconnect(&good);
    end();
}
