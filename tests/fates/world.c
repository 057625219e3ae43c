/* world — see world.h: fibers, the clock, and what stands in for threads. */
#define _GNU_SOURCE
#include "tests/fates/world.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <uv.h>

#include "tests/fates/switching.h"
#include "tests/fates/wraps.h"

enum { STACK = 512 << 10, NS_PER_MS = 1000000, TURNS_MOST = 1000000 };
static const uint64_t begin_ns = UINT64_C(3600) * 1000000000;

struct fiber {
    struct fiber *next;
    ucontext_t context;
    struct fiber_stack stack;
    void (*run)(void *argument);
    void *argument;
    int owner;
    bool ended;
    bool waits;
    bool (*ready)(void *what);
    void *what;
    uint64_t until_ns;
    const void *condition; /* that it waits for, or NULL */
};

static struct {
    struct fiber main; /* the first of all in the list */
    struct fiber *running;
    pthread_t thread;    /* in which they all run */
    struct fiber *spare; /* ended: their stacks are used again */
    uint64_t now_ns;
    uint64_t random;
    unsigned turns; /* taken since time passed */
    int owner;
    void (*look)(void);
} world;

uint64_t world_now(void)
{
    return world.now_ns;
}

void world_begin(void)
{
    world.now_ns = begin_ns;
    world.random = 0;
    world.look = NULL;
    world.running = &world.main;
    world.thread = __real_pthread_self();
    world.owner = WORLD_NOBODY;
    world.main.owner = WORLD_NOBODY;
    pthread_attr_t attributes;
    if (pthread_getattr_np(__real_pthread_self(), &attributes) == 0) {
        pthread_attr_getstack(&attributes, &world.main.stack.base,
                              &world.main.stack.size);
        pthread_attr_destroy(&attributes);
    }
}

static _Noreturn void die(const char *why)
{
    fprintf(stderr, "the world cannot go on: %s\n", why);
    abort();
}

void world_end(void)
{
    if (world.main.next != NULL) {
        die("a thread is left");
    }
}

void world_belongs(int owner)
{
    world.owner = owner;
}

int world_owner(void)
{
    return world.running->owner;
}

void world_watch(void (*look)(void))
{
    world.look = look;
}

/* ------------------------------------------------------------------ fibers */

static void switch_to(struct fiber *fiber)
{
    struct fiber *from = world.running;
    world.running = fiber;
    switching_begin(&from->stack, from->ended, &fiber->stack);
    switching_context(&from->context, &fiber->context);
    switching_end(&from->stack);
}

static void fiber_main(void)
{
    struct fiber *self = world.running;
    switching_end(&self->stack);
    self->run(self->argument);
    self->ended = true;
    self->waits = false;
    switch_to(&world.main);
    die("a thread that has ended goes on");
}

static bool may_run(const struct fiber *fiber)
{
    if (fiber->ended) {
        return false;
    }
    return !fiber->waits || fiber->ready(fiber->what) ||
           fiber->until_ns <= world.now_ns;
}

/* One that has ended, or a new one. */
static struct fiber *fiber_take(void)
{
    struct fiber *fiber = world.spare;
    if (fiber != NULL) {
        world.spare = fiber->next;
        struct fiber_stack stack = fiber->stack;
        *fiber = (struct fiber){ .stack = stack };
        switching_clear(&stack);
        return fiber;
    }
    fiber = calloc(1, sizeof(*fiber));
    void *base = mmap(NULL, STACK, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (fiber == NULL || base == MAP_FAILED) {
        die("no memory");
    }
    fiber->stack = (struct fiber_stack){ .base = base, .size = STACK };
    return fiber;
}

static struct fiber *fiber_new(void (*run)(void *), void *argument)
{
    struct fiber *fiber = fiber_take();
    fiber->run = run;
    fiber->argument = argument;
    fiber->owner = world.running == &world.main ? world.owner : world.running->owner;
    struct fiber *last = &world.main;
    while (last->next != NULL) {
        last = last->next;
    }
    last->next = fiber;
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack.base;
    fiber->context.uc_stack.ss_size = fiber->stack.size;
    fiber->context.uc_link = NULL;
    makecontext(&fiber->context, fiber_main, 0);
    return fiber;
}

/* The first that can go on does. False: all wait. */
static bool run_one(void)
{
    for (struct fiber *fiber = world.main.next; fiber != NULL; fiber = fiber->next) {
        if (may_run(fiber)) {
            if (++world.turns == TURNS_MOST) {
                die("somebody turns in a circle");
            }
            switch_to(fiber);
            if (world.look != NULL) {
                world.look();
            }
            return true;
        }
    }
    return false;
}

/* When the next waiting fiber has waited long enough. */
static uint64_t next_due(void)
{
    uint64_t due = UINT64_MAX;
    for (const struct fiber *fiber = world.main.next; fiber != NULL;
         fiber = fiber->next) {
        if (!fiber->ended && fiber->waits && fiber->until_ns < due) {
            due = fiber->until_ns;
        }
    }
    return due;
}

static void advance_to(uint64_t ns)
{
    if (ns > world.now_ns) {
        world.now_ns = ns;
        world.turns = 0;
    }
}

bool world_wait(bool (*ready)(void *what), void *what, uint64_t until_ns)
{
    struct fiber *self = world.running;
    if (ready(what)) {
        return true;
    }
    if (self != &world.main) {
        self->waits = true;
        self->ready = ready;
        self->what = what;
        self->until_ns = until_ns;
        switch_to(&world.main);
        self->waits = false;
        return ready(what);
    }
    while (!ready(what) && world.now_ns < until_ns) {
        if (!run_one()) {
            uint64_t due = next_due();
            due = due < until_ns ? due : until_ns;
            if (due == UINT64_MAX) {
                die("everybody waits for ever");
            }
            advance_to(due);
        }
    }
    return ready(what);
}

void world_settle(void)
{
    while (run_one()) {
    }
}

void world_pass(uint64_t ms)
{
    uint64_t until = world.now_ns + ms * NS_PER_MS;
    for (;;) {
        world_settle();
        uint64_t due = next_due();
        if (due > until) {
            break;
        }
        advance_to(due);
    }
    advance_to(until);
    world_settle();
}

/* ----------------------------------------------------------------- threads */

static bool has_ended(void *fiber)
{
    return ((struct fiber *)fiber)->ended;
}

static void join(struct fiber *fiber)
{
    world_wait(has_ended, fiber, UINT64_MAX);
    struct fiber **place = &world.main.next;
    while (*place != fiber) {
        place = &(*place)->next;
    }
    *place = fiber->next;
    fiber->next = world.spare;
    world.spare = fiber;
}

struct posix_start {
    void *(*run)(void *);
    void *argument;
};

static void run_posix(void *argument)
{
    struct posix_start start = *(struct posix_start *)argument;
    free(argument);
    start.run(start.argument);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*run)(void *), void *argument)
{
    (void)attributes;
    struct posix_start *start = malloc(sizeof(*start));
    if (start == NULL) {
        return EAGAIN;
    }
    *start = (struct posix_start){ run, argument };
    *thread = (pthread_t)(uintptr_t)fiber_new(run_posix, start);
    return 0;
}

int __wrap_pthread_join(pthread_t thread, void **out)
{
    (void)out;
    join((struct fiber *)(uintptr_t)thread);
    return 0;
}

/* The program may have threads beside the world's: a sanitizer's, the test framework's.
 */
pthread_t __wrap_pthread_self(void)
{
    pthread_t self = __real_pthread_self();
    return world.running != NULL && self == world.thread
               ? (pthread_t)(uintptr_t)world.running
               : self;
}

static bool is_free(void *mutex)
{
    if (pthread_mutex_trylock(mutex) != 0) {
        return false;
    }
    pthread_mutex_unlock(mutex);
    return true;
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
    while (pthread_mutex_trylock(mutex) != 0) {
        world_wait(is_free, mutex, UINT64_MAX);
    }
    return 0;
}

static bool is_signalled(void *fiber)
{
    return ((struct fiber *)fiber)->condition == NULL;
}

static bool wait_for(const void *condition, pthread_mutex_t *mutex, uint64_t until_ns)
{
    struct fiber *self = world.running;
    self->condition = condition;
    pthread_mutex_unlock(mutex);
    bool signalled = world_wait(is_signalled, self, until_ns);
    self->condition = NULL;
    __wrap_pthread_mutex_lock(mutex);
    return signalled;
}

static void wake(const void *condition, bool all)
{
    for (struct fiber *fiber = &world.main; fiber != NULL; fiber = fiber->next) {
        if (fiber->condition == condition) {
            fiber->condition = NULL;
            if (!all) {
                return;
            }
        }
    }
}

int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
{
    wait_for(condition, mutex, UINT64_MAX);
    return 0;
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex,
                                  const struct timespec *until)
{
    uint64_t ns = (uint64_t)until->tv_sec * 1000000000 + (uint64_t)until->tv_nsec;
    return wait_for(condition, mutex, ns) ? 0 : ETIMEDOUT;
}

int __wrap_pthread_cond_signal(pthread_cond_t *condition)
{
    wake(condition, false);
    return 0;
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *condition)
{
    wake(condition, true);
    return 0;
}

/* -------------------------------------------------------------------- time */

uint64_t uv_hrtime(void)
{
    return world.now_ns;
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *out)
{
    if (clock != CLOCK_MONOTONIC) {
        return __real_clock_gettime(clock, out);
    }
    *out = (struct timespec){ .tv_sec = (time_t)(world.now_ns / 1000000000),
                              .tv_nsec = (long)(world.now_ns % 1000000000) };
    return 0;
}

/* Sessions and jitter: other ones each time, the same in each run. */
ssize_t __wrap_getrandom(void *out, size_t size, unsigned flags)
{
    (void)flags;
    uint8_t *bytes = out;
    for (size_t i = 0; i < size; i++) {
        world.random = world.random * UINT64_C(6364136223846793005) +
                       UINT64_C(1442695040888963407);
        bytes[i] = (uint8_t)(world.random >> 56);
    }
    return (ssize_t)size;
}

/* ------------------------------------------------------- the same for libuv */

int uv_thread_create(uv_thread_t *thread, uv_thread_cb run, void *argument)
{
    *thread = (uv_thread_t)(uintptr_t)fiber_new(run, argument);
    return 0;
}

int uv_thread_join(uv_thread_t *thread)
{
    join((struct fiber *)(uintptr_t)*thread);
    return 0;
}

int uv_mutex_init(uv_mutex_t *mutex)
{
    return -pthread_mutex_init(mutex, NULL);
}

void uv_mutex_destroy(uv_mutex_t *mutex)
{
    pthread_mutex_destroy(mutex);
}

void uv_mutex_lock(uv_mutex_t *mutex)
{
    __wrap_pthread_mutex_lock(mutex);
}

int uv_mutex_trylock(uv_mutex_t *mutex)
{
    return -pthread_mutex_trylock(mutex);
}

void uv_mutex_unlock(uv_mutex_t *mutex)
{
    pthread_mutex_unlock(mutex);
}

int uv_cond_init(uv_cond_t *condition)
{
    (void)condition;
    return 0;
}

void uv_cond_destroy(uv_cond_t *condition)
{
    (void)condition;
}

void uv_cond_wait(uv_cond_t *condition, uv_mutex_t *mutex)
{
    wait_for(condition, mutex, UINT64_MAX);
}

int uv_cond_timedwait(uv_cond_t *condition, uv_mutex_t *mutex, uint64_t timeout_ns)
{
    return wait_for(condition, mutex, world.now_ns + timeout_ns) ? 0 : UV_ETIMEDOUT;
}

void uv_cond_signal(uv_cond_t *condition)
{
    wake(condition, false);
}

void uv_cond_broadcast(uv_cond_t *condition)
{
    wake(condition, true);
}

static unsigned *count_of(uv_sem_t *semaphore)
{
    return (unsigned *)(void *)semaphore;
}

static bool is_posted(void *semaphore)
{
    return *count_of(semaphore) > 0;
}

int uv_sem_init(uv_sem_t *semaphore, unsigned value)
{
    *count_of(semaphore) = value;
    return 0;
}

void uv_sem_destroy(uv_sem_t *semaphore)
{
    (void)semaphore;
}

void uv_sem_post(uv_sem_t *semaphore)
{
    ++*count_of(semaphore);
}

void uv_sem_wait(uv_sem_t *semaphore)
{
    world_wait(is_posted, semaphore, UINT64_MAX);
    --*count_of(semaphore);
}
