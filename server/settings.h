/* settings — what the operator decides: one table, three ways to say it.
 *
 * Each setting has a row in one table: name, kind, default, range and a sentence. The
 * long options of the command line, the keys of the configuration file, the text of
 * --help and that of --check-config are made from it. The command line wins over the
 * file, the file over the default. Main thread: before anything else has started, and
 * again when the operator wants them read anew.
 */
#ifndef OPTIMD_SERVER_SETTINGS_H
#define OPTIMD_SERVER_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/log.h"
#include "common/status.h"
#include "common/tls.h"
#include "server/access/access.h"
#include "server/net/listen_address.h"

/* Which checkpoint to begin with. */
enum settings_recover { RECOVER_EXACT, RECOVER_PREVIOUS };

/* From whom a login is asked for. */
enum settings_login { LOGIN_STRANGERS, LOGIN_EVERYBODY };

enum { SETTING_TEXT = 256 }; /* longest value, with its end */

struct settings {
    char listen[SETTING_TEXT];
    bool insecure;
    char tls_cert[SETTING_TEXT]; /* "": no TLS, and the next four have no meaning */
    char tls_key[SETTING_TEXT];
    char tls_client_ca[SETTING_TEXT];
    uint64_t tls_clients; /* enum opt_tls_clients */
    uint64_t max_handshakes;
    uint64_t login;            /* enum settings_login */
    char tokens[SETTING_TEXT]; /* "": no file, as the next */
    char cert_roles[SETTING_TEXT];
    char unix_users[SETTING_TEXT]; /* "": whoever may write to the socket's file */
    char unix_mode[SETTING_TEXT];
    bool no_shared_memory;
    char data_dir[SETTING_TEXT]; /* "": none, and the next six have no meaning */
    uint64_t durability;         /* enum opt_durability; never DEFAULT */
    uint64_t journal_interval;
    uint64_t journal_queue;
    uint64_t checkpoint_interval;
    uint64_t recover;             /* enum settings_recover */
    char port_file[SETTING_TEXT]; /* "": none */
    enum opt_log_level log_level;
    uint64_t threads;
    uint64_t shared_threads;
    uint64_t loops;
    uint64_t spin; /* microseconds */
    uint64_t memory;
    uint64_t max_models;
    uint64_t max_tensors;
    uint64_t lease; /* this and all other times: milliseconds */
    uint64_t heartbeat;
    uint64_t grace;
    uint64_t timeout_limit;
    uint64_t max_connections;
    uint64_t max_frame;
    uint64_t max_header;
    uint64_t max_table;
    uint64_t connection_inflight;
    uint64_t inflight;
    uint64_t hello_timeout;
    uint64_t frame_timeout;
    uint64_t frame_rate; /* bytes a second */
    uint64_t write_timeout;
    uint64_t write_rate; /* bytes a second */
    uint64_t idle_timeout;
    uint64_t room_timeout;
    uint64_t user_timeout;
    char congestion[SETTING_TEXT]; /* "": the system's */

    struct listen_addresses addresses; /* what listen means */
};

/* What the command line asks for. */
enum settings_action {
    SETTINGS_RUN,
    SETTINGS_CHECK,   /* --check-config */
    SETTINGS_HELP,    /* --help; out is not filled in */
    SETTINGS_VERSION, /* --version; neither */
    SETTINGS_MISUSED  /* an option or an argument that does not exist */
};

/* Read command line and file. OPT_OK: out is complete and checked as a whole.
 * Otherwise a sentence that names where (file and line, or option), the key, the value
 * and what would be right; *action is SETTINGS_MISUSED if the command line itself is
 * wrong. */
enum opt_status settings_read(int argc, char **argv, struct settings *out,
                              enum settings_action *action, struct opt_error *error);

/* The files of TLS, borrowed from the settings. */
void settings_tls_files(const struct settings *settings, struct opt_tls_files *out);

/* What may change while the daemon runs is changed to what next says. Of everything
 * else that differs the name goes to on_other, by which it stays as it was. Main
 * thread. */
void settings_change(struct settings *settings, const struct settings *next,
                     void (*on_other)(const char *name));

/* What the daemon asks of those who come; texts are borrowed from the settings. */
struct access_settings settings_access(const struct settings *settings);

/* The file that they were read from, if any: borrowed from argv. */
const char *settings_path(int argc, char **argv);

/* The text of --help. */
void settings_help(FILE *out);

/* All settings as they are, in the form of a configuration file. */
void settings_print(const struct settings *settings, FILE *out);

#endif
