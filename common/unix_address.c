/* unix_address — see unix_address.h. */
#include "common/unix_address.h"

#include <string.h>
#include <sys/socket.h>

static const char scheme[] = "unix:";

bool opt_unix_meant(const char *text)
{
    return strncmp(text, scheme, sizeof(scheme) - 1) == 0;
}

enum opt_status opt_unix_address(const char *text, struct sockaddr_un *out,
                                 struct opt_error *error)
{
    const char *path = text + sizeof(scheme) - 1;
    size_t length = strlen(path);
    if (path[0] != '/') {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "address \"%.300s\": the path must begin with /, as in "
                        "unix:/run/optimd.sock",
                        text);
    }
    if (length >= sizeof(out->sun_path)) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "address \"%.300s\": the path has %zu bytes; expected at most "
                        "%zu",
                        text, length, sizeof(out->sun_path) - 1);
    }
    *out = (struct sockaddr_un){ .sun_family = AF_UNIX };
    memcpy(out->sun_path, path, length + 1);
    return OPT_OK;
}
