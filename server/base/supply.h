/* supply — whether threads can be had before somebody relies on them.
 *
 * The OpenMP runtime ends the process if it cannot start a thread: where processes are
 * limited (RLIMIT_NPROC, pids.max of a control group) it must not be asked for more
 * than there are. So as many threads are started here as would be wanted, and ended
 * again. In the engine's turn, while the team is not at work.
 */
#ifndef OPTIMD_SERVER_BASE_SUPPLY_H
#define OPTIMD_SERVER_BASE_SUPPLY_H

/* How many threads, of so many wanted, can be started beside those that there are. They
 * have gone when this returns, and are no longer counted by the kernel. */
int supply_threads(int wanted);

#endif
