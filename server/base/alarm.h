/* alarm — what shall happen at a time: deadlines of requests, grace of lost workers.
 *
 * A binary heap of alarms that are embedded in what they are about. The rooms of the
 * engine set them, the turn (thread.c) sounds them. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_BASE_ALARM_H
#define OPTIMD_SERVER_BASE_ALARM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct engine;

struct alarm {
    uint64_t at_ns; /* uv_hrtime */
    size_t place;   /* in the heap, from 1; 0: not set */
    void (*on_alarm)(struct engine *engine, struct alarm *alarm);
};

struct alarms {
    struct alarm **heap; /* from 1 */
    size_t count, capacity;
};
void alarms_fini(struct alarms *alarms);

/* Ring at at_ns; an alarm that is set already is moved. False if there is no memory; an
 * alarm that is set already can always be moved. */
bool alarm_set(struct alarms *alarms, struct alarm *alarm, uint64_t at_ns,
               void (*on_alarm)(struct engine *engine, struct alarm *alarm));
/* No effect if it is not set. */
void alarm_cancel(struct alarms *alarms, struct alarm *alarm);
/* When the next one rings; UINT64_MAX if none is set. */
uint64_t alarms_next(const struct alarms *alarms);
/* The next alarm that is due at now_ns, no longer set, or NULL. */
struct alarm *alarms_due(struct alarms *alarms, uint64_t now_ns);

#endif
