#include "server/net/open_pushes.h"

#include "server/base/letter.h"

static struct open_push *find_push(struct conn *conn, uint64_t id)
{
    for (size_t i = 0; i < conn->push_count; i++) {
        if (conn->pushes[i].id == id) {
            return &conn->pushes[i];
        }
    }
    return NULL;
}

bool open_pushes_post(struct conn *conn, const struct letter *letter)
{
    const struct opt_push *push = letter_push(letter);
    if (push == NULL || (push->last && conn->push_count == 0)) {
        return true;
    }
    struct open_push *open = find_push(conn, letter->request.id);
    if (push->last) {
        if (open != NULL) {
            *open = conn->pushes[--conn->push_count];
        }
        return true;
    }
    if (open == NULL) {
        if (conn->push_count == PUSHES_MAX) {
            return false;
        }
        open = &conn->pushes[conn->push_count++];
        *open = (struct open_push){ .id = letter->request.id };
    }
    open->letters++;
    return true;
}

bool open_pushes_has(struct conn *conn, uint64_t id)
{
    return find_push(conn, id) != NULL;
}

void open_pushes_return(struct conn *conn, const struct letter *letter)
{
    if (conn->push_count == 0) {
        return;
    }
    const struct opt_push *push = letter_push(letter);
    if (push == NULL || push->last) {
        return;
    }
    struct open_push *open = find_push(conn, letter->request.id);
    if (open != NULL && --open->letters == 0) {
        *open = conn->pushes[--conn->push_count];
    }
}

bool open_pushes_hold_all(const struct conn *conn)
{
    size_t waiting = conn->arriving != NULL ? 1 : 0;
    for (size_t i = 0; i < conn->push_count; i++) {
        waiting += conn->pushes[i].letters;
    }
    return waiting >= conn->letters;
}
