/* power — what a disk may have after the power went.
 *
 * From power_record on, every change that the store makes in a folder is done and
 * noted. power_cut makes, in another folder, what a disk may have if the power goes
 * after so many of these changes: what was made durable is there; of what was written
 * since then each piece is there, or not, or its first part, or garbage in its place;
 * of the names that were made, changed or removed in a folder since that folder was
 * made durable, so many of the first are there. Which of these is up to the seed.
 */
#ifndef OPTIMD_TESTS_SUPPORT_POWER_H
#define OPTIMD_TESTS_SUPPORT_POWER_H

#include <stddef.h>
#include <stdint.h>

struct power;

/* Begin; the folder is open, and empty. One at a time. Any thread may use files then.
 */
struct power *power_record(int folder);
/* Changes so far. */
size_t power_changes(struct power *power);
/* End the recording; what was noted stays until power_free. */
void power_stop(struct power *power);
void power_free(struct power *power);

/* Fill an empty folder. */
void power_cut(const struct power *power, size_t changes, uint64_t seed, int folder);

#endif
