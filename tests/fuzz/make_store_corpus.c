/* make_store_corpus — the inputs that fuzz_store starts from.
 *
 *     make_store_corpus FOLDER
 *
 * A manifest with something in every field, its worker's windows, small .safetensors
 * files, records of some kinds, and a segment of a journal.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/safetensors.h"
#include "server/store/journal_parts.h"
#include "server/store/record.h"
#include "server/store/window_text.h"
#include "tests/support/kept_model.h"

enum { ROOM = 1 << 16 };

static bool save(const char *folder, char form, unsigned number, const void *bytes,
                 size_t size)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%c%02u", folder, form, number);
    FILE *out = fopen(path, "wb");
    if (out == NULL) {
        perror(path);
        return false;
    }
    bool well = fputc(form, out) != EOF && fwrite(bytes, 1, size, out) == size;
    return fclose(out) == 0 && well;
}

static bool save_manifests(const char *folder)
{
    struct opt_error error;
    bool well = true;
    for (unsigned i = 0; i < 2; i++) {
        char *text = NULL;
        size_t size = 0;
        well = manifest_print(kept_manifest(i * 7), &text, &size, &error) == OPT_OK &&
               save(folder, 'm', i, text, size) && well;
        free(text);
    }
    const struct manifest *manifest = kept_manifest(7);
    for (unsigned i = 0; i < manifest->member_count; i++) {
        char *text = window_text_print(manifest->members[i].window);
        well = text != NULL && save(folder, 'w', i, text, strlen(text)) && well;
        free(text);
    }
    return well;
}

static bool save_safetensors(const char *folder)
{
    struct opt_safetensors_entry entries[] = {
        { .name = "a", .type = OPT_SAFETENSORS_F32, .rank = 2, .shape = { 2, 3 } },
        { .name = "b.c", .type = OPT_SAFETENSORS_BF16, .rank = 1, .shape = { 4 } },
        { .name = "d", .type = OPT_SAFETENSORS_F16, .rank = 0 },
        { .name = "e", .type = OPT_SAFETENSORS_U8, .rank = 1, .shape = { 0 } },
    };
    const struct opt_safetensors_pair metadata[] = { { "format", "pt" } };
    struct opt_error error;
    static uint8_t file[ROOM];
    bool well = true;
    for (unsigned count = 0; count <= 4; count++) {
        void *header = NULL;
        size_t size, values = 0;
        if (opt_safetensors_header(entries, count, metadata, count > 1, &header, &size,
                                   &error) != OPT_OK) {
            return false;
        }
        for (unsigned i = 0; i < count; i++) {
            values += entries[i].count * opt_safetensors_size(entries[i].type);
        }
        memcpy(file, header, size);
        well = save(folder, 's', count, file, size + values) && well;
        free(header);
    }
    return well;
}

static const float values[] = { 1, 2, 3, 4 };
static const uint32_t numbers[] = { 1, 7 };
static const struct iovec of_values = { (void *)(uintptr_t)values, sizeof values };
static const struct record_run one = { 0, 1 };
static const struct record_span span = { 0, 0, 1, 1 };
static const struct record_rows rows = {
    .tensor = 1,
    .rows = numbers,
    .row_count = 2,
    .values = { &of_values, 1, sizeof values },
};

static const struct record_entry entries[] = {
    { .kind = RECORD_WORKER,
      .worker = "w",
      .of.worker = { .session = 7,
                     .incarnation = 2,
                     .lost = true,
                     .lost_why = "after" } },
    { .kind = RECORD_MEMBER,
      .model = 5,
      .worker = "w",
      .of.member = { .joined = true, .clock = 4, .since = 2 } },
    { .kind = RECORD_PUSH,
      .model = 5,
      .worker = "w",
      .step = 3,
      .of.push = { .settled = { .sequence = 3,
                                .fate = OPT_FATE_APPLIED,
                                .step = 3 } } },
    { .kind = RECORD_OPTIONS, .model = 5, .step = 4, .of.text = "sgd(lr=1)" },
    { .kind = RECORD_GONE, .model = 5 },
    { .kind = RECORD_FORGOTTEN, .model = 5, .worker = "w" },
    { .kind = RECORD_WEIGHTS,
      .model = 5,
      .of.weights = { .count = 4, .values = { &of_values, 1, sizeof values } } },
    { .kind = RECORD_READY, .model = 5 },
    { .kind = RECORD_STATED, .model = 5, .step = 9, .of.stated = { "a", "b", "lr=1" } },
    { .kind = RECORD_BATCH,
      .model = 5,
      .step = 3,
      .of.batch = { .last = true,
                    .tensors = &one,
                    .tensor_runs = 1,
                    .blocks = &one,
                    .block_runs = 1,
                    .values = { &of_values, 1, sizeof values },
                    .rows = &rows,
                    .rows_count = 1 } },
    { .kind = RECORD_BATCH,
      .model = 5,
      .step = 3,
      .of.batch = { .spans = &span, .span_count = 1 } },
    { .kind = RECORD_STEP, .model = 5, .step = 3 },
};

/* Each alone, and all of them together. */
static bool save_records(const char *folder)
{
    enum { COUNT = sizeof entries / sizeof entries[0] };
    struct record_writer *writer = record_writer_new();
    struct opt_error error;
    static uint8_t bytes[ROOM], segment[ROOM];
    bool well = writer != NULL;
    size_t end = SEGMENT_HEADER;
    for (unsigned i = 0; well && i <= COUNT; i++) {
        const struct iovec *parts;
        size_t count, size = 0;
        record_begin(writer);
        for (unsigned k = i < COUNT ? i : 0; well && k < (i < COUNT ? i + 1 : COUNT);
             k++) {
            well = record_add(writer, &entries[k], &error) == OPT_OK;
        }
        well = well && record_parts(writer, &parts, &count, &error) == OPT_OK;
        for (size_t p = 0; well && p < count; p++) {
            memcpy(bytes + size, parts[p].iov_base, parts[p].iov_len);
            size += parts[p].iov_len;
        }
        well = well && save(folder, 'r', i, bytes, size);
        if (well && size < 256) { /* the first byte of a header says how many follow */
            segment[end] = (uint8_t)size;
            memcpy(segment + end + RECORD_HEADER, bytes, size);
            end += RECORD_HEADER + size + record_padding(size);
        }
    }
    record_writer_free(writer);
    return well && save(folder, 'J', 0, segment, end);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        (void)fprintf(stderr, "usage: make_store_corpus FOLDER\n");
        return 64;
    }
    bool well =
        save_manifests(argv[1]) && save_safetensors(argv[1]) && save_records(argv[1]);
    return well ? 0 : 1;
}
