/* fuzz_store — any bytes, as what is read from files.
 *
 * The first byte says which: 's' a .safetensors file, 'm' a checkpoint's manifest, 'w'
 * the window of a worker's pushes, 'r' a record, 'j' a segment of a journal, and 'J'
 * one whose sums are made right first, because nobody guesses them. What is accepted
 * prints as a text that reads back the same; what is refused has a sentence.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/safetensors.h"
#include "server/store/journal_parts.h"
#include "server/store/manifest.h"
#include "server/store/record.h"
#include "server/store/window_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

enum { IDENTITY = 0x1122, RECORD_LIMIT = 1 << 20 };

static void demand(bool holds, const char *what)
{
    if (!holds) {
        (void)fprintf(stderr, "fuzz_store: %s\n", what);
        abort();
    }
}

static void demand_sentence(enum opt_status status, const struct opt_error *error)
{
    demand(status == OPT_OK || (error->text[0] != '\0' && error->status == status),
           "no sentence");
}

/* A copy that ends where memory does, so that reading on is noticed. */
static uint8_t *copy_of(const uint8_t *bytes, size_t size)
{
    size_t room = (size + 63) / 64 * 64 + 64;
    uint8_t *copy = aligned_alloc(64, room);
    demand(copy != NULL, "no memory");
    memset(copy, 0, room);
    memcpy(copy, bytes, size);
    return copy;
}

static void take_safetensors(const uint8_t *bytes, size_t size)
{
    struct opt_error error = { .text = "" };
    struct opt_safetensors *file = NULL;
    uint8_t *copy = copy_of(bytes, size);
    enum opt_status status =
        opt_safetensors_read(copy, size, OPT_SAFETENSORS_HEADER, &file, &error);
    demand_sentence(status, &error);
    uint64_t sum = 0;
    for (size_t i = 0; status == OPT_OK && i < opt_safetensors_count(file); i++) {
        const struct opt_safetensors_entry *entry = opt_safetensors_entry(file, i);
        const uint8_t *values = entry->data;
        uint64_t n = entry->count * opt_safetensors_size(entry->type);
        demand(values + n <= copy + size, "values beyond the file");
        sum += n;
    }
    demand(sum <= size, "more values than bytes");
    opt_safetensors_free(file);
    free(copy);
}

static void take_manifest(const uint8_t *bytes, size_t size)
{
    struct opt_error error = { .text = "" };
    struct manifest *manifest = NULL, *again = NULL;
    char *text = NULL, *twice = NULL;
    size_t length, length_twice;
    enum opt_status status =
        manifest_read((const char *)bytes, size, "manifest", &manifest, &error);
    demand_sentence(status, &error);
    if (status != OPT_OK) {
        return;
    }
    demand(manifest_print(manifest, &text, &length, &error) == OPT_OK, error.text);
    demand(manifest_read(text, length, "again", &again, &error) == OPT_OK, error.text);
    demand(manifest_print(again, &twice, &length_twice, &error) == OPT_OK, error.text);
    demand(length == length_twice && memcmp(text, twice, length) == 0,
           "a manifest reads back as another");
    free(text);
    free(twice);
    manifest_free(manifest);
    manifest_free(again);
}

static void take_window(const uint8_t *bytes, size_t size)
{
    static struct window window, again;
    char *text = calloc(1, size + 1);
    demand(text != NULL, "no memory");
    memcpy(text, bytes, size);
    window = (struct window){ .last = WINDOW_PUSHES + 5, .newest = 1000 };
    if (window_text_parse(text, &window)) {
        char *printed = window_text_print(&window);
        demand(printed != NULL, "no memory");
        again = (struct window){ .last = window.last, .newest = window.newest };
        demand(window_text_parse(printed, &again), "a window does not read back");
        demand(memcmp(&window, &again, sizeof window) == 0,
               "a window reads back as another");
        free(printed);
    }
    free(text);
}

static void take_record(const uint8_t *bytes, size_t size)
{
    struct opt_error error = { .text = "" };
    struct opt_arena arena;
    struct record record = { .count = 0 };
    uint8_t *copy = copy_of(bytes, size);
    opt_arena_init(&arena, record_arena(record_message_bytes(copy, size)));
    demand_sentence(record_read(copy, size, &arena, &record, &error), &error);
    for (size_t i = 0; i < record.count; i++) {
        demand(record.entries[i].kind > RECORD_NONE &&
                   record.entries[i].kind < RECORD_KINDS,
               "an entry of no kind");
    }
    opt_arena_fini(&arena);
    free(copy);
}

/* ---------------------------------------------------------------- a journal */

/* Give a segment the sums that its bytes have. */
static void mend(uint8_t *bytes, size_t size)
{
    if (size < SEGMENT_HEADER) {
        return;
    }
    struct segment_header header = {
        .format = 1, .identity = IDENTITY, .number = 1, .first = 1
    };
    segment_header_pack(&header, bytes);
    uint64_t seed = segment_seed(IDENTITY, 1), index = 1;
    for (size_t at = SEGMENT_HEADER; at + RECORD_HEADER <= size; index++) {
        struct record_header record = { .size = bytes[at], .index = index };
        size_t left = size - at - RECORD_HEADER;
        uint8_t *body = bytes + at + RECORD_HEADER;
        record.size = record.size < left ? record.size : left;
        record.durable = bytes[at + 1] < index ? bytes[at + 1] : 0;
        record.sum = XXH3_64bits_withSeed(body, (size_t)record.size, seed);
        record_header_pack(&record, seed, bytes + at);
        size_t padding = record_padding(record.size);
        if (left - record.size < padding) {
            return;
        }
        memset(body + record.size, 0, padding);
        at += RECORD_HEADER + (size_t)record.size + padding;
    }
}

static void read_journal(const struct journal_place *place)
{
    struct opt_error error = { .text = "" };
    struct journal_reader *reader = NULL;
    struct journal_head head;
    uint64_t last = 0;
    enum opt_status status = journal_reader_open(place, &reader, &error);
    demand_sentence(status, &error);
    while (status == OPT_OK) {
        status = journal_reader_next(reader, &head, &error);
        if (status == OPT_OK) {
            demand(head.index > last && head.size <= RECORD_LIMIT, "another record");
            last = head.index;
            uint8_t *body = aligned_alloc(64, (head.size + 63) / 64 * 64 + 64);
            demand(body != NULL, "no memory");
            status = journal_reader_body(reader, body, &error);
            free(body);
        }
    }
    if (reader != NULL && status != OPT_OUT_OF_RANGE) {
        demand_sentence(status, &error);
    }
    journal_reader_free(reader);
}

static void take_journal(const uint8_t *bytes, size_t size, bool right)
{
    char path[] = "/tmp/fuzz_store-XXXXXX", name[SEGMENT_NAME];
    demand(mkdtemp(path) != NULL, "no folder");
    int folder = open(path, O_RDONLY | O_DIRECTORY);
    uint8_t *copy = copy_of(bytes, size);
    segment_name(1, name);
    int file = openat(folder, name, O_RDWR | O_CREAT | O_TRUNC, 0600);
    demand(folder >= 0 && file >= 0, "no file");
    if (right) {
        mend(copy, size);
    }
    demand(write(file, copy, size) == (ssize_t)size, "no space");
    close(file);
    read_journal(&(struct journal_place){
        .folder = folder, .path = path, .identity = IDENTITY });
    (void)unlinkat(folder, name, 0);
    close(folder);
    (void)rmdir(path);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (size == 0) {
        return 0;
    }
    uint8_t form = bytes[0];
    bytes++;
    size--;
    if (form == 's') {
        take_safetensors(bytes, size);
    } else if (form == 'm') {
        take_manifest(bytes, size);
    } else if (form == 'w') {
        take_window(bytes, size);
    } else if (form == 'r') {
        take_record(bytes, size);
    } else if (form == 'j' || form == 'J') {
        take_journal(bytes, size < RECORD_LIMIT ? size : RECORD_LIMIT, form == 'J');
    }
    return 0;
}
