/* endpoint — which daemon, and how it is reached: an address or a URL, the options of a
 * client, and the environment, put together.
 *
 *   HOST:PORT                          with TLS if a CA or a certificate is given
 *   optimd://HOST:PORT                 without
 *   optimds://HOST:PORT?ca=FILE&cert=FILE&key=FILE
 *   unix:/PATH
 *
 * and ?token_file=FILE with any URL.
 *
 * What a URL says goes over the options, and these over OPTIMD_CA, OPTIMD_CERT,
 * OPTIMD_KEY and OPTIMD_TOKEN_FILE; OPTIMD_URL stands for an address that is NULL.
 * Called once per client, by the thread that calls optclient_connect; the files are
 * read then, and again by the client's thread before each new connection.
 */
#ifndef OPTCLIENT_ENDPOINT_H
#define OPTCLIENT_ENDPOINT_H

#include <stdbool.h>

#include "client/address.h"
#include "client/optclient.h"
#include "common/status.h"
#include "common/tls.h"

struct endpoint {
    struct address address;
    char peer[ADDRESS_HOST_MAX + 24]; /* for sentences */
    bool encrypted;
    char *ca, *cert, *key; /* NULL: none */
    char *token_file;      /* NULL: none, or "" */
    struct opt_tls *tls;   /* what is in these files; NULL: not encrypted */
};

/* OPT_INVALID_ARGUMENT with a sentence, or what opt_tls_client says; then there is
 * nothing to free. */
enum opt_status endpoint_read(const char *address,
                              const struct optclient_options *options,
                              struct endpoint *out, struct opt_error *error);

/* Read the files again, if all of them are good now: they may have been renewed. */
void endpoint_renew(struct endpoint *endpoint);

void endpoint_free(struct endpoint *endpoint);

#endif
