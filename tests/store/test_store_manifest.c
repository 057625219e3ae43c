/* manifest — what is known of a model is read as it was written. */
#include "server/store/manifest.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "server/store/window_text.h"
#include "tests/support/files.h"
#include "tests/support/kept_model.h"

static struct opt_error error;

static char *print(size_t *size)
{
    char *text = NULL;
    cr_assert_eq(manifest_print(kept_manifest(1200), &text, size, &error), OPT_OK, "%s",
                 error.text);
    return text;
}

Test(store_manifest, is_read_as_it_was_written)
{
    size_t size;
    char *text = print(&size);
    struct manifest *read = NULL;
    cr_assert_eq(manifest_read(text, size, "m.json", &read, &error), OPT_OK, "%s",
                 error.text);
    kept_expect_same(kept_manifest(1200), read);
    manifest_free(read);
    free(text);
}

/* With the first `from` replaced by `to`. */
static void expect_refused(const char *from, const char *to, enum opt_status expected,
                           const char *words)
{
    size_t size;
    struct manifest *read = NULL;
    char *text = print(&size), *other = malloc(size + strlen(to) + 1);
    cr_assert_not_null(other);
    char *at = strstr(text, from);
    cr_assert_not_null(at, "%s", from);
    size_t before = (size_t)(at - text);
    memcpy(other, text, before);
    strcpy(other + before, to);
    strcpy(other + before + strlen(to), at + strlen(from));
    cr_expect_eq(manifest_read(other, strlen(other), "m.json", &read, &error), expected,
                 "%s: %s", from, error.text);
    cr_expect(files_said(&error, words));
    free(other);
    free(text);
}

Test(store_manifest, says_what_is_wrong)
{
    static const struct {
        const char *from, *to;
        enum opt_status status;
        const char *words;
    } cases[] = {
        { "\"format\": 1", "\"format\": 2", OPT_UNIMPLEMENTED,
          "m.json has format 2|up to 1" },
        { "\"format\": 1", "\"format\": 0", OPT_DATA_LOSS,
          "\"format\" is not at least 1" },
        { "\"format\": 1", "\"formal\": 1", OPT_DATA_LOSS,
          "\"format\" is not a whole" },
        { "\"step\": 1200", "\"step\": -1", OPT_DATA_LOSS,
          "\"step\" is not a whole number" },
        { "\"step\": 1200", "\"step\": 1.5", OPT_DATA_LOSS, "\"step\" is not a whole" },
        { "\"step\": 1200", "\"step\": \"99999999999999999999\"", OPT_DATA_LOSS,
          "\"step\"" },
        { "\"step\": 1200", "\"step\": 1, \"step\": 1", OPT_DATA_LOSS, "duplicate" },
        { "1111222233334444", "111122223333444", OPT_DATA_LOSS, "16 hexadecimal" },
        { "1111222233334444", "111122223333444G", OPT_DATA_LOSS, "16 hexadecimal" },
        { "\"mode\": 2", "\"mode\": 3", OPT_DATA_LOSS, "\"mode\" of consistency" },
        { "\"durability\": 3", "\"durability\": 4", OPT_DATA_LOSS, "\"durability\"" },
        { "4294967295", "4294967296", OPT_DATA_LOSS, "as small as it must be" },
        { "\"exp_avg\"", "\"../x\"", OPT_DATA_LOSS,
          "\"slots\" is not a list of names" },
        { "\"exp_avg\"", "7", OPT_DATA_LOSS, "\"slots\" is not a list of names" },
        { "\"name\":\"words\"", "\"name\":\"\"", OPT_DATA_LOSS,
          "\"name\" of tensor 3" },
        { "\"name\":\"words\"", "\"name\":\"\\n\"", OPT_DATA_LOSS,
          "\"name\" of tensor 3" },
        { "\"name\":\"words\"", "\"name\":\"\\u0000\"", OPT_DATA_LOSS, "" },
        { "\"sparse\":false", "\"sparse\":0", OPT_DATA_LOSS, "true or false" },
        { "\"name\": \"w-1\"", "\"name\": \"w-2\"", OPT_DATA_LOSS,
          "behind the one before" },
        { "\"pushes\": \"", "\"pushes\": \"0", OPT_DATA_LOSS, "what a window says" },
        { "\"last\": 10000", "\"last\": 4000", OPT_DATA_LOSS, "what a window says" },
        { "{", "[", OPT_DATA_LOSS, "m.json is not a JSON object" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        expect_refused(cases[i].from, cases[i].to, cases[i].status, cases[i].words);
    }
}

Test(store_manifest, refuses_shapes_that_cannot_be)
{
    expect_refused("100,300", "0, 300", OPT_DATA_LOSS, "\"shape\" of tensor 0");
    expect_refused("100,300", "4294967296, 4294967296", OPT_DATA_LOSS,
                   "\"shape\" of tensor 0");
    expect_refused("100,300", "1,1,1,1,1,1,1,1,1", OPT_DATA_LOSS,
                   "\"shape\" of tensor 0");
    expect_refused("100,300", "\"x\"", OPT_DATA_LOSS, "\"shape\" of tensor 0");
}

/* Not one key more is needed than there is, and none less. */
Test(store_manifest, misses_whatever_is_not_there)
{
    size_t size, keys = 0;
    char *text = print(&size);
    for (char *at = text; (at = strstr(at, "\": ")) != NULL; at += 3) {
        struct manifest *read = NULL;
        char was = at[-1];
        char *key = at - 1;
        while (key[-1] != '"') {
            key--;
        }
        if (strncmp(key, "written_by", 10) == 0) { /* is only told to people */
            continue;
        }
        at[-1] = was == 'x' ? 'y' : 'x';
        cr_expect_neq(manifest_read(text, size, "m", &read, &error), OPT_OK, "%.20s",
                      key);
        at[-1] = was;
        keys++;
    }
    cr_assert_gt(keys, 100u);
    free(text);
}

Test(store_manifest, survives_cuts_and_bytes_at_random)
{
    size_t size;
    struct manifest *read = NULL;
    char *text = print(&size);
    uint32_t random = 7;
    for (size_t cut = 0; cut < size; cut += cut < 2000 ? 1 : 101) {
        cr_assert_eq(manifest_read(text, cut, "m", &read, &error), OPT_DATA_LOSS);
    }
    for (int i = 0; i < 1000; i++) {
        random = random * 1664525u + 1013904223u;
        size_t at = (random >> 8) % size;
        char was = text[at];
        text[at] = (char)(random >> 3);
        if (manifest_read(text, size, "m", &read, &error) == OPT_OK) {
            manifest_free(read);
        }
        text[at] = was;
    }
    free(text);
}

/* ---------------------------------------------------------------- windows */

static void expect_window(const struct window *window, size_t most)
{
    struct window *again = malloc(sizeof *again);
    char *text = window_text_print(window);
    cr_assert(text != NULL && again != NULL);
    cr_assert_leq(strlen(text), most);
    again->last = window->last;
    again->newest = window->newest;
    cr_assert(window_text_parse(text, again));
    cr_assert_eq(memcmp(window, again, sizeof *window), 0);
    free(again);
    free(text);
}

Test(store_manifest, a_window_of_steady_training_is_short)
{
    const struct manifest *manifest = kept_manifest(1);
    expect_window(manifest->members[0].window, 64);
    expect_window(manifest->members[1].window, 60000);
    expect_window(manifest->members[2].window, 0);
    struct window window = { .last = 0 };
    window_settle(&window, &(struct opt_settled){ .sequence = UINT64_MAX,
                                                  .fate = OPT_FATE_APPLIED,
                                                  .step = UINT64_MAX });
    expect_window(&window, 64);
}
