/* replies — what comes in on a connection: frames are read, checked, and given to what
 * they answer.
 *
 * Called by the client's thread, and by a thread that waits for a call (wait.h), with
 * the client's lock held.
 */
#ifndef OPTCLIENT_REPLIES_H
#define OPTCLIENT_REPLIES_H

struct optclient;

/* Take in what has come from the daemon, though not all if it is much. */
void replies_take(struct optclient *client);

#endif
