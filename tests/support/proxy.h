/* proxy — a TCP proxy in a thread of the test, through which connections to a real
 * daemon can be cut at any byte, delayed, throttled, frozen and tampered with.
 *
 * What is random follows from a seed, so that a failure can be had again.
 */
#ifndef OPTIMD_TESTS_SUPPORT_PROXY_H
#define OPTIMD_TESTS_SUPPORT_PROXY_H

#include <stdint.h>

#include "tests/support/proxy_faults.h"

struct proxy;

enum proxy_way { PROXY_UP, PROXY_DOWN }; /* to the daemon, from it */

/* Listen on a free loopback port and pass everything on to 127.0.0.1:port. */
struct proxy *proxy_start(uint16_t port);
void proxy_stop(struct proxy *proxy);

/* "127.0.0.1:PORT" of the proxy. */
const char *proxy_address(const struct proxy *proxy);

/* Cut the connection that is just passing something, both ways and abruptly, as soon as
 * that many bytes have passed to the daemon (up) or from it (down) since this call;
 * once. 0: not. */
void proxy_cut_after(struct proxy *proxy, uint64_t up, uint64_t down);

/* The same for ever: after 1 to 2 * up bytes to the daemon or 1 to 2 * down from it,
 * whichever comes first, again and again. 0: not. */
void proxy_cut_often(struct proxy *proxy, uint64_t up, uint64_t down, uint64_t seed);

/* From now on this happens to what passes one way. NULL: nothing. */
void proxy_faults(struct proxy *proxy, enum proxy_way way,
                  const struct lane_faults *faults, uint64_t seed);

/* Tell the other side of all present connections that no more will come this way, and
 * go on passing what comes the other way. */
void proxy_half_close(struct proxy *proxy, enum proxy_way way);

/* Pass nothing on, in neither direction, and keep connections open; or go on. */
void proxy_hold(struct proxy *proxy, int hold);

/* Bytes that have passed so far, connections that there have been, cuts, and frames
 * that were doubled, exchanged or damaged. */
uint64_t proxy_bytes_up(struct proxy *proxy);
uint64_t proxy_bytes_down(struct proxy *proxy);
unsigned proxy_connections(struct proxy *proxy);
unsigned proxy_cuts(struct proxy *proxy);
unsigned proxy_tampered(struct proxy *proxy);

#endif
