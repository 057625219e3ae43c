/* fake_reply — what the fake server sends, as it should be or not. */
#include "tests/support/fake_inside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <xxhash.h>

#include "common/frame.h"

void fake_send(struct fake_conn *conn, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;
    while (size > 0 && !conn->cut) {
        ssize_t sent = send(conn->fd, at, size, MSG_NOSIGNAL);
        if (sent <= 0) {
            conn->cut = true;
            return;
        }
        at += sent;
        size -= (size_t)sent;
    }
}

unsigned fake_number(const struct fake_conn *conn)
{
    return conn->number;
}

/* A frame is about to be read or written: is it the one at which all ends? */
bool fake_cut_here(struct fake_conn *conn)
{
    struct fake_server *server = conn->server;
    server->frames++;
    if (server->options.cut_at != 0 && server->frames == server->options.cut_at) {
        conn->cut = true;
    }
    return conn->cut;
}

void fake_reply(struct fake_conn *conn, const struct opt_reply *reply, const void *data,
                size_t data_size)
{
    if (conn->server->options.silent || fake_cut_here(conn)) {
        return;
    }
    size_t size = opt_reply_pack(reply, NULL, 0);
    uint8_t *head = malloc(size + OPT_FRAME_BEGIN_MAX);
    if (head == NULL) {
        abort();
    }
    uint8_t tag[12];
    size_t tag_size;
    opt_frame_begin(size, data_size, head, tag, &tag_size);
    opt_reply_pack(reply, head + OPT_FRAME_PREFIX, size);
    memcpy(head + OPT_FRAME_PREFIX + size, tag, tag_size);
    fake_send(conn, head, OPT_FRAME_PREFIX + size + tag_size);
    fake_send(conn, data, data_size);
    free(head);
}

void fake_reply_files(struct fake_conn *conn, const struct opt_reply *reply,
                      const int *files, size_t count)
{
    uint8_t frame[512], tag[12];
    size_t tag_size;
    size_t size = opt_reply_pack(reply, frame + OPT_FRAME_PREFIX,
                                 sizeof(frame) - OPT_FRAME_PREFIX);
    opt_frame_begin(size, 0, frame, tag, &tag_size);
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(FILES * sizeof(int))];
    } control = { .bytes = { 0 } };
    struct iovec part = { .iov_base = frame, .iov_len = OPT_FRAME_PREFIX + size };
    struct msghdr message = { .msg_iov = &part,
                              .msg_iovlen = 1,
                              .msg_control = control.bytes,
                              .msg_controllen = CMSG_SPACE(count * sizeof(int)) };
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(rights), files, count * sizeof(int));
    if (!fake_cut_here(conn) && sendmsg(conn->fd, &message, MSG_NOSIGNAL) <= 0) {
        conn->cut = true;
    }
}

void fake_reply_error(struct fake_conn *conn, uint64_t id, enum opt_status status,
                      const char *text, uint32_t retry_after_ms)
{
    struct opt_reply reply = {
        .id = id,
        .message = OPT_MESSAGE_ERROR,
        .body.error = { .status = status,
                        .text = text,
                        .retry_after_ms = retry_after_ms },
    };
    fake_reply(conn, &reply, NULL, 0);
}

/* A reply to a request, with the checksum that it asks for. */
struct opt_reply fake_answer(const struct opt_request *request,
                             enum opt_message message, const void *data,
                             size_t data_size)
{
    return (struct opt_reply){
        .id = request->id,
        .message = message,
        .has_checksum = request->has_checksum,
        .checksum = request->has_checksum ? XXH3_64bits(data, data_size) : 0,
    };
}
