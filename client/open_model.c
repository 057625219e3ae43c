/* Open models: what is known of them. */
#include "client/open_model.h"

#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "client/shm.h"

static void open_model_free(struct optclient_model *model)
{
    if (model == NULL) {
        return;
    }
    shm_fini(model);
    free(model->name);
    free(model->specification);
    free(model->tensors);
    free(model->elements);
    free(model->widths);
    free(model->names);
    for (size_t i = 0; i < OPEN_MODEL_LOST_KEPT; i++) {
        free(model->lost[i]);
    }
    free(model);
}

void open_model_drop(struct optclient_model *model)
{
    struct optclient *client = model->client;
    if (model->previous != NULL) {
        model->previous->next = model->next;
    } else if (client->models == model) {
        client->models = model->next;
    }
    if (model->next != NULL) {
        model->next->previous = model->previous;
    }
    if (model->leave.client != NULL) {
        call_fini(&model->leave);
    }
    open_model_free(model);
    if (client->state == CONNECTION_REOPENING) {
        client_wake(client); /* it may have been the one that was waited for */
    }
}

struct optclient_model *open_model_new(struct optclient *client, const char *name,
                                       bool joined)
{
    struct optclient_model *model = calloc(1, sizeof(*model));
    if (model == NULL || (model->name = strdup(name)) == NULL) {
        free(model);
        return NULL;
    }
    model->client = client;
    model->joined = joined;
    model->shm.file = -1;
    client_lock(client);
    model->next = client->models;
    if (model->next != NULL) {
        model->next->previous = model;
    }
    client->models = model;
    client_unlock(client);
    return model;
}

/* Number of elements, or 0 if the shape cannot be. */
uint64_t open_model_count_elements(const uint64_t *shape, size_t rank)
{
    uint64_t elements = 1;
    for (size_t i = 0; i < rank; i++) {
        if (shape[i] == 0 || shape[i] > OPT_ELEMENTS_MAX / elements) {
            return 0;
        }
        elements *= shape[i];
    }
    return elements;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct open_model_name *)a)->name,
                  ((const struct open_model_name *)b)->name);
}

/* Copy the tensors into one block, count their elements, sort their names. Shapes are
 * checked already. */
bool open_model_keep_tensors(struct optclient_model *model,
                             const struct optclient_tensor *tensors, size_t count)
{
    size_t dimensions = 0;
    size_t text = 0;
    for (size_t i = 0; i < count; i++) {
        dimensions += tensors[i].rank;
        text += strlen(tensors[i].name) + 1;
    }
    size_t structs = count * sizeof(struct optclient_tensor);
    model->tensors = malloc(structs + dimensions * sizeof(uint64_t) + text + 1);
    model->elements = malloc((count + 1) * sizeof(*model->elements));
    model->widths = malloc((count + 1) * sizeof(*model->widths));
    model->names = malloc((count + 1) * sizeof(*model->names));
    if (model->tensors == NULL || model->elements == NULL || model->widths == NULL ||
        model->names == NULL) {
        return false;
    }
    uint64_t *shape = (uint64_t *)((char *)model->tensors + structs);
    char *name = (char *)(shape + dimensions);
    for (size_t i = 0; i < count; i++) {
        size_t size = strlen(tensors[i].name) + 1;
        memcpy(name, tensors[i].name, size);
        for (size_t d = 0; d < tensors[i].rank; d++) {
            shape[d] = tensors[i].shape[d];
        }
        model->tensors[i] = (struct optclient_tensor){
            .name = name,
            .shape = shape,
            .rank = tensors[i].rank,
            .sparse = tensors[i].sparse != 0,
        };
        model->elements[i] = open_model_count_elements(shape, tensors[i].rank);
        model->widths[i] = tensors[i].sparse != 0 ? model->elements[i] / shape[0] : 0;
        model->names[i] = (struct open_model_name){ name, i };
        name += size;
        shape += tensors[i].rank;
    }
    model->tensor_count = count;
    qsort(model->names, count, sizeof(*model->names), compare_names);
    return shm_init(model);
}

void open_model_note_lost(struct optclient_model *model, const char *name)
{
    char **place = &model->lost[model->lost_count % OPEN_MODEL_LOST_KEPT];
    free(*place);
    *place = strdup(name);
    model->lost_count++;
    if (model->lost_count - model->lost_given > OPEN_MODEL_LOST_KEPT) {
        model->lost_given = model->lost_count - OPEN_MODEL_LOST_KEPT;
    }
}

size_t open_model_find(const struct optclient_model *model, const char *name)
{
    struct open_model_name key = { name, 0 };
    const struct open_model_name *found = bsearch(
        &key, model->names, model->tensor_count, sizeof(*model->names), compare_names);
    return found == NULL ? SIZE_MAX : found->position;
}
