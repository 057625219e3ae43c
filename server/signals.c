/* signals — see signals.h. */
#define _GNU_SOURCE /* sigabbrev_np */
#include "server/signals.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"

enum { SAME_WISH_MS = 1000 };

/* For handlers, which have no other way to get at them. */
static struct timespec asked;         /* when the first wish to stop came */
static volatile sig_atomic_t limit_s; /* for stopping */

static long ms_since_asked(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - asked.tv_sec) * 1000 + (now.tv_nsec - asked.tv_nsec) / 1000000;
}

/* `timeout` sends TERM to its child and then to the whole group: one wish, two signals.
 * Later it is impatience. */
static void on_second_wish(int number)
{
    int before = errno;
    if (ms_since_asked() >= SAME_WISH_MS) {
        _exit(128 + number);
    }
    errno = before;
}

/* The stop takes too long, perhaps because nobody reads the log: that must not hold up
 * this. */
static void on_alarm(int number)
{
    int before = errno;
    long left_ms = (long)limit_s * 1000 - ms_since_asked();
    if (left_ms > 0) { /* somebody else's alarm, or more time was given */
        alarm((unsigned)(left_ms + 999) / 1000);
        errno = before;
        return;
    }
    (void)number;
    static const char text[] = "optimd: could not stop in order in time\n";
    struct pollfd log = { .fd = STDERR_FILENO, .events = POLLOUT };
    if (poll(&log, 1, 0) == 1 && write(STDERR_FILENO, text, sizeof(text) - 1) < 0) {
        /* Nobody can be told. */
    }
    _exit(EX_SOFTWARE);
}

static void handle(int number, void (*handler)(int))
{
    struct sigaction action = { .sa_handler = handler };
    sigfillset(&action.sa_mask);
    sigaction(number, &action, NULL);
}

static void on_wish(uv_signal_t *handle_of_it, int number)
{
    struct signals *signals = handle_of_it->data;
    if (asked.tv_sec != 0) {
        return; /* both came before one was seen */
    }
    clock_gettime(CLOCK_MONOTONIC, &asked);
    handle(SIGTERM, on_second_wish);
    handle(SIGINT, on_second_wish);
    handle(SIGALRM, on_alarm);
    alarm((unsigned)limit_s);
    signals->on_stop(signals->context, number);
}

static void on_unused(uv_signal_t *handle_of_it, int number)
{
    static struct opt_log_site site;
    const char *name = sigabbrev_np(number);
    (void)handle_of_it;
    opt_log_limited(&site, OPT_LOG_WARN, "signal_ignored", "signal=%d name=%s why=%s",
                    number, name != NULL ? name : "real-time",
                    "the daemon has no use for it");
}

static void on_hangup(uv_signal_t *handle_of_it, int number)
{
    struct signals *signals = handle_of_it->data;
    (void)number;
    signals->on_reload(signals->context);
}

/* NULL: the system's. */
static uv_signal_cb use_of(int number)
{
    switch (number) {
    case SIGTERM:
    case SIGINT:
        return on_wish;
    case SIGHUP:
        return on_hangup;
    case SIGUSR1:
    case SIGUSR2:
    case SIGALRM:
    case SIGVTALRM:
    case SIGPROF:
    case SIGIO:
    case SIGPWR:
    case SIGSTKFLT:
    case SIGXCPU:
        return on_unused;
    default:
        return number >= SIGRTMIN && number <= SIGRTMAX ? on_unused : NULL;
    }
}

static bool is_free(int number)
{
    struct sigaction present;
    return sigaction(number, NULL, &present) == 0 && present.sa_handler == SIG_DFL;
}

void signals_watch(struct signals *signals, uv_loop_t *loop, unsigned stop_seconds,
                   void (*on_stop)(void *context, int number),
                   void (*on_reload)(void *context), void *context)
{
    signals->on_reload = on_reload;
    signals->on_stop = on_stop;
    signals->context = context;
    limit_s = (sig_atomic_t)stop_seconds;
    handle(SIGPIPE, SIG_IGN);
    handle(SIGXFSZ, SIG_IGN);
    handle(SIGTTOU, SIG_IGN);
    for (int number = 1; number < NSIG; number++) {
        uv_signal_cb use = use_of(number);
        uv_signal_t *watch = &signals->handles[number];
        if (use == NULL ||
            ((use == on_unused || use == on_hangup) && !is_free(number)) ||
            uv_signal_init(loop, watch) != 0) {
            continue;
        }
        signals->watched[number] = true;
        watch->data = signals;
        (void)uv_signal_start(watch, use, number);
    }
}

void signals_allow(unsigned seconds)
{
    limit_s += (sig_atomic_t)seconds;
}

void signals_block(void)
{
    sigset_t all;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, NULL);
}

void signals_unblock(void)
{
    sigset_t none;
    sigemptyset(&none);
    (void)pthread_sigmask(SIG_SETMASK, &none, NULL);
}

void signals_close(struct signals *signals)
{
    signals_block();
    alarm(0);
    for (int number = 1; number < NSIG; number++) {
        if (signals->watched[number]) {
            uv_close((uv_handle_t *)&signals->handles[number], NULL);
        }
    }
}
