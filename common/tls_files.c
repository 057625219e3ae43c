/* tls_files — see tls.h: what is in files, and words for what is wrong with it. */
#include "common/tls_parts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SECONDS_PER_DAY = 86400, DATE = 32 };

/* The library may still be at work when the program around it ends: OpenSSL must not
 * tidy up under it. */
static void begin(void)
{
    (void)OPENSSL_init_ssl(OPENSSL_INIT_NO_ATEXIT, NULL);
}

void opt_tls_reason(char out[OPT_TLS_TEXT])
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = ERR_reason_error_string(code);
    if (code == 0) {
        snprintf(out, OPT_TLS_TEXT, "no reason is known");
    } else if (ERR_SYSTEM_ERROR(code)) {
        snprintf(out, OPT_TLS_TEXT, "%s", strerror(ERR_GET_REASON(code)));
    } else {
        snprintf(out, OPT_TLS_TEXT, "%s", reason != NULL ? reason : "unknown error");
    }
    ERR_clear_error();
}

/* ------------------------------------------------------------------- verdicts */

static void print_date(const ASN1_TIME *time, char out[DATE])
{
    struct tm parts;
    if (time == NULL || ASN1_TIME_to_tm(time, &parts) != 1 ||
        strftime(out, DATE, "%Y-%m-%d %H:%M UTC", &parts) == 0) {
        snprintf(out, DATE, "an unknown day");
    }
}

void opt_tls_verdict(long code, const X509 *certificate, char out[OPT_TLS_TEXT])
{
    char date[DATE] = "an unknown day";
    switch (code) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
        if (certificate != NULL) {
            print_date(X509_get0_notAfter(certificate), date);
        }
        snprintf(out, OPT_TLS_TEXT, "it has expired on %s", date);
        break;
    case X509_V_ERR_CERT_NOT_YET_VALID:
        if (certificate != NULL) {
            print_date(X509_get0_notBefore(certificate), date);
        }
        snprintf(out, OPT_TLS_TEXT,
                 "it is not valid before %s; is the clock of this machine right?",
                 date);
        break;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
        snprintf(out, OPT_TLS_TEXT, "it is not of a CA that is believed here");
        break;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        snprintf(out, OPT_TLS_TEXT, "it is for other names");
        break;
    case X509_V_ERR_INVALID_PURPOSE:
        snprintf(out, OPT_TLS_TEXT, "it is not made for this end of a connection");
        break;
    default:
        snprintf(out, OPT_TLS_TEXT, "%s", X509_verify_cert_error_string(code));
        break;
    }
}

/* ----------------------------------------------------------------------- names */

struct names {
    char *text;
    size_t size, capacity;
    bool failed;
};

static void add_char(struct names *names, char c)
{
    if (names->size + 1 >= names->capacity) {
        size_t capacity = 2 * names->capacity + 64;
        char *text = realloc(names->text, capacity);
        if (text == NULL) {
            names->failed = true;
            return;
        }
        names->text = text;
        names->capacity = capacity;
    }
    names->text[names->size++] = c;
    names->text[names->size] = '\0';
}

static void add_name(struct names *names, const char *kind, const void *bytes,
                     size_t size)
{
    static const char hex[] = "0123456789ABCDEF";
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "0123456789-._:/=@+";
    if (names->size > 0) {
        add_char(names, ' ');
    }
    for (const char *c = kind; *c != '\0'; c++) {
        add_char(names, *c);
    }
    for (size_t i = 0; i < size && !names->failed; i++) {
        unsigned char c = ((const unsigned char *)bytes)[i];
        if (c != '\0' && strchr(plain, c) != NULL) {
            add_char(names, (char)c);
        } else {
            add_char(names, '%');
            add_char(names, hex[c >> 4]);
            add_char(names, hex[c & 15]);
        }
    }
}

/* All entries of one kind of the subject. */
static void add_entries(struct names *names, const X509_NAME *subject, int nid,
                        const char *kind)
{
    for (int at = -1; (at = X509_NAME_get_index_by_NID(subject, nid, at)) >= 0;) {
        ASN1_STRING *value = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
        unsigned char *text = NULL;
        int size = ASN1_STRING_to_UTF8(&text, value);
        if (size >= 0) {
            add_name(names, kind, text, (size_t)size);
            OPENSSL_free(text);
        }
    }
}

static void add_alternative(struct names *names, const GENERAL_NAME *name)
{
    int type = 0;
    const ASN1_STRING *value = GENERAL_NAME_get0_value(name, &type);
    const unsigned char *bytes;
    size_t size;
    char text[INET6_ADDRSTRLEN];
    if (type != GEN_DNS && type != GEN_URI && type != GEN_EMAIL && type != GEN_IPADD) {
        return;
    }
    bytes = ASN1_STRING_get0_data(value);
    size = (size_t)ASN1_STRING_length(value);
    if (type == GEN_IPADD) {
        if ((size == 4 || size == 16) && inet_ntop(size == 4 ? AF_INET : AF_INET6,
                                                   bytes, text, sizeof(text)) != NULL) {
            add_name(names, "IP:", text, strlen(text));
        }
        return;
    }
    add_name(names,
             type == GEN_DNS   ? "DNS:"
             : type == GEN_URI ? "URI:"
                               : "email:",
             bytes, size);
}

char *opt_tls_names(const X509 *certificate)
{
    struct names names = { .text = calloc(1, 1), .capacity = 1 };
    if (names.text == NULL) {
        return NULL;
    }
    const X509_NAME *subject = X509_get_subject_name(certificate);
    add_entries(&names, subject, NID_commonName, "CN=");
    add_entries(&names, subject, NID_organizationalUnitName, "OU=");
    GENERAL_NAMES *others =
        X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(others); i++) {
        add_alternative(&names, sk_GENERAL_NAME_value(others, i));
    }
    GENERAL_NAMES_free(others);
    if (names.failed) {
        free(names.text);
        return NULL;
    }
    return names.text;
}

/* ----------------------------------------------------------------------- files */

static bool is_given(const char *file)
{
    return file != NULL && file[0] != '\0';
}

/* That a file can be read at all, since OpenSSL's words for that are about itself. */
static enum opt_status check_readable(const char *what, const char *path,
                                      struct opt_error *error)
{
    FILE *file = fopen(path, "re");
    char byte;
    size_t size = file == NULL ? 0 : fread(&byte, 1, 1, file);
    int code = file == NULL || ferror(file) ? errno : 0;
    if (file != NULL) {
        fclose(file);
    }
    if (code != 0) {
        return opt_fail(error, OPT_INVALID_ARGUMENT, "%s \"%s\" cannot be read: %s",
                        what, path, strerror(code));
    }
    return size == 1 ? OPT_OK
                     : opt_fail(error, OPT_INVALID_ARGUMENT, "%s \"%s\" is empty", what,
                                path);
}

/* There is nobody to ask for a passphrase. */
static int no_passphrase(char *out, int size, int writing, void *context)
{
    (void)out, (void)size, (void)writing, (void)context;
    return -1;
}

static enum opt_status check_dates(SSL_CTX *context, const char *path,
                                   struct opt_error *error)
{
    const X509 *own = SSL_CTX_get0_certificate(context);
    char why[OPT_TLS_TEXT];
    long code = X509_cmp_current_time(X509_get0_notBefore(own)) > 0
                    ? X509_V_ERR_CERT_NOT_YET_VALID
                : X509_cmp_current_time(X509_get0_notAfter(own)) < 0
                    ? X509_V_ERR_CERT_HAS_EXPIRED
                    : X509_V_OK;
    if (code == X509_V_OK) {
        return OPT_OK;
    }
    opt_tls_verdict(code, own, why);
    return opt_fail(error, OPT_INVALID_ARGUMENT,
                    "certificate \"%s\" cannot be used: %s", path, why);
}

/* One's own certificate and its key. */
static enum opt_status use_own(SSL_CTX *context, const struct opt_tls_files *files,
                               struct opt_error *error)
{
    enum opt_status status = check_readable("certificate", files->cert, error);
    if (status == OPT_OK) {
        status = check_readable("key", files->key, error);
    }
    if (status != OPT_OK) {
        return status;
    }
    char why[OPT_TLS_TEXT];
    SSL_CTX_set_default_passwd_cb(context, no_passphrase);
    if (SSL_CTX_use_certificate_chain_file(context, files->cert) != 1) {
        opt_tls_reason(why);
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "\"%s\" has no certificate in PEM form: %s", files->cert, why);
    }
    if (SSL_CTX_use_PrivateKey_file(context, files->key, SSL_FILETYPE_PEM) != 1) {
        bool other =
            ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH;
        opt_tls_reason(why);
        return other ? opt_fail(error, OPT_INVALID_ARGUMENT,
                                "key \"%s\" does not belong to certificate \"%s\"",
                                files->key, files->cert)
                     : opt_fail(error, OPT_INVALID_ARGUMENT,
                                "\"%s\" has no private key in PEM form without a "
                                "passphrase: %s",
                                files->key, why);
    }
    if (SSL_CTX_check_private_key(context) != 1) {
        ERR_clear_error();
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "key \"%s\" does not belong to certificate \"%s\"", files->key,
                        files->cert);
    }
    return check_dates(context, files->cert, error);
}

/* Who is believed. */
static enum opt_status use_ca(SSL_CTX *context, const char *path,
                              struct opt_error *error)
{
    enum opt_status status = check_readable("CA file", path, error);
    if (status != OPT_OK) {
        return status;
    }
    if (SSL_CTX_load_verify_file(context, path) != 1) {
        char why[OPT_TLS_TEXT];
        opt_tls_reason(why);
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "CA file \"%s\" has no certificate in PEM form: %s", path, why);
    }
    return OPT_OK;
}

static struct opt_tls *tls_new(const SSL_METHOD *method, struct opt_error *error)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, begin);
    struct opt_tls *tls = calloc(1, sizeof(*tls));
    SSL_CTX *context = tls == NULL ? NULL : SSL_CTX_new(method);
    if (context == NULL ||
        SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_num_tickets(context, 0) != 1) {
        SSL_CTX_free(context);
        free(tls);
        opt_fail(error, OPT_UNAVAILABLE, "no memory for TLS");
        ERR_clear_error();
        return NULL;
    }
    tls->context = context;
    atomic_init(&tls->users, 1);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    /* That a peer just goes is seen by the frames, as without TLS. */
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION |
                                     SSL_OP_NO_COMPRESSION |
                                     SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    /* A record, and whatever else fits where one has to: one call for most. */
    SSL_CTX_set_read_ahead(context, 1);
    return tls;
}

static enum opt_status finish(enum opt_status status, struct opt_tls *tls,
                              struct opt_tls **out)
{
    if (status == OPT_OK) {
        *out = tls;
    } else {
        opt_tls_free(tls);
    }
    return status;
}

enum opt_status opt_tls_server(const struct opt_tls_files *files,
                               enum opt_tls_clients clients, struct opt_tls **out,
                               struct opt_error *error)
{
    struct opt_tls *tls = tls_new(TLS_server_method(), error);
    if (tls == NULL) {
        return OPT_UNAVAILABLE;
    }
    tls->clients = clients;
    enum opt_status status = use_own(tls->context, files, error);
    if (status == OPT_OK && clients != OPT_TLS_CLIENTS_NONE) {
        status = use_ca(tls->context, files->ca, error);
    }
    if (status == OPT_OK && clients != OPT_TLS_CLIENTS_NONE) {
        /* Tells clients which of their certificates is meant. */
        SSL_CTX_set_client_CA_list(tls->context, SSL_load_client_CA_file(files->ca));
        ERR_clear_error();
    }
    return finish(status, tls, out);
}

enum opt_status opt_tls_client(const struct opt_tls_files *files, struct opt_tls **out,
                               struct opt_error *error)
{
    if (is_given(files->cert) != is_given(files->key)) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "a %s is given and no %s; both are needed to show a "
                        "certificate to the daemon",
                        is_given(files->cert) ? "certificate" : "key",
                        is_given(files->cert) ? "key" : "certificate");
    }
    struct opt_tls *tls = tls_new(TLS_client_method(), error);
    if (tls == NULL) {
        return OPT_UNAVAILABLE;
    }
    SSL_CTX_set_verify(tls->context, SSL_VERIFY_PEER, NULL);
    enum opt_status status = OPT_OK;
    if (is_given(files->ca)) {
        status = use_ca(tls->context, files->ca, error);
    } else if (SSL_CTX_set_default_verify_paths(tls->context) != 1) {
        status = opt_fail(error, OPT_UNAVAILABLE,
                          "the certificates that this system believes cannot be read");
    }
    if (status == OPT_OK && is_given(files->cert)) {
        status = use_own(tls->context, files, error);
    }
    return finish(status, tls, out);
}

struct opt_tls *opt_tls_share(struct opt_tls *tls)
{
    if (tls != NULL) {
        atomic_fetch_add(&tls->users, 1);
    }
    return tls;
}

void opt_tls_free(struct opt_tls *tls)
{
    if (tls != NULL && atomic_fetch_sub(&tls->users, 1) == 1) {
        SSL_CTX_free(tls->context);
        free(tls);
    }
}

int opt_tls_days_left(const struct opt_tls *tls)
{
    const X509 *own = SSL_CTX_get0_certificate(tls->context);
    int days = 0, seconds = 0;
    if (own == NULL ||
        ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(own)) != 1) {
        return INT_MAX;
    }
    return days < 0 || seconds < 0 ? days - 1 : days;
}
