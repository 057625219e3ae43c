/* process — the other processes of a measurement: forked peers and the daemon.
 *
 * None of them outlives this one. Main thread, and before it makes any client, so that
 * no child inherits a connection.
 */
#ifndef OPTIMD_TESTS_BENCH_PROCESS_H
#define OPTIMD_TESTS_BENCH_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Run body in a child that exits with what it returns. -1 if there can be none. */
pid_t process_fork(int (*body)(void *context), void *context);

/* Kill and reap. Nothing happens for a pid below 1. */
void process_kill(pid_t pid);

/* The daemon, on a free loopback port and a Unix socket, in a folder of its own. */
struct server {
    pid_t pid;
    char folder[64];
    char address[96]; /* "127.0.0.1:PORT", or "unix:PATH" if the environment's
                         OPTIMD_TRANSPORT is "unix" (values are sent) or
                         "shared"; if it is "tls", TCP has the certificates of
                         OPTIMD_TEST_CERTIFICATES, and clients need theirs */
    uint16_t port;    /* where it listens in either case */
};

/* Start program and wait until it listens. It may use three quarters of the machine's
 * memory and keeps nothing on disk; all else is default. It logs warnings to a file in
 * its folder, which are written to stderr if it does not start, or stops otherwise than
 * with 0. False with a sentence. */
bool server_start(struct server *server, const char *program, char problem[256]);
/* The same with more settings, such as "--lease", "2s": a few, up to NULL. */
bool server_start_with(struct server *server, const char *program,
                       const char *const *settings, char problem[256]);
/* And in two steps, for who has a setting that is a path in its folder. */
bool server_folder(struct server *server, char problem[256]);
bool server_start_in(struct server *server, const char *program,
                     const char *const *settings, char problem[256]);
/* Kill it, as kill -9 does, and start it again in its folder, at the same port. */
bool server_kill(struct server *server, const char *program,
                 const char *const *settings, char problem[256]);

/* The congestion control that a client's TCP connection to it uses, so that the
 * references can use the same. False with a sentence. */
bool server_congestion(const struct server *server, char name[16], char problem[256]);

/* SIGTERM, reap, remove the folder. False if it did not exit with 0. Takes a server
 * that did not start. */
bool server_stop(struct server *server);

/* How many lines of its log so far have that word in them. */
size_t server_logged(const struct server *server, const char *word);

/* Processor time that all its threads have taken so far, in seconds; 0 if unknown. */
double server_processor_seconds(const struct server *server);

/* Most memory it has had resident so far, in bytes; 0 if unknown. */
size_t server_peak_bytes(const struct server *server);

#endif
