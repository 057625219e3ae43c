/* inspection — everything in a data directory is looked at, and what is wrong with it
 * set right.
 *
 * For the operator's tools, while no daemon has the directory; a daemon that starts
 * checks what it reads by itself. Every byte is read: the format, each checkpoint with
 * all of its values, each record of the journal. What is found is told one by one, good
 * and bad, with what can be done about it.
 *
 * Nothing is deleted by a repair. What is damaged is set aside, in DIR/damaged-TIME/,
 * and the daemon goes on from what is left: an older checkpoint, a journal that ends
 * before the damage. What was applied after that is not applied any more.
 *
 * One thread.
 */
#ifndef OPTIMD_SERVER_STORE_INSPECTION_H
#define OPTIMD_SERVER_STORE_INSPECTION_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "server/store/data_dir.h"

enum remedy {
    REMEDY_NONE,       /* it is good, or nothing but the right file helps */
    REMEDY_START,      /* the next start of the daemon sees to it */
    REMEDY_CHECKPOINT, /* set the checkpoint aside */
    REMEDY_JOURNAL,    /* end the journal before the damage; set the rest aside */
};

struct finding {
    const char *path;       /* of the file or folder */
    enum opt_status status; /* OPT_OK: it is good */
    const char *text;       /* what it is, or what is wrong with it */
    enum remedy remedy;
    /* For inspection_repair. */
    uint64_t model;   /* CHECKPOINT: identity, */
    const char *name; /* and name in its folder. JOURNAL: file name, */
    uint64_t offset;  /* and where the damage begins in it */
};

struct inspector {
    void (*found)(void *context, const struct finding *finding);
    void *context;
};

/* Look at all of it; what is found is lent for each call. Fails only if it cannot be
 * looked at: errors of the disk, no memory. */
enum opt_status inspection_run(const struct data_dir *dir,
                               const struct inspector *inspector,
                               struct opt_error *error);

/* Do what a finding's remedy says. aside is the name of the folder in the directory,
 * the same for all that is repaired together; it is made if it is missing. */
enum opt_status inspection_repair(const struct data_dir *dir,
                                  const struct finding *finding, const char *aside,
                                  struct opt_error *error);

#endif
