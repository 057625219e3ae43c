/* certificate — a CA for a start, and certificates of it: made, read and written.
 *
 * Keys are EC P-256, in files that only their owner may read. Called by cert.c; one
 * thread.
 */
#ifndef OPTIMD_TOOLS_OPTCTL_CERTIFICATE_H
#define OPTIMD_TOOLS_OPTCTL_CERTIFICATE_H

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/status.h"

/* What a certificate is for. */
enum certificate_use { CERTIFICATE_CA, CERTIFICATE_SERVER, CERTIFICATE_CLIENT };

struct certificate_wish {
    enum certificate_use use;
    char **names; /* the first is the subject's; of a server, all are where it is
                     reached, host names and IP addresses */
    size_t count;
    const char *role; /* of a client; NULL: none */
    long days;        /* that it is valid for from now on */
};

/* A certificate and its key; both NULL: none. */
struct certificate {
    X509 *certificate;
    EVP_PKEY *key;
};
void certificate_free(struct certificate *certificate);

/* Make what is wished for with a key of its own, signed by ca, or by itself if that is
 * NULL. OPT_INVALID_ARGUMENT with a sentence, or OPT_UNAVAILABLE. */
enum opt_status certificate_make(const struct certificate_wish *wish,
                                 const struct certificate *ca, struct certificate *out,
                                 struct opt_error *error);

/* The same certificate with new dates and a new number, for the same key. */
enum opt_status certificate_renew(const struct certificate *old,
                                  const struct certificate *ca, long days,
                                  struct certificate *out, struct opt_error *error);

/* Read both files, or only the certificate (key NULL). */
enum opt_status certificate_read(const char *path, const char *key,
                                 struct certificate *out, struct opt_error *error);

/* Write the certificate to path, for everybody to read, and the key to key, for nobody
 * else (NULL: not the key). Nothing is overwritten unless replace says so: then the
 * file is replaced when the new one is whole. */
enum opt_status certificate_write(const struct certificate *certificate,
                                  const char *path, const char *key, bool replace,
                                  struct opt_error *error);

#endif
