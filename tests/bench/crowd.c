/* crowd — see crowd.h. */
#include "tests/bench/crowd.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/frame.h"
#include "common/wire.h"
#include "tests/bench/loopback.h"

enum {
    FRAME_MAX = 256,
    SLOW_FRAME_BYTES = 1 << 20 /* of a frame that is never finished */
};

int crowd_connect(const char *address)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
        .sin_port = htons((uint16_t)strtoul(strrchr(address, ':') + 1, NULL, 10)),
    };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Send a request without data and read whatever the answer is. */
static bool ask(int fd, const struct opt_request *request)
{
    uint8_t frame[FRAME_MAX], prefix[OPT_FRAME_PREFIX];
    size_t size = opt_request_pack(request, frame + OPT_FRAME_PREFIX,
                                   sizeof frame - OPT_FRAME_PREFIX);
    for (size_t i = 0; i < OPT_FRAME_PREFIX; i++) {
        frame[i] = (uint8_t)(size >> (8 * i));
    }
    if (!loopback_send(fd, frame, OPT_FRAME_PREFIX + size) ||
        !loopback_receive(fd, prefix, sizeof prefix)) {
        return false;
    }
    size_t answer = (size_t)prefix[0] | (size_t)prefix[1] << 8;
    return prefix[2] == 0 && prefix[3] == 0 && answer <= sizeof frame &&
           loopback_receive(fd, frame, answer);
}

static bool greet(int fd)
{
    const struct opt_request hello = {
        .id = 1,
        .message = OPT_MESSAGE_HELLO,
        .body.hello = { .protocol = OPT_PROTOCOL,
                        .worker = "",
                        .session = 1,
                        .client = "bench" },
    };
    return ask(fd, &hello);
}

bool crowd_gather(struct crowd *crowd, const char *address, size_t count,
                  char problem[256])
{
    while (crowd->count < count) {
        int fd = crowd_connect(address);
        if (fd < 0 || !greet(fd)) {
            snprintf(problem, 256, "connection %zu of %zu was not taken",
                     crowd->count + 1, count);
            if (fd >= 0) {
                close(fd);
            }
            return false;
        }
        crowd->sockets[crowd->count++] = fd;
    }
    return true;
}

bool crowd_touch(const struct crowd *crowd, size_t times)
{
    const struct opt_request beat = { .id = 2, .message = OPT_MESSAGE_HEARTBEAT };
    for (size_t i = 0; i < times; i++) {
        if (!ask(crowd->sockets[i % crowd->count], &beat)) {
            return false;
        }
    }
    return true;
}

bool crowd_begin_frames(const struct crowd *crowd)
{
    const struct opt_request beat = { .id = 2, .message = OPT_MESSAGE_HEARTBEAT };
    uint8_t frame[FRAME_MAX], tag[OPT_FRAME_BEGIN_MAX - OPT_FRAME_PREFIX];
    size_t tag_size, size = opt_request_pack(&beat, frame + OPT_FRAME_PREFIX,
                                             sizeof frame - OPT_FRAME_BEGIN_MAX);
    opt_frame_begin(size, SLOW_FRAME_BYTES, frame, tag, &tag_size);
    memcpy(frame + OPT_FRAME_PREFIX + size, tag, tag_size);
    for (size_t i = 0; i < crowd->count; i++) {
        if (!loopback_send(crowd->sockets[i], frame,
                           OPT_FRAME_PREFIX + size + tag_size)) {
            return false;
        }
    }
    return true;
}

bool crowd_drip(const struct crowd *crowd, size_t turn)
{
    return loopback_send(crowd->sockets[turn % crowd->count], "", 1);
}

void crowd_leave(struct crowd *crowd)
{
    while (crowd->count > 0) {
        close(crowd->sockets[--crowd->count]);
    }
}
