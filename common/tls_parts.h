/* tls_parts — what the two halves of tls have in common: certificates (tls_files.c) and
 * transports (tls.c).
 */
#ifndef OPTIMD_COMMON_TLS_PARTS_H
#define OPTIMD_COMMON_TLS_PARTS_H

#include <openssl/ssl.h>
#include <stdatomic.h>
#include <stddef.h>

#include "common/tls.h"

struct opt_tls {
    SSL_CTX *context;
    enum opt_tls_clients clients; /* a server's */
    atomic_size_t users;
};

enum { OPT_TLS_TEXT = 256 /* of a reason */ };

/* Why a chain is not believed, in words: "it has expired on 2026-01-01". code is of
 * X509_V_ERR; certificate may be NULL. */
void opt_tls_verdict(long code, const X509 *certificate, char out[OPT_TLS_TEXT]);

/* The names in a certificate: see peer_identify in the daemon's engine.h. malloc'd;
 * NULL: no memory. */
char *opt_tls_names(const X509 *certificate);

/* What OpenSSL's queue of errors says last, in words; empties it. */
void opt_tls_reason(char out[OPT_TLS_TEXT]);

#endif
