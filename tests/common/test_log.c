#include <criterion/criterion.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/name.h"

/* Records go to a file, so that any number of them fits. */
static FILE *records;

static void start(void)
{
    records = tmpfile();
    cr_assert_not_null(records);
    cr_assert_neq(fcntl(fileno(records), F_SETFL, O_APPEND), -1);
    opt_log_set_descriptor(fileno(records));
    opt_log_set_level(OPT_LOG_INFO);
}

static void stop(void)
{
    opt_log_set_descriptor(STDERR_FILENO);
    (void)fclose(records);
}

TestSuite(log, .init = start, .fini = stop);

/* The next record without its newline and time, or NULL at the end. */
static const char *next_record(void)
{
    static char line[2 * OPT_LOG_RECORD];
    if (fgets(line, sizeof(line), records) == NULL) {
        return NULL;
    }
    size_t size = strlen(line);
    cr_assert_eq(line[size - 1], '\n', "a record without its end: %s", line);
    cr_assert_leq(size, OPT_LOG_RECORD);
    line[size - 1] = '\0';
    cr_assert_eq(strlen("2026-11-22T17:23:23.123456Z "), 28);
    cr_assert_eq(line[26], 'Z', "%s", line);
    cr_assert_eq(line[27], ' ', "%s", line);
    return line + 28;
}

static void expect_record(const char *expected)
{
    const char *record = next_record();
    cr_assert_not_null(record, "no record; expected: %s", expected);
    cr_assert_str_eq(record, expected);
}

Test(log, writes_level_event_and_pairs)
{
    opt_log(OPT_LOG_INFO, "model_created", "model=%s tensors=%zu lr=%g", "mlp",
            (size_t)4, 1e-3);
    opt_log(OPT_LOG_WARN, "stopping", "%s", "");
    const char *volatile nothing =
        NULL; /* hidden from the compiler, which would warn */
    opt_log(OPT_LOG_ERROR, "gone", "why=%s", nothing);
    rewind(records);
    expect_record("info model_created model=mlp tensors=4 lr=0.001");
    expect_record("warn stopping \"\"");
    expect_record("error gone why=(null)");
    cr_assert_null(next_record());
}

Test(log, every_conversion_takes_its_own_type)
{
    opt_log(OPT_LOG_INFO, "numbers",
            "d=%d i=%i u=%u x=%x ld=%ld lu=%lu lld=%lld llu=%llu zu=%zu zd=%zd ju=%ju "
            "jd=%jd td=%td hd=%hd hhu=%hhu c=%c",
            -1, -2, 3U, 0xBEEFU, -4L, 5UL, -6LL, 7ULL, (size_t)8, (ssize_t)-9,
            (uintmax_t)10, (intmax_t)-11, (ptrdiff_t)-12, (short)-13, (unsigned char)14,
            'c');
    opt_log(OPT_LOG_INFO, "wide", "a=%" PRIu64 " b=%" PRIi64 " c=%zu", UINT64_MAX,
            INT64_MIN, SIZE_MAX);
    opt_log(OPT_LOG_INFO, "real", "f=%f e=%e g=%g f3=%.3f f0=%.0f g17=%.17g big=%.1f",
            1.5, 1.5, 1.5, 2.0 / 3, 2.5, 0.1, -1e300);
    rewind(records);
    expect_record(
        "info numbers d=-1 i=-2 u=3 x=beef ld=-4 lu=5 lld=-6 llu=7 zu=8 zd=-9 "
        "ju=10 jd=-11 td=-12 hd=-13 hhu=14 c=c");
    expect_record("info wide a=18446744073709551615 b=-9223372036854775808 "
                  "c=18446744073709551615");
    char expected[1000];
    (void)snprintf(expected, sizeof(expected),
                   "info real f=%f e=%e g=%g f3=%.3f f0=%.0f g17=%.17g big=%.1f", 1.5,
                   1.5, 1.5, 2.0 / 3, 2.5, 0.1, -1e300);
    expect_record(expected);
}

Test(log, values_that_are_not_one_word_are_quoted)
{
    static const struct {
        const char *value, *expected;
    } cases[] = {
        { "plain", "plain" },
        { "a/b:c-d_e.f,g", "a/b:c-d_e.f,g" },
        { "caf\xC3\xA9", "caf\xC3\xA9" },
        { "", "\"\"" },
        { "two words", "\"two words\"" },
        { "a=b", "\"a=b\"" },
        { "say \"hi\"", "\"say \\\"hi\\\"\"" },
        { "back\\slash", "\"back\\\\slash\"" },
        { "line\nfeed\r\ttab", "\"line\\nfeed\\r\\ttab\"" },
        { "bell\x07 and \x1B[31m", "\"bell\\x07 and \\x1B[31m\"" },
        { "del\x7F", "\"del\\x7F\"" },
        { "inject\n2026-01-01T00:00:00Z info fake",
          "\"inject\\n2026-01-01T00:00:00Z info fake\"" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        opt_log(OPT_LOG_INFO, "v", "value=%s n=%d", cases[i].value, 1);
    }
    rewind(records);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char expected[200];
        (void)snprintf(expected, sizeof(expected), "info v value=%s n=1",
                       cases[i].expected);
        expect_record(expected);
    }
}

/* The number of some digits at a place in a line, and the letter that follows them. */
static long number(const char *line, size_t at, size_t digits, char after)
{
    char *end = NULL;
    long value = strtol(line + at, &end, 10);
    cr_assert_eq(end, line + at + digits, "%s", line);
    cr_assert_eq(*end, after, "%s", line);
    return value;
}

Test(log, time_is_now_in_utc)
{
    struct timespec before, after;
    clock_gettime(CLOCK_REALTIME, &before);
    opt_log(OPT_LOG_INFO, "now", "a=%d", 1);
    clock_gettime(CLOCK_REALTIME, &after);
    rewind(records);
    char line[200];
    cr_assert_not_null(fgets(line, sizeof(line), records));
    cr_assert_str_eq(line + strlen("2026-11-22T17:23:23.123456"), "Z info now a=1\n");
    struct tm tm = { .tm_year = (int)number(line, 0, 4, '-') - 1900,
                     .tm_mon = (int)number(line, 5, 2, '-') - 1,
                     .tm_mday = (int)number(line, 8, 2, 'T'),
                     .tm_hour = (int)number(line, 11, 2, ':'),
                     .tm_min = (int)number(line, 14, 2, ':'),
                     .tm_sec = (int)number(line, 17, 2, '.') };
    long microseconds = number(line, 20, 6, 'Z');
    long long time = (long long)timegm(&tm) * 1000000 + microseconds;
    cr_assert_geq(time, (long long)before.tv_sec * 1000000 + before.tv_nsec / 1000);
    cr_assert_leq(time, (long long)after.tv_sec * 1000000 + after.tv_nsec / 1000);
}

Test(log, long_records_are_cut_and_still_one_line)
{
    static const char *const letters[] = { "a", "\xE2\x82\xAC", "\n", "\"", " " };
    for (size_t which = 0; which < sizeof(letters) / sizeof(letters[0]); which++) {
        for (size_t shift = 0; shift < 4; shift++) {
            char value[2 * OPT_LOG_RECORD];
            size_t size = shift;
            memset(value, 'b', shift);
            while (size < OPT_LOG_RECORD + 50) {
                memcpy(value + size, letters[which], strlen(letters[which]));
                size += strlen(letters[which]);
            }
            value[size] = '\0';
            opt_log(OPT_LOG_INFO, "long", "value=%s after=%d", value, 5);
        }
    }
    rewind(records);
    size_t count = 0;
    const char *record;
    while ((record = next_record()) != NULL) {
        size_t size = strlen(record);
        cr_assert_geq(size, OPT_LOG_RECORD - 50);
        cr_assert_eq(opt_text_good(record, size), size, "%s", record);
        bool quoted = record[strlen("info long value=")] == '"';
        cr_assert_str_eq(record + size - (quoted ? 4 : 3), quoted ? "...\"" : "...");
        count++;
    }
    cr_assert_eq(count, 20);
}

Test(log, levels_below_the_lowest_are_not_written)
{
    opt_log(OPT_LOG_DEBUG, "a", "n=%d", 1);
    opt_log_set_level(OPT_LOG_ERROR);
    cr_assert(!opt_log_enabled(OPT_LOG_WARN));
    opt_log(OPT_LOG_WARN, "b", "n=%d", 1);
    opt_log(OPT_LOG_ERROR, "c", "n=%d", 1);
    opt_log_set_level(OPT_LOG_DEBUG);
    opt_log(OPT_LOG_DEBUG, "d", "n=%d", 1);
    rewind(records);
    expect_record("error c n=1");
    expect_record("debug d n=1");
    cr_assert_null(next_record());
}

Test(log, levels_have_names_that_parse)
{
    for (int level = OPT_LOG_DEBUG; level <= OPT_LOG_ERROR; level++) {
        enum opt_log_level parsed = OPT_LOG_DEBUG;
        cr_assert(opt_log_level_parse(opt_log_level_name((enum opt_log_level)level),
                                      &parsed));
        cr_assert_eq((int)parsed, level);
    }
    enum opt_log_level untouched = OPT_LOG_WARN;
    cr_assert(!opt_log_level_parse("INFO", &untouched));
    cr_assert(!opt_log_level_parse("", &untouched));
    cr_assert_eq(untouched, OPT_LOG_WARN);
}

Test(log, a_noisy_place_is_limited_and_says_how_much_it_kept_to_itself)
{
    enum { EVENTS = 1000 };
    static struct opt_log_site site;
    for (int i = 0; i < EVENTS; i++) {
        opt_log_limited(&site, OPT_LOG_INFO, "noise", "i=%d", i);
    }
    /* As if the second were over. */
    atomic_store(&site.window, 0);
    opt_log_limited(&site, OPT_LOG_INFO, "noise", "i=%d", EVENTS);
    rewind(records);
    unsigned long written = 0;
    unsigned long suppressed = 0;
    const char *record;
    while ((record = next_record()) != NULL) {
        const char *count = strstr(record, " suppressed=");
        suppressed += count == NULL ? 0 : strtoul(count + 12, NULL, 10);
        written++;
    }
    /* The clock may have ticked once or twice in the loop. */
    cr_assert_geq(written, OPT_LOG_BURST + 1);
    cr_assert_leq(written, 3 * OPT_LOG_BURST + 1);
    cr_assert_eq(written + suppressed, EVENTS + 1);
}

static void *write_many(void *letter)
{
    char value[301];
    memset(value, *(const char *)letter, 300);
    value[300] = '\0';
    for (int i = 0; i < 500; i++) {
        opt_log(OPT_LOG_INFO, "thread", "value=%s", value);
    }
    return NULL;
}

Test(log, records_of_threads_do_not_mix)
{
    enum { THREADS = 4 };
    static char letters[] = "abcd";
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, write_many, &letters[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    rewind(records);
    size_t count = 0;
    const char *record;
    while ((record = next_record()) != NULL) {
        const char *value = record + strlen("info thread value=");
        cr_assert_eq(strlen(value), 300);
        char letter[2] = { value[0], '\0' };
        cr_assert_eq(strspn(value, letter), 300);
        count++;
    }
    cr_assert_eq(count, THREADS * 500);
}

Test(log, a_closed_descriptor_is_no_disaster)
{
    opt_log_set_descriptor(-1);
    opt_log(OPT_LOG_ERROR, "lost", "n=%d", 1);
    opt_log_set_descriptor(fileno(records));
    opt_log(OPT_LOG_ERROR, "kept", "n=%d", 2);
    rewind(records);
    expect_record("error kept n=2");
}

/* ---------------------------------------------------------------- the writer */

/* Reads what the pipe has until all its writers are gone: records, and those that are
 * said to be dropped. */
static void *read_log(void *pipe)
{
    static char line[2 * OPT_LOG_RECORD];
    unsigned long *count = calloc(1, sizeof(*count));
    FILE *file = fdopen(*(int *)pipe, "r");
    cr_assert(file != NULL && count != NULL);
    while (fgets(line, sizeof(line), file) != NULL) {
        const char *dropped = strstr(line, " warn log_dropped records=");
        *count += dropped != NULL ? strtoul(strchr(dropped, '=') + 1, NULL, 10) : 1;
    }
    (void)fclose(file);
    return count;
}

Test(log, nobody_waits_for_who_does_not_read_it, .timeout = 20)
{
    enum { EVENTS = 10000, SHORT_MS = 10, LONG_MS = 10000 };
    char value[101];
    int ends[2];
    pthread_t reader;
    void *count;
    memset(value, 'v', 100);
    value[100] = '\0';
    cr_assert_eq(pipe(ends), 0);
    opt_log_set_descriptor(ends[1]);
    cr_assert(opt_log_start());
    for (int i = 0; i < EVENTS; i++) {
        opt_log(OPT_LOG_INFO, "event", "i=%d value=%s", i, value);
    }
    cr_expect_not(opt_log_stop(SHORT_MS));
    /* What is read late is all there, or counted. */
    cr_assert_eq(pthread_create(&reader, NULL, read_log, &ends[0]), 0);
    cr_expect(opt_log_stop(LONG_MS));
    close(ends[1]);
    pthread_join(reader, &count);
    cr_expect_eq(*(unsigned long *)count, EVENTS);
    free(count);
}

Test(log, everything_is_written_when_it_has_stopped)
{
    cr_assert(opt_log_start());
    for (int i = 0; i < 100; i++) {
        opt_log(OPT_LOG_INFO, "event", "i=%d", i);
    }
    cr_assert(opt_log_stop(10000));
    opt_log(OPT_LOG_INFO, "event", "i=%d", 100);
    rewind(records);
    for (int i = 0; i <= 100; i++) {
        char expected[40];
        (void)snprintf(expected, sizeof(expected), "info event i=%d", i);
        expect_record(expected);
    }
    cr_assert_null(next_record());
}

Test(log, counts_what_a_full_disk_does_not_take)
{
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    opt_log_set_descriptor(full);
    cr_assert(opt_log_start());
    opt_log(OPT_LOG_INFO, "lost", "%s", "");
    cr_assert(opt_log_stop(10000));
    opt_log_set_descriptor(fileno(records));
    cr_assert(opt_log_start());
    opt_log(OPT_LOG_INFO, "kept", "n=%d", 1);
    cr_assert(opt_log_stop(10000));
    rewind(records);
    expect_record("info kept n=1");
    expect_record("warn log_dropped records=1");
    close(full);
}
