/* notify — see notify.h. */
#include "server/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"

/* A path, or a name without a file: '@' stands for its first byte, which is 0. */
static socklen_t address_of(const char *name, struct sockaddr_un *out)
{
    size_t size = strlen(name);
    *out = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if ((name[0] != '/' && name[0] != '@') || size >= sizeof(out->sun_path)) {
        errno = EINVAL;
        return 0;
    }
    memcpy(out->sun_path, name, size);
    if (name[0] == '@') {
        out->sun_path[0] = '\0';
    }
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size);
}

void notify_manager(const char *state)
{
    const char *name = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address;
    if (name == NULL || name[0] == '\0') {
        return;
    }
    socklen_t size = address_of(name, &address);
    int fd = size == 0 ? -1 : socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ssize_t sent = fd < 0
                       ? -1
                       : sendto(fd, state, strlen(state), MSG_NOSIGNAL | MSG_DONTWAIT,
                                (const struct sockaddr *)&address, size);
    if (sent < 0) {
        opt_log(OPT_LOG_WARN, "manager_not_told", "state=%s socket=%s why=%s", state,
                name, strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
}
