/* switching — what AddressSanitizer must be told when another stack is gone on with. */
#ifndef OPTIMD_TESTS_FATES_SWITCHING_H
#define OPTIMD_TESTS_FATES_SWITCHING_H

#include <stddef.h>

struct fiber_stack {
    void *base; /* NULL: the thread's own, until it is known */
    size_t size;
    void *shadow; /* the sanitizer's, while the fiber does not run */
};

#if defined(__SANITIZE_ADDRESS__)
#define SWITCHING_IS_TOLD 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SWITCHING_IS_TOLD 1
#endif
#endif

#ifdef SWITCHING_IS_TOLD
#include <sanitizer/common_interface_defs.h>
#endif

static inline void switching_begin(struct fiber_stack *from,
                                   const struct fiber_stack *to)
{
#ifdef SWITCHING_IS_TOLD
    __sanitizer_start_switch_fiber(&from->shadow, to->base, to->size);
#else
    (void)from, (void)to;
#endif
}

/* Called on the stack that is gone on with. */
static inline void switching_end(struct fiber_stack *self)
{
#ifdef SWITCHING_IS_TOLD
    __sanitizer_finish_switch_fiber(self->shadow, NULL, NULL);
    self->shadow = NULL;
#else
    (void)self;
#endif
}

#endif
