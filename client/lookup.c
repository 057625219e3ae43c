#include "client/lookup.h"

#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

struct lookup {
    struct address address;
    pthread_mutex_t lock; /* guards the rest */
    int wake;             /* eventfd of who waits; -1 once abandoned */
    bool answered;
    int code; /* of getaddrinfo */
    struct route *found;
};

static void lookup_free(struct lookup *lookup)
{
    routes_free(lookup->found);
    pthread_mutex_destroy(&lookup->lock);
    free(lookup);
}

/* Append an address; false without memory. */
static bool route_add(struct route ***end, const void *address, socklen_t size)
{
    struct route *route = calloc(1, sizeof(*route));
    if (route == NULL) {
        return false;
    }
    memcpy(&route->address, address, size);
    route->size = size;
    **end = route;
    *end = &route->next;
    return true;
}

void routes_free(struct route *routes)
{
    while (routes != NULL) {
        struct route *next = routes->next;
        free(routes);
        routes = next;
    }
}

/* A code of getaddrinfo; 0: *out has an address at least. */
static int look_up(const struct address *address, int flags, struct route **out)
{
    struct route **end = out;
    *out = NULL;
    if (address->port[0] == '\0') {
        return route_add(&end, &address->path, sizeof(address->path)) ? 0 : EAI_MEMORY;
    }
    struct addrinfo hints = { .ai_family = AF_UNSPEC,
                              .ai_socktype = SOCK_STREAM,
                              .ai_flags = AI_NUMERICSERV | flags };
    struct addrinfo *found;
    int code = getaddrinfo(address->host, address->port, &hints, &found);
    if (code != 0) {
        return code;
    }
    for (const struct addrinfo *one = found; one != NULL; one = one->ai_next) {
        if (!route_add(&end, one->ai_addr, one->ai_addrlen)) {
            break; /* those that there are will do */
        }
    }
    freeaddrinfo(found);
    return *out != NULL ? 0 : EAI_MEMORY;
}

static void *lookup_thread(void *argument)
{
    struct lookup *lookup = argument;
    struct route *found;
    int code = look_up(&lookup->address, 0, &found);
    pthread_mutex_lock(&lookup->lock);
    lookup->answered = true;
    lookup->code = code;
    lookup->found = found;
    bool wanted = lookup->wake >= 0;
    if (wanted) {
        (void)eventfd_write(lookup->wake, 1);
    }
    pthread_mutex_unlock(&lookup->lock);
    if (!wanted) {
        lookup_free(lookup);
    }
    return NULL;
}

/* A detached thread that takes no signals. */
static bool start_thread(struct lookup *lookup)
{
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) {
        return false;
    }
    sigset_t all, before;
    sigfillset(&all);
    pthread_t thread;
    bool started =
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) == 0 &&
        pthread_sigmask(SIG_SETMASK, &all, &before) == 0;
    if (started) {
        started = pthread_create(&thread, &attributes, lookup_thread, lookup) == 0;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    pthread_attr_destroy(&attributes);
    return started;
}

enum opt_status lookup_start(const struct address *address, int wake,
                             struct lookup **out, struct opt_error *error)
{
    struct lookup *lookup = calloc(1, sizeof(*lookup));
    if (lookup == NULL || pthread_mutex_init(&lookup->lock, NULL) != 0) {
        free(lookup);
        return opt_fail(error, OPT_UNAVAILABLE, "no memory to look up %s",
                        address->host);
    }
    lookup->address = *address;
    lookup->wake = wake;
    if (look_up(address, AI_NUMERICHOST, &lookup->found) == 0) {
        lookup->answered = true;
        (void)eventfd_write(wake, 1);
    } else if (!start_thread(lookup)) {
        lookup_free(lookup);
        return opt_fail(error, OPT_UNAVAILABLE, "cannot start a thread to look up %s",
                        address->host);
    }
    *out = lookup;
    return OPT_OK;
}

bool lookup_take(struct lookup *lookup, struct route **out, struct opt_error *error)
{
    /* Holding the lock until the thread has let go of it makes freeing safe. */
    pthread_mutex_lock(&lookup->lock);
    bool answered = lookup->answered;
    pthread_mutex_unlock(&lookup->lock);
    if (!answered) {
        return false;
    }
    *out = lookup->found;
    lookup->found = NULL;
    if (*out == NULL) {
        opt_fail(error, OPT_UNAVAILABLE, "cannot look up %s: %s", lookup->address.host,
                 gai_strerror(lookup->code));
    }
    lookup_free(lookup);
    return true;
}

void lookup_abandon(struct lookup *lookup)
{
    if (lookup == NULL) {
        return;
    }
    pthread_mutex_lock(&lookup->lock);
    bool answered = lookup->answered;
    lookup->wake = -1;
    pthread_mutex_unlock(&lookup->lock);
    if (answered) {
        lookup_free(lookup);
    }
}
