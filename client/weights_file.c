/* weights_file — see weights_file.h. */
#define _GNU_SOURCE /* O_TMPFILE */
#include "client/weights_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/dtype.h"
#include "common/random.h"

enum {
    IN_MEMORY = 64 << 20, /* bytes of room that need no file */
    PIECE = 1 << 20,      /* bytes that are read at a time */
    START = 1 << 16       /* bytes in which most headers end */
};

static enum opt_status fail(struct opt_error *error, const char *what, const char *path)
{
    int code = errno;
    enum opt_status status = OPT_UNAVAILABLE;
    if (code == ENOENT || code == ENOTDIR) {
        status = OPT_NOT_FOUND;
    } else if (code == EACCES || code == EPERM || code == EROFS || code == EISDIR) {
        status = OPT_PERMISSION_DENIED;
    } else if (code == ENOSPC || code == EDQUOT || code == EFBIG || code == ENOMEM ||
               code == EMFILE || code == ENFILE) {
        status = OPT_RESOURCE_EXHAUSTED;
    }
    return opt_fail(error, status, "cannot %s %.400s: %s", what, path, strerror(code));
}

/* See that there is space for all of a file, so that writing to its mapping cannot
 * fail. A limit of the process on files' sizes is an error, too, and no signal. */
static bool fill(int file, size_t size)
{
    sigset_t limit, before, pending;
    const struct timespec now = { 0 };
    int code;
    sigemptyset(&limit);
    sigaddset(&limit, SIGXFSZ);
    (void)sigpending(&pending);
    (void)pthread_sigmask(SIG_BLOCK, &limit, &before);
    do {
        code = posix_fallocate(file, 0, (off_t)size);
    } while (code == EINTR);
    if (code == EFBIG && sigismember(&pending, SIGXFSZ) == 0) {
        (void)sigtimedwait(&limit, NULL, &now);
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = code;
    return code == 0;
}

/* ---------------------------------------------------------------- room */

enum opt_status weights_room_new(struct weights_room *room, uint64_t floats,
                                 struct opt_error *error)
{
    size_t bytes = (size_t)floats * sizeof(float);
    if (floats > SIZE_MAX / sizeof(float) / 2) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED,
                        "%" PRIu64 " values are too many", floats);
    }
    const char *folder = getenv("TMPDIR");
    folder = folder != NULL && folder[0] != '\0' ? folder : "/var/tmp";
    int file = -1;
    if (bytes > IN_MEMORY) {
        file = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        if (file < 0 || !fill(file, bytes)) {
            enum opt_status status = fail(error, "make a temporary file in", folder);
            if (file >= 0) {
                close(file);
            }
            return status;
        }
    }
    void *memory = mmap(NULL, bytes > 0 ? bytes : 1, PROT_READ | PROT_WRITE,
                        file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, file, 0);
    if (file >= 0) {
        close(file);
    }
    if (memory == MAP_FAILED) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED,
                        "no memory for %" PRIu64 " values", floats);
    }
    *room = (struct weights_room){ .floats = memory, .bytes = bytes > 0 ? bytes : 1 };
    return OPT_OK;
}

void weights_room_free(struct weights_room *room)
{
    if (room->floats != NULL) {
        munmap(room->floats, room->bytes);
        room->floats = NULL;
    }
}

/* ---------------------------------------------------------------- writing */

/* "FILE.tmp-0123456789abcdef" */
static char *temporary_name(const char *path)
{
    uint64_t number;
    size_t size = strlen(path) + sizeof ".tmp-0123456789abcdef";
    char *name = opt_random_identity(&number) ? malloc(size) : NULL;
    if (name != NULL) {
        snprintf(name, size, "%s.tmp-%016" PRIx64, path, number);
    }
    return name;
}

static enum opt_status make(struct weights_writer *writer, const void *header,
                            size_t header_size, uint64_t values,
                            struct opt_error *error)
{
    writer->temporary = temporary_name(writer->path);
    if (writer->temporary == NULL) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory for a file's name");
    }
    writer->size = header_size + (size_t)values;
    writer->file = open(writer->temporary, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666);
    if (writer->file < 0) {
        enum opt_status status = fail(error, "make", writer->temporary);
        free(writer->temporary);
        writer->temporary = NULL;
        return status;
    }
    if (!fill(writer->file, writer->size)) {
        return fail(error, "write", writer->temporary);
    }
    void *mapped =
        mmap(NULL, writer->size, PROT_READ | PROT_WRITE, MAP_SHARED, writer->file, 0);
    if (mapped == MAP_FAILED) {
        return fail(error, "map", writer->temporary);
    }
    writer->mapped = mapped;
    writer->values = writer->mapped + header_size;
    memcpy(writer->mapped, header, header_size);
    return OPT_OK;
}

enum opt_status weights_writer_open(struct weights_writer *writer, const char *path,
                                    struct opt_safetensors_entry *entries, size_t count,
                                    const struct opt_safetensors_pair *metadata,
                                    size_t metadata_count, struct opt_error *error)
{
    *writer = (struct weights_writer){ .path = path, .file = -1 };
    void *header = NULL;
    size_t size;
    uint64_t values = 0;
    enum opt_status status = opt_safetensors_header(
        entries, count, metadata, metadata_count, &header, &size, error);
    if (status == OPT_OK) {
        for (size_t i = 0; i < count; i++) {
            values += entries[i].count * opt_safetensors_size(entries[i].type);
        }
        status = make(writer, header, size, values, error);
    }
    free(header);
    return status;
}

static enum opt_status sync_folder(const char *path, struct opt_error *error)
{
    char *copy = strdup(path);
    if (copy == NULL) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory for a file's name");
    }
    const char *name = dirname(copy);
    int folder = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum opt_status status = OPT_OK;
    if (folder < 0 || fsync(folder) != 0) {
        status = fail(error, "make durable", name);
    }
    if (folder >= 0) {
        close(folder);
    }
    free(copy);
    return status;
}

enum opt_status weights_writer_finish(struct weights_writer *writer,
                                      struct opt_error *error)
{
    if (msync(writer->mapped, writer->size, MS_SYNC) != 0 || fsync(writer->file) != 0) {
        return fail(error, "write", writer->temporary);
    }
    if (rename(writer->temporary, writer->path) != 0) {
        return fail(error, "give its name to", writer->path);
    }
    free(writer->temporary);
    writer->temporary = NULL;
    return sync_folder(writer->path, error);
}

void weights_writer_close(struct weights_writer *writer)
{
    if (writer->mapped != NULL) {
        munmap(writer->mapped, writer->size);
        writer->mapped = NULL;
    }
    if (writer->temporary != NULL) {
        (void)unlink(writer->temporary);
        free(writer->temporary);
        writer->temporary = NULL;
        close(writer->file);
    } else if (writer->size > 0 && writer->file >= 0) {
        close(writer->file);
    }
    writer->file = -1;
}

/* ---------------------------------------------------------------- reading */

static enum opt_status read_at(const struct weights_reader *reader, void *into,
                               size_t size, uint64_t at, struct opt_error *error)
{
    uint8_t *to = into;
    for (size_t done = 0; done < size;) {
        ssize_t got = pread(reader->file, to + done, size - done, (off_t)(at + done));
        if (got < 0 && errno != EINTR) {
            return fail(error, "read", reader->path);
        }
        if (got == 0) {
            return opt_fail(error, OPT_DATA_LOSS,
                            "%.400s ends at byte %" PRIu64 ", in the middle of values",
                            reader->path, at + done);
        }
        done += got > 0 ? (size_t)got : 0;
    }
    return OPT_OK;
}

static enum opt_status read_header(struct weights_reader *reader, uint64_t size,
                                   struct opt_error *error)
{
    uint8_t prefix[OPT_SAFETENSORS_PREFIX];
    if (size < sizeof prefix) {
        return opt_fail(error, OPT_DATA_LOSS,
                        "%.400s has %" PRIu64 " bytes: too few for a safetensors file",
                        reader->path, size);
    }
    enum opt_status status = read_at(reader, prefix, sizeof prefix, 0, error);
    if (status != OPT_OK) {
        return status;
    }
    reader->start = opt_safetensors_start(prefix);
    if (reader->start > size || reader->start > OPT_SAFETENSORS_HEADER) {
        return opt_fail(error, OPT_DATA_LOSS,
                        "%.400s is not a safetensors file: its header would take "
                        "%" PRIu64 " bytes; the file has %" PRIu64
                        ", and %d are allowed",
                        reader->path, reader->start - sizeof prefix, size,
                        (int)OPT_SAFETENSORS_HEADER);
    }
    void *header = malloc((size_t)reader->start);
    if (header == NULL) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED,
                        "no memory for the header of %.400s", reader->path);
    }
    status = read_at(reader, header, (size_t)reader->start, 0, error);
    struct opt_error why;
    if (status == OPT_OK &&
        opt_safetensors_read_start(header, (size_t)reader->start, size,
                                   OPT_SAFETENSORS_HEADER, &reader->header,
                                   &why) != OPT_OK) {
        status = opt_fail(error, why.status, "%.400s: %s", reader->path, why.text);
    }
    free(header);
    return status;
}

enum opt_status weights_reader_open(struct weights_reader *reader, const char *path,
                                    struct opt_error *error)
{
    struct stat at;
    *reader = (struct weights_reader){ .path = path };
    reader->file = open(path, O_RDONLY | O_CLOEXEC);
    if (reader->file < 0 || fstat(reader->file, &at) != 0) {
        return fail(error, "read", path);
    }
    if (!S_ISREG(at.st_mode)) {
        return opt_fail(error, OPT_INVALID_ARGUMENT, "%.400s is not a file", path);
    }
    return read_header(reader, (uint64_t)at.st_size, error);
}

/* The type as a dtype; false: it is none. */
static bool dtype_of(enum opt_safetensors_type type, enum opt_dtype *out)
{
    switch (type) {
    case OPT_SAFETENSORS_F32:
        *out = OPT_FP32;
        return true;
    case OPT_SAFETENSORS_BF16:
        *out = OPT_BF16;
        return true;
    case OPT_SAFETENSORS_F16:
        *out = OPT_FP16;
        return true;
    default:
        return false;
    }
}

enum opt_status weights_reader_values(const struct weights_reader *reader,
                                      const struct opt_safetensors_entry *entry,
                                      float *out, struct opt_error *error)
{
    enum opt_dtype dtype;
    if (!dtype_of(entry->type, &dtype)) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "tensor \"%.200s\" of %.400s is not of type F32, BF16 or F16",
                        entry->name, reader->path);
    }
    uint64_t at = reader->start + entry->offset;
    if (dtype == OPT_FP32) {
        return read_at(reader, out, (size_t)entry->count * sizeof(float), at, error);
    }
    uint8_t *piece = malloc(PIECE);
    if (piece == NULL) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory to read %.400s",
                        reader->path);
    }
    enum opt_status status = OPT_OK;
    size_t size = opt_dtype_size(dtype), most = PIECE / size, n;
    for (uint64_t done = 0; done < entry->count && status == OPT_OK; done += n) {
        n = entry->count - done < most ? (size_t)(entry->count - done) : most;
        status = read_at(reader, piece, n * size, at + done * size, error);
        if (status == OPT_OK) {
            opt_dtype_widen(dtype, piece, out + done, n);
        }
    }
    free(piece);
    return status;
}

void weights_reader_close(struct weights_reader *reader)
{
    opt_safetensors_free(reader->header);
    reader->header = NULL;
    if (reader->file >= 0) {
        close(reader->file);
        reader->file = -1;
    }
}
