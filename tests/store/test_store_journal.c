/* journal_file — what was appended comes back in order, and nothing else does. */
#include "server/store/journal_file.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/store/file.h"
#include "tests/support/files.h"

enum {
    HEADER = 64, /* of a segment, */
    HEAD = 40,   /* and of a record */
    SMALL = 400  /* bytes of a segment that is full */
};

static struct files files;
static struct opt_error error;
static struct journal_place place;

static void set_up(void)
{
    files_open(&files);
    place = (struct journal_place){ .folder = files.folder,
                                    .path = files.path,
                                    .identity = 0x1234567890ABCDEF };
}

static void tear_down(void)
{
    files_close(&files);
}

TestSuite(store_journal, .init = set_up, .fini = tear_down);

/* The record with that index: bytes that are known from it, so many as size says. */
static void fill(uint64_t index, uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (uint8_t)(index * 31 + i * 7 + (i >> 8));
    }
}

static size_t size_of(uint64_t index)
{
    return (size_t)(index * 37 % 101);
}

static const char *name_of(uint64_t number)
{
    static char name[32];
    snprintf(name, sizeof name, "%020llu.journal", (unsigned long long)number);
    return name;
}

static enum opt_status append(struct journal *journal)
{
    uint8_t bytes[128];
    uint64_t index = journal_next(journal), got = 0;
    size_t size = size_of(index), cut = size / 3;
    fill(index, bytes, size);
    const struct iovec parts[] = { { bytes, cut },
                                   { bytes + cut, 0 },
                                   { bytes + cut, size - cut } };
    enum opt_status status = journal_append(journal, parts, 3, &got, &error);
    if (status == OPT_OK) {
        cr_assert_eq(got, journal_next(journal) - 1);
    }
    return status;
}

static void append_all(struct journal *journal, uint64_t to)
{
    while (journal_next(journal) <= to) {
        cr_assert_eq(append(journal), OPT_OK, "%s", error.text);
    }
}

static void sync_all(struct journal *journal)
{
    cr_assert_eq(journal_sync(journal, &error), OPT_OK, "%s", error.text);
    cr_assert_eq(journal_durable(journal), journal_next(journal) - 1);
}

/* Read records from the reader's place on, each checked. Returns the index after the
 * last; *status is why there are no more. */
static uint64_t read_on(struct journal_reader *reader, uint64_t index,
                        enum opt_status *status)
{
    struct journal_head head;
    uint8_t bytes[128], expected[128];
    while ((*status = journal_reader_next(reader, &head, &error)) == OPT_OK) {
        cr_assert_eq(head.index, index);
        cr_assert_eq(head.size, size_of(index));
        *status = journal_reader_body(reader, bytes, &error);
        if (*status != OPT_OK) {
            break;
        }
        fill(index, expected, head.size);
        cr_assert_eq(memcmp(bytes, expected, head.size), 0);
        index++;
    }
    return index;
}

static struct journal_reader *open_reader(void)
{
    struct journal_reader *reader = NULL;
    cr_assert_eq(journal_reader_open(&place, &reader, &error), OPT_OK, "%s",
                 error.text);
    return reader;
}

/* Open the journal at its end, which is before `next`. */
static struct journal *open_journal(uint64_t next, uint64_t segment_bytes)
{
    struct journal *journal = NULL;
    enum opt_status status;
    struct journal_reader *reader = open_reader();
    cr_assert_eq(read_on(reader, journal_reader_first(reader), &status), next);
    cr_assert_eq(status, OPT_OUT_OF_RANGE, "%s", error.text);
    cr_assert_eq(journal_open(reader, next, segment_bytes, &journal, &error), OPT_OK,
                 "%s", error.text);
    journal_reader_free(reader);
    cr_assert_eq(journal_next(journal), next);
    return journal;
}

static void expect_torn(uint64_t next, uint64_t torn, const char *words)
{
    enum opt_status status;
    const char *path;
    uint64_t at;
    struct journal_reader *reader = open_reader();
    cr_assert_eq(read_on(reader, journal_reader_first(reader), &status), next);
    cr_assert_eq(status, OPT_OUT_OF_RANGE, "%s", error.text);
    cr_assert_eq(journal_reader_torn(reader, &path, &at), torn);
    cr_assert(strstr(path, words) != NULL, "%s", path);
    journal_reader_free(reader);
}

/* Opening or reading it all fails. */
static void expect_refused(enum opt_status expected, const char *words)
{
    struct journal_reader *reader = NULL;
    enum opt_status status = journal_reader_open(&place, &reader, &error);
    if (status == OPT_OK) {
        (void)read_on(reader, journal_reader_first(reader), &status);
        journal_reader_free(reader);
    }
    cr_assert_eq(status, expected, "%s", error.text);
    cr_assert(files_said(&error, words));
}

/* ---------------------------------------------------------------- as it should be */

Test(store_journal, gives_back_what_was_appended)
{
    struct journal *journal = open_journal(1, SMALL);
    append_all(journal, 30);
    cr_assert_gt(journal_segments(journal), 3u);
    sync_all(journal);
    journal_free(journal);
    journal = open_journal(31, SMALL);
    append_all(journal, 60);
    sync_all(journal);
    journal_free(journal);
    expect_torn(61, 0, "");
}

Test(store_journal, goes_to_any_record)
{
    struct journal *journal = open_journal(1, SMALL);
    append_all(journal, 40);
    sync_all(journal);
    cr_assert_eq(journal_drop(journal, 20, &error), OPT_OK);
    journal_free(journal);
    struct journal_reader *reader = open_reader();
    uint64_t first = journal_reader_first(reader);
    cr_assert(first > 10 && first <= 20, "%d", (int)first);
    for (uint64_t index = 45; index >= first; index--) {
        enum opt_status status;
        cr_assert_eq(journal_reader_seek(reader, index, &error), OPT_OK);
        cr_assert_eq(read_on(reader, index < 41 ? index : 41, &status), 41u);
        cr_assert_eq(status, OPT_OUT_OF_RANGE);
    }
    cr_assert_eq(journal_reader_seek(reader, first - 1, &error), OPT_DATA_LOSS);
    cr_assert(files_said(&error, "begins with record|is needed"));
    journal_reader_free(reader);
}

Test(store_journal, skips_records_that_nobody_wants)
{
    struct journal_head head;
    struct journal *journal = open_journal(1, SMALL);
    append_all(journal, 20);
    sync_all(journal);
    uint64_t bytes = journal_bytes(journal);
    journal_free(journal);
    struct journal_reader *reader = open_reader();
    for (uint64_t index = 1; index <= 20; index++) {
        cr_assert_eq(journal_reader_next(reader, &head, &error), OPT_OK);
        cr_assert_eq(head.index, index);
        cr_assert_lt(head.bytes_behind, bytes);
        bytes = head.bytes_behind + 1;
    }
    cr_assert_eq(bytes, 1u);
    cr_assert_eq(journal_reader_next(reader, &head, &error), OPT_OUT_OF_RANGE);
    journal_reader_free(reader);
}

Test(store_journal, drops_only_what_is_covered_and_is_not_written)
{
    struct journal *journal = open_journal(1, SMALL);
    append_all(journal, 40);
    size_t segments = journal_segments(journal);
    cr_assert_eq(journal_drop(journal, 1, &error), OPT_OK);
    cr_assert_eq(journal_segments(journal), segments);
    cr_assert_eq(journal_drop(journal, 1000, &error), OPT_OK);
    cr_assert_eq(journal_segments(journal), 1u);
    append_all(journal, 41);
    sync_all(journal);
    journal_free(journal);
    struct journal_reader *reader = open_reader();
    enum opt_status status;
    cr_assert_eq(read_on(reader, journal_reader_first(reader), &status), 42u);
    journal_reader_free(reader);
}

Test(store_journal, one_sync_is_for_all_records_and_none_is_made_in_vain)
{
    struct journal *journal = open_journal(1, JOURNAL_SEGMENT_BYTES);
    append_all(journal, 1);
    struct files_fault fault = { .calls = FILES_SYNC };
    files_fail(&fault);
    append_all(journal, 50);
    sync_all(journal);
    sync_all(journal);
    cr_assert_eq(fault.count, 1u);
    journal_free(journal);
}

Test(store_journal, a_record_is_written_by_one_call)
{
    struct journal *journal = open_journal(1, JOURNAL_SEGMENT_BYTES);
    append_all(journal, 1);
    struct files_fault fault = { .calls = FILES_WRITE };
    files_fail(&fault);
    append_all(journal, 11);
    cr_assert_eq(fault.count, 10u);
    journal_free(journal);
}

/* Again and again, without a record in between. */
Test(store_journal, does_not_grow_by_being_opened)
{
    for (int i = 0; i < 5; i++) {
        journal_free(open_journal(1, SMALL));
        cr_assert_str_eq(files_names(&files, ""), "");
    }
    struct journal *journal = open_journal(1, SMALL);
    append_all(journal, 1);
    sync_all(journal);
    journal_free(journal);
    for (int i = 0; i < 5; i++) {
        journal_free(open_journal(2, SMALL));
        cr_assert_str_eq(files_names(&files, ""), name_of(1));
    }
}

/* ---------------------------------------------------------------- torn tails */

/* At any byte of the last records, none of which was said to be durable. */
Test(store_journal, cuts_a_tail_wherever_it_is_torn)
{
    struct journal *journal = open_journal(1, JOURNAL_SEGMENT_BYTES);
    uint64_t ends[6] = { 0 };
    for (uint64_t i = 1; i <= 5; i++) {
        append_all(journal, i);
        ends[i] = journal_bytes(journal);
    }
    journal_free(journal);
    ends[0] = HEADER;
    size_t size;
    uint8_t *whole = files_read(&files, name_of(1), &size);
    for (size_t cut = 0; cut <= size; cut++) {
        files_write(&files, name_of(1), whole, cut);
        size_t kept = 0;
        while (kept < 5 && ends[kept + 1] <= cut) {
            kept++;
        }
        uint64_t torn = cut < HEADER ? (cut > 0 ? cut : 1) : cut - ends[kept];
        expect_torn(kept + 1, torn, torn > 0 ? name_of(1) : "");
        journal = open_journal(kept + 1, JOURNAL_SEGMENT_BYTES);
        append_all(journal, 7);
        sync_all(journal);
        journal_free(journal);
        expect_torn(8, 0, "");
        cr_assert_eq(file_remove(files.folder, name_of(2), "", &error), OPT_OK);
    }
    free(whole);
}

/* The file has its size, but not all of its content: zeros, or what was there before.
 */
Test(store_journal, cuts_a_tail_that_is_not_what_was_written)
{
    struct journal *journal = open_journal(1, JOURNAL_SEGMENT_BYTES);
    append_all(journal, 4);
    sync_all(journal);
    uint64_t durable = journal_bytes(journal);
    append_all(journal, 9);
    journal_free(journal);
    size_t size;
    uint8_t *whole = files_read(&files, name_of(1), &size);
    for (size_t from = (size_t)durable; from < size; from += 5) {
        for (int round = 0; round < 2; round++) {
            uint8_t *damaged = malloc(size);
            cr_assert_not_null(damaged);
            memcpy(damaged, whole, size);
            for (size_t i = from; i < size && i < from + 64; i++) {
                damaged[i] = round == 0 ? 0 : (uint8_t)(i * 89);
            }
            files_write(&files, name_of(1), damaged, size);
            free(damaged);
            enum opt_status status;
            struct journal_reader *reader = open_reader();
            uint64_t next = read_on(reader, 1, &status);
            cr_assert(next >= 5 && next <= 9, "%d", (int)next);
            cr_assert_eq(status, OPT_OUT_OF_RANGE, "%s", error.text);
            journal_reader_free(reader);
        }
    }
    free(whole);
}

/* ---------------------------------------------------------------- damage */

/* Of records that later ones say were durable, every bit. */
Test(store_journal, finds_every_flip_in_what_was_durable)
{
    struct journal *journal = open_journal(1, 300);
    append_all(journal, 11);
    sync_all(journal);
    append_all(journal, 12);
    sync_all(journal);
    size_t segments = journal_segments(journal);
    journal_free(journal);
    for (size_t number = 1; number <= segments; number++) {
        size_t size, end;
        uint8_t *bytes = files_read(&files, name_of(number), &size);
        end = size;
        if (number == segments) { /* the last record is nobody's witness */
            end -= HEAD + (size_of(12) + 7) / 8 * 8;
        }
        for (size_t bit = 0; bit < end * 8; bit++) {
            bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
            files_write(&files, name_of(number), bytes, size);
            expect_refused(OPT_DATA_LOSS, name_of(number));
            bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        files_write(&files, name_of(number), bytes, size);
        free(bytes);
    }
    expect_torn(13, 0, "");
}

Test(store_journal, finds_every_cut_of_a_file_in_the_middle)
{
    struct journal *journal = open_journal(1, 300);
    append_all(journal, 12);
    sync_all(journal);
    journal_free(journal);
    size_t size;
    uint8_t *bytes = files_read(&files, name_of(1), &size);
    for (size_t cut = 0; cut < size; cut++) {
        files_write(&files, name_of(1), bytes, cut);
        expect_refused(OPT_DATA_LOSS, name_of(1));
    }
    free(bytes);
    cr_assert_eq(file_remove(files.folder, name_of(2), "", &error), OPT_OK);
    files_write(&files, name_of(1), "", 0);
    expect_refused(OPT_DATA_LOSS, name_of(1));
}

Test(store_journal, names_the_file_the_place_and_what_to_do)
{
    struct journal *journal = open_journal(1, JOURNAL_SEGMENT_BYTES);
    append_all(journal, 2);
    sync_all(journal);
    uint64_t at = journal_bytes(journal);
    append_all(journal, 3);
    sync_all(journal);
    append_all(journal, 4);
    journal_free(journal);
    size_t size;
    uint8_t *bytes = files_read(&files, name_of(1), &size);
    char words[128];
    snprintf(words, sizeof words,
             "%s is damaged at byte %d, in record 3|put a whole copy", name_of(1),
             (int)at);
    bytes[at + HEAD] ^= 1;
    files_write(&files, name_of(1), bytes, size);
    expect_refused(OPT_DATA_LOSS, words);
    cr_assert(
        files_said(&error, "its bytes do not match their sum|--recover=previous"));
    bytes[at + HEAD] ^= 1;
    bytes[at + 8] ^= 1;
    files_write(&files, name_of(1), bytes, size);
    expect_refused(OPT_DATA_LOSS, words);
    cr_assert(files_said(&error, "its header does not match"));
    free(bytes);
}

Test(store_journal, misses_a_file_that_is_not_there)
{
    struct journal *journal = open_journal(1, 300);
    append_all(journal, 20);
    sync_all(journal);
    journal_free(journal);
    cr_assert_eq(file_remove(files.folder, name_of(2), "", &error), OPT_OK);
    expect_refused(OPT_DATA_LOSS, "segments 1 and 3|put the missing files back");
    cr_assert_eq(file_remove(files.folder, name_of(1), "", &error), OPT_OK);
    struct journal_reader *reader = open_reader();
    cr_assert_eq(journal_reader_seek(reader, 1, &error), OPT_DATA_LOSS);
    cr_assert(files_said(&error, "record 1 is needed"));
    journal_reader_free(reader);
    for (uint64_t i = 3; i <= 20; i++) {
        cr_assert_eq(file_remove(files.folder, name_of(i), "", &error), OPT_OK);
    }
    reader = open_reader();
    cr_assert_eq(journal_reader_seek(reader, 1, &error), OPT_OK);
    cr_assert_eq(journal_reader_seek(reader, 8, &error), OPT_DATA_LOSS);
    cr_assert(files_said(&error, "is empty; it should go on at 8"));
    journal_reader_free(reader);
}

Test(store_journal, refuses_what_is_not_its_own)
{
    struct journal *journal = open_journal(1, SMALL);
    append_all(journal, 3);
    sync_all(journal);
    journal_free(journal);
    place.identity = 5;
    expect_refused(OPT_DATA_LOSS,
                   "belongs to data directory 1234567890abcdef|0000000000000005");
    place.identity = 0x1234567890ABCDEF;
    size_t size;
    uint8_t *bytes = files_read(&files, name_of(1), &size);
    files_write(&files, name_of(2), bytes, size);
    expect_refused(OPT_DATA_LOSS, "the header of segment 1|another file");
    free(bytes);
    cr_assert_eq(file_remove(files.folder, name_of(2), "", &error), OPT_OK);
    files_write(&files, "notes.txt", "", 0);
    expect_refused(OPT_DATA_LOSS, "notes.txt is not a segment|move it elsewhere");
}

/* ---------------------------------------------------------------- failing disks */

static void expect_whole(uint64_t next)
{
    enum opt_status status;
    struct journal_reader *reader = open_reader();
    cr_assert_eq(read_on(reader, 1, &status), next);
    cr_assert_eq(status, OPT_OUT_OF_RANGE, "%s", error.text);
    journal_reader_free(reader);
}

/* After a write that failed the record is appended again, elsewhere. */
Test(store_journal, goes_on_in_another_file_after_a_failed_write)
{
    for (size_t written = 0; written < 60; written += 7) {
        for (int cut_fails = 0; cut_fails < 2; cut_fails++) {
            struct journal *journal = open_journal(1, JOURNAL_SEGMENT_BYTES);
            append_all(journal, 3);
            struct files_fault fault = {
                .calls = FILES_WRITE, .at = 1, .code = ENOSPC, .written = written
            };
            fault.calls |= cut_fails ? FILES_CUT : 0;
            fault.stays = cut_fails;
            files_fail(&fault);
            cr_assert_eq(append(journal), OPT_RESOURCE_EXHAUSTED);
            cr_assert(files_said(&error, "cannot write|No space left"));
            files_mend();
            cr_assert_eq(journal_next(journal), 4u);
            append_all(journal, 6);
            sync_all(journal);
            cr_assert_eq(journal_segments(journal), 2u);
            journal_free(journal);
            expect_whole(7);
            for (uint64_t i = 1; i <= 2; i++) {
                cr_assert_eq(file_remove(files.folder, name_of(i), "", &error), OPT_OK);
            }
        }
    }
}

/* After a sync that failed nothing since the last one counts, though it may be there.
 */
Test(store_journal, has_records_again_after_a_failed_sync)
{
    struct journal *journal = open_journal(1, JOURNAL_SEGMENT_BYTES);
    append_all(journal, 3);
    sync_all(journal);
    append_all(journal, 5);
    struct files_fault fault = { .calls = FILES_SYNC, .at = 1, .code = EIO };
    files_fail(&fault);
    cr_assert_eq(journal_sync(journal, &error), OPT_UNAVAILABLE);
    cr_assert(files_said(&error, "cannot make durable|Input/output error"));
    files_mend();
    cr_assert_eq(journal_next(journal), 4u);
    cr_assert_eq(journal_durable(journal), 3u);
    append_all(journal, 8);
    sync_all(journal);
    cr_assert_eq(journal_segments(journal), 2u);
    journal_free(journal);
    expect_whole(9);
}

Test(store_journal, tells_of_records_that_are_lost)
{
    struct journal *journal = open_journal(1, JOURNAL_SEGMENT_BYTES);
    append_all(journal, 3);
    sync_all(journal);
    append_all(journal, 5);
    struct files_fault fault = { .calls = FILES_SYNC, .at = 1, .code = EIO };
    files_fail(&fault);
    cr_assert_eq(journal_sync(journal, &error), OPT_UNAVAILABLE);
    files_mend();
    journal_skip(journal, 6);
    append_all(journal, 8);
    sync_all(journal);
    journal_free(journal);
    struct journal_reader *reader = open_reader();
    enum opt_status status;
    cr_assert_eq(read_on(reader, 1, &status), 4u);
    cr_assert_eq(status, OPT_DATA_LOSS);
    cr_assert(
        files_said(&error, "begins with record 6, where 4 is due|the disk failed"));
    cr_assert_eq(journal_reader_seek(reader, 6, &error), OPT_OK);
    cr_assert_eq(read_on(reader, 6, &status), 9u);
    cr_assert_eq(status, OPT_OUT_OF_RANGE);
    journal_reader_free(reader);
}

/* A checkpoint that is durable may know of records that the journal has lost. */
Test(store_journal, goes_on_behind_a_checkpoint)
{
    struct journal *journal = open_journal(1, JOURNAL_SEGMENT_BYTES);
    append_all(journal, 3);
    sync_all(journal);
    journal_free(journal);
    struct journal_reader *reader = open_reader();
    enum opt_status status;
    cr_assert_eq(journal_reader_seek(reader, 8, &error), OPT_OK);
    cr_assert_eq(read_on(reader, 0, &status), 0u);
    cr_assert_eq(journal_open(reader, 8, SMALL, &journal, &error), OPT_OK);
    journal_reader_free(reader);
    append_all(journal, 9);
    sync_all(journal);
    journal_free(journal);
    reader = open_reader();
    cr_assert_eq(journal_reader_seek(reader, 8, &error), OPT_OK);
    cr_assert_eq(read_on(reader, 8, &status), 10u);
    journal_reader_free(reader);
}

/* Whatever call fails: what was said to be durable is there, each record once, and the
 * journal goes on as soon as calls work again. */
Test(store_journal, survives_the_failure_of_any_call)
{
    static const int codes[] = { EIO, ENOSPC };
    for (int round = 0; round < 4; round++) {
        for (unsigned at = 1;; at++) {
            struct journal *journal = open_journal(1, 300);
            append_all(journal, 2);
            struct files_fault fault = { .calls = FILES_CHANGE,
                                         .at = at,
                                         .code = codes[round % 2],
                                         .stays = round / 2 != 0,
                                         .written = at * 13 % 50 };
            files_fail(&fault);
            uint64_t durable = 0;
            for (int i = 0; i < 24; i++) {
                (void)append(journal);
                if (i % 3 == 2 && journal_sync(journal, &error) == OPT_OK) {
                    durable = journal_durable(journal);
                    cr_assert_eq(durable, journal_next(journal) - 1);
                }
                if (i == 15) {
                    (void)journal_drop(journal, 4, &error);
                }
                cr_assert_geq(journal_next(journal), durable + 1);
            }
            files_mend();
            struct journal_reader *reader = open_reader();
            enum opt_status status;
            uint64_t first = journal_reader_first(reader);
            cr_assert_leq(first, 4u);
            cr_assert_gt(read_on(reader, first, &status), durable);
            cr_assert_eq(status, OPT_OUT_OF_RANGE, "%s", error.text);
            journal_reader_free(reader);
            append_all(journal, 40);
            sync_all(journal);
            journal_free(journal);
            reader = open_reader();
            first = journal_reader_first(reader);
            cr_assert_eq(read_on(reader, first, &status), 41u);
            cr_assert_eq(status, OPT_OUT_OF_RANGE, "%s", error.text);
            journal_reader_free(reader);
            bool done = fault.failed == 0;
            for (uint64_t i = 1; i <= 60; i++) {
                cr_assert_eq(file_remove(files.folder, name_of(i), "", &error), OPT_OK);
            }
            if (done) {
                break;
            }
        }
    }
}

/* And while it is read or opened: it says so, and another try finds all of it. */
Test(store_journal, can_be_opened_after_any_failure_to_open_it)
{
    struct journal *journal = open_journal(1, 300);
    append_all(journal, 12);
    sync_all(journal);
    uint64_t bytes = journal_bytes(journal);
    size_t segments = journal_segments(journal), size;
    journal_free(journal);
    uint8_t *last = files_read(&files, name_of(segments), &size);
    last = realloc(last, size + 9);
    cr_assert_not_null(last);
    memset(last + size, 7, 9);
    for (unsigned at = 1;; at++) {
        files_write(&files, name_of(segments), last, size + 9);
        struct files_fault fault = { .calls = FILES_ANY, .at = at, .code = EIO };
        files_fail(&fault);
        struct journal_reader *reader = NULL;
        journal = NULL;
        enum opt_status status = journal_reader_open(&place, &reader, &error);
        if (status == OPT_OK) {
            uint64_t next = read_on(reader, 1, &status);
            if (status == OPT_OUT_OF_RANGE) {
                cr_assert_eq(next, 13u);
                status = journal_open(reader, next, 300, &journal, &error);
            }
        }
        files_mend();
        journal_reader_free(reader);
        journal_free(journal);
        if (status == OPT_OK) {
            cr_assert_eq(fault.failed, 0u);
            break;
        }
        cr_assert_eq(status, OPT_UNAVAILABLE);
        cr_assert(files_said(&error, files.path));
        journal = open_journal(13, 300);
        cr_assert_eq(journal_bytes(journal), bytes);
        journal_free(journal);
    }
    free(last);
}
