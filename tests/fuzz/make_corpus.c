/* make_corpus — the inputs that fuzz_frame starts from: one of every message.
 *
 *     make_corpus FOLDER
 *
 * Each file is one byte (how the rest arrives, see fuzz_frame.c) and one or two frames.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "common/field.h"
#include "common/frame.h"
#include "tests/support/wire_cases.h"

enum { ROOM = 1 << 18 };

struct file {
    size_t size;
    uint8_t bytes[ROOM];
};

static void append(struct file *file, const void *bytes, size_t size)
{
    memcpy(file->bytes + file->size, bytes, size);
    file->size += size;
}

static void append_frame(struct file *file, const uint8_t *header, size_t header_size,
                         const uint8_t *data, size_t data_size)
{
    uint8_t prefix[4];
    uint8_t tag[12];
    size_t tag_size = 0;
    opt_frame_begin(header_size, data_size, prefix, tag, &tag_size);
    append(file, prefix, sizeof(prefix));
    append(file, header, header_size);
    append(file, tag, tag_size);
    append(file, data, data_size);
}

/* The same with data before the other fields. */
static void append_unordered(struct file *file, const uint8_t *header,
                             size_t header_size, const uint8_t *data, size_t data_size)
{
    uint8_t prefix[4];
    uint8_t tag[12];
    size_t tag_size = 0;
    opt_frame_begin(header_size, data_size, prefix, tag, &tag_size);
    append(file, prefix, sizeof(prefix));
    append(file, tag, tag_size);
    append(file, data, data_size);
    append(file, header, header_size);
}

static int save(const char *folder, const char *name, const struct file *file)
{
    char path[512];
    int length = snprintf(path, sizeof(path), "%s/%s", folder, name);
    for (char *p = path + strlen(folder) + 1; *p != '\0'; p++) {
        if (!isalnum((unsigned char)*p)) {
            *p = '_';
        }
    }
    FILE *out = length < (int)sizeof(path) ? fopen(path, "wb") : NULL;
    if (out == NULL) {
        perror(path);
        return 1;
    }
    size_t written = fwrite(file->bytes, 1, file->size, out);
    return fclose(out) != 0 || written != file->size;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        (void)fprintf(stderr, "usage: make_corpus FOLDER\n");
        return 64;
    }
    static const uint8_t nothing[ROOM];
    static uint8_t packed[ROOM];
    static struct file file;
    int failed = 0;
    for (size_t i = 0; i < wire_case_count; i++) {
        const struct wire_case *c = &wire_cases[i];
        size_t size = wire_any_pack(&c->any, packed, sizeof(packed));
        file.size = 0;
        append(&file, &(uint8_t){ (uint8_t)(i * 37) }, 1);
        if (c->any.kind == WIRE_REQUEST || c->any.kind == WIRE_REPLY) {
            /* Large data would only make the fuzzer slow: the header still announces
             * it, and the stream ends early. */
            append_frame(&file, packed, size, nothing, c->data_size);
            size_t most = 2048;
            file.size = file.size < most ? file.size : most;
        } else {
            static const uint8_t header[] = { 1 << 3, 1 };
            append_frame(&file, header, sizeof(header), packed, size);
            append_unordered(&file, header, sizeof(header), packed, size);
        }
        failed |= save(argv[1], c->name, &file);
    }
    return failed;
}
