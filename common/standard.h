/* standard — descriptors 0, 1 and 2, which programs take for granted.
 *
 * A program may be started without them. The next files and sockets it opens then get
 * these numbers, and what is meant for people is written into them.
 */
#ifndef OPTIMD_COMMON_STANDARD_H
#define OPTIMD_COMMON_STANDARD_H

#include <stdbool.h>

/* Open those that are closed, in the direction that nobody uses them: reading and
 * writing fail as before. To be called first in main. False: that is not possible. */
bool opt_standard_open(void);

#endif
