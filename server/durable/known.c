/* known — see known.h. */
#include "server/durable/known.h"

#include <stdlib.h>
#include <string.h>

#include "server/durable/replaying.h"

/* ---------------------------------------------------------------- models */

static size_t place_of(const struct known_models *models, uint64_t identity)
{
    size_t low = 0, high = models->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (models->list[middle].identity < identity) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct known_model *known_model_find(const struct known_models *models,
                                     uint64_t identity)
{
    size_t place = place_of(models, identity);
    return place < models->count && models->list[place].identity == identity
               ? &models->list[place]
               : NULL;
}

struct known_model *known_model(struct known_models *models, uint64_t identity,
                                uint64_t record)
{
    struct known_model *model = known_model_find(models, identity);
    if (model != NULL) {
        return model;
    }
    if (models->count == models->capacity) {
        size_t capacity = models->capacity == 0 ? 16 : 2 * models->capacity;
        struct known_model *list = realloc(models->list, capacity * sizeof *list);
        if (list == NULL) {
            return NULL;
        }
        models->list = list;
        models->capacity = capacity;
    }
    size_t place = place_of(models, identity);
    model = &models->list[place];
    memmove(model + 1, model, (models->count - place) * sizeof *model);
    *model = (struct known_model){ .identity = identity, .record = record };
    models->count++;
    return model;
}

void known_models_fini(struct known_models *models)
{
    for (size_t i = 0; i < models->count; i++) {
        replaying_free(models->list[i].replaying);
    }
    free(models->list);
    *models = (struct known_models){ 0 };
}

/* ---------------------------------------------------------------- workers */

struct known_worker {
    struct known_worker *next;
    uint64_t record;
    char name[];
};

bool known_worker_news(struct known_workers *workers, const char *name, uint64_t record,
                       bool *known)
{
    struct known_worker *worker = names_find(&workers->names, name);
    *known = true;
    if (worker != NULL) {
        bool news = record >= worker->record;
        worker->record = news ? record : worker->record;
        return news;
    }
    size_t bytes = strlen(name) + 1;
    worker = malloc(sizeof *worker + bytes);
    if (worker == NULL) {
        *known = false;
        return true;
    }
    memcpy(worker->name, name, bytes);
    worker->record = record;
    if (!names_add(&workers->names, worker->name, worker)) {
        free(worker);
        *known = false;
        return true;
    }
    worker->next = workers->first;
    workers->first = worker;
    return true;
}

void known_workers_fini(struct known_workers *workers)
{
    names_fini(&workers->names);
    while (workers->first != NULL) {
        struct known_worker *next = workers->first->next;
        free(workers->first);
        workers->first = next;
    }
}
