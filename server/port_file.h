/* port_file — the file that tells scripts where this daemon listens. Written by main
 * once connections are accepted, and removed at its end. Main thread.
 */
#ifndef OPTIMD_SERVER_PORT_FILE_H
#define OPTIMD_SERVER_PORT_FILE_H

#include <sys/types.h>

#include "common/status.h"

struct port_file {
    const char *path; /* NULL: none was written; borrowed */
    dev_t device;     /* and which file it was */
    ino_t inode;
};

/* Write the port: whoever sees the file sees it whole. Only a plain file is replaced,
 * and no link is followed. OPT_UNAVAILABLE says why not. */
enum opt_status port_file_write(struct port_file *file, const char *path, unsigned port,
                                struct opt_error *error);

/* Remove it, unless another file has its name meanwhile. */
void port_file_remove(const struct port_file *file);

#endif
