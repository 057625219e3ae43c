/* notify — what whoever started the daemon is told of its state, by the protocol of
 * systemd's sd_notify(3): a datagram to the socket that NOTIFY_SOCKET names.
 *
 * Written here because the whole of it is one datagram, and libsystemd brings five
 * libraries along. Main thread.
 */
#ifndef OPTIMD_SERVER_NOTIFY_H
#define OPTIMD_SERVER_NOTIFY_H

/* Tell it, such as "READY=1". Does nothing where nobody asked; a manager that cannot be
 * told is a line in the log. */
void notify_manager(const char *state);

#endif
