/* secret — see secret.h. */
#include "server/access/secret.h"

#include <string.h>
#include <sys/mman.h>

void *secret_new(size_t size)
{
    void *memory = mmap(NULL, size > 0 ? size : 1, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return NULL;
    }
    /* A kernel that knows neither has no better. */
    (void)madvise(memory, size, MADV_DONTDUMP);
    (void)madvise(memory, size, MADV_DONTFORK);
    return memory;
}

void secret_free(void *memory, size_t size)
{
    if (memory != NULL) {
        explicit_bzero(memory, size);
        munmap(memory, size > 0 ? size : 1);
    }
}
