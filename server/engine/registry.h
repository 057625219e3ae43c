/* registry — the models there are, by number and by name. In the engine's turn. */
#ifndef OPTIMD_SERVER_ENGINE_REGISTRY_H
#define OPTIMD_SERVER_ENGINE_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

struct engine;
struct letter;
struct model;

/* Whether the letter's peer may use a model of that name, whether there is one or not;
 * if not, it has been answered PERMISSION_DENIED. */
bool registry_allows(struct engine *engine, struct letter *letter, const char *name);
/* The model a request names, or NULL: then the letter has been answered NOT_FOUND, or
 * PERMISSION_DENIED. */
struct model *registry_model(struct engine *engine, struct letter *letter,
                             uint32_t number);
struct model *registry_named(struct engine *engine, struct letter *letter,
                             const char *name);
/* The same, without an answer if there is none. */
struct model *registry_numbered(const struct engine *engine, uint32_t number);
/* Make a model known under its name and the next number, or forget it. */
bool registry_add(struct engine *engine, struct model *model);
void registry_remove(struct engine *engine, struct model *model);

#endif
