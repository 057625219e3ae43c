/* criterion — a stand-in for Criterion's header in ThreadSanitizer builds.
 *
 * Criterion itself does not start under ThreadSanitizer, so `make SANITIZE=thread`
 * finds this header first: the same tests, written in the same words, each in a forked
 * process of its own. Only what the tests here use is known. The last line is
 * Criterion's, so that whoever counts results need not know the difference.
 *
 * Everything is weak or static inline: several files of one program may include it.
 */
#ifndef OPTIMD_TESTS_TSAN_CRITERION_H
#define OPTIMD_TESTS_TSAN_CRITERION_H

#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STANDIN_SKIPPED = 77 };

/* The options that may follow a test's name. */
struct standin_options {
    void (*init)(void);
    void (*fini)(void);
    double timeout; /* seconds */
    int signal;     /* that must end the test */
    int exit_code;  /* with which it must end */
    bool disabled;
    const char *description;
};

struct criterion_test_params {
    size_t size;
    void *params;
    size_t length;
    void (*cleanup)(struct criterion_test_params *);
};

struct standin_test {
    const char *suite;
    const char *name;
    void (*run)(void); /* one of these two */
    void (*run_with)(void *param);
    struct criterion_test_params (*parameters)(void);
    struct standin_options options;
    struct standin_test *next;
};

struct standin_suite {
    const char *name;
    struct standin_options options;
    struct standin_suite *next;
};

__attribute__((weak)) struct standin_test *standin_tests;
__attribute__((weak)) struct standin_suite *standin_suites;
__attribute__((weak)) int standin_expectations_failed; /* of the running test */

static inline void standin_add(struct standin_test *test)
{
    struct standin_test **end = &standin_tests;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = test;
}

#define standin_id(suite_, name_, what) suite_##_##name_##_##what

#define standin_register(suite_, name_, function, ...)                                 \
    static struct standin_test standin_id(suite_, name_, entry) = {                    \
        .suite = #suite_, .name = #name_, function, .options = { __VA_ARGS__ }         \
    };                                                                                 \
    __attribute__((constructor)) static void standin_id(suite_, name_, add)(void)      \
    {                                                                                  \
        standin_add(&standin_id(suite_, name_, entry));                                \
    }

#define Test(...) standin_test(__VA_ARGS__, )
#define standin_test(suite_, name_, ...)                                               \
    static void standin_id(suite_, name_, impl)(void);                                 \
    standin_register(suite_, name_, .run = standin_id(suite_, name_, impl),            \
                     __VA_ARGS__) static void                                          \
    standin_id(suite_, name_, impl)(void)

#define ParameterizedTest(...) standin_parameterized(__VA_ARGS__, )
#define standin_parameterized(param_, suite_, name_, ...)                              \
    static void standin_id(suite_, name_, impl)(param_);                               \
    static struct criterion_test_params standin_id(suite_, name_, parameters)(void);   \
    static struct standin_test standin_id(suite_, name_, entry) = {                    \
        .suite = #suite_,                                                              \
        .name = #name_,                                                                \
        .run_with = (void (*)(void *))standin_id(suite_, name_, impl),                 \
        .parameters = standin_id(suite_, name_, parameters),                           \
        .options = { __VA_ARGS__ }                                                     \
    };                                                                                 \
    __attribute__((constructor)) static void standin_id(suite_, name_, add)(void)      \
    {                                                                                  \
        standin_add(&standin_id(suite_, name_, entry));                                \
    }                                                                                  \
    static void standin_id(suite_, name_, impl)(param_)
#define ParameterizedTestParameters(suite_, name_)                                     \
    static struct criterion_test_params standin_id(suite_, name_, parameters)(void)
#define cr_make_param_array(...) standin_param_array(__VA_ARGS__, NULL, )
#define standin_param_array(type_, array_, length_, cleanup_, ...)                     \
    ((struct criterion_test_params){ sizeof(type_), (void *)(array_), (length_),       \
                                     (cleanup_) })

#define TestSuite(...) standin_test_suite(__VA_ARGS__, )
#define standin_test_suite(suite_, ...)                                                \
    static struct standin_suite standin_id(                                            \
        suite_, suite, entry) = { .name = #suite_, .options = { __VA_ARGS__ } };       \
    __attribute__((constructor)) static void standin_id(suite_, suite, add)(void)      \
    {                                                                                  \
        standin_id(suite_, suite, entry).next = standin_suites;                        \
        standin_suites = &standin_id(suite_, suite, entry);                            \
    }                                                                                  \
    struct standin_suite

/* ------------------------------------------------------------------ assertions */

static inline void standin_failed(bool fatal, const char *file, int line,
                                  const char *condition, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "[----] %s:%d: Assertion Failed\n[----]   %s\n[----]   ", file,
            line, condition);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    if (fatal) {
        _exit(1);
    }
    __atomic_store_n(&standin_expectations_failed, 1, __ATOMIC_RELAXED);
}

static inline void standin_skip(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("[SKIP] ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    _exit(STANDIN_SKIPPED);
}

/* Each takes its operands and then, perhaps, a format and its arguments; the "" that is
 * added is the format if there was none. */
#define standin_check(fatal_, condition_, ...)                                         \
    ((condition_)                                                                      \
         ? (void)0                                                                     \
         : standin_failed(fatal_, __FILE__, __LINE__, #condition_, __VA_ARGS__))
#define standin_pair(fatal_, op_, a_, b_, ...)                                         \
    standin_check(fatal_, (a_)op_(b_), __VA_ARGS__)
#define standin_str(fatal_, op_, a_, b_, ...)                                          \
    standin_check(fatal_, strcmp((a_), (b_)) op_ 0, __VA_ARGS__)
#define standin_arr(fatal_, op_, a_, b_, size_, ...)                                   \
    standin_check(fatal_, memcmp((a_), (b_), (size_)) op_ 0, __VA_ARGS__)
#define standin_float(fatal_, a_, b_, epsilon_, ...)                                   \
    standin_check(fatal_, fabs((double)(a_) - (double)(b_)) <= (double)(epsilon_),     \
                  __VA_ARGS__)
#define standin_null(fatal_, op_, a_, ...)                                             \
    standin_check(fatal_, (const void *)(a_)op_ NULL, __VA_ARGS__)
#define standin_not(fatal_, condition_, ...)                                           \
    standin_check(fatal_, !(condition_), __VA_ARGS__)

#define cr_assert(...) standin_check(true, __VA_ARGS__, "")
#define cr_expect(...) standin_check(false, __VA_ARGS__, "")
#define cr_assert_not(...) standin_not(true, __VA_ARGS__, "")
#define cr_expect_not(...) standin_not(false, __VA_ARGS__, "")
#define cr_assert_eq(...) standin_pair(true, ==, __VA_ARGS__, "")
#define cr_expect_eq(...) standin_pair(false, ==, __VA_ARGS__, "")
#define cr_assert_neq(...) standin_pair(true, !=, __VA_ARGS__, "")
#define cr_expect_neq(...) standin_pair(false, !=, __VA_ARGS__, "")
#define cr_assert_lt(...) standin_pair(true, <, __VA_ARGS__, "")
#define cr_expect_lt(...) standin_pair(false, <, __VA_ARGS__, "")
#define cr_assert_leq(...) standin_pair(true, <=, __VA_ARGS__, "")
#define cr_expect_leq(...) standin_pair(false, <=, __VA_ARGS__, "")
#define cr_assert_gt(...) standin_pair(true, >, __VA_ARGS__, "")
#define cr_expect_gt(...) standin_pair(false, >, __VA_ARGS__, "")
#define cr_assert_geq(...) standin_pair(true, >=, __VA_ARGS__, "")
#define cr_expect_geq(...) standin_pair(false, >=, __VA_ARGS__, "")
#define cr_assert_null(...) standin_null(true, ==, __VA_ARGS__, "")
#define cr_expect_null(...) standin_null(false, ==, __VA_ARGS__, "")
#define cr_assert_not_null(...) standin_null(true, !=, __VA_ARGS__, "")
#define cr_expect_not_null(...) standin_null(false, !=, __VA_ARGS__, "")
#define cr_assert_str_eq(...) standin_str(true, ==, __VA_ARGS__, "")
#define cr_expect_str_eq(...) standin_str(false, ==, __VA_ARGS__, "")
#define cr_assert_str_neq(...) standin_str(true, !=, __VA_ARGS__, "")
#define cr_expect_str_neq(...) standin_str(false, !=, __VA_ARGS__, "")
#define cr_assert_arr_eq(...) standin_arr(true, ==, __VA_ARGS__, "")
#define cr_expect_arr_eq(...) standin_arr(false, ==, __VA_ARGS__, "")
#define cr_assert_arr_neq(...) standin_arr(true, !=, __VA_ARGS__, "")
#define cr_expect_arr_neq(...) standin_arr(false, !=, __VA_ARGS__, "")
#define cr_assert_float_eq(...) standin_float(true, __VA_ARGS__, "")
#define cr_expect_float_eq(...) standin_float(false, __VA_ARGS__, "")
#define cr_assert_fail(...) standin_check(true, !"reached", "" __VA_ARGS__)
#define cr_expect_fail(...) standin_check(false, !"reached", "" __VA_ARGS__)
#define cr_fatal(...) cr_assert_fail(__VA_ARGS__)
#define cr_skip(...) standin_skip("" __VA_ARGS__)
#define cr_skip_test(...) standin_skip("" __VA_ARGS__)
#define cr_log_info(...) (fprintf(stderr, __VA_ARGS__), fputc('\n', stderr))
#define cr_log_warn(...) cr_log_info(__VA_ARGS__)
#define cr_log_error(...) cr_log_info(__VA_ARGS__)
#define cr_malloc malloc
#define cr_calloc calloc
#define cr_realloc realloc
#define cr_free free

/* ------------------------------------------------------------------ the runner */

struct standin_child {
    const struct standin_test *test;
    size_t parameter;
    pid_t pid;
};

static inline const struct standin_options *
standin_suite_of(const struct standin_test *test)
{
    static const struct standin_options none;
    for (struct standin_suite *suite = standin_suites; suite != NULL;
         suite = suite->next) {
        if (strcmp(suite->name, test->suite) == 0) {
            return &suite->options;
        }
    }
    return &none;
}

/* In the child. */
static inline void standin_run(const struct standin_test *test, void *param,
                               double timeout)
{
    const struct standin_options *suite = standin_suite_of(test);
    const struct standin_options *own = &test->options;
    timeout = own->timeout > 0     ? own->timeout
              : suite->timeout > 0 ? suite->timeout
                                   : timeout;
    /* Instrumented code runs several times slower than what the limit was set for. */
    alarm((unsigned)(8 * timeout) + 1);
    void (*init)(void) = own->init != NULL ? own->init : suite->init;
    void (*fini)(void) = own->fini != NULL ? own->fini : suite->fini;
    if (init != NULL) {
        init();
    }
    test->run_with != NULL ? test->run_with(param) : test->run();
    if (fini != NULL) {
        fini();
    }
    exit(standin_expectations_failed ? 1 : 0);
}

struct standin_totals {
    unsigned tested, passing, failing, crashing;
};

static inline void standin_judge(const struct standin_child *child, int status,
                                 FILE *tap, struct standin_totals *totals)
{
    const struct standin_test *test = child->test;
    const char *verdict = "not ok";
    const char *note = "";
    if (WIFEXITED(status) && WEXITSTATUS(status) == STANDIN_SKIPPED) {
        verdict = "ok";
        note = "  # SKIP";
    } else {
        ++totals->tested;
        if (WIFEXITED(status) && WEXITSTATUS(status) == test->options.exit_code &&
            test->options.signal == 0) {
            ++totals->passing;
            verdict = "ok";
        } else if (WIFSIGNALED(status) && test->options.signal != 0 &&
                   WTERMSIG(status) == test->options.signal) {
            ++totals->passing;
            verdict = "ok";
        } else {
            ++totals->failing;
            totals->crashing += WIFSIGNALED(status) ? 1 : 0;
            fprintf(stderr, "[FAIL] %s::%s[%zu]: %s %d\n", test->suite, test->name,
                    child->parameter, WIFSIGNALED(status) ? "signal" : "exit status",
                    WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        }
    }
    if (tap != NULL) {
        fprintf(tap, "%s - %s::%s%s\n", verdict, test->suite, test->name, note);
    }
}

/* Wait for one child and forget it. */
static inline void standin_reap(struct standin_child *children, size_t *running,
                                FILE *tap, struct standin_totals *totals)
{
    int status;
    pid_t pid = waitpid(-1, &status, 0);
    for (size_t i = 0; i < *running; ++i) {
        if (children[i].pid == pid) {
            standin_judge(&children[i], status, tap, totals);
            children[i] = children[--*running];
            return;
        }
    }
}

/* -jN, --timeout S and --tap=FILE are understood. */
__attribute__((weak)) int main(int argc, char **argv)
{
    struct standin_child children[64];
    size_t jobs = 1, running = 0;
    double timeout = 60;
    FILE *tap = NULL;
    struct standin_totals totals = { 0, 0, 0, 0 };

    for (int i = 1; i < argc; ++i) {
        if (strncmp(argv[i], "-j", 2) == 0) {
            jobs = strtoul(argv[i] + 2, NULL, 10);
        } else if (strcmp(argv[i], "--timeout") == 0 && i + 1 < argc) {
            timeout = strtod(argv[++i], NULL);
        } else if (strncmp(argv[i], "--tap=", 6) == 0) {
            tap = fopen(argv[i] + 6, "w");
        } else {
            fprintf(stderr, "unknown option %s\n", argv[i]);
            return 64;
        }
    }
    jobs = jobs < 1 ? 1 : jobs > 64 ? 64 : jobs;

    for (struct standin_test *test = standin_tests; test != NULL; test = test->next) {
        struct criterion_test_params params = { 0, NULL, 1, NULL };
        if (test->options.disabled || standin_suite_of(test)->disabled) {
            continue;
        }
        if (test->parameters != NULL) {
            params = test->parameters();
        }
        for (size_t i = 0; i < params.length; ++i) {
            if (running == jobs) {
                standin_reap(children, &running, tap, &totals);
            }
            fflush(NULL);
            pid_t pid = fork();
            if (pid < 0) {
                perror("fork");
                return 1;
            }
            if (pid == 0) {
                standin_run(test, (char *)params.params + i * params.size, timeout);
            }
            children[running++] = (struct standin_child){ test, i, pid };
        }
        if (params.cleanup != NULL) {
            params.cleanup(&params);
        }
    }
    while (running > 0) {
        standin_reap(children, &running, tap, &totals);
    }
    if (tap != NULL) {
        fclose(tap);
    }
    fprintf(
        stderr,
        "[====] Synthesis: Tested: %u | Passing: %u | Failing: %u | Crashing: %u \n",
        totals.tested, totals.passing, totals.failing, totals.crashing);
    return totals.failing == 0 ? 0 : 1;
}

#endif
