#include "common/standard.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

bool opt_standard_open(void)
{
    for (int wanted = STDIN_FILENO; wanted <= STDERR_FILENO; wanted++) {
        if (fcntl(wanted, F_GETFD) >= 0 || errno != EBADF) {
            continue;
        }
        /* The lowest number that is free, which is this one. */
        if (open("/dev/null", wanted == STDIN_FILENO ? O_WRONLY : O_RDONLY) != wanted) {
            return false;
        }
    }
    return true;
}
