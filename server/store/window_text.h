/* window_text — the window of a worker's pushes as a short text, and back.
 *
 * What became of the last 4,096 pushes is 20 KiB, but mostly the same over and over:
 * applied, one step after the other. The text has runs of pushes whose fates are the
 * same and whose steps grow by the same, from the oldest to the last: a varint with
 * their number, a byte with the fate, a varint with the zigzag of the growth, all in
 * hexadecimal digits. Any thread.
 */
#ifndef OPTIMD_SERVER_STORE_WINDOW_TEXT_H
#define OPTIMD_SERVER_STORE_WINDOW_TEXT_H

#include <stdbool.h>

#include "server/rounds/window.h"

/* To be freed; NULL: no memory. */
char *window_text_print(const struct window *window);
/* Fill in all but last and newest, which say how many pushes there are. False: the text
 * is not one of such a window. */
bool window_text_parse(const char *text, struct window *window);

#endif
