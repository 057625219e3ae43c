/* login_list — see login_list.h. */
#include "server/access/login_list.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/optim/options.h"
#include "common/wire.h"
#include "server/access/secret.h"

/* The longest file, one byte more by which a longer one is known, and the end. */
enum { ROOM_MOST = LOGIN_FILE_MAX + 2 };

/* ---------------------------------------------------------------- times */

static bool digits(const char **at, size_t count, int *out)
{
    *out = 0;
    for (size_t i = 0; i < count; i++, (*at)++) {
        if (**at < '0' || **at > '9') {
            return false;
        }
        *out = *out * 10 + (**at - '0');
    }
    return true;
}

static bool sign(const char **at, char which)
{
    bool there = **at == which;
    *at += there;
    return there;
}

bool login_time_read(const char *text, uint64_t *out)
{
    struct tm time = { 0 };
    int year, month;
    const char *at = text;
    if (!digits(&at, 4, &year) || !sign(&at, '-') || !digits(&at, 2, &month) ||
        !sign(&at, '-') || !digits(&at, 2, &time.tm_mday) || !sign(&at, 'T') ||
        !digits(&at, 2, &time.tm_hour) || !sign(&at, ':') ||
        !digits(&at, 2, &time.tm_min) || !sign(&at, ':') ||
        !digits(&at, 2, &time.tm_sec) || !sign(&at, 'Z') || *at != '\0' ||
        year < 1970) {
        return false;
    }
    time.tm_year = year - 1900;
    time.tm_mon = month - 1;
    struct tm same = time;
    time_t seconds = timegm(&same);
    /* A 31st of February comes back as a day of March. */
    if (seconds <= 0 || same.tm_mon != time.tm_mon || same.tm_mday != time.tm_mday ||
        same.tm_hour != time.tm_hour || same.tm_min != time.tm_min ||
        same.tm_sec != time.tm_sec) {
        return false;
    }
    *out = (uint64_t)seconds;
    return true;
}

void login_time_print(uint64_t seconds, char out[LOGIN_TIME])
{
    struct tm time;
    time_t at = (time_t)seconds;
    if (gmtime_r(&at, &time) == NULL ||
        strftime(out, LOGIN_TIME, "%Y-%m-%dT%H:%M:%SZ", &time) == 0) {
        out[0] = '\0';
    }
}

/* ---------------------------------------------------------------- a line */

enum key { KEY_SHA256, KEY_SUBJECT, KEY_MODELS, KEY_WORKERS, KEY_EXPIRES, KEY_COUNT };
static const char *const keys[KEY_COUNT] = { "sha256", "subject", "models", "workers",
                                             "expires" };

static const char *key_at(size_t index, const void *context)
{
    (void)context;
    return keys[index];
}

/* Where in a file the reading is. */
struct place {
    const char *path;
    unsigned line;
    enum login_kind kind;
    bool given[KEY_COUNT]; /* in this line */
};

static int hex_of(char digit)
{
    static const char digits_of[] = "0123456789abcdef";
    const char *at = digit != '\0' ? strchr(digits_of, digit) : NULL;
    return at != NULL ? (int)(at - digits_of) : -1;
}

static enum opt_status read_digest(const struct place *place, const char *text,
                                   uint8_t out[LOGIN_DIGEST], struct opt_error *error)
{
    bool right = strlen(text) == 2 * (size_t)LOGIN_DIGEST;
    for (size_t i = 0; right && i < LOGIN_DIGEST; i++) {
        int high = hex_of(text[2 * i]), low = hex_of(text[2 * i + 1]);
        right = high >= 0 && low >= 0;
        out[i] = (uint8_t)(right ? high * 16 + low : 0);
    }
    if (right) {
        return OPT_OK;
    }
    return opt_fail(error, OPT_INVALID_ARGUMENT,
                    "%s:%u: sha256 is not a SHA-256; right would be 64 digits from "
                    "0123456789abcdef, the sum of the token alone without the end of "
                    "its line",
                    place->path, place->line);
}

static enum opt_status read_patterns(const struct place *place, enum key key,
                                     char *text, struct login_list *list,
                                     struct patterns *out, struct opt_error *error)
{
    struct opt_error cause;
    enum opt_status status = patterns_read(text, out, &cause);
    if (status != OPT_OK) {
        return opt_fail(error, status, "%s:%u: %s: %s", place->path, place->line,
                        keys[key], cause.text);
    }
    list->patterns += out->count;
    if (list->patterns > LOGIN_PATTERNS_MAX) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s:%u: with this line the file has %zu patterns; at most %d "
                        "may stand in it",
                        place->path, place->line, list->patterns, LOGIN_PATTERNS_MAX);
    }
    return OPT_OK;
}

static enum opt_status read_value(struct place *place, enum key key, char *value,
                                  struct login_list *list, struct login *login,
                                  struct opt_error *error)
{
    switch (key) {
    case KEY_SHA256:
        return read_digest(place, value, login->digest, error);
    case KEY_SUBJECT:
        return read_patterns(place, key, value, list, &login->subjects, error);
    case KEY_MODELS:
        return read_patterns(place, key, value, list, &login->models, error);
    case KEY_WORKERS:
        return read_patterns(place, key, value, list, &login->workers, error);
    case KEY_EXPIRES:
        if (!login_time_read(value, &login->expires_s)) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "%s:%u: expires: \"%.40s\" is no time; right would be such "
                            "as 2027-01-31T12:00:00Z",
                            place->path, place->line, value);
        }
        return OPT_OK;
    case KEY_COUNT:
        break;
    }
    return OPT_OK;
}

/* "key=value". What is not known is not quoted: it may be a token in a wrong place. */
static enum opt_status read_pair(struct place *place, char *word,
                                 struct login_list *list, struct login *login,
                                 struct opt_error *error)
{
    char *value = strchr(word, '=');
    size_t size = value != NULL ? (size_t)(value - word) : strlen(word);
    size_t key = 0;
    while (key < KEY_COUNT &&
           (strncmp(keys[key], word, size) != 0 || keys[key][size] != '\0')) {
        key++;
    }
    enum key other = place->kind == LOGIN_BY_TOKEN ? KEY_SUBJECT : KEY_SHA256;
    if (value == NULL || key == KEY_COUNT) {
        const char *near = opt_nearest(word, size, KEY_COUNT, key_at, NULL);
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s:%u: a word after the role is none of sha256=, subject=, "
                        "models=, workers= and expires=%s%s",
                        place->path, place->line, near != NULL ? "; perhaps " : "",
                        near != NULL ? near : "");
    }
    if (key == other) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s:%u: %s has no place in a file of %s", place->path,
                        place->line, keys[key],
                        other == KEY_SUBJECT ? "tokens" : "certificates");
    }
    if (place->given[key]) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s:%u: %s is given twice; once would be right", place->path,
                        place->line, keys[key]);
    }
    place->given[key] = true;
    return read_value(place, (enum key)key, value + 1, list, login, error);
}

static char *next_word(char **rest)
{
    char *word = *rest + strspn(*rest, " \t");
    size_t size = strcspn(word, " \t");
    *rest = word + size;
    if (**rest != '\0') {
        *(*rest)++ = '\0';
    }
    return word;
}

static enum opt_status check_unique(const struct place *place,
                                    const struct login_list *list,
                                    const struct login *login, struct opt_error *error)
{
    for (size_t i = 0; i < list->count; i++) {
        const struct login *other = &list->logins[i];
        if (strcmp(other->name, login->name) == 0) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "%s:%u: \"%.100s\" stands in line %u already; each login "
                            "needs a name of its own",
                            place->path, place->line, login->name, other->line);
        }
        if (place->kind == LOGIN_BY_TOKEN &&
            memcmp(other->digest, login->digest, LOGIN_DIGEST) == 0) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "%s:%u: this token is that of line %u; each login needs "
                            "one of its own",
                            place->path, place->line, other->line);
        }
    }
    return OPT_OK;
}

static enum opt_status read_line(struct place *place, char *line,
                                 struct login_list *list, struct opt_error *error)
{
    struct login login = { .line = place->line };
    char *rest = line;
    login.name = next_word(&rest);
    if (opt_name_check(login.name, strlen(login.name), "the name", error) != OPT_OK) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s:%u: the line does not begin with a name of 1 to %d bytes "
                        "of UTF-8",
                        place->path, place->line, OPT_NAME_MAX);
    }
    if (!role_parse(next_word(&rest), &login.role)) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s:%u: the second word is no role; right would be reader, "
                        "worker or admin",
                        place->path, place->line);
    }
    memset(place->given, 0, sizeof place->given);
    enum opt_status status = OPT_OK;
    for (char *word; status == OPT_OK && *(word = next_word(&rest)) != '\0';) {
        status = read_pair(place, word, list, &login, error);
    }
    enum key proof = place->kind == LOGIN_BY_TOKEN ? KEY_SHA256 : KEY_SUBJECT;
    if (status == OPT_OK && !place->given[proof]) {
        status = opt_fail(error, OPT_INVALID_ARGUMENT,
                          "%s:%u: \"%.100s\" has no %s=, so nobody could log in as it",
                          place->path, place->line, login.name, keys[proof]);
    }
    if (status == OPT_OK) {
        status = check_unique(place, list, &login, error);
    }
    /* Also when it is refused: the list is freed as a whole. */
    list->logins[list->count++] = login;
    return status;
}

/* ---------------------------------------------------------------- a file */

static size_t count_lines(const char *text, size_t size)
{
    size_t count = 1;
    for (size_t i = 0; i < size; i++) {
        count += text[i] == '\n';
    }
    return count;
}

static enum opt_status take_line(struct place *place, char *line, size_t size,
                                 struct login_list *list, struct opt_error *error)
{
    if (size > LOGIN_LINE_MAX) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s:%u: the line has %zu bytes; at most %d are allowed",
                        place->path, place->line, size, LOGIN_LINE_MAX);
    }
    if (strlen(line) != size) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s:%u: the line has a zero byte; the file is no text",
                        place->path, place->line);
    }
    if (size > 0 && line[size - 1] == '\r') {
        line[size - 1] = '\0';
    }
    const char *begin = line + strspn(line, " \t");
    if (*begin == '\0' || *begin == '#') {
        return OPT_OK;
    }
    if (list->count == LOGIN_LINES_MAX) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s:%u: more than %d logins stand in one file", place->path,
                        place->line, LOGIN_LINES_MAX);
    }
    return read_line(place, line, list, error);
}

/* Cut the list's text into lines, and read each. */
static enum opt_status read_lines(const char *path, size_t size, enum login_kind kind,
                                  struct login_list *list, struct opt_error *error)
{
    struct place place = { .path = path, .kind = kind };
    size_t most = count_lines(list->text, size);
    most = most < LOGIN_LINES_MAX ? most : LOGIN_LINES_MAX;
    list->memory = most * sizeof *list->logins;
    list->logins = secret_new(list->memory);
    if (list->logins == NULL) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "%s: no memory", path);
    }
    char *line = list->text, *end = list->text + size;
    while (line < end) {
        char *stop = memchr(line, '\n', (size_t)(end - line));
        stop = stop != NULL ? stop : end;
        *stop = '\0';
        place.line++;
        enum opt_status status =
            take_line(&place, line, (size_t)(stop - line), list, error);
        if (status != OPT_OK) {
            return status;
        }
        line = stop + 1;
    }
    return OPT_OK;
}

static enum opt_status make(const char *path, size_t size, enum login_kind kind,
                            struct login_list *list, struct login_list *out,
                            struct opt_error *error)
{
    enum opt_status status = read_lines(path, size, kind, list, error);
    if (status != OPT_OK) {
        login_list_fini(list);
        return status;
    }
    *out = *list;
    return OPT_OK;
}

enum opt_status login_list_parse(const char *path, const char *text, size_t size,
                                 enum login_kind kind, struct login_list *out,
                                 struct opt_error *error)
{
    if (size > LOGIN_FILE_MAX) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "%s: longer than the %d bytes that it may have", path,
                        LOGIN_FILE_MAX);
    }
    struct login_list list = { .text = secret_new(size + 1), .room = size + 1 };
    if (list.text == NULL) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "%s: no memory", path);
    }
    memcpy(list.text, text, size);
    return make(path, size, kind, &list, out, error);
}

/* Open it; nobody but its owner and group may have written what it says. */
static enum opt_status open_file(const char *path, int *out, struct opt_error *error)
{
    struct stat file;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &file) != 0) {
        int code = errno;
        if (fd >= 0) {
            close(fd);
        }
        return opt_fail(error, OPT_NOT_FOUND, "%s: %s", path, strerror(code));
    }
    bool regular = S_ISREG(file.st_mode);
    if (!regular || (file.st_mode & S_IWOTH) != 0) {
        close(fd);
        return regular ? opt_fail(error, OPT_PERMISSION_DENIED,
                                  "%s: every user may write to it, and so make himself "
                                  "an admin; right would be mode 0640 or 0600",
                                  path)
                       : opt_fail(error, OPT_INVALID_ARGUMENT,
                                  "%s: it is no regular file", path);
    }
    *out = fd;
    return OPT_OK;
}

enum opt_status login_list_read(const char *path, enum login_kind kind,
                                struct login_list *out, struct opt_error *error)
{
    int fd = -1;
    enum opt_status status = open_file(path, &fd, error);
    if (status != OPT_OK) {
        return status;
    }
    struct login_list list = { .text = secret_new(ROOM_MOST), .room = ROOM_MOST };
    size_t size = 0;
    ssize_t got = list.text == NULL ? -1 : 1;
    while (got > 0 && size <= LOGIN_FILE_MAX) {
        got = read(fd, list.text + size, LOGIN_FILE_MAX + 1 - size);
        size += got > 0 ? (size_t)got : 0;
        got = got < 0 && errno == EINTR ? 1 : got;
    }
    int code = list.text == NULL ? ENOMEM : errno;
    close(fd);
    if (got < 0 || size > LOGIN_FILE_MAX) {
        secret_free(list.text, list.room);
        return got < 0
                   ? opt_fail(error, OPT_UNAVAILABLE, "%s: %s", path, strerror(code))
                   : opt_fail(error, OPT_INVALID_ARGUMENT,
                              "%s: longer than the %d bytes that it may have", path,
                              LOGIN_FILE_MAX);
    }
    return make(path, size, kind, &list, out, error);
}

void login_list_fini(struct login_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        patterns_fini(&list->logins[i].subjects);
        patterns_fini(&list->logins[i].models);
        patterns_fini(&list->logins[i].workers);
    }
    secret_free(list->logins, list->memory);
    secret_free(list->text, list->room);
    *list = (struct login_list){ .count = 0 };
}
