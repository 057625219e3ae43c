/* raw — see raw.h. */
#include "tests/support/raw.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/frame.h"
#include "tests/support/daemon.h"

enum { ARENA = 4 << 20, REQUEST_MAX = 256 << 10 };

static int connect_to_path(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0, "socket: %s", strerror(errno));
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0,
                 "connect to %s: %s", path, strerror(errno));
    return fd;
}

int raw_connect(uint16_t port)
{
    const char *path = daemon_socket(port);
    if (path != NULL) {
        return connect_to_path(path);
    }
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0, "socket: %s", strerror(errno));
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons(port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0,
                 "connect: %s", strerror(errno));
    int yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
    return fd;
}

bool raw_send(int socket, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;
    while (size > 0) {
        struct pollfd wait = { .fd = socket, .events = POLLOUT };
        cr_assert_gt(poll(&wait, 1, RAW_WAIT_MS), 0, "the daemon takes nothing");
        ssize_t sent = send(socket, at, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
            continue;
        }
        if (sent < 0) {
            return false;
        }
        at += sent;
        size -= (size_t)sent;
    }
    return true;
}

uint8_t *raw_frame(const struct opt_request *request, const void *data,
                   size_t data_size, size_t *size)
{
    uint8_t *frame = malloc(REQUEST_MAX + OPT_FRAME_BEGIN_MAX + data_size);
    cr_assert_not_null(frame);
    size_t header = opt_request_pack(request, frame + OPT_FRAME_PREFIX, REQUEST_MAX);
    cr_assert_leq(header, (size_t)REQUEST_MAX);
    uint8_t tag[12];
    size_t tag_size = 0;
    opt_frame_begin(header, data_size, frame, tag, &tag_size);
    memcpy(frame + OPT_FRAME_PREFIX + header, tag, tag_size);
    if (data_size > 0) {
        memcpy(frame + OPT_FRAME_PREFIX + header + tag_size, data, data_size);
    }
    *size = OPT_FRAME_PREFIX + header + tag_size + data_size;
    return frame;
}

bool raw_request(int socket, const struct opt_request *request, const void *data,
                 size_t data_size)
{
    size_t size = 0;
    uint8_t *frame = raw_frame(request, data, data_size, &size);
    bool sent = raw_send(socket, frame, size);
    free(frame);
    return sent;
}

/* Exactly size bytes, or false at the end of the stream. */
static bool receive(int socket, uint8_t *out, size_t size)
{
    while (size > 0) {
        struct pollfd wait = { .fd = socket, .events = POLLIN };
        cr_assert_gt(poll(&wait, 1, RAW_WAIT_MS), 0, "the daemon does not answer");
        ssize_t got = recv(socket, out, size, MSG_DONTWAIT);
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
            continue;
        }
        if (got <= 0) {
            return false;
        }
        out += got;
        size -= (size_t)got;
    }
    return true;
}

bool raw_receive(int socket, struct raw_reply *out)
{
    uint8_t prefix[OPT_FRAME_PREFIX];
    if (!receive(socket, prefix, sizeof(prefix))) {
        return false;
    }
    size_t size = (size_t)prefix[0] | (size_t)prefix[1] << 8 | (size_t)prefix[2] << 16 |
                  (size_t)prefix[3] << 24;
    cr_assert_leq(size, (size_t)OPT_FRAME_BYTES, "a frame of %zu bytes", size);
    uint8_t *bytes = malloc(OPT_FRAME_PREFIX + size);
    cr_assert_not_null(bytes);
    memcpy(bytes, prefix, sizeof(prefix));
    bool came = receive(socket, bytes + OPT_FRAME_PREFIX, size);
    if (came) {
        raw_read(bytes, OPT_FRAME_PREFIX + size, out);
    }
    free(bytes);
    return came;
}

void raw_read(const uint8_t *frame, size_t size, struct raw_reply *out)
{
    const struct opt_frame_limits limits = { .frame_bytes = OPT_FRAME_BYTES,
                                             .header_bytes = OPT_HEADER_BYTES };
    struct opt_frame_reader *reader = opt_frame_reader_new(limits);
    cr_assert_not_null(reader);
    *out = (struct raw_reply){ .data = NULL };
    opt_arena_init(&out->arena, ARENA);
    size_t fed = 0;
    for (;;) {
        enum opt_frame_event event = opt_frame_next(reader);
        if (event == OPT_FRAME_MORE) {
            uint8_t *base = NULL;
            size_t room = 0;
            opt_frame_space(reader, &base, &room);
            size_t left = size - fed;
            cr_assert_gt(left, (size_t)0, "the reply's frame does not end");
            size_t part = room < left ? room : left;
            memcpy(base, frame + fed, part);
            fed += part;
            opt_frame_received(reader, part);
        } else if (event == OPT_FRAME_HEADER) {
            size_t header_size = 0;
            const uint8_t *header = opt_frame_header(reader, &header_size);
            struct opt_error error;
            out->data_size = opt_frame_data_size(reader);
            out->data = malloc(out->data_size + 1);
            cr_assert_eq(opt_reply_read(header, header_size, out->data_size,
                                        &out->arena, &out->reply, &error),
                         OPT_OK, "%s", error.text);
            opt_frame_place(reader, out->data);
        } else if (event == OPT_FRAME_LONG) {
            cr_assert(opt_frame_grow(reader));
        } else if (event == OPT_FRAME_END) {
            break;
        } else {
            cr_assert_eq(event, OPT_FRAME_DATA, "%s", opt_frame_error(reader)->text);
        }
    }
    opt_frame_reader_free(reader);
}

void raw_reply_fini(struct raw_reply *reply)
{
    opt_arena_fini(&reply->arena);
    free(reply->data);
    reply->data = NULL;
}

bool raw_closed(int socket, int timeout_ms)
{
    for (;;) {
        struct pollfd wait = { .fd = socket, .events = POLLIN };
        if (poll(&wait, 1, timeout_ms) <= 0) {
            return false;
        }
        char rest[4096];
        ssize_t got = recv(socket, rest, sizeof(rest), MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
            return true;
        }
    }
}

void raw_hello(int socket, const char *worker)
{
    const struct opt_request hello = {
        .id = UINT64_C(1) << 40,
        .message = OPT_MESSAGE_HELLO,
        .body.hello = { .protocol = OPT_PROTOCOL,
                        .worker = worker,
                        .session = 1,
                        .client = "raw" },
    };
    cr_assert(raw_request(socket, &hello, NULL, 0), "hello was not taken");
    struct raw_reply reply;
    cr_assert(raw_receive(socket, &reply), "closed instead of an answer to hello");
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_HELLO, "%s",
                 reply.reply.message == OPT_MESSAGE_ERROR ? reply.reply.body.error.text
                                                          : "another message");
    cr_assert_eq(reply.reply.id, hello.id);
    raw_reply_fini(&reply);
}

void raw_expect_error(int socket, uint64_t id, enum opt_status status, const char *text)
{
    struct raw_reply reply;
    cr_assert(raw_receive(socket, &reply), "closed without a word");
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_ERROR);
    const struct opt_error_reply *error = &reply.reply.body.error;
    cr_assert_eq(error->status, status, "%s: %s", opt_status_name(error->status),
                 error->text);
    cr_assert_eq(reply.reply.id, id, "%s", error->text);
    cr_assert_not_null(strstr(error->text, text), "\"%s\" does not say \"%s\"",
                       error->text, text);
    raw_reply_fini(&reply);
}

void raw_heartbeat(int socket, uint64_t id)
{
    const struct opt_request request = { .id = id, .message = OPT_MESSAGE_HEARTBEAT };
    cr_assert(raw_request(socket, &request, NULL, 0), "heartbeat was not taken");
    struct raw_reply reply;
    cr_assert(raw_receive(socket, &reply), "closed instead of an answer");
    cr_assert_eq(reply.reply.id, id);
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_HEARTBEAT);
    raw_reply_fini(&reply);
}

uint64_t raw_counter(int socket, const char *name)
{
    const struct opt_request request = { .id = 9, .message = OPT_MESSAGE_STATISTICS };
    struct raw_reply reply;
    uint64_t count = 0;
    cr_assert(raw_request(socket, &request, NULL, 0));
    cr_assert(raw_receive(socket, &reply));
    cr_assert_eq(reply.reply.message, OPT_MESSAGE_STATISTICS, "%s",
                 reply.reply.message == OPT_MESSAGE_ERROR ? reply.reply.body.error.text
                                                          : "another answer");
    const struct opt_statistics_reply *statistics = &reply.reply.body.statistics;
    for (size_t i = 0; i < statistics->count; i++) {
        if (strcmp(statistics->counters[i].name, name) == 0) {
            count = statistics->counters[i].value;
        }
    }
    raw_reply_fini(&reply);
    return count;
}
