/* signals — what the daemon makes of signals, and how long it may take to stop.
 *
 *   TERM INT           stop in order; another one a second or more later: at once
 *   HUP                read the configuration again, what may change of it
 *   PIPE XFSZ TTOU     the call that caused it fails instead
 *   USR1 USR2 ALRM ... nothing: each would end a process that does not expect it
 *
 * "Nothing" is a line in the log. A signal that was ignored or handled when the daemon
 * started, by nohup or a profiler, stays so. The rest, KILL, QUIT, STOP and faults, are
 * left to the system. Main thread; signals_block keeps other threads out of it.
 */
#ifndef OPTIMD_SERVER_SIGNALS_H
#define OPTIMD_SERVER_SIGNALS_H

#include <signal.h>
#include <stdbool.h>
#include <uv.h>

struct signals {
    uv_signal_t handles[NSIG];
    bool watched[NSIG]; /* the handle is in use */
    void (*on_stop)(void *context, int number);
    void (*on_reload)(void *context);
    void *context;
};

/* Watch them in this loop. on_stop is called once, for the first TERM or INT. From then
 * on the process has so many seconds to end, and ends itself after that. on_reload is
 * called for each HUP that was seen. */
void signals_watch(struct signals *signals, uv_loop_t *loop, unsigned stop_seconds,
                   void (*on_stop)(void *context, int number),
                   void (*on_reload)(void *context), void *context);

/* It has so many seconds more. */
void signals_allow(unsigned seconds);

/* Threads that are started between these two get no signals. */
void signals_block(void);
void signals_unblock(void);

/* The process is about to end: signals do nothing any more, and time is not limited.
 * The handles are closed when the loop has run again. */
void signals_close(struct signals *signals);

#endif
