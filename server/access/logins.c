/* logins — see logins.h. */
#include "server/access/logins.h"

#include <openssl/crypto.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "common/quantity.h"

enum { PASSWD_BYTES = 16 << 10 };

/* ---------------------------------------------------------------- users */

/* A user by name or number. */
static bool find_user(const char *name, uint64_t *out)
{
    if (opt_quantity_count(name, out, NULL) == OPT_OK) {
        return true;
    }
    char *memory = malloc(PASSWD_BYTES);
    struct passwd entry, *found = NULL;
    bool known = memory != NULL &&
                 getpwnam_r(name, &entry, memory, PASSWD_BYTES, &found) == 0 &&
                 found != NULL;
    *out = known ? entry.pw_uid : 0;
    free(memory);
    return known;
}

static enum opt_status read_user(struct logins *logins, char *word,
                                 struct opt_error *error)
{
    char *role = strchr(word, '=');
    if (logins->user_count == LOGINS_USERS_MAX) {
        return opt_fail(error, OPT_INVALID_ARGUMENT, "more than %d users are listed",
                        LOGINS_USERS_MAX);
    }
    if (role == NULL || role == word) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "\"%.100s\" is no user with a role; right would be such as "
                        "alice=worker, 1000=reader or *=reader",
                        word);
    }
    *role++ = '\0';
    struct logins_user *user = &logins->users[logins->user_count];
    *user = (struct logins_user){ .any = strcmp(word, "*") == 0,
                                  .login = { .name = word } };
    if (!user->any && !find_user(word, &user->uid)) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "there is no user \"%.100s\" on this machine; right would be a "
                        "name or a number that `id` tells",
                        word);
    }
    if (!role_parse(role, &user->login.role)) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "\"%.100s\" is no role; right would be reader, worker or admin",
                        role);
    }
    for (size_t i = 0; i < logins->user_count; i++) {
        const struct logins_user *other = &logins->users[i];
        if (other->any == user->any && other->uid == user->uid) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "\"%.100s\" is listed twice; once would be right", word);
        }
    }
    logins->user_count++;
    return OPT_OK;
}

static enum opt_status read_users(struct logins *logins, const char *text,
                                  struct opt_error *error)
{
    logins->has_users = text[0] != '\0';
    logins->user_text = strdup(text);
    if (logins->user_text == NULL) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory for users");
    }
    enum opt_status status = OPT_OK;
    char *word = logins->user_text;
    while (logins->has_users && status == OPT_OK && word != NULL) {
        char *comma = strchr(word, ',');
        if (comma != NULL) {
            *comma++ = '\0';
        }
        status = read_user(logins, word, error);
        word = comma;
    }
    return status;
}

const struct login *logins_user(const struct logins *logins, uint64_t uid)
{
    const struct login *any = NULL;
    for (size_t i = 0; i < logins->user_count; i++) {
        const struct logins_user *user = &logins->users[i];
        if (!user->any && user->uid == uid) {
            return &user->login;
        }
        any = user->any ? &user->login : any;
    }
    return any;
}

/* ---------------------------------------------------------------- all of them */

enum opt_status logins_read(const struct logins_source *source, struct logins **out,
                            struct opt_error *error)
{
    struct logins *logins = calloc(1, sizeof *logins);
    if (logins == NULL) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory for logins");
    }
    atomic_init(&logins->references, 1);
    for (int role = 0; role < ROLE_COUNT; role++) {
        logins->by_role[role] =
            (struct login){ .name = "certificate", .role = (enum role)role };
    }
    logins->has_tokens = source->tokens[0] != '\0';
    logins->has_certificates = source->certificates[0] != '\0';
    struct opt_error cause;
    const char *setting = "unix-users";
    enum opt_status status = read_users(logins, source->users, &cause);
    if (status == OPT_OK && logins->has_tokens) {
        setting = "tokens";
        status =
            login_list_read(source->tokens, LOGIN_BY_TOKEN, &logins->tokens, &cause);
    }
    if (status == OPT_OK && logins->has_certificates) {
        setting = "cert-roles";
        status = login_list_read(source->certificates, LOGIN_BY_CERTIFICATE,
                                 &logins->certificates, &cause);
    }
    if (status != OPT_OK) {
        logins_unref(logins);
        return opt_fail(error, status, "%s: %s", setting, cause.text);
    }
    *out = logins;
    return OPT_OK;
}

struct logins *logins_ref(struct logins *logins)
{
    atomic_fetch_add(&logins->references, 1);
    return logins;
}

void logins_unref(struct logins *logins)
{
    if (logins != NULL && atomic_fetch_sub(&logins->references, 1) == 1) {
        login_list_fini(&logins->tokens);
        login_list_fini(&logins->certificates);
        free(logins->user_text);
        free(logins);
    }
}

/* ---------------------------------------------------------------- look-ups */

const struct login *logins_token(const struct logins *logins,
                                 const uint8_t digest[LOGIN_DIGEST])
{
    const struct login *found = NULL;
    for (size_t i = 0; i < logins->tokens.count; i++) {
        const struct login *login = &logins->tokens.logins[i];
        bool same = CRYPTO_memcmp(login->digest, digest, LOGIN_DIGEST) == 0;
        found = same ? login : found;
    }
    return found;
}

/* Whether one of the names is meant. */
static bool has_subject(const struct login *login, const char *names)
{
    char name[512];
    while (*names != '\0') {
        size_t size = strcspn(names, " ");
        if (size > 0 && size < sizeof name) {
            memcpy(name, names, size);
            name[size] = '\0';
            if (patterns_match(&login->subjects, name)) {
                return true;
            }
        }
        names += size + strspn(names + size, " ");
    }
    return false;
}

const struct login *logins_certificate(const struct logins *logins, const char *names)
{
    static const char mark[] = "URI:optimd:role=";
    const size_t mark_size = sizeof mark - 1;
    if (logins->has_certificates) {
        for (size_t i = 0; i < logins->certificates.count; i++) {
            const struct login *login = &logins->certificates.logins[i];
            if (has_subject(login, names)) {
                return login;
            }
        }
        return NULL;
    }
    for (const char *at = names; *at != '\0';) {
        size_t size = strcspn(at, " ");
        char word[16];
        enum role role;
        if (size > mark_size && size - mark_size < sizeof word &&
            strncmp(at, mark, mark_size) == 0) {
            memcpy(word, at + mark_size, size - mark_size);
            word[size - mark_size] = '\0';
            return role_parse(word, &role) ? &logins->by_role[role] : NULL;
        }
        at += size + strspn(at + size, " ");
    }
    return NULL;
}
