/* number — decimal text to double and back, strictly, whatever the program's locale.
 * Any thread.
 */
#ifndef OPTIMD_COMMON_OPTIM_NUMBER_H
#define OPTIMD_COMMON_OPTIM_NUMBER_H

#include <stdbool.h>
#include <stddef.h>

/* [+-]digits[.digits][e[+-]digits], all size bytes of it, finite. False otherwise. */
bool opt_number_parse(const char *text, size_t size, double *out);

/* The shortest decimal that parses back to the same double; integers below 1e15 in
 * digits. */
enum { OPT_NUMBER_TEXT = 32 };
void opt_number_print(double value, char out[OPT_NUMBER_TEXT]);

#endif
