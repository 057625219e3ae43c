/* memory — see memory.h. */
#include "server/base/memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    MEMORY_ALIGNMENT = 64,
    MEMORY_MAPPED = 128 << 10, /* from here on a mapping of its own */
    MEMORY_HUGE = 2 << 20      /* size and alignment of a huge page */
};

static size_t round_up(size_t size, size_t unit)
{
    return (size + unit - 1) / unit * unit;
}

static void *map(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                        /* cppcheck-suppress invalidFunctionArg */
                        -1, 0);
    /* cppcheck-suppress memleak ; it is not MAP_FAILED, so it is returned */
    return memory == MAP_FAILED ? NULL : memory;
}

/* A mapping that starts at a multiple of 2 MiB: map more, cut off both ends. */
static void *map_huge(size_t size)
{
    uint8_t *base = map(size + MEMORY_HUGE);
    if (base == NULL) {
        return NULL;
    }
    size_t head = round_up((uintptr_t)base, MEMORY_HUGE) - (uintptr_t)base;
    uint8_t *memory = base + head;
    if (head < MEMORY_HUGE) {
        munmap(memory + size, MEMORY_HUGE - head);
    }
    if (head > 0) {
        munmap(base, head);
    }
    madvise(memory, size, MADV_HUGEPAGE);
    return memory;
}

static size_t mapped_size(size_t size)
{
    return round_up(size, 4096);
}

void *memory_new(size_t size)
{
    if (size == 0 || size > SIZE_MAX / 4) {
        return NULL;
    }
    if (size >= MEMORY_HUGE) {
        return map_huge(mapped_size(size));
    }
    if (size >= MEMORY_MAPPED) {
        return map(mapped_size(size));
    }
    size_t rounded = round_up(size, MEMORY_ALIGNMENT);
    void *memory = aligned_alloc(MEMORY_ALIGNMENT, rounded);
    if (memory != NULL) {
        memset(memory, 0, rounded);
    }
    return memory;
}

void memory_free(void *memory, size_t size)
{
    if (memory == NULL) {
        return;
    }
    if (size >= MEMORY_MAPPED) {
        munmap(memory, mapped_size(size));
    } else {
        free(memory);
    }
}

size_t memory_cut(void *memory, size_t size, size_t most)
{
    size_t left = size > most ? round_up(size - most, MEMORY_HUGE) : 0;
    if (left == 0 || left >= size) {
        memory_free(memory, size);
        return 0;
    }
    munmap((uint8_t *)memory + left, mapped_size(size) - left);
    return left;
}

bool size_multiply(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

bool size_add(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

void budget_init(struct budget *budget, size_t limit)
{
    budget->limit = limit;
    atomic_init(&budget->used, 0);
}

bool budget_take(struct budget *budget, size_t size)
{
    size_t used = atomic_load_explicit(&budget->used, memory_order_relaxed);
    do {
        if (size > budget->limit - used) {
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(
        &budget->used, &used, used + size, memory_order_relaxed, memory_order_relaxed));
    return true;
}

void budget_give(struct budget *budget, size_t size)
{
    atomic_fetch_sub_explicit(&budget->used, size, memory_order_relaxed);
}

size_t budget_used(const struct budget *budget)
{
    return atomic_load_explicit(&budget->used, memory_order_relaxed);
}

size_t budget_left(const struct budget *budget)
{
    return budget->limit - budget_used(budget);
}
