/* tls — TLS 1.3 around a transport: certificates from files, and a kind of transport
 * that wraps another one (common/transport.h). Used by the daemon's loops and by the
 * client library alike.
 *
 * Nothing here waits. What is read is decrypted into the caller's memory, without a
 * buffer of ours between it and the socket; what is written is encrypted from where it
 * lies, in records of at most 16 KiB. There are no session tickets, no renegotiation
 * (TLS 1.3 has none), no compression, and no early data.
 *
 * A server completes the handshake with whoever speaks TLS 1.3, and then judges the
 * certificate: a peer that it does not want is told so in a sentence of the protocol
 * (opt_tls_refusal) rather than by an alert which most see as a broken connection. From
 * a refused peer not a byte is ever decrypted: its transport reads nothing but the end.
 *
 * Certificates may be shared by threads; a transport is for one at a time.
 */
#ifndef OPTIMD_COMMON_TLS_H
#define OPTIMD_COMMON_TLS_H

#include <stdbool.h>

#include "common/status.h"
#include "common/transport.h"

/* Certificates of one's own and of those that are believed; counted. */
struct opt_tls;

/* PEM files; NULL or "": none. */
struct opt_tls_files {
    const char *cert; /* one's own certificate and those between it and the CA's */
    const char *key;  /* that belongs to it; not encrypted with a passphrase */
    const char *ca;   /* whose certificates are believed */
};

enum opt_tls_clients {
    OPT_TLS_CLIENTS_REQUIRED, /* whoever has no certificate of the CA is refused */
    OPT_TLS_CLIENTS_OPTIONAL, /* only whoever shows one that is no good is */
    OPT_TLS_CLIENTS_NONE      /* nobody is asked for one */
};

/* For a server: cert and key are needed, and ca unless clients is NONE. For a client:
 * without ca those are believed that the system believes; cert and key go together.
 * OPT_INVALID_ARGUMENT with one sentence that names the file and what is wrong with it;
 * a certificate of one's own that is not valid now is an error too. *out is to be
 * freed. */
enum opt_status opt_tls_server(const struct opt_tls_files *files,
                               enum opt_tls_clients clients, struct opt_tls **out,
                               struct opt_error *error);
enum opt_status opt_tls_client(const struct opt_tls_files *files, struct opt_tls **out,
                               struct opt_error *error);

/* One more, or one less, who uses it; NULL is allowed. */
struct opt_tls *opt_tls_share(struct opt_tls *tls);
void opt_tls_free(struct opt_tls *tls);

/* The days until one's own certificate ends; negative: it has ended. */
int opt_tls_days_left(const struct opt_tls *tls);

/* Put TLS around a transport: it is not open any more and has to be opened (again). The
 * client believes only a certificate for host, a name or an IP address. On failure,
 * which is for want of memory, the transport is as before. */
enum opt_status opt_tls_accept(struct opt_tls *tls, struct opt_transport *transport,
                               struct opt_error *error);
enum opt_status opt_tls_dial(struct opt_tls *tls, const char *host,
                             struct opt_transport *transport, struct opt_error *error);

/* Of a transport that a server has opened: why the peer is not wanted, in a sentence,
 * or NULL. Borrowed. */
const char *opt_tls_refusal(const struct opt_transport *transport);

/* Whether opening has failed because the peer does not speak TLS at all. */
bool opt_tls_is_plain(const struct opt_transport *transport);

#endif
