/* wraps — functions of the system (and two of the daemon) that the linker replaces: to
 * whoever calls NAME it gives __wrap_NAME, and __real_NAME is the one replaced. The
 * list is FATES_WRAPS in mk/files.mk.
 */
#ifndef OPTIMD_TESTS_FATES_WRAPS_H
#define OPTIMD_TESTS_FATES_WRAPS_H

#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "server/base/letter.h"
#include "server/net/charge.h"

#define WRAP(name) extern __typeof__(name) __wrap_##name, __real_##name

WRAP(letter_data);
WRAP(charge_letter);
WRAP(clock_gettime);
WRAP(getrandom);
WRAP(read);
WRAP(close);
WRAP(socket);
WRAP(getsockopt);
WRAP(setsockopt);
WRAP(send);
WRAP(sendmsg);
WRAP(recv);
WRAP(recvmsg);
WRAP(shutdown);
WRAP(epoll_create1);
WRAP(epoll_ctl);
WRAP(eventfd);
WRAP(eventfd_read);
WRAP(eventfd_write);
WRAP(timerfd_create);
WRAP(timerfd_settime);
WRAP(pthread_create);
WRAP(pthread_join);
WRAP(pthread_self);
WRAP(pthread_mutex_lock);
WRAP(pthread_cond_wait);
WRAP(pthread_cond_timedwait);
WRAP(pthread_cond_signal);
WRAP(pthread_cond_broadcast);

/* The types that the system declares these with are more than their names say. */
int __wrap_ioctl(int fd, unsigned long request, void *argument);
int __real_ioctl(int fd, unsigned long request, void *argument);
int __wrap_poll(struct pollfd *watched, nfds_t count, int ms);
int __real_poll(struct pollfd *watched, nfds_t count, int ms);
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t size);
int __wrap_getpeername(int fd, struct sockaddr *address, socklen_t *size);

#undef WRAP

#endif
