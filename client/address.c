#include "client/address.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/unix_address.h"

/* A port is digits only: no sign, no blanks, no name of a service. */
static bool port_valid(const char *text)
{
    size_t length = strspn(text, "0123456789");
    if (length == 0 || length > 5 || text[length] != '\0') {
        return false;
    }
    long port = strtol(text, NULL, 10);
    return port >= 1 && port <= 65535;
}

enum opt_status address_parse(const char *text, struct address *out,
                              struct opt_error *error)
{
    if (text == NULL) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "address is NULL; expected HOST:PORT");
    }
    if (opt_unix_meant(text)) {
        struct sockaddr_un path;
        enum opt_status status = opt_unix_address(text, &path, error);
        if (status == OPT_OK) {
            *out = (struct address){ .path = path };
        }
        return status;
    }
    const char *host = text;
    const char *colon = strrchr(text, ':');
    size_t length = colon == NULL ? 0 : (size_t)(colon - text);
    if (text[0] == '[') {
        const char *bracket = strchr(text, ']');
        if (bracket == NULL || bracket[1] != ':') {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "address \"%.300s\": expected [HOST]:PORT, as in "
                            "[::1]:7070",
                            text);
        }
        host = text + 1;
        length = (size_t)(bracket - host);
        colon = bracket + 1;
    } else if (colon == NULL) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "address \"%.300s\" has no port; expected HOST:PORT or "
                        "unix:/PATH",
                        text);
    } else if (memchr(text, ':', length) != NULL) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "address \"%.300s\": an IPv6 host stands in brackets, as in "
                        "[::1]:7070",
                        text);
    }
    if (length == 0 || length > ADDRESS_HOST_MAX) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "address \"%.300s\": the host has %zu bytes; expected 1 to %d",
                        text, length, ADDRESS_HOST_MAX);
    }
    if (!port_valid(colon + 1)) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "address \"%.300s\": port \"%.20s\" is not a number from 1 to "
                        "65535",
                        text, colon + 1);
    }
    memcpy(out->host, host, length);
    out->host[length] = '\0';
    memcpy(out->port, colon + 1, strlen(colon + 1) + 1);
    return OPT_OK;
}
