/* memory_transport — see memory_transport.h. */
#include "tests/support/memory_transport.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "server/net/watch.h"

static struct memory_transport *memory_of(const struct opt_transport *transport)
{
    return transport->inside;
}

static enum opt_status memory_open(struct opt_transport *transport,
                                   struct opt_error *error)
{
    struct memory_transport *memory = memory_of(transport);
    if (--memory->opening > 0) {
        transport->awaits = transport->awaits == POLLIN ? POLLOUT : POLLIN;
        return OPT_OK;
    }
    if (memory->never) {
        return opt_fail(error, OPT_UNAVAILABLE, "it is not to be");
    }
    transport->is_open = true;
    return OPT_OK;
}

/* The size of a portion of what there is. */
static size_t portion(struct memory_transport *memory, size_t size, size_t most)
{
    if (memory->chance != 0 && most > 0) {
        memory->chance = memory->chance * UINT64_C(6364136223846793005) +
                         UINT64_C(1442695040888963407);
        most = 1 + (size_t)(memory->chance >> 33) % most;
    }
    return most > 0 && most < size ? most : size;
}

static ssize_t memory_read(struct opt_transport *transport, void *base, size_t size)
{
    struct memory_transport *memory = memory_of(transport);
    size_t left = memory->in_size - memory->in_read;
    memory->reads++;
    if (left == 0) {
        errno = memory->in_end > 0 ? memory->in_end : EAGAIN;
        return memory->in_end == MEMORY_ENDS ? 0 : -1;
    }
    size = portion(memory, left < size ? left : size, memory->read_most);
    memcpy(base, memory->in + memory->in_read, size);
    memory->in_read += size;
    return (ssize_t)size;
}

static void take(struct memory_transport *memory, const void *base, size_t size)
{
    if (memory->out_size + size > memory->out_capacity) {
        memory->out_capacity = 2 * (memory->out_size + size);
        memory->out = realloc(memory->out, memory->out_capacity);
        if (memory->out == NULL) {
            abort();
        }
    }
    memcpy(memory->out + memory->out_size, base, size);
    memory->out_size += size;
}

static ssize_t memory_write(struct opt_transport *transport, const struct iovec *pieces,
                            size_t count)
{
    struct memory_transport *memory = memory_of(transport);
    size_t room = memory->out_room - memory->out_size;
    size_t left = portion(memory, room, memory->write_most);
    memory->writes++;
    if (left == 0) {
        errno = memory->out_end != 0 ? memory->out_end : EAGAIN;
        return -1;
    }
    size_t before = memory->out_size;
    for (size_t i = 0; i < count && left > 0; i++) {
        size_t size = pieces[i].iov_len < left ? pieces[i].iov_len : left;
        take(memory, pieces[i].iov_base, size);
        left -= size;
    }
    return (ssize_t)(memory->out_size - before);
}

static bool memory_holds(const struct opt_transport *transport)
{
    const struct memory_transport *memory = memory_of(transport);
    return memory->holds && memory->in_read < memory->in_size;
}

static uint64_t memory_pending(const struct opt_transport *transport)
{
    (void)transport;
    return 0;
}

static bool memory_alive(const struct opt_transport *transport)
{
    return memory_of(transport)->in_end == 0;
}

static bool memory_finish(struct opt_transport *transport)
{
    memory_of(transport)->finished = true;
    return true;
}

static void memory_close(struct opt_transport *transport)
{
    memory_of(transport)->closed = true;
}

static const struct opt_transport_kind memory_kind = {
    .open = memory_open,
    .read = memory_read,
    .write = memory_write,
    .holds = memory_holds,
    .pending = memory_pending,
    .alive = memory_alive,
    .silence_ms = memory_pending,
    .finish = memory_finish,
    .close = memory_close,
};

struct memory_transport memory_transport_new(void)
{
    return (struct memory_transport){ .out_room = SIZE_MAX };
}

void memory_transport_fini(struct memory_transport *memory)
{
    free(memory->out);
}

struct opt_transport memory_transport_carry(struct memory_transport *memory)
{
    return (struct opt_transport){ .kind = &memory_kind,
                                   .inside = memory,
                                   .fd = -1,
                                   .is_open = memory->opening == 0,
                                   .awaits = POLLIN,
                                   .address = "memory" };
}

unsigned memory_transport_due(const struct memory_transport *memory, unsigned events)
{
    bool comes = !memory->holds && memory->in_read < memory->in_size;
    bool reads = memory->opening > 0 || comes || memory->in_end != 0;
    bool writes = memory->opening > 0 || memory->out_size < memory->out_room ||
                  memory->out_end != 0;
    return events & ((reads ? WATCH_READ : 0) | (writes ? WATCH_WRITE : 0));
}
