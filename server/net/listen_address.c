/* listen_address — see listen_address.h. */
#include "server/net/listen_address.h"

#include <netdb.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/un.h>

#include "common/quantity.h"
#include "common/unix_address.h"

/* Cut text into host and port. */
static enum opt_status split(const char *text, char *host, size_t host_size, char *port,
                             size_t port_size, struct opt_error *error)
{
    const char *colon = strrchr(text, ':');
    const char *begin = text;
    const char *end = colon;
    if (colon != NULL && text[0] == '[' && colon > text && colon[-1] == ']') {
        begin = text + 1;
        end = colon - 1;
    } else if (colon == NULL || memchr(text, ':', (size_t)(colon - text)) != NULL) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "\"%s\" is not an address and a port; right would be "
                        "127.0.0.1:7070, [::1]:7070 or "
                        "unix:/run/optimd.sock",
                        text);
    }
    size_t host_length = (size_t)(end - begin);
    size_t port_length = strlen(colon + 1);
    if (host_length == 0 || host_length >= host_size || port_length == 0 ||
        port_length >= port_size) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "\"%s\" lacks an address or a port; right would be "
                        "127.0.0.1:7070",
                        text);
    }
    memcpy(host, begin, host_length);
    host[host_length] = '\0';
    memcpy(port, colon + 1, port_length + 1);
    return OPT_OK;
}

static enum opt_status parse_one(const char *text, struct listen_address *out,
                                 struct opt_error *error)
{
    if (opt_unix_meant(text)) {
        struct sockaddr_un path;
        enum opt_status status = opt_unix_address(text, &path, error);
        if (status == OPT_OK) {
            memcpy(&out->address, &path, sizeof(path));
            out->size = sizeof(path);
        }
        return status;
    }
    char host[NI_MAXHOST];
    char port[8];
    enum opt_status status = split(text, host, sizeof(host), port, sizeof(port), error);
    if (status != OPT_OK) {
        return status;
    }
    uint64_t number = 0;
    if (opt_quantity_count(port, &number, NULL) != OPT_OK || number > UINT16_MAX) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "\"%s\" is not a port; right would be 0 to 65535", port);
    }
    const struct addrinfo hints = { .ai_flags = AI_NUMERICSERV | AI_PASSIVE,
                                    .ai_socktype = SOCK_STREAM };
    struct addrinfo *found = NULL;
    int code = getaddrinfo(host, port, &hints, &found);
    if (code != 0) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "\"%s\" is not an address of this machine: %s", host,
                        gai_strerror(code));
    }
    memcpy(&out->address, found->ai_addr, found->ai_addrlen);
    out->size = found->ai_addrlen;
    freeaddrinfo(found);
    return OPT_OK;
}

static in_port_t port_of(const struct listen_address *where)
{
    struct sockaddr_in four;
    struct sockaddr_in6 six;
    switch (where->address.ss_family) {
    case AF_INET:
        memcpy(&four, &where->address, sizeof(four));
        return four.sin_port;
    case AF_INET6:
        memcpy(&six, &where->address, sizeof(six));
        return six.sin6_port;
    default:
        return 0;
    }
}

/* Two addresses that cannot both be had: the same, or one part of the other. */
static bool are_same(const struct listen_address *one,
                     const struct listen_address *other)
{
    bool chosen = one->address.ss_family != AF_UNIX && port_of(one) == 0;
    return !chosen && one->size == other->size &&
           memcmp(&one->address, &other->address, one->size) == 0;
}

/* See how a new address goes with those before it; false: it is one of them. */
static bool fit_in(struct listen_addresses *addresses, struct listen_address *one)
{
    for (size_t i = 0; i < addresses->count; i++) {
        struct listen_address *other = &addresses->at[i];
        if (are_same(one, other)) {
            return false;
        }
        bool both = port_of(one) != 0 && port_of(one) == port_of(other);
        one->six_only |= both && one->address.ss_family == AF_INET6 &&
                         other->address.ss_family == AF_INET;
        other->six_only |= both && other->address.ss_family == AF_INET6 &&
                           one->address.ss_family == AF_INET;
    }
    return true;
}

enum opt_status listen_addresses_parse(const char *text, struct listen_addresses *out,
                                       struct opt_error *error)
{
    struct listen_addresses found = { .count = 0 };
    for (const char *rest = text; rest != NULL;) {
        size_t length = strcspn(rest, ",");
        char one[NI_MAXHOST + 16];
        if (length >= sizeof(one)) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "\"%.40s...\" is too long for an address", rest);
        }
        if (found.count == LISTEN_ADDRESSES_MAX) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "\"%s\" has more than %d addresses", text,
                            LISTEN_ADDRESSES_MAX);
        }
        memcpy(one, rest, length);
        one[length] = '\0';
        enum opt_status status = parse_one(one, &found.at[found.count], error);
        if (status == OPT_OK && !fit_in(&found, &found.at[found.count])) {
            status =
                opt_fail(error, OPT_INVALID_ARGUMENT, "\"%s\" stands here twice", one);
        }
        if (status != OPT_OK) {
            return status;
        }
        found.count++;
        rest = rest[length] == ',' ? rest + length + 1 : NULL;
    }
    *out = found;
    return OPT_OK;
}
