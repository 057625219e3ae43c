/* control_group — what the control groups of this process let it use: processors and
 * memory. Containers, systemd and batch systems set such limits, on any of the groups
 * from that of the process up to the topmost; the least one holds. Both versions of
 * control groups are read, wherever they are mounted. Main thread, at the start.
 *
 * root is put before every path; "" but in tests.
 */
#ifndef OPTIMD_SERVER_CONTROL_GROUP_H
#define OPTIMD_SERVER_CONTROL_GROUP_H

#include <stdint.h>

/* Processors whose time it may use, rounded down, at least 1; UINT64_MAX: no limit. */
uint64_t control_group_cores(const char *root);

/* Bytes; UINT64_MAX: no limit. */
uint64_t control_group_memory(const char *root);

#endif
