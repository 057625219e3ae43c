/* bench_optimd — measure optimd against what the machine could do.
 *
 *   bench_optimd [--quick] [--only GROUP]... [--daemon PROGRAM] [--deepspeed PROGRAM]
 *                [--ps-lite PROGRAM] [--json FILE] [--page FILE] [--curves DIR]
 *
 * Every figure is a ratio of two things measured by turns in this run. Exits with 1 if
 * something could not be measured; goals that are missed are shown, not punished.
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/bench.h"
#include "tests/bench/machine.h"
#include "tests/bench/page.h"

/* Adding a group: its function in bench.h, and a row here. The seconds are its share of
 * a full run; what it leaves is its successors', what it takes beyond is only the least
 * number of pairs. */
static const struct group {
    const char *name, *title;
    void (*run)(const struct bench *bench);
    double seconds;
    bool full_only; /* a quick run has no time for it, unless it is asked for */
} groups[] = {
    { "kernels", "Optimizer updates against the memory: true traffic, triad = 1",
      bench_kernels, 200, false },
    { "composition", "Composed and portable kernels: time, by hand or native = 1",
      bench_composition, 45, false },
    { "peers", "Updates against PyTorch's and DeepSpeed's: time, theirs = 1",
      bench_peers, 60, false },
    { "peer-messages",
      "Pushes and pulls against those of Redis and ps-lite, a processor for each end "
      "unless said",
      bench_peer_messages, 60, false },
    { "peer-training", "Synchronous steps against those of ps-lite and PyTorch",
      bench_peer_training, 90, true },
    { "sparse", "Rows of a large table against rows of a small one: time", bench_sparse,
      10, false },
    { "transfer",
      "Pushes and pulls against bare blocking sockets, a processor for each end unless "
      "said",
      bench_transfer, 90, false },
    { "latency", "Small pushes against a libuv echo server", bench_latency, 15, false },
    { "turns", "Small pushes served by a loop itself, or awaited awake", bench_turns,
      20, false },
    { "bystander",
      "The longest wait of small pushes while the largest messages come in, and the "
      "turns that take longest",
      bench_bystander, 120, true },
    { "since", "Pulls of what has changed against pulls of everything", bench_since, 10,
      false },
    { "connections",
      "Small pushes beside a thousand idle connections, both ends on one processor",
      bench_connections, 45, false },
    { "scale", "What more of it costs each: parameters, tensors, workers, connections",
      bench_scale, 150, false },
    { "training", "Synchronous training, Adam, 25 million parameters in 160 tensors",
      bench_training, 90, false },
    { "slow-link",
      "Steps by shards against whole rounds, two network namespaces and 2 Gbit/s "
      "between",
      bench_slow_link, 40, true },
    { "sharing", "The same steps by workers on the daemon's machine that share memory",
      bench_sharing, 60, false },
    { "tls", "Pushes, pulls, steps and connections with TLS against those without",
      bench_tls, 45, false },
    { "store", "What it costs to lose nothing: a journal, checkpoints, recoveries",
      bench_store, 90, true },
};
enum { GROUPS = sizeof groups / sizeof groups[0] };

struct choice {
    struct bench bench;
    bool chosen[GROUPS];
    bool all;
    const char *json, *page, *curves;
};

static void usage(FILE *out)
{
    fputs(
        "usage: bench_optimd [--quick] [--only GROUP]... [--daemon PROGRAM] "
        "[--deepspeed PROGRAM]\n                    [--ps-lite PROGRAM] [--json FILE] "
        "[--page FILE] [--curves DIR]\ngroups:\n",
        out);
    for (size_t i = 0; i < GROUPS; i++) {
        fprintf(out, "  %-13s %s\n", groups[i].name, groups[i].title);
    }
}

static bool choose_group(struct choice *choice, const char *name)
{
    for (size_t i = 0; i < GROUPS; i++) {
        if (strcmp(groups[i].name, name) == 0) {
            choice->chosen[i] = true;
            choice->all = false;
            return true;
        }
    }
    fprintf(stderr, "bench_optimd: no group is called %s\n", name);
    return false;
}

/* Returns whether to go on; if not, *status is what to exit with. */
static bool choose(int count, char **words, struct choice *choice, int *status)
{
    static const struct option options[] = {
        { "quick", no_argument, NULL, 'q' },
        { "only", required_argument, NULL, 'o' },
        { "daemon", required_argument, NULL, 'd' },
        { "deepspeed", required_argument, NULL, 's' },
        { "ps-lite", required_argument, NULL, 'l' },
        { "json", required_argument, NULL, 'j' },
        { "page", required_argument, NULL, 'p' },
        { "curves", required_argument, NULL, 'c' },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    int option;
    *status = 64;
    while ((option = getopt_long(count, words, "", options, NULL)) != -1) {
        switch (option) {
        case 'q':
            choice->bench.quick = true;
            break;
        case 'o':
            if (!choose_group(choice, optarg)) {
                return false;
            }
            break;
        case 'd':
            choice->bench.daemon = optarg;
            break;
        case 's':
            choice->bench.deepspeed = optarg;
            break;
        case 'l':
            choice->bench.ps_lite = optarg;
            break;
        case 'j':
            choice->json = optarg;
            break;
        case 'p':
            choice->page = optarg;
            break;
        case 'c':
            choice->curves = optarg;
            break;
        case 'h':
            usage(stdout);
            *status = 0;
            return false;
        default:
            usage(stderr);
            return false;
        }
    }
    return optind == count || (usage(stderr), false);
}

static bool save(const struct choice *choice)
{
    const struct report *report = choice->bench.report;
    bool saved = report_save(report, choice->json);
    if (choice->page != NULL) {
        saved = page_write(report, choice->page) && saved;
    }
    if (choice->curves != NULL) {
        saved = page_curves(report, choice->curves) && saved;
    }
    return saved;
}

static void report_groups(const struct choice *choice)
{
    char names[256] = "all";
    size_t used = 0;
    for (size_t i = 0; !choice->all && i < GROUPS; i++) {
        if (choice->chosen[i] && used < sizeof names) {
            used += (size_t)snprintf(names + used, sizeof names - used, "%s%s",
                                     used == 0 ? "" : ", ", groups[i].name);
        }
    }
    report_fact(choice->bench.report, "groups", "%s", names);
}

/* One after the other, each until its share of the time and what its predecessors have
 * left of theirs is used up. */
static void run_groups(struct choice *choice)
{
    struct bench *bench = &choice->bench;
    double begin = seconds_now(), share = 0;
    for (size_t i = 0; i < GROUPS; i++) {
        if (choice->all ? !groups[i].full_only || !bench->quick : choice->chosen[i]) {
            double idle;
            bool quiet = machine_quiet(bench->quick ? 0 : 3, &idle);
            share += bench->quick ? groups[i].seconds / 17 : groups[i].seconds;
            bench->effort.deadline = begin + share;
            report_group(bench->report, groups[i].name, groups[i].title, idle, quiet);
            groups[i].run(bench);
        }
    }
}

int main(int count, char **words)
{
    struct choice choice = { .bench = { .daemon = "build/optimd" },
                             .all = true,
                             .json = "build/bench/results.json" };
    struct bench *bench = &choice.bench;
    int status;
    if (!choose(count, words, &choice, &status)) {
        return status;
    }
    double begin = seconds_now(), idle;
    bench->effort = bench->quick ? (struct compare_effort){ .pairs = 5, .seconds = 0.5 }
                                 : (struct compare_effort){ .pairs = 7, .seconds = 5 };
    bench->report = report_new(stdout);
    if (bench->report == NULL) {
        fputs("bench_optimd: no memory\n", stderr);
        return 1;
    }
    alarm(bench->quick ? 180 : 2700); /* nothing here may hang for ever */
    machine_describe(bench->report);
    report_fact(bench->report, "run", "%s, at most %zu pairs of each",
                bench->quick ? "quick" : "full", bench->effort.pairs);
    report_groups(&choice);
    bool quiet = machine_quiet(bench->quick ? 3 : 30, &idle);
    report_fact(bench->report, "before it began", "processors %.0f %% idle%s",
                idle * 100, quiet ? "" : ": other programs were busy");
    run_groups(&choice);
    bool saved = save(&choice);
    size_t failures = report_failures(bench->report);
    printf("\n%zu rows, %zu not measured, %.0f s\n", report_rows(bench->report),
           failures, seconds_now() - begin);
    report_free(bench->report);
    return saved && failures == 0 ? 0 : 1;
}
