/* failpoint — see failpoint.h. */
#include "server/store/failpoint.h"

bool (*failpoint_reached)(const char *name) = NULL;
