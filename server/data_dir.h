/* data_dir — the directory that belongs to one daemon alone. Main thread. */
#ifndef OPTIMD_SERVER_DATA_DIR_H
#define OPTIMD_SERVER_DATA_DIR_H

#include "common/status.h"

/* Create path if it is missing (mode 0700) and lock it: *lock is held until it is
 * closed, or the process ends however it may. OPT_UNAVAILABLE if another daemon has it,
 * OPT_PERMISSION_DENIED if nothing can be written there, OPT_NOT_FOUND if it cannot be
 * created. */
enum opt_status data_dir_open(const char *path, int *lock, struct opt_error *error);

#endif
