/* data_dir — a directory is one daemon's, known again, and never taken for another. */
#include "server/store/data_dir.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/store/file.h"
#include "tests/support/files.h"

static struct files files;
static struct data_dir dir;
static struct opt_error error;

static void set_up(void)
{
    files_open(&files);
}

static void tear_down(void)
{
    files_close(&files);
}

TestSuite(store_data_dir, .init = set_up, .fini = tear_down);

static void open_dir(void)
{
    cr_assert_eq(data_dir_open(files.path, &dir, &error), OPT_OK, "%s", error.text);
}

static void refuse(enum opt_status status, const char *words)
{
    cr_assert_eq(data_dir_open(files.path, &dir, &error), status, "%s", error.text);
    cr_assert(files_said(&error, words));
}

Test(store_data_dir, is_known_again)
{
    open_dir();
    cr_assert(dir.fresh);
    cr_assert_neq(dir.identity, 0u);
    uint64_t identity = dir.identity, space = 0;
    cr_assert_eq(data_dir_space(&dir, &space, &error), OPT_OK);
    cr_assert_gt(space, 0u);
    data_dir_close(&dir);
    cr_assert_str_eq(files_names(&files, ""), "format journal lock models");
    open_dir();
    cr_assert_not(dir.fresh);
    cr_assert_eq(dir.identity, identity);
    struct data_dir second;
    cr_assert_eq(data_dir_open(files.path, &second, &error), OPT_UNAVAILABLE);
    cr_assert(files_said(&error, "in use by the optimd with process"));
    data_dir_close(&dir);
}

Test(store_data_dir, refuses_what_is_not_one)
{
    files_write(&files, "thesis.tex", "x", 1);
    refuse(OPT_DATA_LOSS, "thesis.tex|not a data directory|an empty directory");
    cr_assert_eq(unlinkat(files.folder, "thesis.tex", 0), 0);
    open_dir();
    data_dir_close(&dir);
    cr_assert_eq(unlinkat(files.folder, "format", 0), 0);
    files_write(&files, "journal/00000000000000000001.journal", "x", 1);
    refuse(OPT_DATA_LOSS, "journal/00000000000000000001.journal|put it back");
}

Test(store_data_dir, refuses_a_newer_format)
{
    open_dir();
    data_dir_close(&dir);
    static const char text[] = "optimd data directory\nformat 2\nwhatever else\n";
    files_write(&files, "format", text, sizeof text - 1);
    refuse(OPT_UNIMPLEMENTED, "/format has format 2|up to 1");
}

Test(store_data_dir, finds_every_flip_and_every_cut_of_its_format)
{
    open_dir();
    data_dir_close(&dir);
    size_t size;
    uint8_t *text = files_read(&files, "format", &size);
    for (size_t bit = 0; bit < size * 8; bit++) {
        text[bit / 8] ^= (uint8_t)(1u << bit % 8);
        files_write(&files, "format", text, size);
        cr_assert_neq(data_dir_open(files.path, &dir, &error), OPT_OK, "bit %zu", bit);
        cr_assert(files_said(&error, "/format"));
        text[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t cut = 0; cut < size; cut++) {
        files_write(&files, "format", text, cut);
        refuse(OPT_DATA_LOSS, "/format is damaged");
    }
    free(text);
}

Test(store_data_dir, removes_what_was_left_half_written)
{
    open_dir();
    int folder;
    char *path;
    cr_assert_eq(data_dir_model(&dir, 0xABC, true, &folder, &path, &error), OPT_OK);
    cr_assert_str_eq(path + strlen(files.path), "/models/0000000000000abc");
    free(path);
    close(folder);
    data_dir_close(&dir);
    cr_assert_eq(mkdirat(files.folder, "models/0000000000000abc/tmp-7", 0700), 0);
    files_write(&files, "models/0000000000000abc/tmp-7/manifest.json", "{", 1);
    files_write(&files, "models/0000000000000abc/mine", "", 0);
    files_write(&files, "tmp-format", "opt", 3);
    open_dir();
    cr_assert_str_eq(files_names(&files, ""), "format journal lock models");
    cr_assert_str_eq(files_names(&files, "models/0000000000000abc"), "mine");
    data_dir_close(&dir);
}

Test(store_data_dir, knows_its_models)
{
    open_dir();
    uint64_t *models = NULL;
    size_t count;
    int folder;
    char *path;
    for (uint64_t i = 3; i > 0; i--) {
        cr_assert_eq(data_dir_model(&dir, i << 60, true, &folder, &path, &error),
                     OPT_OK);
        cr_assert_eq(file_store(folder, "x", "", 0, path, &error), OPT_OK);
        close(folder);
        free(path);
    }
    cr_assert_eq(data_dir_forget(&dir, UINT64_C(2) << 60, &error), OPT_OK);
    cr_assert_eq(data_dir_forget(&dir, 5, &error), OPT_OK, "it has no folder");
    cr_assert_eq(data_dir_models(&dir, &models, &count, &error), OPT_OK);
    cr_assert_eq(count, 2u);
    cr_assert_eq(models[0], UINT64_C(1) << 60);
    cr_assert_eq(models[1], UINT64_C(3) << 60);
    free(models);
    cr_assert_eq(data_dir_model(&dir, 77, false, &folder, &path, &error),
                 OPT_NOT_FOUND);
    data_dir_close(&dir);
    cr_assert_eq(mkdirat(files.folder, "models/1000000000000000 copy", 0700), 0);
    refuse(OPT_DATA_LOSS, "models/1000000000000000 copy|move it elsewhere");
}

/* Whatever fails while it is made, the next daemon makes it. */
Test(store_data_dir, is_made_in_spite_of_any_failure_before)
{
    for (unsigned at = 1;; at++) {
        struct files_fault fault = {
            .calls = FILES_ANY, .at = at, .code = EIO, .stays = true
        };
        files_fail(&fault);
        enum opt_status status = data_dir_open(files.path, &dir, &error);
        files_mend();
        if (status == OPT_OK) {
            cr_assert_eq(fault.failed, 0u);
            data_dir_close(&dir);
            break;
        }
        cr_assert_gt(fault.failed, 0u);
        cr_assert(files_said(&error, files.path));
        open_dir();
        data_dir_close(&dir);
        for (size_t i = 0; i < 4; i++) {
            static const char *const names[] = { "format", "lock", "journal",
                                                 "models" };
            cr_assert_eq(file_remove(files.folder, names[i], names[i], &error), OPT_OK);
        }
    }
}
