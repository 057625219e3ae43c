/* daemon — a real optimd for end-to-end tests: started on a free loopback port and a
 * Unix socket, ready when daemon_start returns, gone with the test whatever happens to
 * it. Tests reach it over TCP, or over the Unix socket if OPTIMD_TRANSPORT=unix or
 * OPTIMD_TRANSPORT=shared is in the environment, which says whether gradients and
 * weights are sent or exchanged in shared memory; what only TCP has says "127.0.0.1"
 * itself. With OPTIMD_TRANSPORT=tls TCP is served with the certificates in the folder
 * OPTIMD_TEST_CERTIFICATES (tests/run makes them), clients find theirs by OPTIMD_CA,
 * OPTIMD_CERT and OPTIMD_KEY, and raw connections go over the Unix socket.
 */
#ifndef OPTIMD_TESTS_SUPPORT_DAEMON_H
#define OPTIMD_TESTS_SUPPORT_DAEMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { DAEMON_PATH = 128, DAEMON_WAIT_MS = 10000 };

struct daemon_process {
    pid_t pid; /* 0: has ended */
    uint16_t port;
    char address[DAEMON_PATH + 16]; /* for clients: "127.0.0.1:PORT" or "unix:PATH" */
    char directory[DAEMON_PATH];    /* a temporary one of its own */
    char log[DAEMON_PATH + 16];     /* file with its standard error */
    char out[DAEMON_PATH + 16];     /* and output */
};

/* Start build/optimd (or the program that OPTIMD_DAEMON names) with
 *   --listen 127.0.0.1:0,unix:DIRECTORY/socket --port-file DIRECTORY/port
 * and the given options (NULL-terminated, may be NULL), and wait until it accepts
 * connections. Fails the test if it does not within DAEMON_WAIT_MS. */
void daemon_start(struct daemon_process *daemon, const char *const *options);

/* Call this in the daemons that are started from now on, before they become one:
 * limits, descriptors. NULL: nothing. */
void daemon_prepare(void (*prepare)(void));

/* What it takes to serve TCP as OPTIMD_TRANSPORT says: options, borrowed until the next
 * call, which end with NULL. */
const char *const *daemon_transport_options(void);

/* The path of the Unix socket of the daemon that was started with that port, if raw
 * connections are to use it; NULL: they use TCP. */
const char *daemon_socket(uint16_t port);

/* Start it with exactly these options and do not wait for anything. */
void daemon_spawn(struct daemon_process *daemon, const char *const *options);

/* Wait for its end: exit status, or 128 + the signal that killed it, or -1 after
 * timeout_ms. Its directory stays until daemon_remove. */
int daemon_wait(struct daemon_process *daemon, int timeout_ms);

/* Send a signal; SIGSTOP has stopped it when this returns. */
void daemon_signal(const struct daemon_process *daemon, int number);

/* SIGTERM, wait, remove its directory; the test fails unless it exits with 0. */
void daemon_stop(struct daemon_process *daemon);

/* Remove its directory and what is in it; kills it first if it still runs. */
void daemon_remove(struct daemon_process *daemon);

/* Whether it still runs. */
bool daemon_alive(const struct daemon_process *daemon);

/* What it has written to standard error so far; malloc'd, never NULL. */
char *daemon_log(const struct daemon_process *daemon);
/* The same for standard output. */
char *daemon_output(const struct daemon_process *daemon);

/* Wait until its log contains text; false after timeout_ms. */
bool daemon_logged(const struct daemon_process *daemon, const char *text,
                   int timeout_ms);

/* Its resident memory now, in bytes. */
size_t daemon_memory(const struct daemon_process *daemon);

#endif
