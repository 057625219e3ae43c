/* rows — see rows.h. A radix sort, byte by byte from the lowest: stable, linear, and
 * bytes that are the same in all keys cost nothing. */
#include "common/optim/rows.h"

enum { BYTES = 8, VALUES = 256 };

static unsigned byte_of(uint64_t key, unsigned byte)
{
    return (unsigned)(key >> 8 * byte) & (VALUES - 1);
}

struct opt_row *opt_rows_sort(struct opt_row *rows, struct opt_row *spare, size_t count)
{
    size_t counts[BYTES][VALUES] = { { 0 } };

    for (size_t i = 0; i < count; i++) {
        for (unsigned byte = 0; byte < BYTES; byte++) {
            counts[byte][byte_of(rows[i].key, byte)]++;
        }
    }
    for (unsigned byte = 0; byte < BYTES; byte++) {
        size_t *places = counts[byte], place = 0;

        if (count == 0 || places[byte_of(rows[0].key, byte)] == count) {
            continue;
        }
        for (unsigned value = 0; value < VALUES; value++) {
            size_t n = places[value];
            places[value] = place;
            place += n;
        }
        for (size_t i = 0; i < count; i++) {
            spare[places[byte_of(rows[i].key, byte)]++] = rows[i];
        }
        struct opt_row *sorted = spare;
        spare = rows;
        rows = sorted;
    }
    return rows;
}
