/* patience — how the threads of the OpenMP team wait for their next work: asleep.
 *
 * Left to itself libgomp lets them spin for milliseconds after every piece of an
 * update, on cores that the loops and often the workers need; asleep they start some
 * 20 us later. Whoever has cores to spare says OMP_WAIT_POLICY=active (or sets
 * GOMP_SPINCOUNT), and is obeyed.
 */
#ifndef OPTIMD_SERVER_PATIENCE_H
#define OPTIMD_SERVER_PATIENCE_H

/* Have the team sleep, unless the environment says something about it. The runtime has
 * read the environment before main, so the program starts once more, as the same
 * process with the same arguments; if it cannot, it goes on as it is. Main thread,
 * before anything is read: a configuration may come through a pipe. */
void patience_choose(char **arguments);

#endif
