/* buffer — large aligned memory for tensor data, kept warm.
 *
 * A frame's data needs a few MiB for a few milliseconds, again and again. Memory fresh
 * from the kernel would have to be zeroed page by page while a gradient waits, which
 * costs about half of what its way through the network costs; so buffers that are given
 * back are kept and handed out again, and those that nobody has wanted for a while go
 * back to the kernel. Any thread.
 */
#ifndef OPTIMD_SERVER_BASE_BUFFER_H
#define OPTIMD_SERVER_BASE_BUFFER_H

#include <stddef.h>
#include <stdint.h>

/* At least size bytes (not 0), aligned to 64 bytes or more, in huge pages where large;
 * *capacity says how many and must be handed to buffer_give. NULL: no memory. */
void *buffer_take(size_t size, size_t *capacity);

/* The capacity that buffer_take gives for size; that of a kept one may be up to twice
 * as large. */
size_t buffer_capacity(size_t size);

/* Give it back; NULL is allowed. */
void buffer_give(void *memory, size_t capacity);

/* Return to the kernel what has been kept unused since the call before the last; what
 * is promised, only when that has lasted for 24 calls, for a worker may take its time
 * from one step to the next. If it is much, it takes several calls. To be called every
 * few seconds. */
void buffer_trim(void);

/* Most bytes that are in use and kept unused together, beside what is promised: what
 * would be kept beyond that is given back to the kernel at once. */
void buffer_keep(size_t bytes);

/* What a peer may have in flight by a promise of the engine was so much and is so much
 * now. It has been paid for, so as many bytes may be in use and kept beside what
 * buffer_keep allows: the gradients of a large model come again with every step. */
void buffer_promise(size_t before, size_t now);

/* Bytes kept unused at present. */
size_t buffer_kept(void);

#endif
