/* drawing — run a program that draws, and say what went wrong if it does not.
 *
 * Called by curve.c and gallery_picture.c.
 */
#include "drawing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "children.h"

enum { ARGUMENTS_MAX = 128, PATH = 4096, NOT_FOUND = 127 };

/* The shell goes into the folder, so that scripts can name their files without it. */
static bool start(struct child *child, const char *directory, const char *const *argv,
                  const char *log_path)
{
    const char *command[ARGUMENTS_MAX] = { "sh", "-c", "cd \"$0\" && exec \"$@\"",
                                           directory };
    for (size_t i = 0; argv[i] != NULL; i++) {
        if (4 + i == ARGUMENTS_MAX - 1) {
            errno = E2BIG;
            return false;
        }
        command[4 + i] = argv[i];
    }
    int log = open(log_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    bool started = log >= 0 && child_start(child, command, log, -1);
    if (log >= 0) {
        close(log);
    }
    return started;
}

/* The first line of what it said that has letters in it: the log may not be kept. */
static void first_words(const char *log_path, char *line, size_t capacity)
{
    FILE *log = fopen(log_path, "r");
    bool found = false;
    while (log != NULL && !found && fgets(line, (int)capacity, log) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        found = strpbrk(line, "abcdefghijklmnopqrstuvwxyz") != NULL;
    }
    if (!found) {
        snprintf(line, capacity, "it does not say why");
    }
    if (log != NULL) {
        fclose(log);
    }
}

bool drawing_run(const char *directory, const char *const *argv, const char *package,
                 int timeout_ms, char *why, size_t capacity)
{
    char log_path[PATH];
    snprintf(log_path, sizeof log_path, "%s/%s.log", directory, argv[0]);
    struct child child;
    if (!start(&child, directory, argv, log_path)) {
        snprintf(why, capacity, "cannot start %s: %s", argv[0], strerror(errno));
        return false;
    }
    enum child_end end = child_attend(&child, timeout_ms);
    children_stop(&child, 1, 0);
    if (end == CHILD_INTERRUPTED) {
        snprintf(why, capacity, "interrupted");
    } else if (end == CHILD_LATE) {
        snprintf(why, capacity, "%s took longer than %d s", argv[0], timeout_ms / 1000);
    } else if (WIFEXITED(child.status) && WEXITSTATUS(child.status) == NOT_FOUND) {
        snprintf(why, capacity, "%s is not installed (package %s)", argv[0], package);
    } else if (!child_succeeded(&child)) {
        char words[256];
        first_words(log_path, words, sizeof words);
        snprintf(why, capacity, "%s failed: %s", argv[0], words);
    }
    return end == CHILD_ENDED && child_succeeded(&child);
}
