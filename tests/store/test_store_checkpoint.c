/* checkpoint — whole or not there, and what is read is what was written. */
#include "server/store/checkpoint.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/safetensors.h"
#include "server/store/file.h"
#include "tests/support/files.h"
#include "tests/support/kept_model.h"

static struct files files;
static struct opt_error error;
static struct checkpoint_place place;

static void set_up(void)
{
    files_open(&files);
    place = (struct checkpoint_place){ .folder = files.folder, .path = files.path };
}

static void tear_down(void)
{
    files_close(&files);
}

TestSuite(store_checkpoint, .init = set_up, .fini = tear_down);

/* ---------------------------------------------------------------- writing */

/* Write so many values of an array, from an element of a tensor on. */
static enum opt_status write_some(struct checkpoint_writer *writer, uint64_t step,
                                  size_t array, size_t tensor, uint64_t element,
                                  size_t n)
{
    float *values = malloc(n * sizeof *values);
    cr_assert_not_null(values);
    for (size_t i = 0; i < n; i++) {
        values[i] = kept_value(step, array, tensor, element + i);
    }
    size_t half = n / 2;
    const struct iovec parts[] = { { values, half * sizeof *values },
                                   { values + half, (n - half) * sizeof *values } };
    enum opt_status status =
        checkpoint_write(writer, array, tensor, element, parts, 2, &error);
    free(values);
    return status;
}

/* A piece of work: all pieces of a checkpoint, in some order. */
static enum opt_status write_pieces(struct checkpoint_writer *writer, uint64_t step,
                                    unsigned order)
{
    enum { PIECE = 4096, PIECES = 16 };
    const struct manifest *manifest = kept_manifest(step);
    size_t tensors[PIECES];
    uint64_t elements[PIECES];
    size_t count = 0;
    enum opt_status status = OPT_OK;
    for (size_t t = 0; t < manifest->tensor_count; t++) {
        for (uint64_t e = 0; e < manifest->tensors[t].entry.elements; e += PIECE) {
            cr_assert_lt(count, (size_t)PIECES);
            tensors[count] = t;
            elements[count++] = e;
        }
    }
    for (size_t i = 0; status == OPT_OK && i < count; i++) {
        size_t k = order == 0 ? i : order == 1 ? count - 1 - i : i * 5 % count;
        uint64_t left = manifest->tensors[tensors[k]].entry.elements - elements[k];
        for (size_t a = 0; status == OPT_OK && a < KEPT_ARRAYS; a++) {
            status = write_some(writer, step, a, tensors[k], elements[k],
                                left < PIECE ? (size_t)left : PIECE);
        }
    }
    return status;
}

static enum opt_status make_checkpoint(uint64_t step, unsigned order, char *name)
{
    struct checkpoint_writer *writer = NULL;
    enum opt_status status =
        checkpoint_begin(&place, kept_manifest(step), &writer, &error);
    if (status != OPT_OK) {
        return status;
    }
    status = write_pieces(writer, step, order);
    if (status != OPT_OK) {
        checkpoint_abandon(writer);
        return status;
    }
    return checkpoint_finish(writer, name, &error);
}

static void make_good(uint64_t step, unsigned order, char *name)
{
    cr_assert_eq(make_checkpoint(step, order, name), OPT_OK, "%s", error.text);
}

/* ---------------------------------------------------------------- reading */

struct taker {
    uint64_t step;
    size_t array;
    size_t tensor;
    uint64_t element, taken;
    bool wrong;
};

static void take(void *context, size_t tensor, uint64_t element, const float *values,
                 size_t n)
{
    struct taker *taker = context;
    if (tensor != taker->tensor) {
        taker->tensor++;
        taker->element = 0;
    }
    cr_assert_eq(tensor, taker->tensor);
    cr_assert_eq(element, taker->element);
    cr_assert_eq(element % OPT_BLOCK, 0u);
    cr_assert(n > 0 && n <= OPT_BLOCK);
    for (size_t i = 0; i < n; i++) {
        taker->wrong |=
            values[i] != kept_value(taker->step, taker->array, tensor, element + i);
    }
    taker->element += n;
    taker->taken += n;
}

/* Open it and read all of it. */
static enum opt_status read_all(const char *name, uint64_t step)
{
    struct checkpoint_reader *reader = NULL;
    enum opt_status status = checkpoint_open(&place, name, &reader, &error);
    for (size_t a = 0; status == OPT_OK && a < KEPT_ARRAYS; a++) {
        struct taker taker = { .step = step, .array = a };
        status = checkpoint_read(reader, a, &(struct checkpoint_sink){ take, &taker },
                                 &error);
        cr_assert(status != OPT_OK || !taker.wrong);
        cr_assert(status != OPT_OK || taker.taken == 30123u);
    }
    if (status == OPT_OK) {
        kept_expect_same(checkpoint_manifest(reader), kept_manifest(step));
    }
    checkpoint_close(reader);
    return status;
}

Test(store_checkpoint, is_read_as_it_was_written)
{
    char name[CHECKPOINT_NAME];
    for (unsigned order = 0; order < 3; order++) {
        make_good(1200 + order, order, name);
        cr_assert_eq(read_all(name, 1200 + order), OPT_OK, "%s", error.text);
    }
    cr_assert_str_eq(name, "0000000003-step-1202");
    cr_assert_str_eq(files_names(&files, name),
                     "manifest.json manifest.xxh3 slot.exp_avg.safetensors "
                     "slot.exp_avg_sq.safetensors weights.safetensors");
}

/* In whatever order it was written. */
Test(store_checkpoint, has_the_same_bytes_for_the_same_model)
{
    char names[3][CHECKPOINT_NAME], path[256];
    for (unsigned order = 0; order < 3; order++) {
        make_good(7, order, names[order]);
        size_t size, first_size;
        snprintf(path, sizeof path, "%s/manifest.json", names[0]);
        uint8_t *first = files_read(&files, path, &first_size);
        snprintf(path, sizeof path, "%s/manifest.json", names[order]);
        uint8_t *text = files_read(&files, path, &size);
        cr_assert_eq(size, first_size);
        cr_assert_eq(memcmp(text, first, size), 0);
        free(first);
        free(text);
    }
}

/* With the names that everybody expects. */
Test(store_checkpoint, can_be_read_by_others)
{
    char name[CHECKPOINT_NAME], path[256];
    make_good(7, 0, name);
    snprintf(path, sizeof path, "%s/slot.exp_avg.safetensors", name);
    size_t size;
    uint8_t *bytes = files_read(&files, path, &size);
    void *aligned = NULL;
    cr_assert_eq(posix_memalign(&aligned, 64, size), 0);
    memcpy(aligned, bytes, size);
    struct opt_safetensors *read = NULL;
    cr_assert_eq(
        opt_safetensors_read(aligned, size, OPT_SAFETENSORS_HEADER, &read, &error),
        OPT_OK, "%s", error.text);
    cr_assert_eq(opt_safetensors_count(read), (size_t)KEPT_TENSORS);
    const struct opt_safetensors_entry *entry =
        opt_safetensors_find(read, "layer.weight.exp_avg");
    cr_assert_not_null(entry);
    cr_assert_eq(entry->shape[1], 300u);
    cr_assert_eq(((const float *)entry->data)[777], kept_value(7, 1, 0, 777));
    cr_assert_not_null(opt_safetensors_find(read, "scale.exp_avg"));
    opt_safetensors_free(read);
    free(aligned);
    free(bytes);
}

Test(store_checkpoint, is_not_made_with_values_twice_or_missing)
{
    struct checkpoint_writer *writer = NULL;
    cr_assert_eq(checkpoint_begin(&place, kept_manifest(3), &writer, &error), OPT_OK);
    cr_assert_eq(write_some(writer, 3, 0, 0, 100, 50), OPT_OK);
    static const struct {
        uint64_t element;
        size_t n;
    } twice[] = { { 100, 50 }, { 149, 1 }, { 90, 11 }, { 0, 30000 }, { 120, 5 } };
    for (size_t i = 0; i < sizeof twice / sizeof twice[0]; i++) {
        cr_assert_eq(write_some(writer, 3, 0, 0, twice[i].element, twice[i].n),
                     OPT_INTERNAL);
        cr_assert(files_said(&error, "weights.safetensors|written twice"));
    }
    cr_assert_eq(write_some(writer, 3, 0, 0, 150, 1), OPT_OK);
    cr_assert_eq(write_some(writer, 3, 0, 0, 99, 1), OPT_OK);
    cr_assert_eq(write_some(writer, 3, 0, 4, 1, 1), OPT_INTERNAL);
    cr_assert_eq(write_some(writer, 3, 0, 0, 0, 99), OPT_OK);
    cr_assert_eq(checkpoint_finish(writer, NULL, &error), OPT_INTERNAL);
    cr_assert(files_said(&error, "weights.safetensors|has not been written"));
    cr_assert_str_eq(files_names(&files, ""), "");
}

/* ---------------------------------------------------------------- damage */

/* Read everything that is said to be good. */
static enum opt_status verify(const char *name)
{
    struct checkpoint_reader *reader = NULL;
    enum opt_status status = checkpoint_open(&place, name, &reader, &error);
    for (size_t a = 0; status == OPT_OK && a < KEPT_ARRAYS; a++) {
        status = checkpoint_read(reader, a, NULL, &error);
    }
    checkpoint_close(reader);
    return status;
}

static const char *const parts[] = { "manifest.json", "manifest.xxh3",
                                     "weights.safetensors",
                                     "slot.exp_avg_sq.safetensors" };

/* Every bit of what is short, and of what is long every bit at both ends and some in
 * between. */
Test(store_checkpoint, finds_every_flip)
{
    char name[CHECKPOINT_NAME], path[256];
    make_good(5, 0, name);
    for (size_t p = 0; p < sizeof parts / sizeof parts[0]; p++) {
        snprintf(path, sizeof path, "%s/%s", name, parts[p]);
        size_t size;
        uint8_t *bytes = files_read(&files, path, &size);
        size_t step;
        for (size_t bit = 0; bit < size * 8; bit += step) {
            step = bit < 700 || bit + 700 >= size * 8 ? 1 : 509;
            bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
            files_write(&files, path, bytes, size);
            cr_assert_eq(verify(name), OPT_DATA_LOSS, "bit %zu of %s", bit, path);
            cr_assert(files_said(&error, p < 2 ? "manifest." : parts[p]));
            bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        files_write(&files, path, bytes, size);
        free(bytes);
    }
    cr_assert_eq(verify(name), OPT_OK);
}

Test(store_checkpoint, finds_every_cut_and_every_missing_file)
{
    char name[CHECKPOINT_NAME], path[256];
    make_good(5, 0, name);
    for (size_t p = 0; p < sizeof parts / sizeof parts[0]; p++) {
        snprintf(path, sizeof path, "%s/%s", name, parts[p]);
        size_t size;
        uint8_t *bytes = files_read(&files, path, &size);
        for (size_t cut = 0; cut<size; cut += cut> 500 ? 1009 : 1) {
            files_write(&files, path, bytes, cut);
            cr_assert_eq(verify(name), OPT_DATA_LOSS, "%zu bytes of %s", cut, path);
        }
        cr_assert_eq(unlinkat(files.folder, path, 0), 0);
        cr_assert_eq(verify(name), OPT_DATA_LOSS);
        cr_assert(files_said(&error, parts[p]));
        cr_assert(files_said(&error, "is missing"));
        files_write(&files, path, bytes, size);
        free(bytes);
    }
    cr_assert_eq(verify(name), OPT_OK);
}

/* Files of two checkpoints that were mixed up. */
Test(store_checkpoint, belongs_together)
{
    char names[2][CHECKPOINT_NAME], path[256];
    make_good(5, 0, names[0]);
    make_good(6, 0, names[1]);
    size_t size;
    snprintf(path, sizeof path, "%s/weights.safetensors", names[0]);
    uint8_t *bytes = files_read(&files, path, &size);
    snprintf(path, sizeof path, "%s/weights.safetensors", names[1]);
    files_write(&files, path, bytes, size);
    free(bytes);
    cr_assert_eq(verify(names[1]), OPT_DATA_LOSS);
    cr_assert(files_said(&error, "weights.safetensors is damaged: its XXH3-64 is"));
    cr_assert_eq(renameat(files.folder, names[0], files.folder, "0000000009-step-77"),
                 0);
    cr_assert_eq(verify("0000000009-step-77"), OPT_DATA_LOSS);
    cr_assert(files_said(&error, "is of step 5: it has another one's name"));
}

/* ---------------------------------------------------------------- all there are */

Test(store_checkpoint, lists_the_newest_first_and_says_why_not)
{
    char names[3][CHECKPOINT_NAME], path[256];
    for (uint64_t i = 0; i < 3; i++) {
        make_good(9 + i, 0, names[i]);
    }
    snprintf(path, sizeof path, "%s/manifest.json", names[2]);
    files_write(&files, path, "{}", 2);
    cr_assert_eq(mkdirat(files.folder, "tmp-0000000004", 0700), 0);
    cr_assert_eq(mkdirat(files.folder, "copy of mine", 0700), 0);
    struct checkpoint_entry *entries = NULL;
    size_t count;
    cr_assert_eq(checkpoint_list(&place, &entries, &count, &error), OPT_OK);
    cr_assert_eq(count, 4u);
    cr_assert_str_eq(entries[0].name, names[2]);
    cr_assert_eq(entries[0].error.status, OPT_DATA_LOSS);
    cr_assert(
        files_said(&entries[0].error, "0000000003-step-11/manifest.json is damaged"));
    for (size_t i = 1; i < 3; i++) {
        cr_assert_str_eq(entries[i].name, names[2 - i]);
        cr_assert_eq(entries[i].step, 11 - i);
        cr_assert_eq(entries[i].record, 99u);
        cr_assert_eq(entries[i].error.status, OPT_OK);
    }
    cr_assert(files_said(&entries[3].error, "copy of mine is not a checkpoint"));
    free(entries);
}

Test(store_checkpoint, keeps_as_many_good_ones_as_it_is_told)
{
    char names[6][CHECKPOINT_NAME], path[256], all[1024];
    for (uint64_t i = 0; i < 6; i++) {
        make_good(i, 0, names[i]);
    }
    snprintf(path, sizeof path, "%s/manifest.xxh3", names[4]);
    cr_assert_eq(unlinkat(files.folder, path, 0), 0);
    cr_assert_eq(checkpoint_prune(&place, CHECKPOINTS_KEPT, &error), OPT_OK, "%s",
                 error.text);
    snprintf(all, sizeof all, "%s %s %s %s", names[2], names[3], names[4], names[5]);
    cr_assert_str_eq(files_names(&files, ""), all);
    make_good(6, 0, names[0]);
    cr_assert_str_eq(names[0], "0000000007-step-6");
}

/* ---------------------------------------------------------------- failing disks */

/* Whatever fails, the checkpoint before is whole and the newest, or the new one is. */
Test(store_checkpoint, harms_no_other_one_whatever_call_fails)
{
    static const int codes[] = { ENOSPC, EIO };
    char before[CHECKPOINT_NAME];
    make_good(1, 0, before);
    for (int round = 0; round < 4; round++) {
        for (unsigned at = 1;; at++) {
            struct files_fault fault = { .calls = FILES_ANY,
                                         .at = at,
                                         .code = codes[round % 2],
                                         .stays = round / 2 != 0,
                                         .written = at * 997 % 5000 };
            char name[CHECKPOINT_NAME] = "";
            files_fail(&fault);
            enum opt_status status = make_checkpoint(2, 2, name);
            if (status == OPT_OK) {
                status = checkpoint_prune(&place, 1, &error);
            }
            files_mend();
            if (fault.failed > 0 && status != OPT_OK) {
                cr_assert(files_said(&error, files.path));
            }
            const char *kept = name[0] != '\0' ? name : before;
            cr_assert_eq(read_all(kept, name[0] != '\0' ? 2 : 1), OPT_OK, "%s",
                         error.text);
            if (fault.failed == 0) {
                cr_assert_eq(status, OPT_OK);
                cr_assert_str_eq(files_names(&files, ""), name);
                break;
            }
            if (name[0] != '\0') { /* for the next time */
                make_good(1, 0, before);
                cr_assert_eq(checkpoint_prune(&place, 1, &error), OPT_OK);
                cr_assert_str_eq(files_names(&files, ""), before);
            }
        }
        make_good(1, 0, before);
        cr_assert_eq(checkpoint_prune(&place, 1, &error), OPT_OK);
    }
}

/* What was written has been synced before it has its name, and once only. */
Test(store_checkpoint, is_durable_when_it_is_there)
{
    struct files_fault fault = { .calls = FILES_SYNC };
    files_fail(&fault);
    make_good(1, 0, NULL);
    /* Three arrays, the manifest and its digest, their folder, and its own. */
    cr_assert_eq(fault.count, 7u);
}
