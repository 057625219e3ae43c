/* process — see process.h. */
#include "client/process.h"

#include <pthread.h>
#include <unistd.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool notices_forks;
static pid_t id; /* written before there are clients, and by a child's only thread */

static void find_id(void)
{
    id = getpid();
}

static void begin(void)
{
    find_id();
    notices_forks = pthread_atfork(NULL, NULL, find_id) == 0;
}

bool process_begin(void)
{
    return pthread_once(&once, begin) == 0 && notices_forks;
}

pid_t process_id(void)
{
    return id;
}
