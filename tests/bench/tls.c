/* tls — what TLS costs: pushes, pulls and steps over it against the same without, and
 * against what one core encrypts; handshakes; idle connections.
 *
 * Two daemons, one of which serves TCP with certificates that optctl, which lies beside
 * it, makes for the run; clients show theirs. The cipher alone is that of the
 * connections, AES-256-GCM over 16 KiB with 16 bytes of tag, in this process.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/optclient.h"
#include "common/tls.h"
#include "tests/bench/bench.h"
#include "tests/bench/exchange.h"
#include "tests/bench/memory.h"
#include "tests/bench/placement.h"
#include "tests/bench/process.h"
#include "tests/bench/trainer.h"

enum {
    MESSAGE = 4 << 20,
    IN_FLIGHT = 8,
    TENSORS = 160,
    ELEMENTS = 156288,
    IDLE = 1000,
    HANDSHAKES = 100, /* in a run */
    RECORD = 16384,
    TAG = 16,
    PATH = 160,
    OPEN_MS = 5000
};

/* A daemon, and how it is reached. */
struct side {
    const char *name;
    struct server server;
    char address[4 * PATH];
    struct optclient *client;
    struct exchange exchange;
    struct trainer trainer;
    unsigned steps;
    struct opt_tls *tls; /* of handshakes; NULL: there are none */
    size_t opened;       /* in a run */
};

struct cipher {
    EVP_CIPHER_CTX *context;
    unsigned char *from, *to;
    size_t bytes;
};

struct contest {
    char folder[64];
    struct side plain, encrypted;
    struct cipher cipher;
};

static bool run_shell(const char *command)
{
    return system(command) == 0; /* NOLINT: of our own making */
}

/* -------------------------------------------------------------------- the sides */

static bool make_certificates(const struct bench *bench, struct contest *contest,
                              char problem[256])
{
    char command[1024];
    const char *slash = strrchr(bench->daemon, '/');
    int length = slash == NULL ? 0 : (int)(slash + 1 - bench->daemon);
    snprintf(contest->folder, sizeof contest->folder, "/tmp/optimd-bench-tls-XXXXXX");
    if (mkdtemp(contest->folder) == NULL) {
        snprintf(problem, 256, "cannot make a folder");
        return false;
    }
    snprintf(command, sizeof command,
             "for what in 'init %s' 'server localhost 127.0.0.1 --dir %s' 'client "
             "worker --dir %s'; do %.*soptctl cert $what >/dev/null || exit; done",
             contest->folder, contest->folder, contest->folder, length, bench->daemon);
    if (!run_shell(command)) {
        snprintf(problem, 256, "optctl cert has made no certificates");
        return false;
    }
    return true;
}

static bool start_encrypted(const struct bench *bench, struct contest *contest,
                            char problem[256])
{
    char cert[PATH], key[PATH], ca[PATH];
    const char *folder = contest->folder;
    struct side *side = &contest->encrypted;
    struct opt_error error;
    snprintf(cert, sizeof cert, "%s/localhost.crt", folder);
    snprintf(key, sizeof key, "%s/localhost.key", folder);
    snprintf(ca, sizeof ca, "%s/ca.crt", folder);
    if (!server_start_with(&side->server, bench->daemon,
                           (const char *const[]){ "--tls-cert", cert, "--tls-key", key,
                                                  "--tls-client-ca", ca,
                                                  "--max-handshakes", "2000",
                                                  "--max-connections", "1200", NULL },
                           problem)) {
        return false;
    }
    snprintf(side->address, sizeof side->address,
             "optimds://127.0.0.1:%u?ca=%s&cert=%s/worker.crt&key=%s/worker.key",
             (unsigned)side->server.port, ca, folder, folder);
    snprintf(cert, sizeof cert, "%s/worker.crt", folder);
    snprintf(key, sizeof key, "%s/worker.key", folder);
    const struct opt_tls_files files = { .cert = cert, .key = key, .ca = ca };
    if (opt_tls_client(&files, &side->tls, &error) != OPT_OK) {
        snprintf(problem, 256, "%.250s", error.text);
        return false;
    }
    return true;
}

static bool start_plain(const struct bench *bench, struct side *side, char problem[256])
{
    bool started = server_start_with(
        &side->server, bench->daemon,
        (const char *const[]){ "--max-connections", "1200", NULL }, problem);
    snprintf(side->address, sizeof side->address, "127.0.0.1:%u",
             (unsigned)side->server.port);
    return started;
}

/* ------------------------------------------------------------------ goodput */

static bool run_exchange(void *context, double *values, char problem[256])
{
    struct side *side = context;
    placement_set(PLACEMENT_TWO, getpid(), side->server.pid);
    double begin = server_processor_seconds(&side->server);
    bool done = exchange_run(&side->exchange, values, problem);
    double taken = server_processor_seconds(&side->server) - begin;
    values[1] = exchange_bytes(&side->exchange) / taken / 1e9;
    return done;
}

static double processor_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static bool run_cipher(void *context, double *values, char problem[256])
{
    struct cipher *cipher = context;
    static const unsigned char key[32] = { 1 }, nonce[12] = { 2 };
    int size;
    placement_set(PLACEMENT_ONE, getpid(), getpid());
    double begin = seconds_now(), busy = processor_seconds();
    for (size_t at = 0; at < cipher->bytes; at += RECORD) {
        if (EVP_EncryptInit_ex(cipher->context, EVP_aes_256_gcm(), NULL, key, nonce) !=
                1 ||
            EVP_EncryptUpdate(cipher->context, cipher->to, &size, cipher->from,
                              RECORD) != 1 ||
            EVP_EncryptFinal_ex(cipher->context, cipher->to + size, &size) != 1 ||
            EVP_CIPHER_CTX_ctrl(cipher->context, EVP_CTRL_GCM_GET_TAG, TAG,
                                cipher->to) != 1) {
            snprintf(problem, 256, "OpenSSL does not encrypt");
            return false;
        }
    }
    values[0] = (double)cipher->bytes / (seconds_now() - begin) / 1e9;
    values[1] = (double)cipher->bytes / (processor_seconds() - busy) / 1e9;
    return true;
}

static bool open_exchange(struct side *side, const struct bench *bench, float *from,
                          float *to, char problem[256])
{
    if (optclient_connect(side->address, NULL, &side->client) != OPTCLIENT_OK) {
        snprintf(problem, 256, "%.250s", optclient_error());
        return false;
    }
    side->exchange = (struct exchange){ .messages = bench->quick ? 12 : 48,
                                        .in_flight = IN_FLIGHT,
                                        .gradients = from,
                                        .weights = to };
    return exchange_open(&side->exchange, side->client, MESSAGE, problem);
}

static void compare_goodput(const struct bench *bench, struct contest *contest)
{
    /* What a loop could do if nobody else wanted its processor. */
    static const struct report_quantity quantities[] = {
        { "by the clock", "GB/s", REPORT_MORE, 0, 0 },
        { "by the daemon's processor time", "GB/s", REPORT_MORE, 0, 0 },
    }, of_cipher[] = {
        { "by the clock", "GB/s", REPORT_MORE, 0, 0 },
        { "by processor time", "GB/s", REPORT_MORE, 0.5, 0 },
    };
    for (int i = 0; i < 2; i++) {
        enum exchange_operation operation = i == 0 ? EXCHANGE_PUSH : EXCHANGE_PULL;
        char name[64];
        contest->plain.exchange.operation = operation;
        contest->encrypted.exchange.operation = operation;
        snprintf(name, sizeof name, "%s 4 MiB, many, TLS", i == 0 ? "push" : "pull");
        struct comparison comparison = {
            .name = name,
            .reference = "the same without",
            .quantities = quantities,
            .quantity_count = 2,
            .ours = { run_exchange, &contest->encrypted },
            .theirs = { run_exchange, &contest->plain },
        };
        compare(bench->report, &comparison, &bench->effort);
        comparison.reference = "AES-256-GCM, 16 KiB, one core";
        comparison.quantities = of_cipher;
        comparison.theirs = (struct compare_side){ run_cipher, &contest->cipher };
        compare(bench->report, &comparison, &bench->effort);
    }
}

static void measure_goodput(const struct bench *bench, struct contest *contest)
{
    char problem[256];
    float *from = malloc(EXCHANGE_REGION), *to = malloc(EXCHANGE_REGION);
    struct cipher *cipher = &contest->cipher;
    cipher->context = EVP_CIPHER_CTX_new();
    cipher->from = malloc(RECORD);
    cipher->to = malloc(RECORD);
    cipher->bytes = bench->quick ? 64 << 20 : 256 << 20;
    if (from == NULL || to == NULL || cipher->context == NULL || cipher->from == NULL ||
        cipher->to == NULL) {
        report_failure(bench->report, "tls: no memory");
    } else {
        memset(cipher->from, 7, RECORD);
        memset(to, 0, EXCHANGE_REGION);
        memory_fill(from, EXCHANGE_REGION / sizeof(float), 1, 1.0f, 1);
        if (open_exchange(&contest->plain, bench, from, to, problem) &&
            open_exchange(&contest->encrypted, bench, from, to, problem)) {
            compare_goodput(bench, contest);
        } else {
            report_failure(bench->report, "tls: %s", problem);
        }
    }
    placement_free();
    optclient_close(contest->plain.client);
    optclient_close(contest->encrypted.client);
    EVP_CIPHER_CTX_free(cipher->context);
    free(cipher->from);
    free(cipher->to);
    free(from);
    free(to);
}

/* -------------------------------------------------------------------- steps */

static bool run_steps(void *context, double *values, char problem[256])
{
    struct side *side = context;
    double seconds = trainers_run(&side->trainer, 1, side->steps, problem);
    values[0] = seconds * 1e3;
    return seconds >= 0;
}

/* Before this process has clients of its own. */
static bool start_trainer(const struct bench *bench, struct side *side,
                          char problem[256])
{
    const struct trainer_model model = { .address = side->address,
                                         .expression = "adam(lr=1e-3)",
                                         .atomic = OPTCLIENT_ATOMIC_SHARD,
                                         .tensors = TENSORS,
                                         .elements = ELEMENTS,
                                         .workers = 1,
                                         .way = TRAINER_SENDS };
    side->steps = bench->quick ? 2 : 6;
    return trainer_start(&side->trainer, &model, 0, problem);
}

static void measure_steps(const struct bench *bench, struct contest *contest)
{
    static const struct report_quantity time = { "time", "ms", REPORT_LESS, 1.5, 0 };
    char problem[256];
    const struct comparison comparison = {
        .name = "step, 25 million parameters, TLS",
        .reference = "the same without",
        .quantities = &time,
        .quantity_count = 1,
        .ours = { run_steps, &contest->encrypted },
        .theirs = { run_steps, &contest->plain },
    };
    if (start_trainer(bench, &contest->plain, problem) &&
        start_trainer(bench, &contest->encrypted, problem)) {
        compare(bench->report, &comparison, &bench->effort);
    } else {
        report_failure(bench->report, "tls: %s", problem);
    }
    trainer_stop(&contest->plain.trainer);
    trainer_stop(&contest->encrypted.trainer);
}

/* -------------------------------------------------------------------- connections */

static bool dial(const struct side *side, struct opt_transport *out, char problem[256])
{
    const struct opt_socket_tuning tuning = { .local = "", .other = "" };
    const struct sockaddr_in address = { .sin_family = AF_INET,
                                         .sin_port = htons(side->server.port),
                                         .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct opt_error error;
    bool dialled = opt_transport_dial(out, (const struct sockaddr *)&address,
                                      sizeof address, &tuning, &error) == OPT_OK &&
                   (side->tls == NULL ||
                    opt_tls_dial(side->tls, "127.0.0.1", out, &error) == OPT_OK);
    while (dialled && !out->is_open) {
        struct pollfd due = { .fd = out->fd, .events = out->awaits };
        dialled = poll(&due, 1, OPEN_MS) == 1 && out->kind->open(out, &error) == OPT_OK;
    }
    if (!dialled) {
        snprintf(problem, 256, "a connection was not opened");
    }
    return dialled;
}

/* Connections opened and closed a second. */
static bool run_openings(void *context, double *values, char problem[256])
{
    const struct side *side = context;
    double begin = seconds_now();
    for (size_t i = 0; i < side->opened; i++) {
        struct opt_transport transport;
        if (!dial(side, &transport, problem)) {
            return false;
        }
        transport.kind->close(&transport);
    }
    values[0] = (double)side->opened / (seconds_now() - begin);
    return true;
}

static void measure_openings(const struct bench *bench, struct contest *contest)
{
    static const struct report_quantity rate = { "", "/s", REPORT_MORE, 0, 0 };
    const struct comparison comparison = {
        .name = "connections opened, with a certificate at each end",
        .reference = "without TLS",
        .quantities = &rate,
        .quantity_count = 1,
        .ours = { run_openings, &contest->encrypted },
        .theirs = { run_openings, &contest->plain },
    };
    contest->plain.opened = HANDSHAKES;
    contest->encrypted.opened = HANDSHAKES;
    compare(bench->report, &comparison, &bench->effort);
}

static size_t resident(const struct server *server)
{
    char path[64];
    unsigned long pages = 0;
    snprintf(path, sizeof path, "/proc/%ld/statm", (long)server->pid);
    FILE *file = fopen(path, "re");
    if (file == NULL || fscanf(file, "%*u %lu", &pages) != 1) {
        pages = 0;
    }
    if (file != NULL) {
        fclose(file);
    }
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static bool run_idle(void *context, double *values, char problem[256])
{
    const struct side *side = context;
    static struct opt_transport idle[IDLE];
    size_t before = resident(&side->server), count = 0;
    while (count < IDLE && dial(side, &idle[count], problem)) {
        count++;
    }
    values[0] = (double)(resident(&side->server) - before) / 1048576;
    for (size_t i = 0; i < count; i++) {
        idle[i].kind->close(&idle[i]);
    }
    return count == IDLE;
}

/* Only the first time: what was given back to the daemon's heap is not seen later. */
static void measure_idle(const struct bench *bench, struct contest *contest)
{
    double with = 0, without = 0;
    char problem[256];
    if (run_idle(&contest->encrypted, &with, problem) &&
        run_idle(&contest->plain, &without, problem)) {
        report_fact(bench->report, "memory of 1000 idle connections",
                    "%.0f MiB with TLS (goal: 64), %.0f MiB without", with, without);
    } else {
        report_failure(bench->report, "tls: %s", problem);
    }
}

void bench_tls(const struct bench *bench)
{
    struct contest contest = { .folder = "" };
    char problem[256], command[128];
    if (!make_certificates(bench, &contest, problem) ||
        !start_plain(bench, &contest.plain, problem) ||
        !start_encrypted(bench, &contest, problem)) {
        report_failure(bench->report, "tls: %s", problem);
    } else {
        measure_idle(bench, &contest);
        measure_steps(bench, &contest);
        measure_openings(bench, &contest);
        measure_goodput(bench, &contest);
    }
    opt_tls_free(contest.encrypted.tls);
    if (!server_stop(&contest.plain.server) ||
        !server_stop(&contest.encrypted.server)) {
        report_failure(bench->report, "tls: a daemon did not stop cleanly");
    }
    if (contest.folder[0] != '\0') {
        snprintf(command, sizeof command, "rm -r %s", contest.folder);
        (void)run_shell(command);
    }
}
