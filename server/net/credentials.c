/* credentials — see credentials.h. */
#include "server/net/credentials.h"

#include "common/log.h"

enum { DAYS_TO_RENEW = 14 };

/* Whoever renews certificates by hand is told in time. */
static void warn_of_end(const struct credentials *credentials)
{
    int days = opt_tls_days_left(credentials->tls);
    if (days < DAYS_TO_RENEW) {
        opt_log(OPT_LOG_WARN, "certificate_ends", "file=%s days=%d",
                credentials->files.cert, days);
    }
}

enum opt_status credentials_read(const struct credentials *credentials,
                                 struct opt_tls **out, struct opt_error *error)
{
    return opt_tls_server(&credentials->files, credentials->clients, out, error);
}

enum opt_status credentials_open(struct credentials *credentials,
                                 const struct opt_tls_files *files,
                                 enum opt_tls_clients clients, size_t handshakes_most,
                                 struct opt_error *error)
{
    *credentials = (struct credentials){ .files = *files,
                                         .clients = clients,
                                         .handshakes_most = handshakes_most };
    enum opt_status status = credentials_read(credentials, &credentials->tls, error);
    if (status == OPT_OK) {
        pthread_mutex_init(&credentials->lock, NULL);
        warn_of_end(credentials);
    }
    return status;
}

void credentials_use(struct credentials *credentials, struct opt_tls *tls)
{
    pthread_mutex_lock(&credentials->lock);
    struct opt_tls *before = credentials->tls;
    credentials->tls = tls;
    pthread_mutex_unlock(&credentials->lock);
    opt_tls_free(before);
    warn_of_end(credentials);
}

void credentials_close(struct credentials *credentials)
{
    opt_tls_free(credentials->tls);
    pthread_mutex_destroy(&credentials->lock);
}

enum opt_status credentials_accept(struct credentials *credentials,
                                   struct opt_transport *transport,
                                   struct opt_error *error)
{
    size_t running = atomic_fetch_add(&credentials->handshakes, 1);
    if (running >= credentials->handshakes_most) {
        credentials_shaken(credentials);
        return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_TOO_MANY,
                           "%zu handshakes run at a time (setting max-handshakes)",
                           credentials->handshakes_most);
    }
    pthread_mutex_lock(&credentials->lock);
    struct opt_tls *tls = opt_tls_share(credentials->tls);
    pthread_mutex_unlock(&credentials->lock);
    enum opt_status status = opt_tls_accept(tls, transport, error);
    opt_tls_free(tls);
    if (status != OPT_OK) {
        credentials_shaken(credentials);
        return OPT_RESOURCE_EXHAUSTED;
    }
    return OPT_OK;
}

void credentials_shaken(struct credentials *credentials)
{
    atomic_fetch_sub(&credentials->handshakes, 1);
}
