/* counters — see counters.h. */
#include "common/counters.h"

/* clang-format off */
static const struct opt_counter_text texts[] = {
    { "requests", "requests that the engine has taken" },
    { "errors", "of them, answered with an error" },
    { "pushes_applied", "pushes that became part of an update" },
    { "pushes_duplicate", "pushes that came again after they had been settled" },
    { "pushes_resent", "pushes that came again, settled or not" },
    { "pushes_stale", "pushes made by a worker before it was taken for dead" },
    { "pushes_refused", "pushes answered with an error: values, shapes, policy" },
    { "pushes_skipped", "pushes in rounds that were skipped" },
    { "pushes_withdrawn", "pushes taken back before they were applied" },
    { "pushes_dropped", "pushes that came when their round had closed" },
    { "barriers", "barriers that were passed" },
    { "pulls", "pulls that were answered" },
    { "updates", "updates of all models" },
    { "updates_stalled", "updates that had to wait for memory" },
    { "mailbox_ns", "nanoseconds that requests waited for the engine" },
    { "serve_ns", "nanoseconds in which the engine served requests" },
    { "round_ns", "nanoseconds that whole pushes waited for others of their round" },
    { "update_ns", "nanoseconds in which updates were computed" },
    { "turn_ns_most", "nanoseconds of the longest turn of the engine so far" },
    { "turn_cost_most", "the most work of a turn of the engine, in elements of an update, of "
                        "which a core does about one in a nanosecond" },
    { "parameters_updated", "parameters, once for each update that moved them" },
    { "blocks_held", "blocks of 16,384 parameters, once for each update that had to hold a "
                     "value at the largest that fp32 has" },
    { "rounds_skipped", "rounds without an update: values that are not finite" },
    { "versions_fresh", "shards written anew because somebody held the old ones" },
    { "workers_lost", "workers taken for dead, once for each model" },
    { "workers_reconnected", "connections that went on with a worker's session" },
    { "hellos_stale", "processes refused because another one has followed them" },
    { "deadlines_exceeded", "requests that ended at their deadline" },
    { "logins_refused", "hellos without a login that the daemon knows" },
    { "models", "models there are now" },
    { "workers", "workers registered now, once for each model, as in optctl list" },
    { "workers_known", "names of workers that are connected now or remembered" },
    { "memory_used", "bytes taken now of what --memory allows" },
    { "memory_kept", "bytes kept unused, to be used again soon" },
    { "memory_limit", "bytes that --memory allows" },
    { "connections", "connections open now" },
    { "connections_opened", "connections accepted and served" },
    { "connections_refused", "connections told that there are too many" },
    { "handshakes", "handshakes of TLS after which a connection was served" },
    { "handshakes_failed", "the same after which none was, or which were too many" },
    { "leases_expired", "connections closed because of silence" },
    { "bytes_received", "bytes that came over sockets" },
    { "bytes_sent", "bytes that went over sockets" },
    { "frames_received", "frames that came whole" },
    { "frames_sent", "frames that went" },
    { "frames_refused", "frames broken, or refused before the engine saw them" },
    { "read_pauses", "times that a connection had to wait for room" },
    { "data_bytes_moved", "bytes of received data copied in user space" },
    { "data_bytes_shared", "bytes taken and given by place, in shared memory" },
    { "data_bytes_narrowed", "bytes of sent data converted to a 16-bit type" },
    { "values_held", "values sent as the largest of a 16-bit type, being beyond it" },
    { "receive_ns", "nanoseconds from headers to the ends of their frames" },
    { "send_ns", "nanoseconds from answers to their last bytes written" },
    { "loop_ns_most", "nanoseconds of the longest that a loop was at what had come" },
    { "loop_cost_most", "the most work of a loop at what had come, in the measure of "
                        "turn_cost_most" },
    { "inflight_bytes", "bytes of requests held now, beyond those reserved" },
};
/* clang-format on */

const struct opt_counter_text *opt_counter_texts(size_t *count)
{
    *count = sizeof(texts) / sizeof(texts[0]);
    return texts;
}
