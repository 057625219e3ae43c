/* heartbeat — a sign of life; the loop has counted it when it read it. */
#include "server/engine/answer.h"
#include "server/engine/state.h"
#include "server/messages/serve.h"

void serve_heartbeat(struct engine *engine, struct letter *letter)
{
    answer_start(letter, OPT_MESSAGE_HEARTBEAT);
    answer_send(engine, letter);
}
