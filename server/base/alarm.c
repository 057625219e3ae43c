/* alarm — see alarm.h. */
#include "server/base/alarm.h"

#include <stdlib.h>

void alarms_fini(struct alarms *alarms)
{
    free(alarms->heap);
    *alarms = (struct alarms){ 0 };
}

static void put(struct alarms *alarms, size_t place, struct alarm *alarm)
{
    alarms->heap[place] = alarm;
    alarm->place = place;
}

static void rise(struct alarms *alarms, size_t place)
{
    struct alarm *alarm = alarms->heap[place];
    while (place > 1 && alarms->heap[place / 2]->at_ns > alarm->at_ns) {
        put(alarms, place, alarms->heap[place / 2]);
        place /= 2;
    }
    put(alarms, place, alarm);
}

static void sink(struct alarms *alarms, size_t place)
{
    struct alarm *alarm = alarms->heap[place];
    for (;;) {
        size_t child = place * 2;
        if (child > alarms->count) {
            break;
        }
        if (child < alarms->count &&
            alarms->heap[child + 1]->at_ns < alarms->heap[child]->at_ns) {
            child++;
        }
        if (alarms->heap[child]->at_ns >= alarm->at_ns) {
            break;
        }
        put(alarms, place, alarms->heap[child]);
        place = child;
    }
    put(alarms, place, alarm);
}

bool alarm_set(struct alarms *alarms, struct alarm *alarm, uint64_t at_ns,
               void (*on_alarm)(struct engine *engine, struct alarm *alarm))
{
    alarm_cancel(alarms, alarm);
    if (alarms->count + 1 >= alarms->capacity) {
        size_t capacity = alarms->capacity == 0 ? 64 : alarms->capacity * 2;
        struct alarm **heap = realloc(alarms->heap, capacity * sizeof(struct alarm *));
        if (heap == NULL) {
            return false;
        }
        alarms->heap = heap;
        alarms->capacity = capacity;
    }
    alarm->at_ns = at_ns;
    alarm->on_alarm = on_alarm;
    alarms->heap[++alarms->count] = alarm;
    rise(alarms, alarms->count);
    return true;
}

void alarm_cancel(struct alarms *alarms, struct alarm *alarm)
{
    size_t place = alarm->place;
    if (place == 0) {
        return;
    }
    alarm->place = 0;
    struct alarm *last = alarms->heap[alarms->count--];
    if (last != alarm) {
        put(alarms, place, last);
        rise(alarms, place);
        sink(alarms, last->place);
    }
}

uint64_t alarms_next(const struct alarms *alarms)
{
    return alarms->count == 0 ? UINT64_MAX : alarms->heap[1]->at_ns;
}

struct alarm *alarms_due(struct alarms *alarms, uint64_t now_ns)
{
    if (alarms_next(alarms) > now_ns) {
        return NULL;
    }
    struct alarm *alarm = alarms->heap[1];
    alarm_cancel(alarms, alarm);
    return alarm;
}
