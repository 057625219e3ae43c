/* credentials — the certificates that TCP connections are served with, and how many
 * handshakes run at once.
 *
 * main reads them before a port opens and again at SIGHUP; loops use those that are
 * there when a connection comes, and a connection keeps what it began with. The lock is
 * held only to take hold of them.
 */
#ifndef OPTIMD_SERVER_NET_CREDENTIALS_H
#define OPTIMD_SERVER_NET_CREDENTIALS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/status.h"
#include "common/tls.h"
#include "common/transport.h"

struct credentials {
    struct opt_tls_files files; /* borrowed */
    enum opt_tls_clients clients;
    size_t handshakes_most;
    pthread_mutex_t lock; /* guards */
    struct opt_tls *tls;
    atomic_size_t handshakes; /* that run now */
};

/* Read the files. OPT_INVALID_ARGUMENT with a sentence; then there is nothing to close.
 * Main thread, as the next three. */
enum opt_status credentials_open(struct credentials *credentials,
                                 const struct opt_tls_files *files,
                                 enum opt_tls_clients clients, size_t handshakes_most,
                                 struct opt_error *error);

/* Read the files again; what comes out is used from credentials_use on, or freed with
 * opt_tls_free. */
enum opt_status credentials_read(const struct credentials *credentials,
                                 struct opt_tls **out, struct opt_error *error);

/* Serve new connections with these (takes them). */
void credentials_use(struct credentials *credentials, struct opt_tls *tls);

/* No loop runs any more. */
void credentials_close(struct credentials *credentials);

/* Put TLS around an accepted connection, which then counts as a handshake until
 * credentials_shaken. OPT_RESOURCE_EXHAUSTED: as many run as may, or there is no
 * memory; the transport is as before. Loop threads. */
enum opt_status credentials_accept(struct credentials *credentials,
                                   struct opt_transport *transport,
                                   struct opt_error *error);
void credentials_shaken(struct credentials *credentials);

#endif
