/* refusal — see refusal.h. */
#include "server/net/refusal.h"

#include <assert.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/frame.h"
#include "common/wire.h"

enum { DRAIN_BYTES = 4096 /* of a hello that has come already */ };

void refusal_sentence(size_t connections, char *text, size_t capacity)
{
    snprintf(text, capacity,
             "this daemon serves %zu connections at a time (setting max-connections), "
             "and they are taken; try again later",
             connections);
}

void refusal_make(struct refusal *refusal, enum opt_status status,
                  enum opt_detail detail, uint32_t retry_after_ms, const char *text)
{
    uint8_t tag[OPT_FRAME_BEGIN_MAX - OPT_FRAME_PREFIX];
    size_t tag_size;
    const struct opt_reply reply = {
        .message = OPT_MESSAGE_ERROR,
        .body.error = { .status = status,
                        .text = text,
                        .retry_after_ms = retry_after_ms,
                        .detail = detail },
    };
    size_t size = opt_reply_pack(&reply, refusal->frame + OPT_FRAME_PREFIX,
                                 sizeof(refusal->frame) - OPT_FRAME_PREFIX);
    assert(size <= sizeof(refusal->frame) - OPT_FRAME_PREFIX);
    opt_frame_begin(size, 0, refusal->frame, tag, &tag_size);
    refusal->size = OPT_FRAME_PREFIX + size;
}

void refusal_init(struct refusal *refusal, size_t connections)
{
    char text[OPT_ERROR_TEXT];
    refusal_sentence(connections, text, sizeof(text));
    refusal_make(refusal, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_TOO_MANY, REFUSAL_RETRY_MS,
                 text);
}

void refusal_send(const struct refusal *refusal, int socket)
{
    char heard[DRAIN_BYTES];
    (void)send(socket, refusal->frame, refusal->size, MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)shutdown(socket, SHUT_WR);
    /* What is left unread would turn the end into a reset. */
    (void)recv(socket, heard, sizeof(heard), MSG_DONTWAIT);
}

void refusal_say(const struct refusal *refusal, int socket)
{
    refusal_send(refusal, socket);
    close(socket);
}
