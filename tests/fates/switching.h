/* switching — what AddressSanitizer must be told when another stack is gone on with. */
#ifndef OPTIMD_TESTS_FATES_SWITCHING_H
#define OPTIMD_TESTS_FATES_SWITCHING_H

#include <stdbool.h>
#include <stddef.h>
#include <ucontext.h>

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
#include <dlfcn.h>
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

/* The stack is to be that of another fiber. */
static inline void switching_clear(const struct fiber_stack *stack)
{
#ifdef SWITCHING_IS_TOLD
    __asan_unpoison_memory_region(stack->base, stack->size);
#else
    (void)stack;
#endif
}

/* The system's function of this name: the sanitizer's own warns that it knows nothing
 * of fibers, to which it has been told. */
static inline void switching_context(ucontext_t *from, const ucontext_t *to)
{
#ifdef SWITCHING_IS_TOLD
    int (*swap)(ucontext_t *, const ucontext_t *);
    *(void **)&swap = dlsym(RTLD_NEXT, "swapcontext");
    swap(from, to);
#else
    swapcontext(from, to);
#endif
}

/* from goes on later, unless it has ended. */
static inline void switching_begin(struct fiber_stack *from, bool ended,
                                   const struct fiber_stack *to)
{
#ifdef SWITCHING_IS_TOLD
    __sanitizer_start_switch_fiber(ended ? NULL : &from->shadow, to->base, to->size);
#else
    (void)from, (void)ended, (void)to;
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
