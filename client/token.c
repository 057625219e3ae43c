#include "client/token.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A token, blanks around it, and one byte by which a longer one is known. */
enum { READ_BYTES = OPT_TOKEN_MAX + 64 };

/* Whatever else a path names might not end, or not begin. */
static int open_regular(const char *path)
{
    struct stat file;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd >= 0 && fstat(fd, &file) == 0 && S_ISREG(file.st_mode)) {
        return fd;
    }
    int code = fd >= 0 ? EINVAL : errno;
    if (fd >= 0) {
        close(fd);
    }
    errno = code;
    return -1;
}

static enum opt_status take_line(const char *path, const char *text, size_t got,
                                 uint8_t out[OPT_TOKEN_MAX], size_t *size,
                                 struct opt_error *error)
{
    const char *end = memchr(text, '\n', got);
    size_t length = end != NULL ? (size_t)(end - text) : got;
    while (length > 0 && strchr(" \t\r", text[length - 1]) != NULL) {
        length--;
    }
    while (length > 0 && (*text == ' ' || *text == '\t')) {
        text++;
        length--;
    }
    if (length == 0 || length > OPT_TOKEN_MAX) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "token file %s: its first line has %s; right would be a token "
                        "of 1 to %d bytes",
                        path, length == 0 ? "nothing" : "too much", OPT_TOKEN_MAX);
    }
    memcpy(out, text, length);
    *size = length;
    return OPT_OK;
}

enum opt_status token_read(const char *path, uint8_t out[OPT_TOKEN_MAX], size_t *size,
                           struct opt_error *error)
{
    char text[READ_BYTES];
    int fd = open_regular(path);
    if (fd < 0) {
        return opt_fail(error, OPT_NOT_FOUND, "token file %s: %s", path,
                        errno == EINVAL ? "it is no regular file" : strerror(errno));
    }
    ssize_t got;
    do {
        got = read(fd, text, sizeof(text));
    } while (got < 0 && errno == EINTR);
    int code = errno;
    close(fd);
    if (got < 0) {
        return opt_fail(error, OPT_NOT_FOUND, "token file %s: %s", path,
                        strerror(code));
    }
    enum opt_status status = take_line(path, text, (size_t)got, out, size, error);
    explicit_bzero(text, sizeof(text));
    return status;
}
