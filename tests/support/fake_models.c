/* fake_models — the fake server's models: made, found, described. */
#include "tests/support/fake_inside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fake_model_forget(struct fake_model *model)
{
    if (model->name[0] == '\0') {
        return;
    }
    for (size_t i = 0; i < model->count; i++) {
        free(model->values[i]);
    }
    free(model->values);
    free(model->table);
    opt_arena_fini(&model->arena);
    memset(model, 0, sizeof(*model));
}

struct fake_model *fake_model_named(struct fake_server *server, const char *name)
{
    for (size_t i = 0; i < MODELS; i++) {
        if (name[0] != '\0' && strcmp(server->models[i].name, name) == 0) {
            return &server->models[i];
        }
    }
    return NULL;
}

struct fake_model *fake_model_numbered(struct fake_server *server, uint32_t number)
{
    if (number >= MODELS || server->models[number].name[0] == '\0') {
        return NULL;
    }
    return &server->models[number];
}

struct fake_worker *fake_worker_of(struct fake_model *model, const char *name)
{
    for (size_t i = 0; i < WORKERS; i++) {
        struct fake_worker *worker = &model->workers[i];
        if (worker->name[0] == '\0') {
            snprintf(worker->name, sizeof(worker->name), "%s", name);
        }
        if (strcmp(worker->name, name) == 0) {
            return worker;
        }
    }
    abort();
}

static struct fake_model *model_create(struct fake_server *server,
                                       const struct opt_create *create,
                                       const uint8_t *data, size_t data_size)
{
    struct fake_model *model = server->models;
    while (model->name[0] != '\0') {
        model++;
    }
    struct opt_error error;
    opt_arena_init(&model->arena, opt_table_budget(data_size));
    if (opt_tensor_table_read(data, data_size, OPT_TENSORS_MAX, &model->arena,
                              &model->tensors, &model->count, &error) != OPT_OK) {
        fprintf(stderr, "fake_server: %s\n", error.text);
        abort();
    }
    snprintf(model->name, sizeof(model->name), "%s", create->model);
    model->identity = ++server->made;
    snprintf(model->specification, sizeof(model->specification), "%.255s",
             create->specification.expression);
    model->values = calloc(model->count, sizeof(*model->values));
    for (size_t i = 0; i < model->count; i++) {
        model->values[i] = calloc((size_t)model->tensors[i].elements, sizeof(float));
    }
    return model;
}

/* Those of the unanswered pushes that were applied: all up to the last, each of which
 * was one update. */
static size_t report_settled(const struct opt_open *open,
                             const struct fake_model *model, uint64_t last,
                             struct opt_settled settled[OPT_UNANSWERED_MAX])
{
    size_t count = 0;
    for (size_t i = 0; i < open->unanswered_count; i++) {
        uint64_t sequence = open->unanswered[i];
        if (sequence <= last) {
            settled[count++] =
                (struct opt_settled){ .sequence = sequence,
                                      .fate = OPT_FATE_APPLIED,
                                      .step = model->step - (last - sequence) };
        }
    }
    return count;
}

void fake_reply_model(struct fake_conn *conn, const struct opt_request *request,
                      struct fake_model *model, bool created)
{
    struct opt_settled settled[OPT_UNANSWERED_MAX];
    uint64_t last = fake_worker_of(model, conn->worker)->last_sequence;
    uint64_t parameters = 0;
    for (size_t i = 0; i < model->count; i++) {
        parameters += model->tensors[i].elements;
    }
    struct opt_reply reply = fake_answer(request, OPT_MESSAGE_MODEL, NULL, 0);
    reply.body.model = (struct opt_model_reply){
        .model = (uint32_t)(model - conn->server->models),
        .created = created,
        .ready = model->ready,
        .step = model->step,
        .last_sequence = last,
        .tensors = model->count,
        .parameters = parameters,
        .workers = 1,
        .specification = model->specification,
        .identity = model->identity,
        .settled = settled,
        .settled_count = request->message == OPT_MESSAGE_OPEN
                             ? report_settled(&request->body.open, model, last, settled)
                             : 0,
    };
    fake_reply(conn, &reply, NULL, 0);
}

void fake_create(struct fake_conn *conn, const struct opt_request *request,
                 const uint8_t *data, size_t data_size)
{
    const struct opt_create *create = &request->body.create;
    struct fake_model *model = fake_model_named(conn->server, create->model);
    if (model != NULL) {
        fake_reply_model(conn, request, model, false);
        return;
    }
    model = model_create(conn->server, create, data, data_size);
    model->ready = !create->assigned;
    model->creator = model->ready ? NULL : conn;
    fake_reply_model(conn, request, model, true);
}

void fake_describe(struct fake_conn *conn, const struct opt_request *request,
                   struct fake_model *model)
{
    struct opt_description description = {
        .summary = { .name = model->name,
                     .model = (uint32_t)(model - conn->server->models),
                     .step = model->step,
                     .tensors = model->count,
                     .specification = model->specification,
                     .identity = model->identity },
        .consistency = { .min_workers = 1 },
        .ready = model->ready,
        .tensors = model->tensors,
        .tensor_count = model->count,
    };
    size_t size = opt_description_pack(&description, NULL, 0);
    uint8_t *table = malloc(size);
    opt_description_pack(&description, table, size);
    struct opt_reply reply = fake_answer(request, OPT_MESSAGE_DESCRIBE, table, size);
    fake_reply(conn, &reply, table, size);
    free(table);
}

void fake_list(struct fake_conn *conn, const struct opt_request *request)
{
    struct opt_model_entry entries[MODELS];
    size_t count = 0;
    for (size_t i = 0; i < MODELS; i++) {
        struct fake_model *model = &conn->server->models[i];
        if (model->name[0] != '\0') {
            entries[count++] = (struct opt_model_entry){
                .name = model->name,
                .model = (uint32_t)i,
                .step = model->step,
                .tensors = model->count,
                .specification = model->specification,
            };
        }
    }
    size_t size = opt_model_table_pack(entries, count, NULL, 0);
    uint8_t *table = malloc(size + 1);
    opt_model_table_pack(entries, count, table, size);
    struct opt_reply reply = fake_answer(request, OPT_MESSAGE_LIST, table, size);
    fake_reply(conn, &reply, table, size);
    free(table);
}
