/* proxy — a TCP proxy in a thread of the test, which can cut a connection in the middle
 * of anything. Used to break connections to a real daemon at any byte.
 */
#ifndef OPTIMD_TESTS_PROXY_H
#define OPTIMD_TESTS_PROXY_H

#include <stddef.h>
#include <stdint.h>

struct proxy;

/* Listen on a free loopback port and pass everything on to 127.0.0.1:port. */
struct proxy *proxy_start(uint16_t port);
void proxy_stop(struct proxy *proxy);

/* "127.0.0.1:PORT" of the proxy. */
const char *proxy_address(const struct proxy *proxy);

/* Cut the present connection, both ways and abruptly, as soon as that many bytes have
 * passed to the daemon (up) or from it (down) since this call; once. 0: not. */
void proxy_cut_after(struct proxy *proxy, uint64_t up, uint64_t down);

/* Pass nothing on, in neither direction, and keep connections open; or go on. */
void proxy_hold(struct proxy *proxy, int hold);

/* Pass at most that many bytes to the daemon every 20 ms, as a slow network would; 0:
 * as many as come. */
void proxy_slow(struct proxy *proxy, size_t bytes);

/* Bytes that have passed so far. */
uint64_t proxy_bytes_up(struct proxy *proxy);
uint64_t proxy_bytes_down(struct proxy *proxy);
unsigned proxy_connections(struct proxy *proxy);

#endif
