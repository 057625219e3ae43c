/* api_transfer — what local steps (api_local.c) ask of pushes and pulls beyond the
 * public functions. On the threads of the program.
 */
#ifndef OPTCLIENT_API_TRANSFER_H
#define OPTCLIENT_API_TRANSFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/fate.h"
#include "client/optclient.h"

/* How far a push_pull has come that has failed. All zeros: not begun. */
struct api_transfer_progress {
    struct fate fate; /* of the push */
    bool settled;     /* the push's fate is known; only the weights have not come */
    struct optclient_result result; /* settled: the push's part of it */
};

/* optclient_push_pull of all tensors, which after a failure can be taken up again with
 * the same values until it succeeds, however often: the push takes effect at most once.
 * No other push on the model in between. */
enum optclient_status api_transfer_push_pull(struct optclient_model *model,
                                             const struct optclient_values *gradients,
                                             const struct optclient_push_options *push,
                                             const struct optclient_values *weights,
                                             struct api_transfer_progress *progress,
                                             struct optclient_result *result);

#endif
