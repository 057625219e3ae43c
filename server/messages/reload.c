/* reload — the configuration is read again because somebody asks for it. That is main's
 * business: it has the letter meanwhile, and sends it back with its answer.
 */
#include "server/engine/answer.h"
#include "server/engine/state.h"
#include "server/messages/serve.h"

void serve_reload(struct engine *engine, struct letter *letter)
{
    const struct engine_settings *settings = &engine->settings;
    if (settings->reload == NULL) {
        answer_fail(engine, letter, OPT_UNIMPLEMENTED, OPT_DETAIL_NO_SERVICE,
                    "this daemon has no configuration to read again");
    } else if (!settings->reload(settings->reload_context, letter)) {
        answer_fail(engine, letter, OPT_UNAVAILABLE, OPT_DETAIL_STOPPING,
                    "the daemon is stopping, or has only just started");
    }
}
