/* file — what is written is there, whatever the calls do meanwhile. */
#include "server/store/file.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/files.h"

static struct files files;
static struct opt_error error;

static void set_up(void)
{
    files_open(&files);
}

static void tear_down(void)
{
    files_close(&files);
}

TestSuite(store_file, .init = set_up, .fini = tear_down);

static int make(const char *name)
{
    int file;
    cr_assert_eq(
        file_open(files.folder, name, O_RDWR | O_CREAT | O_EXCL, name, &file, &error),
        OPT_OK, "%s", error.text);
    return file;
}

Test(store_file, writes_all_parts_at_their_place)
{
    enum { COUNT = 300 };
    static char bytes[COUNT];
    struct iovec parts[COUNT + 2] = { 0 };
    for (int i = 0; i < COUNT; i++) {
        bytes[i] = (char)i;
        parts[i + 1] = (struct iovec){ .iov_base = &bytes[i], .iov_len = 1 };
    }
    int file = make("a");
    cr_assert_eq(file_write(file, parts, COUNT + 2, 5, "a", &error), OPT_OK);
    char back[COUNT];
    cr_assert_eq(file_read(file, back, COUNT, 5, "a", &error), OPT_OK);
    cr_assert_eq(memcmp(back, bytes, COUNT), 0);
    uint64_t size;
    cr_assert_eq(file_size(file, "a", &size, &error), OPT_OK);
    cr_assert_eq(size, COUNT + 5u);
    close(file);
}

Test(store_file, goes_on_after_a_short_write_and_an_interruption)
{
    static const char text[] = "abcdefghij";
    struct iovec parts[] = { { (void *)(uintptr_t)text, 3 },
                             { (void *)(uintptr_t)(text + 3), 7 } };
    for (size_t written = 1; written <= 10; written++) {
        int file = make("a");
        struct files_fault fault = { .calls = FILES_WRITE,
                                     .at = 1,
                                     .written = written };
        files_fail(&fault);
        cr_assert_eq(file_write(file, parts, 2, 0, "a", &error), OPT_OK);
        fault = (struct files_fault){ .calls = FILES_WRITE, .at = 1, .code = EINTR };
        cr_assert_eq(file_write(file, parts, 2, 10, "a", &error), OPT_OK);
        fault = (struct files_fault){ .calls = FILES_READ, .at = 1, .code = EINTR };
        char back[21] = "";
        cr_assert_eq(file_read(file, back, 20, 0, "a", &error), OPT_OK);
        cr_assert_str_eq(back, "abcdefghijabcdefghij");
        close(file);
        files_mend();
        cr_assert_eq(file_remove(files.folder, "a", "a", &error), OPT_OK);
    }
}

Test(store_file, says_which_file_and_why)
{
    static const struct {
        int code;
        enum opt_status status;
        const char *words;
    } cases[] = {
        { ENOSPC, OPT_RESOURCE_EXHAUSTED, "cannot write DIR/a|No space left" },
        { EDQUOT, OPT_RESOURCE_EXHAUSTED, "cannot write DIR/a|quota" },
        { EIO, OPT_UNAVAILABLE, "cannot write DIR/a|Input/output error" },
        { EROFS, OPT_PERMISSION_DENIED, "cannot write DIR/a|Read-only" },
        { 0, OPT_UNAVAILABLE, "cannot write DIR/a|Input/output error" },
    };
    struct iovec part = { (void *)(uintptr_t) "abc", 3 };
    int file = make("a");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct files_fault fault = {
            .calls = FILES_WRITE, .at = 1, .code = cases[i].code, .stays = true
        };
        files_fail(&fault);
        cr_expect_eq(file_write(file, &part, 1, 0, "DIR/a", &error), cases[i].status);
        cr_expect(files_said(&error, cases[i].words));
    }
    struct files_fault fault = { .calls = FILES_SYNC, .at = 1, .code = EIO };
    files_fail(&fault);
    cr_expect_eq(file_sync(file, "DIR/a", &error), OPT_UNAVAILABLE);
    cr_expect(files_said(&error, "cannot make durable DIR/a"));
    cr_expect_eq(fault.count, 1u, "once and no more");
    close(file);
    cr_expect_eq(file_open(files.folder, "b", O_RDONLY, "DIR/b", &file, &error),
                 OPT_NOT_FOUND);
    cr_expect(files_said(&error, "cannot open DIR/b"));
}

Test(store_file, reads_no_more_than_there_is_and_no_more_than_may_be)
{
    char *text = NULL, bytes[16];
    size_t size;
    cr_assert_eq(file_store(files.folder, "a", "hello", 5, "a", &error), OPT_OK);
    cr_assert_eq(file_load(files.folder, "a", 5, "a", &text, &size, &error), OPT_OK);
    cr_assert_eq(size, 5u);
    cr_assert_str_eq(text, "hello");
    free(text);
    cr_assert_eq(file_load(files.folder, "a", 4, "a", &text, &size, &error),
                 OPT_DATA_LOSS);
    cr_assert(files_said(&error, "a has 5 bytes|at most 4"));
    int file;
    cr_assert_eq(file_open(files.folder, "a", O_RDONLY, "a", &file, &error), OPT_OK);
    cr_assert_eq(file_read(file, bytes, 6, 0, "a", &error), OPT_DATA_LOSS);
    cr_assert(files_said(&error, "a ends at byte 5, where 1 more"));
    close(file);
    cr_assert_eq(file_store(files.folder, "a", "x", 1, "a", &error), OPT_UNAVAILABLE);
    cr_assert(files_said(&error, "cannot create a: File exists"));
}

Test(store_file, follows_no_links_and_waits_for_no_pipe)
{
    int file;
    char *text = NULL;
    size_t size;
    cr_assert_eq(symlinkat("/etc/passwd", files.folder, "link"), 0);
    cr_expect_eq(file_open(files.folder, "link", O_RDONLY, "link", &file, &error),
                 OPT_DATA_LOSS);
    cr_expect(files_said(&error, "link is a symbolic link"), "%s", error.text);
    cr_assert_eq(mkfifoat(files.folder, "pipe", 0600), 0);
    cr_expect_eq(file_load(files.folder, "pipe", 9, "pipe", &text, &size, &error),
                 OPT_DATA_LOSS);
    cr_expect(files_said(&error, "pipe is not a plain file"));
}

Test(store_file, removes_folders_with_what_is_in_them)
{
    int folder, inside;
    cr_assert_eq(file_open_folder(files.folder, "a", true, "a", &folder, &error),
                 OPT_OK);
    cr_assert_eq(file_open_folder(folder, "b", true, "b", &inside, &error), OPT_OK);
    cr_assert_eq(file_store(inside, "c", "x", 1, "c", &error), OPT_OK);
    cr_assert_eq(file_store(folder, "d", "x", 1, "d", &error), OPT_OK);
    close(folder);
    close(inside);
    for (unsigned at = 1; at <= 4; at++) {
        struct files_fault fault = {
            .calls = FILES_REMOVE, .at = at, .code = EIO, .stays = true
        };
        files_fail(&fault);
        cr_assert_eq(file_remove(files.folder, "a", "DIR/a", &error), OPT_UNAVAILABLE);
        cr_assert(files_said(&error, "cannot remove DIR/a"));
    }
    files_mend();
    cr_assert_eq(file_remove(files.folder, "a", "a", &error), OPT_OK);
    cr_assert_eq(file_remove(files.folder, "a", "a", &error), OPT_OK, "twice");
    cr_assert_str_eq(files_names(&files, ""), "");
}

Test(store_file, lists_names_in_order)
{
    for (int i = 0; i < 20; i++) {
        char name[] = { (char)('a' + i * 7 % 20), '\0' };
        cr_assert_eq(file_store(files.folder, name, "", 0, name, &error), OPT_OK);
    }
    cr_assert_str_eq(files_names(&files, ""),
                     "a b c d e f g h i j k l m n o p q r s t");
}
