/* certificate — see certificate.h. */
#include "tools/optctl/certificate.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    SERIAL_BYTES = 16,
    SKEW_SECONDS = 3600, /* clocks of others that are behind */
    DAY_SECONDS = 86400,
    NAME_MOST = 64, /* of a subject (X.520) */
    PATH_MOST = 4096,
    KEY_MODE = 0600,
    CERTIFICATE_MODE = 0644
};

void certificate_free(struct certificate *certificate)
{
    X509_free(certificate->certificate);
    EVP_PKEY_free(certificate->key);
    *certificate = (struct certificate){ NULL, NULL };
}

static enum opt_status no_memory(struct opt_error *error)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    enum opt_status status =
        opt_fail(error, OPT_UNAVAILABLE, "the certificate cannot be made: %s",
                 reason != NULL ? reason : "no memory");
    ERR_clear_error();
    return status;
}

/* ------------------------------------------------------------------------ names */

/* A host name as certificates have it; "*." at its beginning stands for one label. */
static bool is_host(const char *name)
{
    const char *rest = strncmp(name, "*.", 2) == 0 ? name + 2 : name;
    size_t length = strspn(rest, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                 "0123456789.-_");
    return length > 0 && rest[length] == '\0' && rest[0] != '.' && rest[0] != '-';
}

static bool add_name(GENERAL_NAMES *names, int type, ASN1_STRING *value)
{
    GENERAL_NAME *name = value == NULL ? NULL : GENERAL_NAME_new();
    if (name == NULL || sk_GENERAL_NAME_push(names, name) == 0) {
        GENERAL_NAME_free(name);
        ASN1_STRING_free(value);
        return false;
    }
    GENERAL_NAME_set0_value(name, type, value);
    return true;
}

static bool add_text(GENERAL_NAMES *names, int type, const char *text)
{
    ASN1_IA5STRING *value = ASN1_IA5STRING_new();
    if (value == NULL || ASN1_STRING_set(value, text, (int)strlen(text)) != 1) {
        ASN1_IA5STRING_free(value);
        return false;
    }
    return add_name(names, type, value);
}

static bool add_alternatives(X509 *made, const struct certificate_wish *wish)
{
    GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
    bool good = names != NULL;
    for (size_t i = 0; good && wish->use == CERTIFICATE_SERVER && i < wish->count;
         i++) {
        ASN1_OCTET_STRING *address = a2i_IPADDRESS(wish->names[i]);
        good = address != NULL ? add_name(names, GEN_IPADD, address)
                               : add_text(names, GEN_DNS, wish->names[i]);
    }
    if (good && wish->role != NULL) {
        char role[NAME_MOST];
        snprintf(role, sizeof(role), "optimd:role=%s", wish->role);
        good = add_text(names, GEN_URI, role);
    }
    good = good && (sk_GENERAL_NAME_num(names) == 0 ||
                    X509_add1_ext_i2d(made, NID_subject_alt_name, names, 0,
                                      X509V3_ADD_DEFAULT) == 1);
    GENERAL_NAMES_free(names);
    ERR_clear_error(); /* of names that are no IP addresses */
    return good;
}

static enum opt_status check_wish(const struct certificate_wish *wish,
                                  struct opt_error *error)
{
    for (size_t i = 0; i < wish->count; i++) {
        const char *name = wish->names[i];
        struct in6_addr address;
        size_t length = strlen(name);
        if (length == 0 || (i == 0 && length > NAME_MOST) ||
            strchr(name, '/') != NULL || name[0] == '.') {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "\"%s\" is no name for a certificate, whose file is called "
                            "after it: 1 to %d bytes, without / and no . at the "
                            "beginning",
                            name, NAME_MOST);
        }
        if (wish->use == CERTIFICATE_SERVER && !is_host(name) &&
            inet_pton(AF_INET6, name, &address) != 1) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "\"%s\" is neither a host name nor an IP address", name);
        }
    }
    return OPT_OK;
}

/* ----------------------------------------------------------------------- making */

static bool add_extension(X509 *made, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, made, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    bool added = extension != NULL && X509_add_ext(made, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    return added;
}

static bool set_serial(X509 *made)
{
    unsigned char bytes[SERIAL_BYTES];
    if (RAND_bytes(bytes, sizeof(bytes)) != 1) {
        return false;
    }
    bytes[0] = (unsigned char)((bytes[0] & 0x7f) | 0x40); /* positive, never short */
    BIGNUM *number = BN_bin2bn(bytes, sizeof(bytes), NULL);
    bool set = number != NULL &&
               BN_to_ASN1_INTEGER(number, X509_get_serialNumber(made)) != NULL;
    BN_free(number);
    return set;
}

/* No certificate outlives the one that signs it. */
static bool set_dates(X509 *made, const X509 *issuer, long days)
{
    if (X509_gmtime_adj(X509_getm_notBefore(made), -SKEW_SECONDS) == NULL ||
        X509_gmtime_adj(X509_getm_notAfter(made), days * DAY_SECONDS) == NULL) {
        return false;
    }
    return issuer == made ||
           ASN1_TIME_compare(X509_get0_notAfter(made), X509_get0_notAfter(issuer)) <=
               0 ||
           X509_set1_notAfter(made, X509_get0_notAfter(issuer)) == 1;
}

static bool set_subject(X509 *made, const char *name)
{
    X509_NAME *subject = X509_get_subject_name(made);
    return X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8,
                                      (const unsigned char *)name, -1, -1, 0) == 1;
}

static bool add_extensions(X509 *made, X509 *issuer,
                           const struct certificate_wish *wish)
{
    bool is_ca = wish->use == CERTIFICATE_CA;
    return add_extension(made, issuer, NID_basic_constraints,
                         is_ca ? "critical,CA:TRUE,pathlen:0" : "critical,CA:FALSE") &&
           add_extension(made, issuer, NID_key_usage,
                         is_ca ? "critical,keyCertSign,cRLSign"
                               : "critical,digitalSignature") &&
           (is_ca || add_extension(made, issuer, NID_ext_key_usage,
                                   wish->use == CERTIFICATE_SERVER ? "serverAuth"
                                                                   : "clientAuth")) &&
           add_extension(made, issuer, NID_subject_key_identifier, "hash") &&
           (is_ca || add_extension(made, issuer, NID_authority_key_identifier,
                                   "keyid:always")) &&
           add_alternatives(made, wish);
}

enum opt_status certificate_make(const struct certificate_wish *wish,
                                 const struct certificate *ca, struct certificate *out,
                                 struct opt_error *error)
{
    enum opt_status status = check_wish(wish, error);
    if (status != OPT_OK) {
        return status;
    }
    struct certificate made = { .certificate = X509_new(), .key = EVP_EC_gen("P-256") };
    X509 *own = made.certificate;
    X509 *issuer = ca != NULL ? ca->certificate : own;
    bool good =
        own != NULL && made.key != NULL && X509_set_version(own, X509_VERSION_3) == 1 &&
        set_serial(own) && set_dates(own, issuer, wish->days) &&
        set_subject(own, wish->names[0]) &&
        X509_set_issuer_name(own, X509_get_subject_name(issuer)) == 1 &&
        X509_set_pubkey(own, made.key) == 1 && add_extensions(own, issuer, wish) &&
        X509_sign(own, ca != NULL ? ca->key : made.key, EVP_sha256()) > 0;
    if (!good) {
        certificate_free(&made);
        return no_memory(error);
    }
    *out = made;
    return OPT_OK;
}

enum opt_status certificate_renew(const struct certificate *old,
                                  const struct certificate *ca, long days,
                                  struct certificate *out, struct opt_error *error)
{
    if (X509_check_issued(ca->certificate, old->certificate) != X509_V_OK) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "the certificate is not of this CA; name the folder of the "
                        "one that it is of with --dir");
    }
    X509 *made = X509_dup(old->certificate);
    if (made == NULL || !set_serial(made) || !set_dates(made, ca->certificate, days) ||
        X509_sign(made, ca->key, EVP_sha256()) <= 0) {
        X509_free(made);
        return no_memory(error);
    }
    *out = (struct certificate){ .certificate = made, .key = NULL };
    return OPT_OK;
}

/* ------------------------------------------------------------------------ files */

static enum opt_status open_file(const char *path, FILE **out, struct opt_error *error)
{
    *out = fopen(path, "re");
    return *out != NULL ? OPT_OK
                        : opt_fail(error, OPT_INVALID_ARGUMENT,
                                   "\"%s\" cannot be read: %s", path, strerror(errno));
}

static int no_passphrase(char *out, int size, int writing, void *context)
{
    (void)out, (void)size, (void)writing, (void)context;
    return -1;
}

enum opt_status certificate_read(const char *path, const char *key,
                                 struct certificate *out, struct opt_error *error)
{
    FILE *file;
    struct certificate found = { NULL, NULL };
    enum opt_status status = open_file(path, &file, error);
    if (status != OPT_OK) {
        return status;
    }
    found.certificate = PEM_read_X509(file, NULL, no_passphrase, NULL);
    fclose(file);
    if (found.certificate == NULL) {
        ERR_clear_error();
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "\"%s\" has no certificate in PEM form", path);
    }
    if (key != NULL) {
        status = open_file(key, &file, error);
        if (status == OPT_OK) {
            found.key = PEM_read_PrivateKey(file, NULL, no_passphrase, NULL);
            fclose(file);
            if (found.key == NULL ||
                X509_check_private_key(found.certificate, found.key) != 1) {
                status = opt_fail(
                    error, OPT_INVALID_ARGUMENT,
                    "\"%s\" has no key that belongs to certificate \"%s\"", key, path);
            }
        }
    }
    ERR_clear_error();
    if (status == OPT_OK) {
        *out = found;
    } else {
        certificate_free(&found);
    }
    return status;
}

/* Write one of both to path, or to the file beside it that then takes its place. */
static enum opt_status write_file(const char *path, mode_t mode, X509 *certificate,
                                  EVP_PKEY *key, bool replace, struct opt_error *error)
{
    char beside[PATH_MOST];
    snprintf(beside, sizeof(beside), "%s%s", path, replace ? ".new" : "");
    if (replace) {
        (void)unlink(beside);
    }
    int fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
    if (file == NULL) {
        int code = errno;
        if (fd >= 0) {
            close(fd);
        }
        return opt_fail(error, OPT_FAILED_PRECONDITION, "\"%s\" cannot be made: %s",
                        beside, strerror(code));
    }
    bool good = certificate != NULL ? PEM_write_X509(file, certificate) == 1
                                    : PEM_write_PKCS8PrivateKey(file, key, NULL, NULL,
                                                                0, NULL, NULL) == 1;
    good = fflush(file) == 0 && good && fsync(fd) == 0;
    good = fclose(file) == 0 && good;
    if (good && replace) {
        good = rename(beside, path) == 0;
    }
    if (!good) {
        int code = errno;
        (void)unlink(beside);
        return opt_fail(error, OPT_UNAVAILABLE, "\"%s\" cannot be written: %s", path,
                        strerror(code));
    }
    return OPT_OK;
}

enum opt_status certificate_write(const struct certificate *certificate,
                                  const char *path, const char *key, bool replace,
                                  struct opt_error *error)
{
    enum opt_status status = OPT_OK;
    if (key != NULL) {
        status = write_file(key, KEY_MODE, NULL, certificate->key, replace, error);
    }
    if (status == OPT_OK) {
        status = write_file(path, CERTIFICATE_MODE, certificate->certificate, NULL,
                            replace, error);
        if (status != OPT_OK && key != NULL && !replace) {
            (void)unlink(key);
        }
    }
    return status;
}
