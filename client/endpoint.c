#define _GNU_SOURCE /* secure_getenv */
#include "client/endpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/token.h"
#include "common/unix_address.h"

enum { FILE_MOST = 4096 };

static char **file_of(struct endpoint *endpoint, const char *key, size_t length)
{
    if (length == 2 && memcmp(key, "ca", 2) == 0) {
        return &endpoint->ca;
    }
    if (length == 4 && memcmp(key, "cert", 4) == 0) {
        return &endpoint->cert;
    }
    if (length == 10 && memcmp(key, "token_file", 10) == 0) {
        return &endpoint->token_file;
    }
    return length == 3 && memcmp(key, "key", 3) == 0 ? &endpoint->key : NULL;
}

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at =
        c == '\0' ? NULL : strchr(digits, c >= 'A' && c <= 'F' ? c + 32 : c);
    return at == NULL ? -1 : (int)(at - digits);
}

/* Decode %XX; false if what stands there is not that, or means an end. */
static bool decode(const char *text, size_t length, char *out)
{
    size_t used = 0;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (c == '%') {
            int high = i + 2 < length ? hex_digit(text[i + 1]) : -1;
            int low = i + 2 < length ? hex_digit(text[i + 2]) : -1;
            if (high < 0 || low < 0 || (high == 0 && low == 0)) {
                return false;
            }
            c = (char)(high * 16 + low);
            i += 2;
        }
        out[used++] = c;
    }
    out[used] = '\0';
    return true;
}

static enum opt_status set_file(char **file, const char *text, size_t length,
                                struct opt_error *error)
{
    if (length > FILE_MOST) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "the name of a file has %zu bytes; at most %d are possible",
                        length, FILE_MOST);
    }
    char *made = malloc(length + 1);
    if (made == NULL) {
        return opt_fail(error, OPT_UNAVAILABLE, "no memory for a client");
    }
    if (!decode(text, length, made)) {
        free(made);
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "\"%.*s\" has a %% without two hexadecimal digits behind it",
                        (int)(length < 200 ? length : 200), text);
    }
    free(*file);
    *file = made;
    return OPT_OK;
}

/* "ca=FILE&cert=FILE&key=FILE&token_file=FILE", any of them in any order. */
static enum opt_status read_query(struct endpoint *endpoint, const char *query,
                                  struct opt_error *error)
{
    while (*query != '\0') {
        size_t length = strcspn(query, "&");
        size_t name = strcspn(query, "=&");
        char **file = file_of(endpoint, query, name);
        if (file == NULL) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "the address asks for \"%.*s\", which is not known; right "
                            "would be ca, cert, key or token_file",
                            (int)(name < 100 ? name : 100), query);
        }
        if (*file != NULL || name + 1 >= length) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "the address has \"%.*s\" %s; right would be one file",
                            (int)name, query,
                            *file != NULL ? "twice" : "without a file");
        }
        enum opt_status status =
            set_file(file, query + name + 1, length - name - 1, error);
        if (status != OPT_OK) {
            return status;
        }
        query += length + (query[length] == '&');
    }
    return OPT_OK;
}

static enum opt_status read_url(struct endpoint *endpoint, const char *url,
                                const char *rest, struct opt_error *error)
{
    char authority[sizeof(endpoint->peer)];
    size_t length = strcspn(rest, "/?#");
    const char *after = rest + length;
    after += *after == '/';
    if (length >= sizeof(authority)) {
        return opt_fail(error, OPT_INVALID_ARGUMENT, "\"%.100s...\" is too long", url);
    }
    if (*after != '\0' && *after != '?') {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "address \"%.300s\": expected the end or ? after HOST:PORT",
                        url);
    }
    memcpy(authority, rest, length);
    authority[length] = '\0';
    enum opt_status status =
        *after == '?' ? read_query(endpoint, after + 1, error) : OPT_OK;
    if (status != OPT_OK) {
        return status;
    }
    if (!endpoint->encrypted &&
        (endpoint->ca != NULL || endpoint->cert != NULL || endpoint->key != NULL)) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "address \"%.300s\": optimd:// has no TLS; right would be "
                        "optimds://",
                        url);
    }
    snprintf(endpoint->peer, sizeof(endpoint->peer), "%s", authority);
    return opt_unix_meant(authority)
               ? opt_fail(error, OPT_INVALID_ARGUMENT,
                          "address \"%.300s\": a Unix socket is just unix:/PATH", url)
               : address_parse(authority, &endpoint->address, error);
}

static bool begins(const char *text, const char *with, const char **rest)
{
    size_t length = strlen(with);
    *rest = text + length;
    return strncmp(text, with, length) == 0;
}

/* What is said outside of the address, and not in it. */
static enum opt_status take(char **file, const char *said, struct opt_error *error)
{
    if (*file == NULL && said != NULL && said[0] != '\0') {
        *file = strdup(said);
        if (*file == NULL) {
            return opt_fail(error, OPT_UNAVAILABLE, "no memory for a client");
        }
    }
    return OPT_OK;
}

static enum opt_status take_files(struct endpoint *endpoint, const char *ca,
                                  const char *cert, const char *key,
                                  struct opt_error *error)
{
    enum opt_status status = take(&endpoint->ca, ca, error);
    status = status == OPT_OK ? take(&endpoint->cert, cert, error) : status;
    return status == OPT_OK ? take(&endpoint->key, key, error) : status;
}

static enum opt_status read_files(struct endpoint *endpoint, struct opt_tls **out,
                                  struct opt_error *error)
{
    const struct opt_tls_files files = { .ca = endpoint->ca,
                                         .cert = endpoint->cert,
                                         .key = endpoint->key };
    return opt_tls_client(&files, out, error);
}

static bool is_given(const char *file)
{
    return file != NULL && file[0] != '\0';
}

/* The file of the token, if any. That it can be read is seen at once. */
static enum opt_status take_token(struct endpoint *endpoint, const char *said,
                                  struct opt_error *error)
{
    uint8_t token[OPT_TOKEN_MAX];
    size_t size;
    said = said != NULL ? said : secure_getenv("OPTIMD_TOKEN_FILE");
    enum opt_status status = take(&endpoint->token_file, said, error);
    if (status == OPT_OK && endpoint->token_file != NULL) {
        status = token_read(endpoint->token_file, token, &size, error);
        explicit_bzero(token, sizeof(token));
    }
    return status;
}

static enum opt_status read_all(const char *address,
                                const struct optclient_options *options,
                                struct endpoint *out, struct opt_error *error)
{
    const char *rest;
    enum opt_status status;
    bool plain = false;
    if (begins(address, "optimds://", &rest)) {
        out->encrypted = true;
        status = read_url(out, address, rest, error);
    } else if (begins(address, "optimd://", &rest)) {
        plain = true;
        status = read_url(out, address, rest, error);
    } else {
        snprintf(out->peer, sizeof(out->peer), "%s", address);
        status = address_parse(address, &out->address, error);
    }
    if (status == OPT_OK) {
        status = take_token(out, options->token_file, error);
    }
    if (status != OPT_OK || out->address.port[0] == '\0') {
        return status; /* a Unix socket needs no TLS: it is of this machine */
    }
    if (plain &&
        (is_given(options->ca) || is_given(options->cert) || is_given(options->key))) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "address \"%.300s\": optimd:// has no TLS, and ca, cert or key "
                        "is given; right would be optimds://",
                        address);
    }
    if (!plain) {
        status = take_files(out, options->ca, options->cert, options->key, error);
    }
    if (status == OPT_OK && !plain) {
        status =
            take_files(out, secure_getenv("OPTIMD_CA"), secure_getenv("OPTIMD_CERT"),
                       secure_getenv("OPTIMD_KEY"), error);
    }
    out->encrypted =
        out->encrypted || out->ca != NULL || out->cert != NULL || out->key != NULL;
    return status == OPT_OK && out->encrypted ? read_files(out, &out->tls, error)
                                              : status;
}

enum opt_status endpoint_read(const char *address,
                              const struct optclient_options *options,
                              struct endpoint *out, struct opt_error *error)
{
    struct endpoint found = { .encrypted = false };
    if (address == NULL) {
        address = secure_getenv("OPTIMD_URL");
    }
    if (address == NULL) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "address is NULL, and OPTIMD_URL is not in the environment; "
                        "expected HOST:PORT");
    }
    enum opt_status status = read_all(address, options, &found, error);
    if (status == OPT_OK) {
        *out = found;
    } else {
        endpoint_free(&found);
    }
    return status;
}

void endpoint_renew(struct endpoint *endpoint)
{
    struct opt_tls *tls = NULL;
    if (endpoint->tls != NULL && read_files(endpoint, &tls, NULL) == OPT_OK) {
        opt_tls_free(endpoint->tls);
        endpoint->tls = tls;
    }
}

void endpoint_free(struct endpoint *endpoint)
{
    free(endpoint->ca);
    free(endpoint->cert);
    free(endpoint->key);
    free(endpoint->token_file);
    opt_tls_free(endpoint->tls);
}
