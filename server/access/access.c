/* access — see access.h. */
#include "server/access/access.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uv.h>

#include "common/quantity.h"

struct access {
    uv_mutex_t lock; /* guards logins, required, insecure */
    struct logins *logins;
    bool required, insecure;
    _Atomic uint64_t made; /* how often they have been read */
};

/* Of whom nothing is asked. */
static const struct login open_login = { .name = "anybody", .role = ROLE_ADMIN };

/* ---------------------------------------------------------------- visitors */

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

void visitor_init(struct visitor *visitor, const char *address, const char *identity)
{
    *visitor = (struct visitor){ .origin = ORIGIN_STRANGE, .uid = UINT64_MAX };
    bool named = identity != NULL && identity[0] != '\0';
    if (begins(address, "unix:")) {
        visitor->origin = ORIGIN_UNIX;
        if (named && begins(identity, "uid=") &&
            opt_quantity_count(identity + strlen("uid="), &visitor->uid, NULL) !=
                OPT_OK) {
            visitor->uid = UINT64_MAX;
        }
        return;
    }
    if (begins(address, "127.") || begins(address, "[::1]:") ||
        begins(address, "[::ffff:127.")) {
        visitor->origin = ORIGIN_MACHINE;
    }
    visitor->names = named ? identity : NULL;
}

void visitor_fini(struct visitor *visitor)
{
    logins_unref(visitor->logins);
    visitor->logins = NULL;
    visitor->login = NULL;
}

const char *access_name(const struct visitor *visitor)
{
    return visitor->login != NULL ? visitor->login->name : "-";
}

enum role access_role(const struct visitor *visitor)
{
    if (visitor->origin == ORIGIN_INSIDE) {
        return ROLE_ADMIN;
    }
    return visitor->login != NULL ? visitor->login->role : ROLE_NONE;
}

/* ---------------------------------------------------------------- main's thread */

enum opt_status access_new(const struct access_settings *settings, struct access **out,
                           struct opt_error *error)
{
    struct access *access = calloc(1, sizeof *access);
    if (access == NULL || uv_mutex_init(&access->lock) != 0) {
        free(access);
        return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                           "no memory for logins");
    }
    enum opt_status status = access_reload(access, settings, error);
    if (status != OPT_OK) {
        access_free(access);
        return status;
    }
    *out = access;
    return OPT_OK;
}

void access_free(struct access *access)
{
    if (access != NULL) {
        logins_unref(access->logins);
        uv_mutex_destroy(&access->lock);
        free(access);
    }
}

enum opt_status access_reload(struct access *access,
                              const struct access_settings *settings,
                              struct opt_error *error)
{
    struct logins *logins = NULL;
    enum opt_status status = logins_read(&settings->source, &logins, error);
    if (status != OPT_OK) {
        return status;
    }
    uv_mutex_lock(&access->lock);
    struct logins *before = access->logins;
    access->logins = logins;
    access->required = settings->required;
    access->insecure = settings->insecure;
    atomic_fetch_add(&access->made, 1);
    uv_mutex_unlock(&access->lock);
    logins_unref(before);
    return OPT_OK;
}

size_t access_tokens(const struct access *access)
{
    return access->logins->tokens.count;
}

/* ---------------------------------------------------------------- look-ups */

/* What is true of the access at one moment. */
struct present {
    struct logins *logins; /* one reference */
    bool required, insecure;
    uint64_t made;
};

static struct present take_present(struct access *access)
{
    uv_mutex_lock(&access->lock);
    struct present present = { .logins = logins_ref(access->logins),
                               .required = access->required,
                               .insecure = access->insecure,
                               .made = atomic_load(&access->made) };
    uv_mutex_unlock(&access->lock);
    return present;
}

/* Whether it is served without a login. */
static bool is_open(const struct present *present, const struct visitor *visitor)
{
    if (present->required) {
        return false;
    }
    switch (visitor->origin) {
    case ORIGIN_INSIDE:
    case ORIGIN_MACHINE:
        return true;
    case ORIGIN_UNIX:
        return !present->logins->has_users;
    case ORIGIN_STRANGE:
        return present->insecure;
    }
    return false;
}

static bool has_ended(const struct login *login)
{
    return login->expires_s != 0 && (uint64_t)time(NULL) >= login->expires_s;
}

/* Who the visitor is now, or NULL: nobody. */
static const struct login *find(const struct present *present,
                                const struct visitor *visitor)
{
    const struct logins *logins = present->logins;
    const struct login *login = NULL;
    bool open = is_open(present, visitor);
    if (visitor->has_token && (logins->has_tokens || !open)) {
        /* Somebody who is wrong about who he is gets nothing. */
        login = logins_token(logins, visitor->digest);
    } else if (visitor->names != NULL &&
               (login = logins_certificate(logins, visitor->names)) != NULL) {
        /* that is who it is */
    } else if (visitor->origin == ORIGIN_UNIX && logins->has_users) {
        login = logins_user(logins, visitor->uid);
    } else if (open) {
        login = &open_login;
    }
    return login != NULL && has_ended(login) ? NULL : login;
}

/* Takes the reference of present. */
static void become(struct visitor *visitor, const struct present *present,
                   const struct login *login)
{
    logins_unref(visitor->logins);
    visitor->logins = present->logins;
    visitor->login = login;
    visitor->made = present->made;
}

/* ---------------------------------------------------------------- questions */

static bool digest_of(const uint8_t *token, size_t size, uint8_t out[LOGIN_DIGEST])
{
    unsigned int written = 0;
    return EVP_Digest(token, size, out, &written, EVP_sha256(), NULL) == 1 &&
           written == LOGIN_DIGEST;
}

/* Whom it may speak for. */
static enum opt_status check_worker(const struct login *login, const char *worker,
                                    struct opt_error *error)
{
    if (worker[0] == '\0') {
        return OPT_OK;
    }
    if (login->role < ROLE_WORKER) {
        return opt_fail_as(error, OPT_PERMISSION_DENIED, OPT_DETAIL_NOT_ALLOWED,
                           "\"%.100s\" has the role %s and may not speak for a worker, "
                           "which takes the role %s; say hello without a worker's "
                           "name, as an observer",
                           login->name, role_name(login->role),
                           role_or_more(ROLE_WORKER));
    }
    if (!patterns_match(&login->workers, worker)) {
        return opt_fail_as(error, OPT_PERMISSION_DENIED, OPT_DETAIL_NOT_ALLOWED,
                           "\"%.100s\" may not speak for the worker \"%.100s\": the "
                           "names that its login is bound to are others",
                           login->name, worker);
    }
    return OPT_OK;
}

enum opt_status access_greet(struct access *access, struct visitor *visitor,
                             const uint8_t *token, size_t size, const char *worker,
                             struct opt_error *error)
{
    if (visitor->origin == ORIGIN_INSIDE) {
        return OPT_OK;
    }
    struct present present = take_present(access);
    visitor->has_token = size > 0;
    const struct login *login = NULL;
    if (size == 0 || digest_of(token, size, visitor->digest)) {
        login = find(&present, visitor);
    }
    if (login == NULL) {
        logins_unref(present.logins);
        return opt_fail_as(error, OPT_UNAUTHENTICATED, OPT_DETAIL_NO_LOGIN,
                           "the login was refused: this daemon asks for a token, a "
                           "certificate or a user that it knows; give a token by "
                           "--token-file or OPTIMD_TOKEN_FILE, or ask its operator");
    }
    enum opt_status status = check_worker(login, worker, error);
    if (status != OPT_OK) {
        logins_unref(present.logins);
        return status;
    }
    become(visitor, &present, login);
    return OPT_OK;
}

/* Look again whether it still is who it was. False: it is nobody any more. */
static bool renew(struct access *access, struct visitor *visitor, const char *worker)
{
    if (visitor->login != NULL && visitor->made == atomic_load(&access->made)) {
        return !has_ended(visitor->login);
    }
    struct present present = take_present(access);
    const struct login *login = find(&present, visitor);
    if (login == NULL || check_worker(login, worker, NULL) != OPT_OK) {
        logins_unref(present.logins);
        return false;
    }
    become(visitor, &present, login);
    return true;
}

enum opt_status access_check(struct access *access, struct visitor *visitor,
                             const char *worker, enum role least, const char *what,
                             struct opt_error *error)
{
    if (visitor->origin == ORIGIN_INSIDE) {
        return OPT_OK;
    }
    if (!renew(access, visitor, worker)) {
        return opt_fail_as(error, OPT_UNAUTHENTICATED, OPT_DETAIL_NO_LOGIN,
                           "the login of this connection has ended, or was taken back; "
                           "connect again with one that holds");
    }
    if (visitor->login->role >= least) {
        return OPT_OK;
    }
    return opt_fail_as(error, OPT_PERMISSION_DENIED, OPT_DETAIL_NOT_ALLOWED,
                       "\"%.100s\" has the role %s and may not %s, which takes the "
                       "role %s",
                       visitor->login->name, role_name(visitor->login->role), what,
                       role_or_more(least));
}

bool access_model(const struct visitor *visitor, const char *model)
{
    return visitor->login == NULL || patterns_match(&visitor->login->models, model);
}

bool access_all_models(const struct visitor *visitor)
{
    return visitor->login == NULL || visitor->login->models.count == 0;
}

enum opt_status access_model_check(const struct visitor *visitor, const char *model,
                                   struct opt_error *error)
{
    if (access_model(visitor, model)) {
        return OPT_OK;
    }
    return opt_fail_as(error, OPT_PERMISSION_DENIED, OPT_DETAIL_NOT_ALLOWED,
                       "\"%.100s\" may not use the model \"%.100s\": the names that "
                       "its login is for are others",
                       visitor->login->name, model);
}
