/* hello — who speaks on this connection. */
#include <string.h>

#include "common/log.h"
#include "server/access/access.h"
#include "server/engine/answer.h"
#include "server/engine/state.h"
#include "server/messages/serve.h"
#include "server/workers/membership.h"
#include "server/workers/worker.h"

enum {
    LEASE_MIN_MS = 100,
    LEASE_MAX_MS = 60 * 60 * 1000,
    BEATS_PER_LEASE = 3 /* so that one lost heartbeat costs nothing */
};

/* What a client may ask for in Hello.require; optimd.proto and protocol.md explain
 * each, at HelloReply.features. */
static const char *const features[] = { "bf16",     "fp16",    "xxh3",    "push_pull",
                                        "sparse",   "bounded", "shards",  "barrier",
                                        "set",      "since",   "share",   "fate",
                                        "identity", "credit",  "durable", "checkpoint",
                                        "reload",   "login" };
enum { FEATURES = sizeof features / sizeof *features };

static const char *unknown_feature(const struct opt_hello *hello)
{
    for (size_t i = 0; i < hello->require_count; i++) {
        bool known = false;
        for (size_t k = 0; k < FEATURES; k++) {
            known = known || strcmp(hello->require[i], features[k]) == 0;
        }
        if (!known) {
            return hello->require[i];
        }
    }
    return NULL;
}

/* Whether the peer is somebody who may say hello as it does; if not, it is turned away.
 */
static bool log_in(struct engine *engine, struct letter *letter)
{
    static struct opt_log_site site;
    struct access *access = engine->settings.access;
    const struct opt_hello *hello = &letter->request.body.hello;
    struct peer *peer = letter->peer;
    struct opt_error error;
    if (access == NULL ||
        access_greet(access, &peer->visitor, hello->token, hello->token_size,
                     hello->worker, &error) == OPT_OK) {
        return true;
    }
    engine->counters.logins_refused++;
    opt_log_limited(&site, OPT_LOG_WARN, "login_refused",
                    "peer=%s identity=%s worker=%s token=%s why=%s", peer->address,
                    peer->identity != NULL ? peer->identity : "", hello->worker,
                    hello->token_size > 0 ? "given" : "none", error.text);
    answer_turn_away(engine, letter, &error);
    return false;
}

static uint32_t lease_of(const struct engine *engine, const struct opt_hello *hello)
{
    uint32_t lease = hello->lease_ms;
    if (lease == 0) {
        return engine->settings.lease_ms;
    }
    if (lease < LEASE_MIN_MS) {
        return LEASE_MIN_MS;
    }
    return lease < LEASE_MAX_MS ? lease : LEASE_MAX_MS;
}

static void answer(struct engine *engine, struct letter *letter)
{
    const struct engine_settings *settings = &engine->settings;
    const struct peer *peer = letter->peer;
    const struct opt_hello *hello = &letter->request.body.hello;
    uint32_t lease_ms = lease_of(engine, hello);
    bool renewed = hello->incarnation != 0 && hello->incarnation != peer->incarnation;
    uint32_t beat_ms = settings->heartbeat_ms;
    if (beat_ms > lease_ms / BEATS_PER_LEASE) {
        beat_ms = lease_ms / BEATS_PER_LEASE;
    }
    if (peer->worker != NULL && peer->worker->members != NULL) {
        membership_allow(peer, letter);
    }
    answer_start(letter, OPT_MESSAGE_HELLO)->body.hello = (struct opt_hello_reply){
        .protocol = OPT_PROTOCOL,
        .server = "optimd " OPTIMD_VERSION,
        .incarnation = peer->incarnation,
        .lease_ms = lease_ms,
        .heartbeat_ms = beat_ms,
        .max_frame_bytes = settings->max_frame_bytes,
        .max_header_bytes = (uint32_t)settings->max_header_bytes,
        .chunk_bytes = OPT_CHUNK_BYTES,
        .block_elements = OPT_BLOCK,
        .features = features,
        .feature_count = FEATURES,
        .lost = renewed && peer->worker != NULL
                    ? letter_text(letter, peer->worker->lost_why)
                    : "",
        .inflight_bytes = membership_inflight(engine, letter),
    };
    answer_send(engine, letter);
}

void serve_hello(struct engine *engine, struct letter *letter)
{
    const struct opt_hello *hello = &letter->request.body.hello;
    struct peer *peer = letter->peer;
    if (peer->greeted) {
        answer_fail(engine, letter, OPT_FAILED_PRECONDITION, OPT_DETAIL_SECOND_HELLO,
                    "this connection has said hello before");
        return;
    }
    if (hello->protocol != OPT_PROTOCOL) {
        answer_fail(engine, letter, OPT_UNIMPLEMENTED, OPT_DETAIL_NO_FEATURE,
                    "protocol %u is not spoken here; it must be %d", hello->protocol,
                    OPT_PROTOCOL);
        return;
    }
    const char *feature = unknown_feature(hello);
    if (feature != NULL) {
        answer_fail(engine, letter, OPT_UNIMPLEMENTED, OPT_DETAIL_NO_FEATURE,
                    "the feature \"%s\" that the client requires is not known here",
                    feature);
        return;
    }
    if (!log_in(engine, letter)) {
        return;
    }
    if (hello->worker[0] == '\0') {
        peer->observer = true;
    } else {
        struct opt_error error;
        enum opt_status status = worker_hello(engine, peer, hello, &error);
        if (status != OPT_OK) {
            answer_refuse(engine, letter, &error);
            return;
        }
    }
    peer->greeted = true;
    answer(engine, letter);
}
