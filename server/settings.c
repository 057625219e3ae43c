/* settings — see settings.h: the table, its values, and what they must be together. The
 * file is read by settings_file.c. */
#include "server/settings.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "common/optim/options.h"
#include "common/quantity.h"
#include "common/tls.h"
#include "common/wire.h"
#include "server/base/quota.h"
#include "server/control_group.h"
#include "server/net/socket.h"
#include "server/settings_file.h"

enum setting_kind {
    SETTING_WORD, /* text */
    SETTING_FLAG,
    SETTING_CHOICE, /* one of some words; its number is kept */
    SETTING_LEVEL,
    SETTING_COUNT,
    SETTING_BYTES,
    SETTING_TIME /* milliseconds */
};

struct setting {
    const char *name;
    enum setting_kind kind;
    size_t offset;
    const char *standard; /* default; NULL: depends on the machine, */
    const char *derived;  /* as these words say */
    uint64_t least, most;
    const char *argument;
    const char *help;
};

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define SECOND UINT64_C(1000)
#define HOUR (3600 * SECOND)
#define AT(field) offsetof(struct settings, field)

// clang-format off
static const struct setting table[] = {
    { "listen", SETTING_WORD, AT(listen), "127.0.0.1:7070", NULL, 0, 0, "ADDR[,ADDR]",
      "what to serve: HOST:PORT (port 0: a free one), unix:/PATH, or several" },
    { "insecure", SETTING_FLAG, AT(insecure), "false", NULL, 0, 0, NULL,
      "serve an address that other machines reach, although strangers need no login" },
    { "tls-cert", SETTING_WORD, AT(tls_cert), "", NULL, 0, 0, "FILE",
      "serve all TCP addresses with TLS 1.3 and this certificate (PEM, with its chain)" },
    { "tls-key", SETTING_WORD, AT(tls_key), "", NULL, 0, 0, "FILE",
      "the private key of tls-cert (PEM)" },
    { "tls-client-ca", SETTING_WORD, AT(tls_client_ca), "", NULL, 0, 0, "FILE",
      "the CA whose certificates clients show (PEM)" },
    { "tls-clients", SETTING_CHOICE, AT(tls_clients), NULL,
      "required with tls-client-ca, none without", 0, 0, "WORD",
      "whether clients must show a certificate: required, optional or none" },
    { "max-handshakes", SETTING_COUNT, AT(max_handshakes), "256", NULL, 1, 1000000, "N",
      "handshakes of TLS that run at a time; connections beyond are closed" },
    { "login", SETTING_CHOICE, AT(login), "strangers", NULL, 0, 0, "WORD",
      "who needs a login: strangers, from other machines, or everybody" },
    { "tokens", SETTING_WORD, AT(tokens), "", NULL, 0, 0, "FILE",
      "who may log in with which token, and what for (made by optctl token)" },
    { "cert-roles", SETTING_WORD, AT(cert_roles), "", NULL, 0, 0, "FILE",
      "what the certificates of clients are logins for" },
    { "unix-users", SETTING_WORD, AT(unix_users), "", NULL, 0, 0, "USER=ROLE[,...]",
      "what users of this machine may on Unix sockets; *: all others" },
    { "unix-mode", SETTING_WORD, AT(unix_mode), "0660", NULL, 0, 0, "MODE",
      "mode of the files of Unix sockets: who may connect" },
    { "no-shared-memory", SETTING_FLAG, AT(no_shared_memory), "false", NULL, 0, 0, NULL,
      "send everything to workers on Unix sockets as well, and share no memory with them" },
    { "data-dir", SETTING_WORD, AT(data_dir), "", NULL, 0, 0, "DIR",
      "directory that belongs to this daemon alone, where models are kept" },
    { "durability", SETTING_CHOICE, AT(durability), "interval", NULL, 0, 0, "WORD",
      "when a push is safe: always, interval or checkpoint; for models that do not say" },
    { "journal-interval", SETTING_TIME, AT(journal_interval), "1s", NULL, 1, HOUR, "TIME",
      "longest that a record of the journal waits to be forced to the disk" },
    { "journal-queue", SETTING_BYTES, AT(journal_queue), "256MiB", NULL, 1 * MIB,
      UINT64_MAX / 4, "SIZE", "records that wait for the disk before pushes do" },
    { "checkpoint-interval", SETTING_TIME, AT(checkpoint_interval), "30s", NULL, 0, 24 * HOUR,
      "TIME", "between two checkpoints of a model that has changed; 0: none by the clock" },
    { "recover", SETTING_CHOICE, AT(recover), "exact", NULL, 0, 0, "WORD",
      "exact, or previous: begin with the checkpoint before one that is damaged" },
    { "port-file", SETTING_WORD, AT(port_file), "", NULL, 0, 0, "FILE",
      "write the port to this file when it can be connected to" },
    { "log-level", SETTING_LEVEL, AT(log_level), "info", NULL, 0, 0, "LEVEL",
      "least important events to log: debug, info, warn or error" },
    { "loops", SETTING_COUNT, AT(loops), NULL, "1, or 2 from 8 cores on",
      1, QUOTA_LOOPS_MAX, "N", "threads that serve connections" },
    { "threads", SETTING_COUNT, AT(threads), NULL, "the cores that loops leave, at least 1",
      1, 1024, "N", "threads that compute updates" },
    { "shared-threads", SETTING_COUNT, AT(shared_threads), NULL,
      "what threads is given, or all cores", 1, 1024, "N",
      "the same where all gradients came through shared memory, and no loop is busy" },
    { "spin", SETTING_COUNT, AT(spin), "0", NULL, 0, 10000, "N",
      "microseconds that a loop goes on looking for bytes before it sleeps" },
    { "memory", SETTING_BYTES, AT(memory), NULL, "half of what the machine, or its control groups, give",
      1 * MIB, UINT64_MAX / 4, "SIZE",
      "for weights, optimizer state, gradients of joined workers, shared memory" },
    { "max-models", SETTING_COUNT, AT(max_models), "1024", NULL, 1, 65536, "N",
      "models at a time" },
    { "max-tensors", SETTING_COUNT, AT(max_tensors), "131072", NULL, 1, OPT_TENSORS_MAX, "N",
      "tensors of a model" },
    { "lease", SETTING_TIME, AT(lease), "5s", NULL, 100, 24 * HOUR, "TIME",
      "silence after which a worker is taken for dead" },
    { "heartbeat", SETTING_TIME, AT(heartbeat), "1s", NULL, 10, HOUR, "TIME",
      "how often workers are asked to say something" },
    { "grace", SETTING_TIME, AT(grace), "5s", NULL, 0, 24 * HOUR, "TIME",
      "for a worker whose connection broke to come back" },
    { "timeout-limit", SETTING_TIME, AT(timeout_limit), "60s", NULL, 100, 24 * HOUR, "TIME",
      "longest that a request may wait for its answer" },
    { "max-connections", SETTING_COUNT, AT(max_connections), "1024", NULL, 1, 1000000, "N",
      "connections at a time; lowered where the limit of open files is" },
    { "max-frame", SETTING_BYTES, AT(max_frame), "64MiB", NULL, 64 * KIB, 1 * GIB, "SIZE",
      "longest frame received" },
    { "max-header", SETTING_BYTES, AT(max_header), "512KiB", NULL, 4 * KIB, 1 * MIB, "SIZE",
      "longest part of a frame that is not tensor data" },
    { "max-table", SETTING_BYTES, AT(max_table), "16MiB", NULL, 4 * KIB, 1 * GIB, "SIZE",
      "longest list of tensors received" },
    { "connection-inflight", SETTING_BYTES, AT(connection_inflight), NULL,
      "64MiB, at least max-frame", 64 * KIB, UINT64_MAX / 4, "SIZE",
      "unanswered requests of one connection; the gradients of a joined worker are extra" },
    { "inflight", SETTING_BYTES, AT(inflight), NULL, "a quarter of memory, at least max-frame",
      64 * KIB, UINT64_MAX / 4, "SIZE", "the same over all connections" },
    { "hello-timeout", SETTING_TIME, AT(hello_timeout), "5s", NULL, 10, HOUR, "TIME",
      "from connecting to hello" },
    { "frame-timeout", SETTING_TIME, AT(frame_timeout), "30s", NULL, 10, HOUR, "TIME",
      "for a frame to arrive, unless it comes at frame-rate" },
    { "frame-rate", SETTING_BYTES, AT(frame_rate), "64KiB", NULL, 1, 1 * GIB, "SIZE",
      "bytes a second at which a frame may take longer" },
    { "write-timeout", SETTING_TIME, AT(write_timeout), "30s", NULL, 10, HOUR, "TIME",
      "for a peer to go on reading its answers" },
    { "write-rate", SETTING_BYTES, AT(write_rate), "64KiB", NULL, 1, 1 * GIB, "SIZE",
      "bytes a second that a peer must read on average, over write-timeout" },
    { "idle-timeout", SETTING_TIME, AT(idle_timeout), "60s", NULL, 10, 24 * HOUR, "TIME",
      "for a peer that is no worker to ask something" },
    { "room-timeout", SETTING_TIME, AT(room_timeout), "30s", NULL, 10, HOUR, "TIME",
      "for a request to find room in inflight" },
    { "user-timeout", SETTING_TIME, AT(user_timeout), "10s", NULL, 0, HOUR, "TIME",
      "for a peer's machine to acknowledge what was sent; 0 leaves it to the system" },
    { "congestion", SETTING_WORD, AT(congestion), "cubic", NULL, 0, 0, "NAME",
      "congestion control towards this machine itself, where the kernel has it" },
};
// clang-format on

enum { COUNT = sizeof(table) / sizeof(table[0]) };

/* What a choice may be, by its number; NULL after the last. "" cannot be said. */
static const char *const *words_of(const struct setting *setting)
{
    static const char *const durabilities[] = { "", "always", "interval", "checkpoint",
                                                NULL };
    static const char *const recoveries[] = { "exact", "previous", NULL };
    static const char *const clients[] = { "required", "optional", "none", NULL };
    static const char *const logins[] = { "strangers", "everybody", NULL };
    return setting->offset == AT(durability)    ? durabilities
           : setting->offset == AT(tls_clients) ? clients
           : setting->offset == AT(login)       ? logins
                                                : recoveries;
}

static const char *name_at(size_t index, const void *context)
{
    (void)context;
    return table[index].name;
}

/* -------------------------------------------------------------------- values */

static void *field(struct settings *settings, const struct setting *setting)
{
    return (char *)settings + setting->offset;
}

static uint64_t number_of(const struct settings *settings,
                          const struct setting *setting)
{
    uint64_t value;
    memcpy(&value, (const char *)settings + setting->offset, sizeof(value));
    return value;
}

/* A number as people write it, and as it would be read back. */
static void print_number(enum setting_kind kind, uint64_t value, char *out, size_t size)
{
    static const struct {
        uint64_t unit;
        const char *name;
    } bytes[] = { { GIB, "GiB" }, { MIB, "MiB" }, { KIB, "KiB" }, { 1, "B" } },
      times[] = { { HOUR, "h" }, { 60 * SECOND, "min" }, { SECOND, "s" }, { 1, "ms" } };
    if (kind == SETTING_COUNT) {
        snprintf(out, size, "%" PRIu64, value);
        return;
    }
    for (size_t i = 0; i < 4; i++) {
        uint64_t unit = kind == SETTING_BYTES ? bytes[i].unit : times[i].unit;
        if (value % unit == 0 && (value > 0 || unit == 1)) {
            snprintf(out, size, "%" PRIu64 "%s", value / unit,
                     kind == SETTING_BYTES ? bytes[i].name : times[i].name);
            return;
        }
    }
}

static enum opt_status parse_number(const struct setting *setting, const char *text,
                                    uint64_t *out, struct opt_error *error)
{
    enum opt_status status = OPT_OK;
    if (setting->kind == SETTING_COUNT) {
        status = opt_quantity_count(text, out, error);
    } else if (setting->kind == SETTING_BYTES) {
        status = opt_quantity_bytes(text, out, error);
    } else {
        status = opt_quantity_milliseconds(text, out, error);
    }
    if (status != OPT_OK) {
        return status;
    }
    if (*out < setting->least || *out > setting->most) {
        char least[32];
        char most[32];
        print_number(setting->kind, setting->least, least, sizeof(least));
        print_number(setting->kind, setting->most, most, sizeof(most));
        return opt_fail(error, OPT_OUT_OF_RANGE,
                        "\"%s\" is out of range; right would be %s to %s", text, least,
                        most);
    }
    return OPT_OK;
}

/* One of the words of a choice. */
static enum opt_status choose(struct settings *settings, const struct setting *setting,
                              const char *text, struct opt_error *error)
{
    char right[128] = "";
    size_t used = 0;
    const char *const *words = words_of(setting);
    for (uint64_t i = 0; words[i] != NULL; i++) {
        const char *word = words[i];
        if (word[0] == '\0') {
            continue;
        }
        if (strcmp(word, text) == 0) {
            memcpy(field(settings, setting), &i, sizeof i);
            return OPT_OK;
        }
        bool last = words[i + 1] == NULL;
        used += (size_t)snprintf(right + used, sizeof right - used, "%s%s",
                                 used == 0 ? ""
                                 : last    ? " or "
                                           : ", ",
                                 word);
    }
    return opt_fail(error, OPT_INVALID_ARGUMENT,
                    "\"%s\" is none of its words; right would be %s", text, right);
}

/* Give a setting its value. The sentence does not say where the value stood. */
static enum opt_status set(struct settings *settings, const struct setting *setting,
                           const char *text, struct opt_error *error)
{
    switch (setting->kind) {
    case SETTING_WORD:
        if (strlen(text) >= SETTING_TEXT) {
            return opt_fail(error, OPT_OUT_OF_RANGE,
                            "the value has %zu bytes; right would be at most %d",
                            strlen(text), SETTING_TEXT - 1);
        }
        memcpy(field(settings, setting), text, strlen(text) + 1);
        return OPT_OK;
    case SETTING_FLAG:
        if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "\"%s\" is neither true nor false", text);
        }
        *(bool *)field(settings, setting) = text[0] == 't';
        return OPT_OK;
    case SETTING_CHOICE:
        return choose(settings, setting, text, error);
    case SETTING_LEVEL:
        if (!opt_log_level_parse(text, field(settings, setting))) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "\"%s\" is no level; right would be debug, info, warn or "
                            "error",
                            text);
        }
        return OPT_OK;
    case SETTING_COUNT:
    case SETTING_BYTES:
    case SETTING_TIME:
        break;
    }
    uint64_t value = 0;
    enum opt_status status = parse_number(setting, text, &value, error);
    if (status == OPT_OK) {
        memcpy(field(settings, setting), &value, sizeof(value));
    }
    return status;
}

/* --------------------------------------------------------------- command line */

enum { OPTION_CONFIG = 1000, OPTION_CHECK, OPTION_HELP, OPTION_VERSION };

static void make_options(struct option options[COUNT + 5])
{
    for (int i = 0; i < COUNT; i++) {
        options[i] = (struct option){
            .name = table[i].name,
            .has_arg =
                table[i].kind == SETTING_FLAG ? optional_argument : required_argument,
            .val = i,
        };
    }
    options[COUNT] =
        (struct option){ "config", required_argument, NULL, OPTION_CONFIG };
    options[COUNT + 1] =
        (struct option){ "check-config", no_argument, NULL, OPTION_CHECK };
    options[COUNT + 2] = (struct option){ "help", no_argument, NULL, OPTION_HELP };
    options[COUNT + 3] =
        (struct option){ "version", no_argument, NULL, OPTION_VERSION };
    options[COUNT + 4] = (struct option){ NULL, 0, NULL, 0 };
}

struct command_line {
    const char *config;
    const char *values[COUNT]; /* borrowed from argv, or NULL */
    enum settings_action action;
};

static enum opt_status misuse(struct command_line *line, struct opt_error *error,
                              const char *what, const char *which)
{
    line->action = SETTINGS_MISUSED;
    const char *word = which + strspn(which, "-");
    const char *near = which[0] == '-'
                           ? opt_nearest(word, strcspn(word, "="), COUNT, name_at, NULL)
                           : NULL;
    return opt_fail(error, OPT_INVALID_ARGUMENT, "%s %s%s%s; see optimd --help", what,
                    which, near != NULL ? ", perhaps --" : "",
                    near != NULL ? near : "");
}

static enum opt_status read_command_line(int argc, char **argv,
                                         struct command_line *line,
                                         struct opt_error *error)
{
    struct option options[COUNT + 5];
    make_options(options);
    *line = (struct command_line){ .action = SETTINGS_RUN };
    opterr = 0;
    optind = 0;
    for (;;) {
        int before = optind > 0 ? optind : 1;
        int code = getopt_long(argc, argv, ":", options, NULL);
        if (code == -1) {
            break;
        }
        switch (code) {
        case OPTION_CONFIG:
            line->config = optarg;
            break;
        case OPTION_CHECK:
            line->action = SETTINGS_CHECK;
            break;
        case OPTION_HELP:
            line->action = SETTINGS_HELP;
            return OPT_OK;
        case OPTION_VERSION:
            line->action = SETTINGS_VERSION;
            return OPT_OK;
        case '?':
            return misuse(line, error, "unknown option", argv[before]);
        case ':':
            return misuse(line, error, "no value after", argv[before]);
        default:
            line->values[code] = optarg != NULL ? optarg : "true";
            break;
        }
    }
    if (optind < argc) {
        return misuse(line, error,
                      "nothing is expected after the options, but there is",
                      argv[optind]);
    }
    return OPT_OK;
}

/* -------------------------------------------------------------------- sources */

/* What was said, and where. */
struct sources {
    const struct command_line *line;
    const struct settings_file *file;
};

static const char *said(const struct sources *sources, size_t i)
{
    const char *value = sources->line->values[i];
    return value != NULL ? value : sources->file->values[i];
}

/* Refuse the value of a setting, and say where it stands. */
static enum opt_status refuse(const struct sources *sources, size_t i,
                              const char *sentence, struct opt_error *error)
{
    if (sources->line->values[i] != NULL) {
        return opt_fail(error, OPT_INVALID_ARGUMENT, "--%s: %s", table[i].name,
                        sentence);
    }
    if (sources->file->values[i] != NULL) {
        return opt_fail(
            error, OPT_INVALID_ARGUMENT, "%s:%u: %s: %s", sources->file->path,
            settings_file_line(sources->file, table[i].name), table[i].name, sentence);
    }
    return opt_fail(error, OPT_INVALID_ARGUMENT, "%s: %s", table[i].name, sentence);
}

/* The row of the setting that is kept there. */
static size_t row_of(size_t offset)
{
    size_t i = 0;
    while (table[i].offset != offset) {
        i++;
    }
    return i;
}

/* Give the settings what was said. All of the file is checked, also what the command
 * line says otherwise. */
static enum opt_status set_all(struct settings *settings, const struct sources *sources,
                               struct opt_error *error)
{
    static const struct command_line nothing = { .action = SETTINGS_RUN };
    const struct sources file_alone = { &nothing, sources->file };
    for (size_t i = 0; i < COUNT; i++) {
        const char *in_file = sources->file->values[i];
        const char *in_line = sources->line->values[i];
        struct opt_error cause;
        if (in_file != NULL && set(settings, &table[i], in_file, &cause) != OPT_OK) {
            return refuse(&file_alone, i, cause.text, error);
        }
        if (in_line != NULL && set(settings, &table[i], in_line, &cause) != OPT_OK) {
            return refuse(sources, i, cause.text, error);
        }
    }
    return OPT_OK;
}

/* ------------------------------------------------------------------- defaults */

static uint64_t at_least(uint64_t value, uint64_t least)
{
    return value > least ? value : least;
}

static uint64_t at_most(uint64_t value, uint64_t most)
{
    return value < most ? value : most;
}

/* What the process may use: all of the machine, or the limit of its control groups. */
static uint64_t usable_memory(void)
{
    return at_most(uv_get_total_memory(), control_group_memory(""));
}

/* The same for cores; those that it is not held to by its affinity are not counted. */
static uint64_t usable_cores(void)
{
    return at_most(uv_available_parallelism(), control_group_cores(""));
}

/* The value of a setting that depends on the machine and on settings before it. */
static uint64_t derive(const struct settings *settings, const struct sources *sources,
                       const char *name)
{
    uint64_t cores = usable_cores();
    if (strcmp(name, "tls-clients") == 0) {
        return settings->tls_client_ca[0] != '\0' ? OPT_TLS_CLIENTS_REQUIRED
                                                  : OPT_TLS_CLIENTS_NONE;
    }
    if (strcmp(name, "shared-threads") == 0) {
        return said(sources, row_of(AT(threads))) != NULL
                   ? settings->threads
                   : at_least(cores, settings->threads);
    }
    if (strcmp(name, "threads") == 0) {
        return cores > settings->loops ? cores - settings->loops : 1;
    }
    if (strcmp(name, "loops") == 0) {
        return cores >= 8 ? 2 : 1;
    }
    if (strcmp(name, "memory") == 0) {
        return at_least(usable_memory() / 2, 1 * MIB);
    }
    if (strcmp(name, "connection-inflight") == 0) {
        return at_least(64 * MIB, settings->max_frame);
    }
    return at_least(settings->memory / 4, settings->max_frame);
}

static enum opt_status fill_defaults(struct settings *settings,
                                     const struct sources *sources,
                                     struct opt_error *error)
{
    for (size_t i = 0; i < COUNT; i++) {
        if (said(sources, i) == NULL && table[i].standard != NULL) {
            enum opt_status status = set(settings, &table[i], table[i].standard, error);
            if (status != OPT_OK) {
                return status;
            }
        }
    }
    for (size_t i = 0; i < COUNT; i++) {
        if (said(sources, i) == NULL && table[i].standard == NULL) {
            uint64_t value = derive(settings, sources, table[i].name);
            memcpy(field(settings, &table[i]), &value, sizeof(value));
        }
    }
    return OPT_OK;
}

/* ------------------------------------------------------------------- together */

/* Settings that only make sense in a certain order. */
static enum opt_status check_order(const struct settings *settings,
                                   const struct sources *sources,
                                   struct opt_error *error)
{
    static const struct {
        size_t less, more;
    } pairs[] = {
        { AT(heartbeat), AT(lease) },
        { AT(max_header), AT(max_frame) },
        { AT(max_frame), AT(connection_inflight) },
        { AT(max_frame), AT(inflight) },
    };
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        size_t more_row = row_of(pairs[i].more);
        const struct setting *less = &table[row_of(pairs[i].less)];
        const struct setting *more = &table[more_row];
        uint64_t low = number_of(settings, less);
        uint64_t high = number_of(settings, more);
        if (low > high) {
            char low_text[32];
            char high_text[32];
            print_number(less->kind, low, low_text, sizeof(low_text));
            print_number(more->kind, high, high_text, sizeof(high_text));
            struct opt_error cause;
            /* The one to blame is one that was said. */
            if (said(sources, more_row) != NULL) {
                opt_fail(&cause, OPT_INVALID_ARGUMENT,
                         "%s is less than %s with its %s; right would be %s or more",
                         high_text, less->name, low_text, low_text);
                return refuse(sources, more_row, cause.text, error);
            }
            opt_fail(&cause, OPT_INVALID_ARGUMENT,
                     "%s is more than %s with its %s; right would be %s or less",
                     low_text, more->name, high_text, high_text);
            return refuse(sources, row_of(pairs[i].less), cause.text, error);
        }
    }
    return OPT_OK;
}

/* Whether the daemon knows its clients, so that others than this machine may reach it.
 */
static bool knows_clients(const struct settings *settings)
{
    return settings->tls_cert[0] != '\0' &&
           (settings->tls_clients == OPT_TLS_CLIENTS_REQUIRED ||
            settings->tokens[0] != '\0');
}

/* The row to blame if one of them is missing, or COUNT. */
static size_t find_missing(const struct settings *settings, const char **why)
{
    bool has_cert = settings->tls_cert[0] != '\0';
    if (has_cert != (settings->tls_key[0] != '\0')) {
        *why = "TLS needs both a certificate and its key; give tls-cert and tls-key";
        return row_of(has_cert ? AT(tls_cert) : AT(tls_key));
    }
    if (!has_cert && settings->tls_client_ca[0] != '\0') {
        *why = "certificates are only asked for with TLS; give tls-cert and tls-key";
        return row_of(AT(tls_client_ca));
    }
    if (settings->tls_clients != OPT_TLS_CLIENTS_NONE &&
        settings->tls_client_ca[0] == '\0') {
        *why = "clients cannot show a certificate unless their CA is known; give "
               "tls-client-ca";
        return row_of(AT(tls_clients));
    }
    return COUNT;
}

void settings_tls_files(const struct settings *settings, struct opt_tls_files *out)
{
    *out = (struct opt_tls_files){ .cert = settings->tls_cert,
                                   .key = settings->tls_key,
                                   .ca = settings->tls_client_ca };
}

/* That the files are there and good, before anything else has started. */
static enum opt_status check_tls(const struct settings *settings,
                                 const struct sources *sources, struct opt_error *error)
{
    const char *why = NULL;
    size_t missing = find_missing(settings, &why);
    if (missing != COUNT) {
        return refuse(sources, missing, why, error);
    }
    if (settings->tls_cert[0] == '\0') {
        return OPT_OK;
    }
    struct opt_tls_files files;
    struct opt_tls *tls = NULL;
    struct opt_error cause;
    settings_tls_files(settings, &files);
    if (opt_tls_server(&files, (enum opt_tls_clients)settings->tls_clients, &tls,
                       &cause) != OPT_OK) {
        return refuse(sources, row_of(AT(tls_cert)), cause.text, error);
    }
    opt_tls_free(tls);
    return OPT_OK;
}

static enum opt_status check_mode(struct settings *settings,
                                  const struct sources *sources,
                                  struct opt_error *error)
{
    const char *text = settings->unix_mode;
    size_t size = strspn(text, "01234567");
    if (size < 3 || size > 4 || text[size] != '\0' || (size == 4 && text[0] != '0')) {
        struct opt_error cause;
        opt_fail(&cause, OPT_INVALID_ARGUMENT,
                 "\"%s\" is no mode of a file; right would be three digits from 0 to "
                 "7, such as 0660",
                 text);
        return refuse(sources, row_of(AT(unix_mode)), cause.text, error);
    }
    for (size_t i = 0; i < settings->addresses.count; i++) {
        settings->addresses.at[i].mode = (unsigned)strtoul(text, NULL, 8);
    }
    return OPT_OK;
}

static enum opt_status check_address(struct settings *settings,
                                     const struct sources *sources,
                                     struct opt_error *error)
{
    struct opt_error cause;
    size_t row = row_of(AT(listen));
    if (listen_addresses_parse(settings->listen, &settings->addresses, &cause) !=
        OPT_OK) {
        return refuse(sources, row, cause.text, error);
    }
    bool reachable = false;
    for (size_t i = 0; i < settings->addresses.count; i++) {
        const struct listen_address *where = &settings->addresses.at[i];
        reachable |= !opt_socket_is_local((const struct sockaddr *)&where->address);
    }
    if (!settings->insecure && reachable && !knows_clients(settings)) {
        opt_fail(
            &cause, OPT_INVALID_ARGUMENT,
            "\"%s\" can be reached from other machines, and whoever "
            "reaches this daemon may read and change every model, unless clients "
            "have to show certificates or tokens over TLS; give tls-cert, tls-key, "
            "and tls-client-ca or tokens, listen on 127.0.0.1, or say --insecure "
            "if the network itself is closed",
            settings->listen);
        return refuse(sources, row, cause.text, error);
    }
    return OPT_OK;
}

/* What is kept, and how, has a meaning only where there is a place for it. That the
 * defaults are spelled out does no harm. */
static enum opt_status check_kept(const struct settings *settings,
                                  const struct sources *sources,
                                  struct opt_error *error)
{
    static const size_t rows[] = { AT(durability), AT(journal_interval),
                                   AT(journal_queue), AT(checkpoint_interval),
                                   AT(recover) };
    struct settings standard;
    struct opt_error cause;
    for (size_t i = 0; settings->data_dir[0] == '\0' && i < sizeof rows / sizeof *rows;
         i++) {
        size_t row = row_of(rows[i]);
        const struct setting *setting = &table[row];
        if (said(sources, row) != NULL &&
            set(&standard, setting, setting->standard, &cause) == OPT_OK &&
            number_of(settings, setting) != number_of(&standard, setting)) {
            opt_fail(&cause, OPT_INVALID_ARGUMENT,
                     "it says how models are kept on disk, and nothing is kept without "
                     "data-dir; give --data-dir DIR as well, or leave it out");
            return refuse(sources, row, cause.text, error);
        }
    }
    return OPT_OK;
}

/* The kernel need not have the default. */
static enum opt_status check_congestion(const struct settings *settings,
                                        const struct sources *sources,
                                        struct opt_error *error)
{
    size_t row = row_of(AT(congestion));
    struct opt_error cause;
    if (said(sources, row) == NULL ||
        socket_knows_congestion(settings->congestion, &cause)) {
        return OPT_OK;
    }
    return refuse(sources, row, cause.text, error);
}

/* Put together what file and command line say. */
static enum opt_status combine(const struct sources *sources, struct settings *out,
                               struct opt_error *error)
{
    enum opt_status status = set_all(out, sources, error);
    if (status == OPT_OK) {
        status = fill_defaults(out, sources, error);
    }
    if (status == OPT_OK) {
        status = check_order(out, sources, error);
    }
    if (status == OPT_OK) {
        status = check_tls(out, sources, error);
    }
    if (status == OPT_OK) {
        status = check_address(out, sources, error);
    }
    if (status == OPT_OK) {
        status = check_mode(out, sources, error);
    }
    if (status == OPT_OK) {
        status = check_kept(out, sources, error);
    }
    if (status == OPT_OK) {
        status = check_congestion(out, sources, error);
    }
    return status;
}

enum opt_status settings_read(int argc, char **argv, struct settings *out,
                              enum settings_action *action, struct opt_error *error)
{
    struct command_line line;
    enum opt_status status = read_command_line(argc, argv, &line, error);
    *action = line.action;
    if (status != OPT_OK || line.action == SETTINGS_HELP ||
        line.action == SETTINGS_VERSION) {
        return status;
    }
    struct settings settings = { .insecure = false };
    struct settings_file file;
    status = settings_file_read(line.config, COUNT, name_at, &file, error);
    if (status != OPT_OK) {
        return status;
    }
    status = combine(&(struct sources){ &line, &file }, &settings, error);
    settings_file_free(&file);
    if (status == OPT_OK) {
        *out = settings;
    }
    return status;
}

/* -------------------------------------------------------------------- printing */

void settings_help(FILE *out)
{
    fputs("Usage: optimd [--config FILE] [--SETTING VALUE]...\n"
          "Serve models and their optimizers to training workers.\n\n"
          "  --config FILE        read settings from FILE (YAML)\n"
          "  --check-config       check all settings, print them, and exit\n"
          "  --help               print this and exit\n"
          "  --version            print the version and exit\n\n"
          "Settings, here or in FILE (the command line wins):\n",
          out);
    for (size_t i = 0; i < COUNT; i++) {
        const struct setting *setting = &table[i];
        char left[64];
        bool flag = setting->kind == SETTING_FLAG;
        snprintf(left, sizeof(left), "--%s%s%s", setting->name, flag ? "" : " ",
                 flag ? "[=false]" : setting->argument);
        const char *standard =
            setting->standard != NULL ? setting->standard : setting->derived;
        fprintf(out, "  %s\n      %s (default: %s)\n", left, setting->help,
                standard[0] != '\0' ? standard : "none");
    }
    fputs(
        "\nSizes have a unit (64MiB, 1.5GB), times too (30s, 250ms, 5min).\n"
        "Exit status: 0 stopped as asked, 64 wrong usage, 69 something needed cannot\n"
        "be had, 70 stopped too slowly, 74 standard output failed, 78 wrong\n"
        "configuration. See optimd(8).\n",
        out);
}

void settings_print(const struct settings *settings, FILE *out)
{
    for (size_t i = 0; i < COUNT; i++) {
        const struct setting *setting = &table[i];
        const char *at = (const char *)settings + setting->offset;
        char number[32];
        switch (setting->kind) {
        case SETTING_WORD:
            /* In single quotes YAML changes nothing but the quote itself. */
            fprintf(out, "%s: '", setting->name);
            for (const char *c = at; *c != '\0'; c++) {
                fputs(*c == '\'' ? "''" : (char[]){ *c, '\0' }, out);
            }
            fputs("'\n", out);
            break;
        case SETTING_FLAG:
            fprintf(out, "%s: %s\n", setting->name,
                    *(const bool *)at ? "true" : "false");
            break;
        case SETTING_CHOICE:
            fprintf(out, "%s: %s\n", setting->name,
                    words_of(setting)[number_of(settings, setting)]);
            break;
        case SETTING_LEVEL:
            fprintf(out, "%s: %s\n", setting->name,
                    opt_log_level_name(*(const enum opt_log_level *)at));
            break;
        case SETTING_COUNT:
        case SETTING_BYTES:
        case SETTING_TIME:
            print_number(setting->kind, number_of(settings, setting), number,
                         sizeof(number));
            fprintf(out, "%s: %s\n", setting->name, number);
            break;
        }
    }
}

/* ------------------------------------------------------------------- changes */

/* What the running daemon takes up. */
static const size_t changeable[] = { AT(log_level),  AT(login),      AT(tokens),
                                     AT(cert_roles), AT(unix_users), AT(lease),
                                     AT(heartbeat),  AT(grace),      AT(timeout_limit),
                                     AT(max_models), AT(max_tensors) };

static bool may_change(const struct setting *setting)
{
    for (size_t i = 0; i < sizeof changeable / sizeof *changeable; i++) {
        if (changeable[i] == setting->offset) {
            return true;
        }
    }
    return false;
}

static size_t size_of(enum setting_kind kind)
{
    switch (kind) {
    case SETTING_WORD:
        return SETTING_TEXT;
    case SETTING_FLAG:
        return sizeof(bool);
    case SETTING_LEVEL:
        return sizeof(enum opt_log_level);
    case SETTING_CHOICE:
    case SETTING_COUNT:
    case SETTING_BYTES:
    case SETTING_TIME:
        break;
    }
    return sizeof(uint64_t);
}

static bool differ(const struct setting *setting, const struct settings *a,
                   const struct settings *b)
{
    const char *one = (const char *)a + setting->offset;
    const char *other = (const char *)b + setting->offset;
    return setting->kind == SETTING_WORD
               ? strcmp(one, other) != 0
               : memcmp(one, other, size_of(setting->kind)) != 0;
}

void settings_change(struct settings *settings, const struct settings *next,
                     void (*on_other)(const char *name))
{
    for (size_t i = 0; i < COUNT; i++) {
        if (!differ(&table[i], settings, next)) {
            continue;
        }
        if (may_change(&table[i])) {
            memcpy(field(settings, &table[i]), (const char *)next + table[i].offset,
                   size_of(table[i].kind));
        } else {
            on_other(table[i].name);
        }
    }
}

struct access_settings settings_access(const struct settings *settings)
{
    return (struct access_settings){ .source = { .tokens = settings->tokens,
                                                 .certificates = settings->cert_roles,
                                                 .users = settings->unix_users },
                                     .required = settings->login == LOGIN_EVERYBODY,
                                     .insecure = settings->insecure };
}

const char *settings_path(int argc, char **argv)
{
    struct command_line line;
    return read_command_line(argc, argv, &line, NULL) == OPT_OK ? line.config : NULL;
}
