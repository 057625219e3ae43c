/* token — files of logins by token, for the daemon's setting tokens: one more, which
 * there are, one less. No daemon is asked. A file is replaced as a whole, with the mode
 * and the owner that it had; the token itself is printed once, and stands nowhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/optim/glob.h"
#include "common/quantity.h"
#include "common/wire.h"
#include "server/access/login_list.h"
#include "tools/optctl/commands.h"

enum {
    TOKEN_RANDOM = 32, /* bytes: nobody guesses them */
    TOKEN_TEXT = 64,
    PATH_TEXT = 4096
};

/* The file as it is; text NULL: there is none yet. */
struct file {
    const char *path;
    char *text;
    size_t size;
    struct stat stat;
    struct login_list list;
};

static const char *path_of(struct ctl *ctl, int *status)
{
    const char *path = ctl_value(ctl, "file");
    if (path == NULL || path[0] == '\0' || strlen(path) > PATH_TEXT - 8) {
        *status = ctl_wrong(ctl,
                            "token %s needs --file FILE, the daemon's setting "
                            "tokens",
                            ctl->arguments[0]);
        return NULL;
    }
    return path;
}

static bool read_text(struct file *file, struct opt_error *error)
{
    FILE *stream = fopen(file->path, "re");
    if (stream == NULL || fstat(fileno(stream), &file->stat) != 0) {
        opt_fail(error, OPT_NOT_FOUND, "%s: %s", file->path, strerror(errno));
        if (stream != NULL) {
            fclose(stream);
        }
        return false;
    }
    file->text = calloc(1, LOGIN_FILE_MAX + 2);
    if (file->text != NULL) {
        file->size = fread(file->text, 1, LOGIN_FILE_MAX + 1, stream);
    }
    bool well = file->text != NULL && ferror(stream) == 0;
    fclose(stream);
    return well ||
           opt_fail(error, OPT_UNAVAILABLE, "%s: cannot be read", file->path) == OPT_OK;
}

/* Read it, and that it is right. may_lack: there need not be one. */
static enum opt_status file_open(struct file *file, bool may_lack,
                                 struct opt_error *error)
{
    if (may_lack && access(file->path, F_OK) != 0 && errno == ENOENT) {
        return OPT_OK;
    }
    enum opt_status status =
        login_list_read(file->path, LOGIN_BY_TOKEN, &file->list, error);
    if (status != OPT_OK) {
        return status;
    }
    return read_text(file, error) ? OPT_OK : error->status;
}

static void file_close(struct file *file)
{
    login_list_fini(&file->list);
    free(file->text);
}

static const struct login *find(const struct file *file, const char *name)
{
    for (size_t i = 0; i < file->list.count; i++) {
        if (strcmp(file->list.logins[i].name, name) == 0) {
            return &file->list.logins[i];
        }
    }
    return NULL;
}

/* ---------------------------------------------------------------- replacing it */

static enum opt_status fill(int fd, const struct file *file, const char *const *parts,
                            const size_t *sizes, size_t count)
{
    bool well = true;
    for (size_t i = 0; well && i < count; i++) {
        for (size_t at = 0; well && at < sizes[i];) {
            ssize_t wrote = write(fd, parts[i] + at, sizes[i] - at);
            well = wrote > 0 || (wrote < 0 && errno == EINTR);
            at += wrote > 0 ? (size_t)wrote : 0;
        }
    }
    if (well && file->text != NULL) { /* the daemon has to be able to read it */
        well = fchown(fd, file->stat.st_uid, file->stat.st_gid) == 0 &&
               fchmod(fd, file->stat.st_mode & 0777) == 0;
    }
    return well && fsync(fd) == 0 ? OPT_OK : OPT_UNAVAILABLE;
}

/* Put these parts in its place. */
static enum opt_status replace(const struct file *file, const char *const *parts,
                               const size_t *sizes, size_t count,
                               struct opt_error *error)
{
    char next[PATH_TEXT];
    snprintf(next, sizeof next, "%s.new", file->path);
    int fd = open(next, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return opt_fail(error, OPT_UNAVAILABLE, "%s: %s", next,
                        errno == EEXIST ? "somebody else is writing it; remove it if "
                                          "nobody is"
                                        : strerror(errno));
    }
    enum opt_status status = fill(fd, file, parts, sizes, count);
    int code = errno;
    close(fd);
    if (status == OPT_OK && rename(next, file->path) != 0) {
        code = errno;
        status = OPT_UNAVAILABLE;
    }
    if (status != OPT_OK) {
        unlink(next);
        opt_fail(error, status, "%s: %s", next, strerror(code));
    }
    return status;
}

/* ---------------------------------------------------------------- add */

/* A token that nobody guesses, and its digest. */
static bool make_token(char token[TOKEN_TEXT], char digest[2 * LOGIN_DIGEST + 1])
{
    unsigned char random[TOKEN_RANDOM], sum[EVP_MAX_MD_SIZE];
    char encoded[TOKEN_TEXT];
    unsigned int size = 0;
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) {
        return false;
    }
    int length = EVP_EncodeBlock((unsigned char *)encoded, random, sizeof random);
    explicit_bzero(random, sizeof random);
    for (int i = 0; i < length; i++) { /* as in URLs, and without what fills it up */
        encoded[i] = (char)(encoded[i] == '+'   ? '-'
                            : encoded[i] == '/' ? '_'
                                                : encoded[i]);
    }
    encoded[strcspn(encoded, "=")] = '\0';
    snprintf(token, TOKEN_TEXT, "optimd_%.50s", encoded);
    explicit_bzero(encoded, sizeof encoded);
    if (EVP_Digest(token, strlen(token), sum, &size, EVP_sha256(), NULL) != 1) {
        return false;
    }
    for (unsigned int i = 0; i < size; i++) {
        snprintf(digest + 2 * (size_t)i, 3, "%02x", sum[i]);
    }
    return true;
}

/* "30d" from now, or a time. */
static bool read_end(const char *text, char out[LOGIN_TIME])
{
    uint64_t at, ms;
    if (login_time_read(text, &at)) {
        snprintf(out, LOGIN_TIME, "%s", text);
        return true;
    }
    if (opt_quantity_milliseconds(text, &ms, NULL) != OPT_OK || ms == 0 ||
        ms > UINT64_C(100) * 366 * 24 * 3600 * 1000) {
        return false;
    }
    login_time_print((uint64_t)time(NULL) + ms / 1000, out);
    return true;
}

/* The new line, but for the digest; checked as a line of a file. */
static int make_line(struct ctl *ctl, const char *digest, char line[LOGIN_LINE_MAX])
{
    static const char *const lists[] = { "models", "workers" };
    const char *role = ctl_value(ctl, "role"), *ends = ctl_value(ctl, "expires");
    char end[LOGIN_TIME] = "";
    enum role given;
    if (role == NULL || !role_parse(role, &given)) {
        return ctl_wrong(ctl, "token add needs --role reader, worker or admin");
    }
    if (ends != NULL && !read_end(ends, end)) {
        return ctl_wrong(ctl,
                         "--expires is a time from now such as 30d, or such as "
                         "2027-01-31T12:00:00Z, not '%s'",
                         ends);
    }
    size_t used = (size_t)snprintf(line, LOGIN_LINE_MAX, "%s %s sha256=%s",
                                   ctl->arguments[1], role, digest);
    for (size_t i = 0; i < 2 && used < LOGIN_LINE_MAX; i++) {
        const char *names = ctl_value(ctl, lists[i]);
        if (names != NULL && strcspn(names, " \t\r\n") != strlen(names)) {
            return ctl_wrong(ctl,
                             "--%s has a blank in '%s'; ? stands for any character",
                             lists[i], names);
        }
        if (names != NULL) {
            used += (size_t)snprintf(line + used, LOGIN_LINE_MAX - used, " %s=%s",
                                     lists[i], names);
        }
    }
    if (used < LOGIN_LINE_MAX && end[0] != '\0') {
        used +=
            (size_t)snprintf(line + used, LOGIN_LINE_MAX - used, " expires=%s", end);
    }
    return used + 1 < LOGIN_LINE_MAX
               ? EXIT_SUCCESS
               : ctl_wrong(ctl, "the names are too long for one line");
}

/* Whether the line is one, all by itself. */
static int check_line(struct ctl *ctl, const char *line)
{
    struct login_list list;
    struct opt_error error;
    const char *name = ctl->arguments[1];
    if (name[0] == '#' || strcspn(name, " \t\r\n") != strlen(name)) {
        return ctl_wrong(ctl,
                         "'%s' is no name: it must have no blanks, and not begin "
                         "with #",
                         name);
    }
    if (login_list_parse("the new line", line, strlen(line), LOGIN_BY_TOKEN, &list,
                         &error) != OPT_OK) {
        return ctl_wrong(ctl, "%s", error.text);
    }
    login_list_fini(&list);
    return EXIT_SUCCESS;
}

static int say_token(struct ctl *ctl, const char *path, const char *token)
{
    if (ctl->json) {
        return ctl_answer(
            ctl, json_pack("{s:s, s:s, s:s, s:s}", "name", ctl->arguments[1], "role",
                           ctl_value(ctl, "role"), "token", token, "file", path));
    }
    puts(token);
    fprintf(stderr,
            "optctl: this token is not told again. A daemon that runs reads %s at "
            "`optctl reload`.\n",
            path);
    return ctl_done(ctl);
}

static int add(struct ctl *ctl)
{
    char token[TOKEN_TEXT], digest[2 * LOGIN_DIGEST + 1], line[LOGIN_LINE_MAX];
    struct opt_error error;
    int status = EXIT_SUCCESS;
    struct file file = { .path = path_of(ctl, &status) };
    if (file.path == NULL || ctl->count != 2) {
        return file.path == NULL ? status : ctl_wrong(ctl, "token add takes one NAME");
    }
    if (!make_token(token, digest)) {
        opt_fail(&error, OPT_UNAVAILABLE, "the system has no randomness for a token");
        return ctl_refused(ctl, &error);
    }
    status = make_line(ctl, digest, line);
    status = status == EXIT_SUCCESS ? check_line(ctl, line) : status;
    if (status != EXIT_SUCCESS) {
        return status;
    }
    enum opt_status done = file_open(&file, true, &error);
    if (done == OPT_OK && find(&file, ctl->arguments[1]) != NULL) {
        done = opt_fail(&error, OPT_ALREADY_EXISTS,
                        "%s has a login \"%.100s\"; revoke it first, or take another "
                        "name",
                        file.path, ctl->arguments[1]);
    }
    if (done == OPT_OK) {
        bool ended = file.size == 0 || file.text[file.size - 1] == '\n';
        const char *const parts[] = { file.text, "\n", line, "\n" };
        const size_t sizes[] = { file.size, ended ? 0 : 1, strlen(line), 1 };
        done = replace(&file, parts, sizes, 4, &error);
    }
    status =
        done == OPT_OK ? say_token(ctl, file.path, token) : ctl_refused(ctl, &error);
    explicit_bzero(token, sizeof token);
    file_close(&file);
    return status;
}

/* ---------------------------------------------------------------- list */

static void join(const struct patterns *patterns, char *out, size_t size)
{
    size_t used = (size_t)snprintf(out, size, "%s", patterns->count == 0 ? "*" : "");
    for (size_t i = 0; i < patterns->count && used < size; i++) {
        used += (size_t)snprintf(out + used, size - used, "%s%s", i > 0 ? "," : "",
                                 patterns->globs[i].pattern);
    }
}

static int list_all(struct ctl *ctl)
{
    struct opt_error error;
    int status = EXIT_SUCCESS;
    struct file file = { .path = path_of(ctl, &status) };
    if (file.path == NULL) {
        return status;
    }
    if (login_list_read(file.path, LOGIN_BY_TOKEN, &file.list, &error) != OPT_OK) {
        return ctl_refused(ctl, &error);
    }
    struct table *table = ctl->json ? NULL : table_new("lllll");
    json_t *all = ctl->json ? json_array() : NULL;
    for (size_t i = 0; i < file.list.count; i++) {
        const struct login *login = &file.list.logins[i];
        char models[LOGIN_LINE_MAX], workers[LOGIN_LINE_MAX], end[LOGIN_TIME] = "";
        bool over = login->expires_s != 0 && login->expires_s <= (uint64_t)time(NULL);
        join(&login->models, models, sizeof models);
        join(&login->workers, workers, sizeof workers);
        if (login->expires_s != 0) {
            login_time_print(login->expires_s, end);
        }
        if (ctl->json) {
            json_array_append_new(
                all, json_pack("{s:s, s:s, s:s, s:s, s:s, s:b}", "name", login->name,
                               "role", role_name(login->role), "models", models,
                               "workers", workers, "expires", end, "expired", over));
        } else {
            table_add(table, "%s", login->name);
            table_add(table, "%s", role_name(login->role));
            table_add(table, "models=%s", models);
            table_add(table, "workers=%s", workers);
            table_add(table, "%s%s", end[0] != '\0' ? end : "for ever",
                      over ? " (over)" : "");
        }
    }
    login_list_fini(&file.list);
    return ctl->json ? ctl_answer(ctl, all) : table_print(ctl, table);
}

/* ---------------------------------------------------------------- revoke */

/* The line with that number, from 1, in the text, with its end. */
static void find_line(const struct file *file, unsigned number, size_t *begin,
                      size_t *end)
{
    *begin = 0;
    for (unsigned line = 1;; line++) {
        const char *stop = memchr(file->text + *begin, '\n', file->size - *begin);
        *end = stop != NULL ? (size_t)(stop - file->text) + 1 : file->size;
        if (line == number || *end == file->size) {
            return;
        }
        *begin = *end;
    }
}

static int take_back(struct ctl *ctl)
{
    struct opt_error error;
    int status = EXIT_SUCCESS;
    struct file file = { .path = path_of(ctl, &status) };
    if (file.path == NULL || ctl->count != 2) {
        return file.path == NULL ? status
                                 : ctl_wrong(ctl, "token revoke takes one NAME");
    }
    const char *name = ctl->arguments[1];
    enum opt_status done = file_open(&file, false, &error);
    const struct login *login = done == OPT_OK ? find(&file, name) : NULL;
    if (done == OPT_OK && login == NULL) {
        done = opt_fail(&error, OPT_NOT_FOUND, "%s has no login \"%.100s\"", file.path,
                        name);
    }
    if (done == OPT_OK) {
        size_t begin, end;
        find_line(&file, login->line, &begin, &end);
        const char *const parts[] = { file.text, file.text + end };
        const size_t sizes[] = { begin, file.size - end };
        done = replace(&file, parts, sizes, 2, &error);
    }
    if (done != OPT_OK) {
        status = ctl_refused(ctl, &error);
    } else if (ctl->json) {
        status = ctl_answer(ctl, json_pack("{s:s}", "revoked", name));
    } else {
        printf("%s: \"%s\" is revoked; a daemon that runs reads that at `optctl "
               "reload`\n",
               file.path, name);
        status = ctl_done(ctl);
    }
    file_close(&file);
    return status;
}

int run_token(struct ctl *ctl)
{
    static const struct {
        const char *word;
        int (*run)(struct ctl *ctl);
    } all[] = { { "add", add }, { "list", list_all }, { "revoke", take_back } };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (strcmp(ctl->arguments[0], all[i].word) == 0) {
            return all[i].run(ctl);
        }
    }
    return ctl_wrong(ctl, "there is no 'token %s'; right would be add, list or revoke",
                     ctl->arguments[0]);
}
