/* process — which process this is, without asking the kernel in every call.
 *
 * A client belongs to the process that made it: in a child after fork its thread is not
 * there, and its lock may never be given back. So every public function looks
 * (api_check) whether it is in that process, and the number is kept until a fork
 * changes it.
 */
#ifndef OPTCLIENT_PROCESS_H
#define OPTCLIENT_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

/* Before the first process_id: see that forks are noticed. False: no memory. */
bool process_begin(void);

/* What getpid(2) returns. */
pid_t process_id(void);

#endif
