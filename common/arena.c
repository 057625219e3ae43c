#include "common/wire.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

/* AddressSanitizer knows malloc's blocks; these lines tell it what of a chunk has been
 * handed out, so that reading past a piece is found as it would be past a block. */
#if defined(__has_feature)
#define HAS_ADDRESS_SANITIZER __has_feature(address_sanitizer)
#elif defined(__SANITIZE_ADDRESS__)
#define HAS_ADDRESS_SANITIZER 1
#else
#define HAS_ADDRESS_SANITIZER 0
#endif
#if HAS_ADDRESS_SANITIZER
/* As in <sanitizer/asan_interface.h> but for its const, from which gcc concludes that
 * the bytes are read and warns that they were never written. */
void __asan_poison_memory_region(volatile void *bytes, size_t size);
void __asan_unpoison_memory_region(volatile void *bytes, size_t size);
#define FORBID(bytes, size) __asan_poison_memory_region(bytes, size)
#define ALLOW(bytes, size) __asan_unpoison_memory_region(bytes, size)
#else
#define FORBID(bytes, size) ((void)(bytes), (void)(size))
#define ALLOW(bytes, size) ((void)(bytes), (void)(size))
#endif

enum { ALIGNMENT = 16, CHUNK_FIRST = 2048 };

struct opt_arena_chunk {
    struct opt_arena_chunk *next; /* older */
    size_t used, capacity;
    alignas(ALIGNMENT) unsigned char bytes[];
};

void opt_arena_init(struct opt_arena *arena, size_t limit)
{
    *arena = (struct opt_arena){ .limit = limit };
}

static struct opt_arena_chunk *chunk_new(struct opt_arena *arena, size_t capacity)
{
    struct opt_arena_chunk *chunk = malloc(sizeof(*chunk) + capacity);
    if (chunk != NULL) {
        arena->held += sizeof(*chunk) + capacity;
        *chunk = (struct opt_arena_chunk){ .capacity = capacity };
        FORBID(chunk->bytes, capacity);
    }
    return chunk;
}

/* Chunks double, but are never larger than what may still be handed out. */
static size_t chunk_capacity(const struct opt_arena *arena)
{
    size_t capacity = arena->chunks == NULL ? CHUNK_FIRST : 2 * arena->chunks->capacity;
    size_t left = (arena->limit - arena->used) / ALIGNMENT * ALIGNMENT;
    return capacity < left ? capacity : left;
}

void *opt_arena_alloc(struct opt_arena *arena, size_t size)
{
    if (size == 0) {
        size = 1;
    }
    if (size > SIZE_MAX - ALIGNMENT) {
        return NULL;
    }
    const size_t asked = size;
    size = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (size > arena->limit - arena->used) {
        return NULL;
    }
    struct opt_arena_chunk *chunk = arena->chunks;
    if (chunk == NULL || size > chunk->capacity - chunk->used) {
        size_t capacity = chunk_capacity(arena);
        if (size <= capacity / 4 || chunk == NULL) {
            chunk = chunk_new(arena, size < capacity ? capacity : size);
            if (chunk == NULL) {
                return NULL;
            }
            chunk->next = arena->chunks;
            arena->chunks = chunk;
        } else {
            /* A large piece gets a chunk of its own behind the newest, whose rest
             * stays in use; so at most a quarter of the memory taken is wasted. */
            chunk = chunk_new(arena, size);
            if (chunk == NULL) {
                return NULL;
            }
            chunk->next = arena->chunks->next;
            arena->chunks->next = chunk;
        }
    }
    void *piece = chunk->bytes + chunk->used;
    ALLOW(piece, asked);
    chunk->used += size;
    arena->used += size;
    return piece;
}

static void free_chunks(struct opt_arena_chunk *chunk)
{
    while (chunk != NULL) {
        struct opt_arena_chunk *next = chunk->next;
        ALLOW(chunk->bytes, chunk->capacity);
        free(chunk);
        chunk = next;
    }
}

void opt_arena_reset(struct opt_arena *arena)
{
    if (arena->chunks != NULL) {
        free_chunks(arena->chunks->next);
        arena->chunks->next = NULL;
        arena->chunks->used = 0;
        arena->held = sizeof(*arena->chunks) + arena->chunks->capacity;
        FORBID(arena->chunks->bytes, arena->chunks->capacity);
    }
    arena->used = 0;
}

void opt_arena_wipe(struct opt_arena *arena)
{
    for (struct opt_arena_chunk *chunk = arena->chunks; chunk != NULL;
         chunk = chunk->next) {
        ALLOW(chunk->bytes, chunk->used);
        explicit_bzero(chunk->bytes, chunk->used);
    }
}

void opt_arena_fini(struct opt_arena *arena)
{
    free_chunks(arena->chunks);
    *arena = (struct opt_arena){ .limit = arena->limit };
}
