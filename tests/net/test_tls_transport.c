/* tls_transport — TLS around a transport whose bytes go through memory: handshakes and
 * records come in every portion there is, stop anywhere, are damaged anywhere, and find
 * no room. What was written comes out as it was, or an error does.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/tls.h"
#include "tests/support/certificates.h"

enum { PIPE_BYTES = 1 << 20, MESSAGE = 100000, TURNS = 1000000 };

/* One way of a connection. */
struct pipe {
    uint8_t *bytes;
    size_t size, read;
    size_t most;   /* that one call reads or writes; 0: all */
    size_t room;   /* bytes that may lie in it; 0: as many as it has */
    size_t cut;    /* bytes that go through it in all before it ends; 0: it does not */
    size_t damage; /* number of the bit that is flipped, from 1 on; 0: none */
    size_t passed;
};

struct end {
    struct pipe *in, *out;
    bool closed;
};

static struct end *end_of(const struct opt_transport *transport)
{
    return transport->inside;
}

static ssize_t end_read(struct opt_transport *transport, void *base, size_t size)
{
    struct pipe *in = end_of(transport)->in;
    size_t left = in->size - in->read;
    if (left == 0) {
        errno = EAGAIN;
        return in->cut > 0 && in->passed == in->cut ? 0 : -1;
    }
    size = size < left ? size : left;
    size = in->most > 0 && in->most < size ? in->most : size;
    memcpy(base, in->bytes + in->read, size);
    in->read += size;
    if (in->read == in->size) {
        in->read = in->size = 0;
    }
    return (ssize_t)size;
}

static ssize_t end_write(struct opt_transport *transport, const struct iovec *pieces,
                         size_t count)
{
    struct pipe *out = end_of(transport)->out;
    size_t room = (out->room > 0 ? out->room : PIPE_BYTES) - out->size;
    size_t size = pieces[0].iov_len;
    cr_assert_eq(count, 1U);
    if (out->cut > 0 && out->passed == out->cut) {
        return (ssize_t)size; /* it goes nowhere */
    }
    if (out->room > 0 && out->size >= out->room) {
        errno = EAGAIN;
        return -1;
    }
    cr_assert_gt(room, 0U);
    size = size < room ? size : room;
    size = out->most > 0 && out->most < size ? out->most : size;
    size =
        out->cut > 0 && out->cut - out->passed < size ? out->cut - out->passed : size;
    memcpy(out->bytes + out->size, pieces[0].iov_base, size);
    if (out->damage > out->passed * 8 && out->damage <= (out->passed + size) * 8) {
        size_t bit = out->damage - 1 - out->passed * 8;
        out->bytes[out->size + bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    out->size += size;
    out->passed += size;
    return (ssize_t)size;
}

static uint64_t end_pending(const struct opt_transport *transport)
{
    return end_of(transport)->out->size;
}

static bool end_alive(const struct opt_transport *transport)
{
    return !end_of(transport)->closed;
}

static uint64_t end_silence(const struct opt_transport *transport)
{
    (void)transport;
    return 0;
}

static bool end_finish(struct opt_transport *transport)
{
    (void)transport;
    return true;
}

static void end_close(struct opt_transport *transport)
{
    cr_assert_not(end_of(transport)->closed);
    end_of(transport)->closed = true;
}

static const struct opt_transport_kind kind = { .read = end_read,
                                                .write = end_write,
                                                .pending = end_pending,
                                                .alive = end_alive,
                                                .silence_ms = end_silence,
                                                .finish = end_finish,
                                                .close = end_close };

/* A client and a server. */
struct pair {
    struct pipe there, back;
    struct end ends[2];
    struct opt_transport client, server;
};

static struct certificates files;
static struct opt_tls *server_tls, *client_tls, *nobody_tls;

static void make(void)
{
    struct opt_error error;
    certificates_make(&files);
    const struct opt_tls_files own = { .cert = files.cert,
                                       .key = files.key,
                                       .ca = files.ca },
                               theirs = { .cert = files.client_cert,
                                          .key = files.client_key,
                                          .ca = files.ca },
                               none = { .ca = files.ca };
    cr_assert_eq(opt_tls_server(&own, OPT_TLS_CLIENTS_REQUIRED, &server_tls, &error),
                 OPT_OK, "%s", error.text);
    cr_assert_eq(opt_tls_client(&theirs, &client_tls, &error), OPT_OK, "%s",
                 error.text);
    cr_assert_eq(opt_tls_client(&none, &nobody_tls, &error), OPT_OK, "%s", error.text);
}

static void clean(void)
{
    opt_tls_free(server_tls);
    opt_tls_free(client_tls);
    opt_tls_free(nobody_tls);
    certificates_remove(&files);
}

static struct pair *pair_new(struct opt_tls *tls)
{
    struct pair *pair = calloc(1, sizeof(*pair));
    struct opt_error error;
    cr_assert_not_null(pair);
    pair->there.bytes = malloc(PIPE_BYTES);
    pair->back.bytes = malloc(PIPE_BYTES);
    pair->ends[0] = (struct end){ .in = &pair->back, .out = &pair->there };
    pair->ends[1] = (struct end){ .in = &pair->there, .out = &pair->back };
    pair->client = (struct opt_transport){
        .kind = &kind, .inside = &pair->ends[0], .fd = -1, .is_open = true
    };
    pair->server = (struct opt_transport){
        .kind = &kind, .inside = &pair->ends[1], .fd = -1, .is_open = true
    };
    cr_assert_eq(opt_tls_accept(server_tls, &pair->server, &error), OPT_OK);
    cr_assert_eq(opt_tls_dial(tls, "localhost", &pair->client, &error), OPT_OK);
    cr_assert_eq(pair->client.awaits, POLLOUT);
    cr_assert_eq(pair->server.awaits, POLLIN);
    return pair;
}

static void pair_free(struct pair *pair)
{
    pair->client.kind->close(&pair->client);
    pair->server.kind->close(&pair->server);
    cr_assert(pair->ends[0].closed && pair->ends[1].closed);
    free(pair->there.bytes);
    free(pair->back.bytes);
    free(pair);
}

/* Both go on until both are open, or one fails; its sentence. OPT_OK: both are, or
 * nothing moves any more. */
static enum opt_status shake(struct pair *pair, struct opt_error *error)
{
    for (int i = 0; i < TURNS; i++) {
        size_t before = pair->there.passed + pair->back.passed;
        size_t unread = pair->there.size + pair->back.size;
        struct opt_transport *ends[] = { &pair->client, &pair->server };
        for (int k = 0; k < 2; k++) {
            if (!ends[k]->is_open && ends[k]->kind->open(ends[k], error) != OPT_OK) {
                return error->status;
            }
        }
        bool moved = pair->there.passed + pair->back.passed != before ||
                     pair->there.size + pair->back.size != unread;
        if ((pair->client.is_open && pair->server.is_open) || !moved) {
            break;
        }
    }
    return OPT_OK;
}

static void shake_well(struct pair *pair)
{
    struct opt_error error = { .text = "" };
    cr_assert_eq(shake(pair, &error), OPT_OK, "%s", error.text);
    cr_assert(pair->client.is_open && pair->server.is_open);
}

static uint8_t *message_new(void)
{
    uint8_t *message = malloc(MESSAGE);
    cr_assert_not_null(message);
    for (size_t i = 0; i < MESSAGE; i++) {
        message[i] = (uint8_t)(i * 7 + i / 251);
    }
    return message;
}

/* Write in pieces of some sizes and read in portions, until all is there. */
static void carry(struct opt_transport *from, struct opt_transport *to, size_t portion)
{
    uint8_t *message = message_new(), *got = calloc(1, MESSAGE);
    size_t sent = 0, received = 0;
    cr_assert_not_null(got);
    for (int i = 0; received < MESSAGE && i < TURNS; i++) {
        size_t first = sent + (MESSAGE - sent) / 3, second = first + 10;
        second = second < MESSAGE ? second : MESSAGE;
        const struct iovec pieces[] = {
            { message + sent, first - sent },
            { message + first, second - first },
            { message + second, MESSAGE - second },
        };
        if (sent < MESSAGE) {
            ssize_t part = from->kind->write(from, pieces, 3);
            cr_assert(part > 0 || errno == EAGAIN, "%s", strerror(errno));
            sent += part > 0 ? (size_t)part : 0;
        }
        do {
            size_t room = MESSAGE - received < portion ? MESSAGE - received : portion;
            ssize_t part = to->kind->read(to, got + received, room);
            cr_assert(part > 0 || (part < 0 && errno == EAGAIN), "%zd %s", part,
                      strerror(errno));
            received += part > 0 ? (size_t)part : 0;
        } while (received < MESSAGE && to->kind->holds(to));
    }
    cr_assert_eq(received, (size_t)MESSAGE);
    cr_assert_eq(sent, (size_t)MESSAGE);
    cr_assert_arr_eq(message, got, MESSAGE);
    free(message);
    free(got);
}

Test(tls_transport, carries_bytes_in_every_portion, .init = make, .fini = clean,
     .timeout = 60)
{
    static const struct {
        size_t most, room, portion;
    } ways[] = { { 0, 0, MESSAGE },  { 0, 0, 16384 }, { 0, 0, 1000 },
                 { 1, 0, MESSAGE },  { 7, 0, 100 },   { 0, 100, MESSAGE },
                 { 0, 17000, 5000 }, { 5, 40, 333 },  { 0, 1, MESSAGE } };
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        struct pair *pair = pair_new(client_tls);
        pair->there.most = pair->back.most = ways[i].most;
        shake_well(pair);
        cr_assert_null(opt_tls_refusal(&pair->server));
        cr_expect_str_eq(opt_transport_identity(&pair->server),
                         "CN=worker URI:optimd:role=worker");
        pair->there.room = pair->back.room = ways[i].room;
        carry(&pair->client, &pair->server, ways[i].portion);
        carry(&pair->server, &pair->client, ways[i].portion);
        cr_expect_eq(pair->client.kind->pending(&pair->client), 0U);
        pair_free(pair);
    }
}

Test(tls_transport, ends_where_a_handshake_is_cut, .init = make, .fini = clean,
     .timeout = 60)
{
    struct pair *whole = pair_new(client_tls);
    shake_well(whole);
    size_t there = whole->there.passed;
    pair_free(whole);
    cr_assert_gt(there, 500U);
    /* A signature is some bytes longer or shorter each time. */
    for (size_t cut = 1; cut < there - 16; cut++) {
        struct opt_error error = { .text = "" };
        struct pair *pair = pair_new(client_tls);
        pair->there.cut = cut;
        cr_assert_eq(shake(pair, &error), OPT_UNAVAILABLE, "%zu: %s", cut, error.text);
        cr_assert_not_null(strstr(error.text, "in the middle of TLS's handshake"),
                           "%zu: %s", cut, error.text);
        cr_assert_not(pair->server.is_open);
        pair_free(pair);
    }
}

Test(tls_transport, notices_every_damaged_byte, .init = make, .fini = clean,
     .timeout = 60)
{
    static const char secret[] = "a gradient";
    size_t size = 0;
    for (size_t bit = 0; bit < 8 * (size == 0 ? 1 : size); bit += 3) {
        struct pair *pair = pair_new(client_tls);
        struct opt_error error;
        char got[64];
        const struct iovec piece = { (void *)(uintptr_t)secret, sizeof(secret) };
        shake_well(pair);
        if (size == 0) {
            size = pair->there.passed;
            cr_assert_eq(pair->client.kind->write(&pair->client, &piece, 1),
                         (ssize_t)sizeof(secret));
            size = pair->there.passed - size;
            pair_free(pair);
            bit -= 3;
            continue;
        }
        pair->there.damage = pair->there.passed * 8 + bit + 1;
        cr_assert_eq(pair->client.kind->write(&pair->client, &piece, 1),
                     (ssize_t)sizeof(secret));
        errno = 0;
        ssize_t read = pair->server.kind->read(&pair->server, got, sizeof(got));
        cr_assert_eq(read, -1, "bit %zu: %zd", bit, read);
        /* A longer record than there is is waited for; all else is an error. */
        if (errno != EAGAIN) {
            int code = errno;
            cr_assert_eq(opt_transport_trouble(&pair->server, code, &error),
                         OPT_UNAVAILABLE);
            cr_assert_eq(strncmp(error.text, "TLS failed: ", 12), 0, "%s", error.text);
            /* For good. */
            cr_assert_eq(pair->server.kind->read(&pair->server, got, sizeof(got)), -1);
            cr_assert_eq(pair->server.kind->write(&pair->server, &piece, 1), -1);
            cr_assert_not(pair->server.kind->alive(&pair->server));
        }
        pair_free(pair);
    }
}

Test(tls_transport, reads_nothing_of_a_peer_that_is_refused, .init = make,
     .fini = clean)
{
    static const char words[] = "let me in";
    struct pair *pair = pair_new(nobody_tls);
    const struct iovec piece = { (void *)(uintptr_t)words, sizeof(words) };
    char got[64];
    shake_well(pair);
    cr_assert_not_null(opt_tls_refusal(&pair->server));
    cr_expect_str_eq(opt_transport_identity(&pair->server), "");
    cr_assert_eq(pair->client.kind->write(&pair->client, &piece, 1),
                 (ssize_t)sizeof(words));
    for (int i = 0; i < 3; i++) {
        errno = 0;
        cr_expect_eq(pair->server.kind->read(&pair->server, got, sizeof(got)), -1);
        cr_expect_eq(errno, EAGAIN);
        cr_expect_not(pair->server.kind->holds(&pair->server));
    }
    /* But it can be told why. */
    cr_assert_eq(pair->server.kind->write(&pair->server, &piece, 1),
                 (ssize_t)sizeof(words));
    cr_assert_eq(pair->client.kind->read(&pair->client, got, sizeof(got)),
                 (ssize_t)sizeof(words));
    cr_expect_str_eq(got, words);
    pair_free(pair);
}

Test(tls_transport, tells_the_end, .init = make, .fini = clean)
{
    char got[64];
    struct pair *pair = pair_new(client_tls);
    const struct iovec piece = { (void *)(uintptr_t) "bye", 3 };
    shake_well(pair);
    cr_assert_eq(pair->client.kind->write(&pair->client, &piece, 1), 3);
    cr_assert(pair->client.kind->finish(&pair->client));
    cr_assert_eq(pair->server.kind->read(&pair->server, got, sizeof(got)), 3);
    cr_assert_eq(pair->server.kind->read(&pair->server, got, sizeof(got)), 0);
    cr_assert_eq(pair->server.kind->read(&pair->server, got, sizeof(got)), 0);
    pair_free(pair);
}

Test(tls_transport, knows_whoever_does_not_speak_it, .init = make, .fini = clean)
{
    struct opt_error error;
    struct pair *pair = pair_new(client_tls);
    memcpy(pair->there.bytes, "\x20\0\0\0hello, is this optimd?", 27);
    pair->there.size = 27;
    cr_assert_eq(pair->server.kind->open(&pair->server, &error),
                 OPT_FAILED_PRECONDITION, "%s", error.text);
    cr_expect(opt_tls_is_plain(&pair->server));
    pair_free(pair);
}

/* A client of OpenSSL's own, so that it can do what ours never would. */
struct other {
    SSL_CTX *context;
    SSL *ssl;
};

static void pump(struct other *other, struct pair *pair)
{
    char bytes[16384];
    int size;
    BIO *out = SSL_get_wbio(other->ssl), *in = SSL_get_rbio(other->ssl);
    while ((size = BIO_read(out, bytes, sizeof(bytes))) > 0) {
        cr_assert_leq(pair->there.size + (size_t)size, (size_t)PIPE_BYTES);
        memcpy(pair->there.bytes + pair->there.size, bytes, (size_t)size);
        pair->there.size += (size_t)size;
    }
    if (pair->back.size > 0) {
        BIO_write(in, pair->back.bytes + pair->back.read,
                  (int)(pair->back.size - pair->back.read));
        pair->back.size = pair->back.read = 0;
    }
}

static void other_open(struct other *other, struct pair *pair)
{
    struct opt_error error;
    other->context = SSL_CTX_new(TLS_client_method());
    cr_assert_eq(SSL_CTX_use_certificate_chain_file(other->context, files.client_cert),
                 1);
    cr_assert_eq(
        SSL_CTX_use_PrivateKey_file(other->context, files.client_key, SSL_FILETYPE_PEM),
        1);
    other->ssl = SSL_new(other->context);
    SSL_set_bio(other->ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_connect_state(other->ssl);
    for (int i = 0; i < 10 && !pair->server.is_open; i++) {
        SSL_do_handshake(other->ssl);
        pump(other, pair);
        cr_assert_eq(pair->server.kind->open(&pair->server, &error), OPT_OK, "%s",
                     error.text);
        pump(other, pair);
    }
    cr_assert(pair->server.is_open);
}

static void other_close(struct other *other)
{
    SSL_free(other->ssl);
    SSL_CTX_free(other->context);
}

Test(tls_transport, has_no_renegotiation_and_no_tickets, .init = make, .fini = clean)
{
    struct other other;
    struct pair *pair = pair_new(client_tls);
    char got[64];
    other_open(&other, pair);
    cr_expect_eq(SSL_version(other.ssl), TLS1_3_VERSION);
    cr_expect_eq(SSL_renegotiate(other.ssl), 0);
    cr_expect_eq(SSL_read(other.ssl, got, sizeof(got)), -1);
    cr_expect_eq(SSL_SESSION_is_resumable(SSL_get_session(other.ssl)), 0);
    /* New keys may be asked for, and are made. */
    cr_assert_eq(SSL_key_update(other.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
    cr_assert_eq(SSL_write(other.ssl, "after", 5), 5);
    pump(&other, pair);
    cr_assert_eq(pair->server.kind->read(&pair->server, got, sizeof(got)), 5);
    const struct iovec piece = { (void *)(uintptr_t) "answer", 6 };
    cr_assert_eq(pair->server.kind->write(&pair->server, &piece, 1), 6);
    pump(&other, pair);
    cr_assert_eq(SSL_read(other.ssl, got, sizeof(got)), 6);
    other_close(&other);
    pair_free(pair);
}

Test(tls_transport, holds_little_for_a_peer_that_only_asks_for_new_keys, .init = make,
     .fini = clean)
{
    enum { ROUNDS = 5000 };
    struct other other;
    struct pair *pair = pair_new(client_tls);
    uint64_t most = 0;
    char got[64];
    other_open(&other, pair);
    pair->back.room = 1; /* it reads nothing of what it makes the server say */
    for (int i = 0; i < ROUNDS; i++) {
        SSL_key_update(other.ssl, SSL_KEY_UPDATE_REQUESTED);
        if (SSL_do_handshake(other.ssl) != 1) {
            break;
        }
        int size;
        char bytes[4096];
        while ((size = BIO_read(SSL_get_wbio(other.ssl), bytes, sizeof(bytes))) > 0) {
            memcpy(pair->there.bytes + pair->there.size, bytes, (size_t)size);
            pair->there.size += (size_t)size;
        }
        ssize_t read = pair->server.kind->read(&pair->server, got, sizeof(got));
        cr_assert_eq(read, -1);
        uint64_t held = pair->server.kind->pending(&pair->server);
        most = held > most ? held : most;
        if (errno != EAGAIN) {
            break;
        }
    }
    cr_expect_leq(most, (uint64_t)(64 << 10) + 2);
    other_close(&other);
    pair_free(pair);
}
