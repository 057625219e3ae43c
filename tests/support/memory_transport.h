/* memory_transport — a connection's bytes in memory: what the peer has sent lies here,
 * what it is sent is collected here, and a test says in which portions both go, when
 * they stop, and how they end.
 */
#ifndef OPTIMD_TESTS_SUPPORT_MEMORY_TRANSPORT_H
#define OPTIMD_TESTS_SUPPORT_MEMORY_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/transport.h"

enum { MEMORY_ENDS = -1 }; /* as in_end: the peer sends no more */

struct memory_transport {
    /* from the peer */
    const uint8_t *in;
    size_t in_size, in_read;
    size_t read_most; /* bytes that one read gets; 0: all there are */
    int in_end;       /* behind them: 0 more may come, MEMORY_ENDS, or an errno */
    bool holds;       /* they are here: no event tells of them */

    /* to the peer */
    uint8_t *out;
    size_t out_size, out_capacity;
    size_t write_most; /* bytes that one write takes; 0: all */
    size_t out_room;   /* bytes taken in all, then */
    int out_end;       /* 0 no more now, or an errno */

    int opening;     /* so many times opening has to go on before it is open */
    bool never;      /* and then it fails */
    uint64_t chance; /* not 0: both portions are of random sizes, 1 to those */
    size_t reads, writes;
    bool finished, closed;
};

/* All that the peer takes, which sends in as yet nothing. */
struct memory_transport memory_transport_new(void);
void memory_transport_fini(struct memory_transport *memory);

/* The transport, for one connection; memory is borrowed until it is closed. */
struct opt_transport memory_transport_carry(struct memory_transport *memory);

/* Which of the events of watch.h that are waited for are due. */
unsigned memory_transport_due(const struct memory_transport *memory, unsigned events);

#endif
