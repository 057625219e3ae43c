#include "client/ended.h"

#include <stddef.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "client/call.h"
#include "client/client.h"

bool ended_start(struct optclient *client)
{
    if (client->told_fd < 0) {
        client->told_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    }
    return client->told_fd >= 0;
}

void ended_add(struct optclient *client, struct optclient_call *call)
{
    if (client->told_fd < 0) {
        return;
    }
    if (client->told.first == NULL) {
        (void)eventfd_write(client->told_fd, 1);
    }
    call_append(&client->told, call);
}

void ended_remove(struct optclient *client, struct optclient_call *call)
{
    if (call->list != &client->told) {
        return;
    }
    call_unlink(call);
    if (client->told.first == NULL) {
        eventfd_t ignored;
        (void)eventfd_read(client->told_fd, &ignored);
    }
}

void ended_stop(struct optclient *client)
{
    while (client->told.first != NULL) {
        ended_remove(client, client->told.first);
    }
    if (client->told_fd >= 0) {
        close(client->told_fd);
        client->told_fd = -1;
    }
}
