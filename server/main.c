/* main — arguments, signals, and the order of start and stop.
 *
 * Start goes with the way of a request: settings, data directory, port (bound, so that
 * a mistake shows at once), engine, loops, and only then connections are accepted. Stop
 * goes the other way round: the port closes, the loops read no more, the engine answers
 * whatever waits and ends, the loops send the last answers and end. This file alone
 * decides when the process exits, and with which status.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <unistd.h>
#include <uv.h>

#include "common/log.h"
#include "common/standard.h"
#include "server/access/access.h"
#include "server/durable/durable.h"
#include "server/messages/messages.h"
#include "server/net/credentials.h"
#include "server/net/listener.h"
#include "server/net/loop.h"
#include "server/notify.h"
#include "server/patience.h"
#include "server/port_file.h"
#include "server/recovered.h"
#include "server/reload.h"
#include "server/settings.h"
#include "server/signals.h"
#include "server/store/data_dir.h"
#include "server/turn/engine.h"

enum {
    DESCRIPTORS_KEPT = 64, /* for everything but connections */
    STOP_SECONDS = 10,     /* an orderly stop takes no longer, but for checkpoints of */
    STOP_BYTES = 128 << 20, /* more than that a second */
    LOG_MS = 1000           /* and then, who reads the log may take that long */
};

/* Everything that runs. */
struct daemon {
    struct settings *settings;
    struct access *access; /* who may do what */
    struct reload reload;
    struct data_dir data_dir;   /* path NULL: none */
    struct durable *durable;    /* what is kept there, */
    struct recovered recovered; /* and whether it has come back; if not: */
    struct opt_error failure;
    uv_loop_t uv;
    struct signals signals;
    int signal; /* that ended it */
    struct listener listeners[LISTEN_ADDRESSES_MAX];
    size_t listening; /* of them */
    struct credentials credentials;
    bool has_credentials;
    struct engine *engine;
    struct loops *loops;
    struct port_file port_file;
};

static int complain(int code, const struct opt_error *error)
{
    fprintf(stderr, "optimd: %s\n", error->text);
    return code;
}

static void on_stop(void *context, int number)
{
    struct daemon *daemon = context;
    daemon->signal = number;
    uv_stop(&daemon->uv);
}

static void on_reload(void *context)
{
    struct daemon *daemon = context;
    struct opt_error error;
    (void)reload_now(&daemon->reload, &error); /* the log says why not */
}

/* All has come back from the data directory, or it is over. */
static void on_recovered(void *context, const struct opt_error *error)
{
    struct daemon *daemon = context;
    if (error->status == OPT_OK) {
        notify_manager("READY=1\nSTATUS=");
        return;
    }
    daemon->failure = *error;
    uv_stop(&daemon->uv);
}

/* ---------------------------------------------------------------------- start */

/* Raise the limit of open files to what the connections need, or lower their number to
 * what the limit allows. */
static size_t fit_connections(uint64_t wanted)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return (size_t)wanted;
    }
    uint64_t needed = wanted + DESCRIPTORS_KEPT;
    if (limit.rlim_cur < needed) {
        limit.rlim_cur = needed < limit.rlim_max ? needed : limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
        (void)getrlimit(RLIMIT_NOFILE, &limit);
    }
    if (limit.rlim_cur >= needed) {
        return (size_t)wanted;
    }
    size_t possible = limit.rlim_cur > DESCRIPTORS_KEPT
                          ? (size_t)limit.rlim_cur - DESCRIPTORS_KEPT
                          : 1;
    opt_log(OPT_LOG_WARN, "connections_lowered",
            "max_connections=%zu wanted=%" PRIu64 " why=%s", possible, wanted,
            "limit of open files");
    return possible;
}

static enum opt_status open_listeners(struct daemon *daemon, struct opt_error *error)
{
    const struct listen_addresses *addresses = &daemon->settings->addresses;
    enum opt_status status = OPT_OK;
    for (size_t i = 0; i < addresses->count && status == OPT_OK; i++) {
        status = listener_open(&daemon->listeners[i], &addresses->at[i],
                               daemon->settings->congestion, error);
        daemon->listening += status == OPT_OK;
    }
    return status;
}

/* The first there is; 0 if it listens on Unix sockets alone. */
static unsigned port_of(const struct daemon *daemon)
{
    unsigned port = 0;
    for (size_t i = 0; i < daemon->listening && port == 0; i++) {
        port = daemon->listeners[i].port;
    }
    return port;
}

/* What is kept on disk, and the threads that write it. */
static enum opt_status open_durable(struct daemon *daemon, struct opt_error *error)
{
    const struct settings *settings = daemon->settings;
    enum opt_status status =
        data_dir_open(settings->data_dir, &daemon->data_dir, error);
    if (status != OPT_OK) {
        return status;
    }
    recovered_watch(&daemon->recovered, &daemon->uv, on_recovered, daemon);
    const struct durable_settings durable = {
        .dir = &daemon->data_dir,
        .durability = (enum opt_durability)settings->durability,
        .interval_ms = (uint32_t)settings->journal_interval,
        .checkpoint_ms = (uint32_t)settings->checkpoint_interval,
        .queue_bytes = settings->journal_queue,
        .recover_previous = settings->recover == RECOVER_PREVIOUS,
        .recovered = recovered_tell,
        .context = &daemon->recovered,
    };
    return durable_open(&durable, &daemon->durable, error);
}

/* What TCP connections are served with. */
static enum opt_status open_credentials(struct daemon *daemon, struct opt_error *error)
{
    const struct settings *settings = daemon->settings;
    struct opt_tls_files files;
    settings_tls_files(settings, &files);
    if (settings->tls_cert[0] == '\0') {
        return OPT_OK;
    }
    enum opt_status status = credentials_open(
        &daemon->credentials, &files, (enum opt_tls_clients)settings->tls_clients,
        (size_t)settings->max_handshakes, error);
    daemon->has_credentials = status == OPT_OK;
    return status;
}

static enum opt_status start_engine(struct daemon *daemon, struct opt_error *error)
{
    const struct settings *settings = daemon->settings;
    const struct engine_settings engine = {
        .threads = (int)settings->threads,
        .shared_threads = (int)settings->shared_threads,
        .other_threads = (int)settings->loops,
        .memory_bytes = (size_t)settings->memory,
        .max_tensors = (size_t)settings->max_tensors,
        .max_models = (size_t)settings->max_models,
        .lease_ms = (uint32_t)settings->lease,
        .grace_ms = (uint32_t)settings->grace,
        .heartbeat_ms = (uint32_t)settings->heartbeat,
        .timeout_limit_ms = (uint32_t)settings->timeout_limit,
        .max_frame_bytes = (size_t)settings->max_frame,
        .max_header_bytes = (size_t)settings->max_header,
        .connection_bytes = (size_t)settings->connection_inflight,
        .row = message_row,
        .access = daemon->access,
        .reload = reload_ask,
        .reload_context = &daemon->reload,
        .durable = daemon->durable,
        .recorder = daemon->durable == NULL ? NULL : &daemon->durable->recorder,
        .durability = daemon->durable == NULL
                          ? OPT_DURABILITY_DEFAULT
                          : (enum opt_durability)settings->durability,
    };
    return engine_start(&engine, &daemon->engine, error);
}

static enum opt_status start_loops(struct daemon *daemon, size_t connections,
                                   struct opt_error *error)
{
    const struct settings *settings = daemon->settings;
    const struct net_limits limits = {
        .frame = { .frame_bytes = (size_t)settings->max_frame,
                   .header_bytes = (size_t)settings->max_header },
        .connections = connections,
        .table_bytes = (size_t)settings->max_table,
        .connection_bytes = (size_t)settings->connection_inflight,
        .inflight_bytes = (size_t)settings->inflight,
        .hello_ms = (uint32_t)settings->hello_timeout,
        .frame_ms = (uint32_t)settings->frame_timeout,
        .frame_rate = (uint32_t)settings->frame_rate,
        .write_ms = (uint32_t)settings->write_timeout,
        .write_rate = (uint32_t)settings->write_rate,
        .idle_ms = (uint32_t)settings->idle_timeout,
        .room_ms = (uint32_t)settings->room_timeout,
        .user_timeout_ms = (uint32_t)settings->user_timeout,
        .shares_memory = !settings->no_shared_memory,
        .spin_us = (uint32_t)settings->spin,
        .credentials = daemon->has_credentials ? &daemon->credentials : NULL,
        .congestion = settings->congestion,
    };
    return loops_start(&limits, (int)settings->loops, daemon->engine, &daemon->loops,
                       error);
}

static void announce(const struct daemon *daemon, size_t connections)
{
    const struct settings *settings = daemon->settings;
    char names[sizeof(daemon->listeners[0].name) * LISTEN_ADDRESSES_MAX] = "";
    size_t used = 0;
    for (size_t i = 0; i < daemon->listening; i++) {
        used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s",
                                 i > 0 ? "," : "", daemon->listeners[i].name);
    }
    opt_log(OPT_LOG_INFO, "started",
            "version=%s address=%s port=%u threads=%d loops=%" PRIu64 " memory=%" PRIu64
            " max_connections=%zu data_dir=%s",
            OPTIMD_VERSION, names, port_of(daemon), engine_threads(daemon->engine),
            settings->loops, settings->memory, connections, settings->data_dir);
    if (settings->insecure && settings->login != LOGIN_EVERYBODY &&
        (!daemon->has_credentials ||
         settings->tls_clients != OPT_TLS_CLIENTS_REQUIRED)) {
        opt_log(OPT_LOG_WARN, "insecure", "address=%s why=%s", names,
                "whoever reaches this address may read and change every model");
    }
}

/* ----------------------------------------------------------------------- stop */

static void stop_main_loop(struct daemon *daemon)
{
    signals_close(&daemon->signals);
    recovered_close(&daemon->recovered);
    uv_run(&daemon->uv, UV_RUN_DEFAULT);
    uv_loop_close(&daemon->uv);
    reload_fini(&daemon->reload);
}

/* In the order that the comment above gives; takes a daemon started in part, too. */
static void stop(struct daemon *daemon)
{
    for (size_t i = 0; i < daemon->listening; i++) {
        listener_close(&daemon->listeners[i]);
    }
    if (daemon->loops != NULL) {
        loops_quiet(daemon->loops);
    }
    reload_close(&daemon->reload);
    if (daemon->engine != NULL && daemon->durable != NULL) {
        signals_allow((unsigned)(durable_bytes(daemon->durable) / STOP_BYTES));
    }
    if (daemon->engine != NULL) {
        engine_stop(daemon->engine);
    }
    if (daemon->loops != NULL) {
        loops_stop(daemon->loops);
    }
    if (daemon->engine != NULL) {
        engine_free(daemon->engine);
    }
    durable_close(daemon->durable);
    if (daemon->data_dir.path != NULL) {
        data_dir_close(&daemon->data_dir);
    }
    if (daemon->has_credentials) {
        credentials_close(&daemon->credentials);
    }
    stop_main_loop(daemon);
}

static enum opt_status start(struct daemon *daemon, size_t *connections,
                             struct opt_error *error)
{
    const struct settings *settings = daemon->settings;
    enum opt_status status = open_credentials(daemon, error);
    if (status == OPT_OK && settings->data_dir[0] != '\0') {
        status = open_durable(daemon, error);
    }
    if (status == OPT_OK) {
        status = open_listeners(daemon, error);
    }
    if (status == OPT_OK) {
        status = reload_open(&daemon->reload, &daemon->uv, error);
    }
    if (status == OPT_OK) {
        status = start_engine(daemon, error);
        daemon->reload.engine = daemon->engine;
    }
    if (status == OPT_OK) {
        *connections = fit_connections(settings->max_connections);
        status = start_loops(daemon, *connections, error);
    }
    for (size_t i = 0; i < daemon->listening && status == OPT_OK; i++) {
        status =
            listener_start(&daemon->listeners[i], &daemon->uv, daemon->loops, error);
    }
    if (status == OPT_OK && settings->port_file[0] != '\0') {
        status = port_file_write(&daemon->port_file, settings->port_file,
                                 port_of(daemon), error);
    }
    return status;
}

/* What is damaged needs an operator, and everything else another moment. */
static int failed(const struct opt_error *error)
{
    return error->status == OPT_DATA_LOSS || error->status == OPT_UNIMPLEMENTED
               ? EX_DATAERR
               : EX_UNAVAILABLE;
}

static int serve(struct settings *settings, struct reload *reload,
                 struct opt_error *error)
{
    struct daemon daemon = { .settings = settings,
                             .access = reload->access,
                             .reload = *reload };
    int code = uv_loop_init(&daemon.uv);
    if (code != 0) {
        opt_fail(error, OPT_UNAVAILABLE, "cannot make an event loop: %s",
                 uv_strerror(code));
        return EX_UNAVAILABLE;
    }
    signals_watch(&daemon.signals, &daemon.uv, STOP_SECONDS, on_stop, on_reload,
                  &daemon);
    size_t connections = 0;
    signals_block();
    if (start(&daemon, &connections, error) != OPT_OK) {
        stop(&daemon);
        return failed(error);
    }
    daemon.reload.credentials = daemon.has_credentials ? &daemon.credentials : NULL;
    signals_unblock();
    announce(&daemon, connections);
    if (daemon.durable != NULL) {
        recovered_await(&daemon.recovered, daemon.durable);
    } else {
        notify_manager("READY=1");
    }
    uv_run(&daemon.uv, UV_RUN_DEFAULT);
    if (daemon.failure.status != OPT_OK) {
        port_file_remove(&daemon.port_file);
        stop(&daemon);
        *error = daemon.failure;
        return failed(error);
    }
    opt_log(OPT_LOG_INFO, "stopping", "signal=%d", daemon.signal);
    notify_manager("STOPPING=1");
    port_file_remove(&daemon.port_file);
    stop(&daemon);
    opt_log(OPT_LOG_INFO, "stopped", "signal=%d", daemon.signal);
    return EX_OK;
}

static int run(struct settings *settings, struct reload *reload)
{
    struct opt_error error;
    opt_log_set_level(settings->log_level);
    if (!opt_log_start()) {
        opt_fail(&error, OPT_UNAVAILABLE, "cannot start a thread for the log");
        return complain(EX_UNAVAILABLE, &error);
    }
    int code = serve(settings, reload, &error);
    (void)opt_log_stop(LOG_MS);
    return code == EX_OK ? code : complain(code, &error);
}

/* What was asked for is on standard output, all of it. */
static int printed(void)
{
    if (fflush(stdout) == 0 && ferror(stdout) == 0) {
        return EX_OK;
    }
    fprintf(stderr, "optimd: cannot write to standard output: %s\n", strerror(errno));
    return EX_IOERR;
}

int main(int argc, char **argv)
{
    struct settings settings;
    enum settings_action action = SETTINGS_RUN;
    struct opt_error error;
    if (!opt_standard_open()) {
        return EX_OSERR;
    }
    patience_choose(argv);
    if (settings_read(argc, argv, &settings, &action, &error) != OPT_OK) {
        return complain(action == SETTINGS_MISUSED ? EX_USAGE : EX_CONFIG, &error);
    }
    switch (action) {
    case SETTINGS_HELP:
        settings_help(stdout);
        return printed();
    case SETTINGS_VERSION:
        puts("optimd " OPTIMD_VERSION);
        return printed();
    case SETTINGS_CHECK:
    case SETTINGS_RUN:
    case SETTINGS_MISUSED:
        break;
    }
    /* Those who may log in are part of the configuration. */
    struct reload reload = { .argc = argc, .argv = argv, .settings = &settings };
    struct access_settings access = settings_access(&settings);
    if (access_new(&access, &reload.access, &error) != OPT_OK) {
        return complain(EX_CONFIG, &error);
    }
    int code = EX_OK;
    if (action == SETTINGS_CHECK) {
        settings_print(&settings, stdout);
        code = printed();
    } else {
        code = run(&settings, &reload);
    }
    access_free(reload.access);
    return code;
}
