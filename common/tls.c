/* tls — see tls.h: the transport. tls_files.c has the certificates.
 *
 * OpenSSL reads and writes through a BIO of ours, which stands directly on the inner
 * transport: ciphertext goes from the socket into the memory where OpenSSL decrypts it,
 * and from where it was encrypted to the socket. What the socket does not take at once,
 * which is less than a record and a few short messages, waits in `out`; no further
 * record is made until it is gone. The plaintext of a record that waits has not been
 * written as far as the caller knows (`owed`): it comes again with the same bytes, as
 * the caller of any transport does, and thereby sees to it that what waits goes out.
 */
#include "common/tls_parts.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    RECORD = 16384,         /* most plaintext of one, and */
    SMALL = 4096,           /* shorter pieces than this are put together to one */
    WRITE_MOST = 16,        /* records that one write makes: others have their turn */
    READ_SPARE = 64 << 10,  /* ciphertext that one read takes beyond twice its size */
    OUT_MOST = 64 << 10,    /* may wait; more is of a peer that only makes us answer */
    ALERT_FIRST = 1000,     /* OpenSSL's reasons from here on are alerts of the peer */
    DRAIN_BYTES = 16 << 10, /* thrown away at a time */
    HANDSHAKE_RECORD = 22,  /* first byte of a connection that speaks TLS */
    HOST_BYTES = 256
};

struct tls {
    struct opt_transport inner;
    struct opt_tls *tls;
    SSL *ssl;
    uint8_t *out; /* ciphertext that the inner transport has not taken */
    size_t out_used, out_sent, out_capacity;
    size_t owed;      /* plaintext of the record that is in it */
    size_t allowance; /* ciphertext that may still be read now */
    int code;         /* errno of the inner transport's failure */
    bool is_server;
    bool more;     /* there may be bytes that the descriptor does not tell of */
    bool ended;    /* the peer has said that it sends no more */
    bool finished; /* we have */
    bool broken;   /* nothing more can be read or written: */
    enum opt_status status;
    char why[OPT_TLS_TEXT];
    bool heard;      /* the first byte has come, */
    bool plain;      /* and TLS does not begin like that */
    long verdict;    /* on the peer's certificate */
    X509 *condemned; /* the one in its chain that is to blame */
    char *refusal;   /* NULL: the peer is welcome */
    char *names;     /* in its certificate, NULL if it has none */
    char host[HOST_BYTES];
};

static struct tls *tls_of(const struct opt_transport *transport)
{
    return transport->inside;
}

/* ------------------------------------------------------------------------- BIO */

static bool waits(const struct tls *tls)
{
    return tls->out_sent < tls->out_used;
}

/* Hand on what waits. False: some does still, or errno says what broke. */
static bool flush(struct tls *tls)
{
    while (waits(tls)) {
        struct iovec rest = { .iov_base = tls->out + tls->out_sent,
                              .iov_len = tls->out_used - tls->out_sent };
        ssize_t sent = tls->inner.kind->write(&tls->inner, &rest, 1);
        if (sent < 0) {
            return false;
        }
        tls->out_sent += (size_t)sent;
    }
    free(tls->out);
    tls->out = NULL;
    tls->out_used = tls->out_sent = tls->out_capacity = 0;
    return true;
}

static bool keep(struct tls *tls, const uint8_t *bytes, size_t size)
{
    if (tls->out_used + size > tls->out_capacity) {
        size_t capacity = tls->out_used + size + RECORD / 4;
        uint8_t *out = capacity > OUT_MOST ? NULL : realloc(tls->out, capacity);
        if (out == NULL) {
            tls->code = ENOBUFS;
            return false;
        }
        tls->out = out;
        tls->out_capacity = capacity;
    }
    memcpy(tls->out + tls->out_used, bytes, size);
    tls->out_used += size;
    return true;
}

/* Takes all of it. */
static int bio_write(BIO *bio, const char *bytes, int size)
{
    struct tls *tls = BIO_get_data(bio);
    size_t sent = 0;
    BIO_clear_retry_flags(bio);
    while (!waits(tls) && sent < (size_t)size) {
        struct iovec piece = { .iov_base = (void *)(uintptr_t)(bytes + sent),
                               .iov_len = (size_t)size - sent };
        ssize_t part = tls->inner.kind->write(&tls->inner, &piece, 1);
        if (part < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
            tls->code = errno;
            return -1;
        }
        if (part < 0) {
            break;
        }
        sent += (size_t)part;
    }
    bool kept = sent == (size_t)size ||
                keep(tls, (const uint8_t *)bytes + sent, (size_t)size - sent);
    return kept ? size : -1;
}

static int bio_read(BIO *bio, char *base, int size)
{
    struct tls *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (tls->allowance == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    ssize_t got = tls->inner.kind->read(&tls->inner, base, (size_t)size);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        BIO_set_retry_read(bio);
    } else if (got < 0) {
        tls->code = errno;
    } else if (got == 0) {
        tls->ended = true;
    } else {
        tls->allowance -= (size_t)got < tls->allowance ? (size_t)got : tls->allowance;
        if (!tls->heard) {
            tls->heard = true;
            tls->plain = (unsigned char)base[0] != HANDSHAKE_RECORD;
        }
    }
    return (int)got;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)number, (void)pointer;
    const struct tls *tls = BIO_get_data(bio);
    switch (command) {
    case BIO_CTRL_FLUSH:
        return 1;
    case BIO_CTRL_EOF:
        return tls->ended;
    default:
        return 0;
    }
}

static BIO_METHOD *method_;

static void make_method(void)
{
    method_ = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "optimd");
    if (method_ != NULL) {
        BIO_meth_set_write(method_, bio_write);
        BIO_meth_set_read(method_, bio_read);
        BIO_meth_set_ctrl(method_, bio_ctrl);
    }
}

static BIO *bio_new(struct tls *tls)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, make_method);
    BIO *bio = method_ == NULL ? NULL : BIO_new(method_);
    if (bio != NULL) {
        BIO_set_data(bio, tls);
        BIO_set_init(bio, 1);
    }
    return bio;
}

/* ----------------------------------------------------------------- what is wrong */

/* What the alert of a peer means to whoever gets it. */
static void tell_alert(struct tls *tls, int alert)
{
    const char *other = tls->is_server ? "the peer" : "the daemon";
    switch (alert) {
    case SSL_AD_CERTIFICATE_REQUIRED:
        tls->status = OPT_UNAUTHENTICATED;
        snprintf(tls->why, sizeof(tls->why),
                 "%s wants a certificate of this client, and there is none", other);
        break;
    case SSL_AD_BAD_CERTIFICATE:
    case SSL_AD_UNSUPPORTED_CERTIFICATE:
    case SSL_AD_CERTIFICATE_REVOKED:
    case SSL_AD_CERTIFICATE_EXPIRED:
    case SSL_AD_CERTIFICATE_UNKNOWN:
    case SSL_AD_UNKNOWN_CA:
    case SSL_AD_ACCESS_DENIED:
        tls->status = OPT_UNAUTHENTICATED;
        snprintf(tls->why, sizeof(tls->why), "%s does not believe the certificate: %s",
                 other, SSL_alert_desc_string_long(alert));
        break;
    case SSL_AD_PROTOCOL_VERSION:
        tls->status = OPT_UNIMPLEMENTED;
        snprintf(tls->why, sizeof(tls->why), "%s does not speak TLS 1.3", other);
        break;
    default:
        tls->status = OPT_UNAVAILABLE;
        snprintf(tls->why, sizeof(tls->why), "%s has ended TLS: %s", other,
                 SSL_alert_desc_string_long(alert));
        break;
    }
}

/* The client does not believe the server. */
static void tell_unbelieved(struct tls *tls, long verdict)
{
    char why[OPT_TLS_TEXT];
    const X509 *certificate = tls->condemned;
    opt_tls_verdict(verdict, certificate, why);
    char *names = NULL;
    bool wrong_host = verdict == X509_V_ERR_HOSTNAME_MISMATCH ||
                      verdict == X509_V_ERR_IP_ADDRESS_MISMATCH;
    if (wrong_host && certificate != NULL) {
        names = opt_tls_names(certificate);
    }
    tls->status = OPT_UNAUTHENTICATED;
    if (wrong_host) {
        snprintf(tls->why, sizeof(tls->why),
                 "the daemon's certificate is not for %.80s but for %.120s", tls->host,
                 names != NULL ? names : "other names");
    } else {
        snprintf(tls->why, sizeof(tls->why),
                 "the daemon's certificate is not believed: %.200s", why);
    }
    free(names);
}

/* TLS has failed for good: find the words. */
static void tell_failure(struct tls *tls, int result)
{
    int reason = ERR_GET_REASON(ERR_peek_last_error());
    long verdict = tls->is_server ? X509_V_OK : SSL_get_verify_result(tls->ssl);
    tls->broken = true;
    tls->status = OPT_UNAVAILABLE;
    if (tls->code != 0) {
        snprintf(tls->why, sizeof(tls->why), "%s", strerror(tls->code));
    } else if (tls->heard && tls->plain) {
        tls->status = OPT_FAILED_PRECONDITION;
        snprintf(tls->why, sizeof(tls->why), "%s",
                 tls->is_server
                     ? "the peer does not speak TLS, which this address is for"
                     : "the daemon does not speak TLS at this address; right would be "
                       "optimd:// or HOST:PORT, without ca, cert and key");
    } else if (result == SSL_ERROR_SYSCALL || result == SSL_ERROR_ZERO_RETURN) {
        snprintf(tls->why, sizeof(tls->why),
                 "the connection was closed in the middle "
                 "of TLS's handshake");
    } else if (reason > ALERT_FIRST && reason < ALERT_FIRST + 256) {
        tell_alert(tls, reason - ALERT_FIRST);
    } else if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED && verdict != X509_V_OK) {
        tell_unbelieved(tls, verdict);
    } else if (reason == SSL_R_UNSUPPORTED_PROTOCOL) {
        tls->status = OPT_UNIMPLEMENTED;
        snprintf(tls->why, sizeof(tls->why), "%s does not speak TLS 1.3",
                 tls->is_server ? "the peer" : "the daemon");
    } else {
        char why[OPT_TLS_TEXT];
        opt_tls_reason(why);
        snprintf(tls->why, sizeof(tls->why), "TLS failed: %.200s", why);
    }
    ERR_clear_error();
}

static enum opt_status tls_trouble(const struct opt_transport *transport, int code,
                                   struct opt_error *error)
{
    const struct tls *tls = tls_of(transport);
    return tls->broken ? opt_fail(error, tls->status, "%s", tls->why)
                       : opt_fail(error, OPT_UNAVAILABLE, "%s", strerror(code));
}

/* --------------------------------------------------------------------- opening */

/* Note what is wrong. A server lets the handshake go on all the same (tls.h). */
static int on_verified(int good, X509_STORE_CTX *store)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tls *tls = ssl == NULL ? NULL : SSL_get_app_data(ssl);
    if (tls == NULL) {
        return 0;
    }
    if (!good && tls->verdict == X509_V_OK) {
        X509 *certificate = X509_STORE_CTX_get_current_cert(store);
        tls->verdict = X509_STORE_CTX_get_error(store);
        if (certificate != NULL && X509_up_ref(certificate) == 1) {
            tls->condemned = certificate;
        }
        if (tls->verdict == X509_V_OK) {
            tls->verdict = X509_V_ERR_UNSPECIFIED;
        }
    }
    return tls->is_server ? 1 : good;
}

/* The handshake is over: who is it, and is it welcome? False: no memory. */
static bool judge(struct tls *tls)
{
    X509 *certificate = SSL_get0_peer_certificate(tls->ssl);
    char why[OPT_TLS_TEXT];
    char sentence[2 * OPT_TLS_TEXT];
    if (certificate != NULL) {
        tls->names = opt_tls_names(certificate);
        if (tls->names == NULL) {
            return false;
        }
    }
    if (!tls->is_server || tls->tls->clients == OPT_TLS_CLIENTS_NONE) {
        return true;
    }
    if (certificate == NULL && tls->tls->clients == OPT_TLS_CLIENTS_REQUIRED) {
        snprintf(sentence, sizeof(sentence),
                 "this daemon wants a certificate of its CA from each client, and none "
                 "was shown; give cert and key");
    } else if (certificate != NULL && tls->verdict != X509_V_OK) {
        opt_tls_verdict(tls->verdict, tls->condemned, why);
        snprintf(sentence, sizeof(sentence),
                 "the certificate of %.120s is not believed: %s",
                 tls->names[0] != '\0' ? tls->names : "this client", why);
    } else {
        return true;
    }
    tls->refusal = strdup(sentence);
    return tls->refusal != NULL;
}

static enum opt_status tls_open(struct opt_transport *transport,
                                struct opt_error *error)
{
    struct tls *tls = tls_of(transport);
    if (!tls->inner.is_open) {
        enum opt_status status = tls->inner.kind->open(&tls->inner, error);
        if (status != OPT_OK || !tls->inner.is_open) {
            transport->awaits = tls->inner.awaits;
            return status;
        }
    }
    (void)flush(tls);
    ERR_clear_error();
    tls->allowance = READ_SPARE;
    int code = SSL_do_handshake(tls->ssl);
    int result = code == 1 ? SSL_ERROR_NONE : SSL_get_error(tls->ssl, code);
    if (result != SSL_ERROR_NONE && result != SSL_ERROR_WANT_READ &&
        result != SSL_ERROR_WANT_WRITE) {
        tell_failure(tls, result);
        return opt_fail(error, tls->status, "%s", tls->why);
    }
    transport->awaits = waits(tls) ? POLLOUT : POLLIN;
    if (code == 1 && !waits(tls)) {
        if (!judge(tls)) {
            return opt_fail(error, OPT_UNAVAILABLE, "no memory for a certificate");
        }
        tls->more = SSL_has_pending(tls->ssl) == 1;
        transport->is_open = true;
    }
    return OPT_OK;
}

/* --------------------------------------------------------------------- reading */

/* Nothing of a peer that is refused is looked at; but that it has gone is seen. */
static ssize_t drain(struct tls *tls)
{
    uint8_t nowhere[DRAIN_BYTES];
    tls->more = false;
    ssize_t got = tls->inner.kind->read(&tls->inner, nowhere, sizeof(nowhere));
    if (got > 0) {
        errno = EAGAIN;
        got = -1;
    }
    return got;
}

static ssize_t fail_with(const struct tls *tls)
{
    errno = tls->code != 0 ? tls->code : EPROTO;
    return -1;
}

static ssize_t tls_read(struct opt_transport *transport, void *base, size_t size)
{
    struct tls *tls = tls_of(transport);
    size_t got = 0, part = 0;
    int code = 1;
    if (tls->refusal != NULL) {
        return drain(tls);
    }
    if (tls->broken) {
        return fail_with(tls);
    }
    (void)flush(tls);
    ERR_clear_error();
    tls->allowance = 2 * size + READ_SPARE;
    while (got < size) {
        code = SSL_read_ex(tls->ssl, (char *)base + got, size - got, &part);
        if (code != 1) {
            break;
        }
        got += part;
        /* A record that is not full is the last for now, as far as can be seen. */
        if (part < RECORD && SSL_has_pending(tls->ssl) == 0) {
            break;
        }
    }
    int result = code == 1 ? SSL_ERROR_NONE : SSL_get_error(tls->ssl, code);
    tls->more = result == SSL_ERROR_NONE && SSL_has_pending(tls->ssl) == 1;
    switch (result) {
    case SSL_ERROR_NONE:
        break;
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        errno = EAGAIN;
        return got > 0 ? (ssize_t)got : -1;
    case SSL_ERROR_ZERO_RETURN:
        tls->ended = true;
        tls->more = true; /* the end is told by the next call */
        return (ssize_t)got;
    default:
        tell_failure(tls, result);
        tls->more = true;
        return got > 0 ? (ssize_t)got : fail_with(tls);
    }
    return (ssize_t)got;
}

static bool tls_holds(const struct opt_transport *transport)
{
    return tls_of(transport)->more;
}

/* --------------------------------------------------------------------- writing */

/* Where a write is in the caller's pieces. */
struct place {
    const struct iovec *piece, *end;
    size_t at; /* byte of the piece */
};

static void advance(struct place *place, size_t size)
{
    while (place->piece < place->end) {
        size_t left = place->piece->iov_len - place->at;
        if (size < left) {
            place->at += size;
            return;
        }
        size -= left;
        place->piece++;
        place->at = 0;
    }
}

/* The plaintext of the next record: where it lies, or, of short pieces, copied to
 * stage. 0: nothing is left. */
static size_t next_record(const struct place *place, uint8_t stage[RECORD],
                          const void **out)
{
    struct place here = *place;
    while (here.piece < here.end && here.piece->iov_len == here.at) {
        here.piece++;
        here.at = 0;
    }
    size_t used = 0;
    for (; here.piece < here.end && used < RECORD; here.piece++, here.at = 0) {
        const uint8_t *bytes = (const uint8_t *)here.piece->iov_base + here.at;
        size_t left = here.piece->iov_len - here.at;
        bool last = here.piece + 1 == here.end;
        if (used == 0 && (left >= SMALL || last)) {
            *out = bytes;
            return left < RECORD ? left : RECORD;
        }
        if (used > 0 && left >= RECORD) {
            break;
        }
        size_t part = left < RECORD - used ? left : RECORD - used;
        memcpy(stage + used, bytes, part);
        used += part;
    }
    *out = stage;
    return used;
}

static ssize_t tls_write(struct opt_transport *transport, const struct iovec *pieces,
                         size_t count)
{
    struct tls *tls = tls_of(transport);
    struct place place = { .piece = pieces, .end = pieces + count };
    uint8_t stage[RECORD];
    if (tls->broken) {
        return fail_with(tls);
    }
    if (!flush(tls)) {
        return -1;
    }
    size_t left = 0, done = tls->owed, part = 0;
    for (size_t i = 0; i < count; i++) {
        left += pieces[i].iov_len;
    }
    tls->owed = 0;
    advance(&place, done);
    ERR_clear_error();
    for (int i = 0; i < WRITE_MOST; i++) {
        const void *bytes = NULL;
        size_t size = next_record(&place, stage, &bytes);
        if (size == 0) {
            break;
        }
        tls->inner.more_follows = left - done > size && i + 1 < WRITE_MOST;
        int code = SSL_write_ex(tls->ssl, bytes, size, &part);
        tls->inner.more_follows = false;
        if (code != 1) {
            tell_failure(tls, SSL_get_error(tls->ssl, code));
            return fail_with(tls);
        }
        if (waits(tls)) {
            tls->owed = part;
            errno = EAGAIN;
            return done > 0 ? (ssize_t)done : -1;
        }
        done += part;
        advance(&place, part);
    }
    return (ssize_t)done;
}

static ssize_t tls_hand_over(struct opt_transport *transport, const void *base,
                             size_t size, const int *files, size_t count)
{
    (void)transport, (void)base, (void)size, (void)files, (void)count;
    errno = EOPNOTSUPP;
    return -1;
}

static uint64_t tls_pending(const struct opt_transport *transport)
{
    const struct tls *tls = tls_of(transport);
    return tls->inner.kind->pending(&tls->inner) + (tls->out_used - tls->out_sent);
}

static bool tls_alive(const struct opt_transport *transport)
{
    const struct tls *tls = tls_of(transport);
    return !tls->broken && !tls->ended && tls->inner.kind->alive(&tls->inner);
}

static uint64_t tls_silence_ms(const struct opt_transport *transport)
{
    const struct tls *tls = tls_of(transport);
    return tls->inner.kind->silence_ms(&tls->inner);
}

/* --------------------------------------------------------------------- the end */

/* Say that nothing more comes, if that can be said now. */
static void say_goodbye(struct tls *tls)
{
    if (!tls->finished && !tls->broken && SSL_is_init_finished(tls->ssl)) {
        ERR_clear_error();
        (void)SSL_shutdown(tls->ssl);
        ERR_clear_error();
    }
    tls->finished = true;
    (void)flush(tls);
}

static bool tls_finish(struct opt_transport *transport)
{
    struct tls *tls = tls_of(transport);
    say_goodbye(tls);
    return tls->inner.kind->finish(&tls->inner);
}

static void tls_close(struct opt_transport *transport)
{
    struct tls *tls = tls_of(transport);
    if (tls->inner.is_open) {
        say_goodbye(tls);
    }
    SSL_free(tls->ssl);
    X509_free(tls->condemned);
    tls->inner.kind->close(&tls->inner);
    opt_tls_free(tls->tls);
    free(tls->out);
    free(tls->refusal);
    free(tls->names);
    free(tls);
    transport->fd = -1;
    transport->inside = NULL;
}

static const char *tls_identity(const struct opt_transport *transport)
{
    const struct tls *tls = tls_of(transport);
    return tls->names == NULL || tls->refusal != NULL ? "" : tls->names;
}

static const struct opt_transport_kind tls_kind = {
    .open = tls_open,
    .read = tls_read,
    .write = tls_write,
    .hand_over = tls_hand_over,
    .holds = tls_holds,
    .pending = tls_pending,
    .alive = tls_alive,
    .silence_ms = tls_silence_ms,
    .finish = tls_finish,
    .close = tls_close,
    .identity = tls_identity,
    .trouble = tls_trouble,
};

/* --------------------------------------------------------------------- wrapping */

/* A client: whom the certificate has to be for. */
static bool expect_host(struct tls *tls, const char *host)
{
    snprintf(tls->host, sizeof(tls->host), "%s", host);
    X509_VERIFY_PARAM *parameters = SSL_get0_param(tls->ssl);
    if (X509_VERIFY_PARAM_set1_ip_asc(parameters, host) == 1) {
        return true;
    }
    ERR_clear_error();
    X509_VERIFY_PARAM_set_hostflags(parameters, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(tls->ssl, host) == 1 &&
           SSL_set_tlsext_host_name(tls->ssl, host) == 1;
}

static void set_role(struct tls *tls, bool is_server)
{
    tls->is_server = is_server;
    if (is_server) {
        if (tls->tls->clients != OPT_TLS_CLIENTS_NONE) {
            SSL_set_verify(tls->ssl, SSL_VERIFY_PEER, on_verified);
        }
        SSL_set_accept_state(tls->ssl);
    } else {
        SSL_set_verify(tls->ssl, SSL_VERIFY_PEER, on_verified);
        SSL_set_connect_state(tls->ssl);
    }
}

static enum opt_status wrap(struct opt_tls *tls, const char *host,
                            struct opt_transport *transport, struct opt_error *error)
{
    struct tls *made = calloc(1, sizeof(*made));
    SSL *ssl = made == NULL ? NULL : SSL_new(tls->context);
    BIO *bio = ssl == NULL ? NULL : bio_new(made);
    if (bio != NULL) {
        SSL_set_bio(ssl, bio, bio);
        made->ssl = ssl;
        made->tls = tls;
    }
    if (bio == NULL || SSL_set_app_data(ssl, made) != 1 ||
        (host != NULL && !expect_host(made, host))) {
        SSL_free(ssl);
        free(made);
        ERR_clear_error();
        return opt_fail(error, OPT_UNAVAILABLE, "no memory for TLS");
    }
    opt_tls_share(tls);
    set_role(made, host == NULL);
    made->inner = *transport;
    transport->kind = &tls_kind;
    transport->inside = made;
    transport->awaits = !made->inner.is_open ? made->inner.awaits
                        : host == NULL       ? POLLIN
                                             : POLLOUT;
    transport->is_open = false;
    transport->hands_over = false;
    transport->takes_files = false;
    return OPT_OK;
}

enum opt_status opt_tls_accept(struct opt_tls *tls, struct opt_transport *transport,
                               struct opt_error *error)
{
    return wrap(tls, NULL, transport, error);
}

enum opt_status opt_tls_dial(struct opt_tls *tls, const char *host,
                             struct opt_transport *transport, struct opt_error *error)
{
    return wrap(tls, host, transport, error);
}

const char *opt_tls_refusal(const struct opt_transport *transport)
{
    return transport->kind == &tls_kind ? tls_of(transport)->refusal : NULL;
}

bool opt_tls_is_plain(const struct opt_transport *transport)
{
    const struct tls *tls = tls_of(transport);
    return transport->kind == &tls_kind && tls->heard && tls->plain;
}
