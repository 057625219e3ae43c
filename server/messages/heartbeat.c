/* heartbeat — a sign of life; the loop has counted it when it read it. */
#include "server/engine/answers.h"
#include "server/engine/inside.h"
#include "server/messages/serve.h"

void serve_heartbeat(struct engine *engine, struct letter *letter)
{
    engine_reply(letter, OPT_MESSAGE_HEARTBEAT);
    engine_return(engine, letter);
}
