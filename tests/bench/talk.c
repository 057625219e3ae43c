/* talk — see talk.h. */
#include "tests/bench/talk.h"

#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/process.h"

enum { WAIT_MS = 60 * 1000 };

static const char failing[] = "error: ";

/* What the child works with. */
struct ends {
    int orders[2], answers[2];
    const char *const *words;
};

static int body(void *context)
{
    const struct ends *ends = context;
    char *words[TALK_WORDS_MAX + 1] = { NULL };
    int dropped = open("/dev/null", O_WRONLY | O_CLOEXEC);
    for (size_t i = 0; i < TALK_WORDS_MAX && ends->words[i] != NULL; i++) {
        words[i] = (char *)ends->words[i];
    }
    if (dup2(ends->orders[0], STDIN_FILENO) < 0 ||
        dup2(ends->answers[1], STDOUT_FILENO) < 0 || dup2(dropped, STDERR_FILENO) < 0) {
        return 1;
    }
    close(ends->orders[1]);
    close(ends->answers[0]);
    execv(words[0], words);
    return 127;
}

bool talk_start(struct talk *talk, const char *const *words)
{
    struct ends ends = { .words = words };
    *talk = (struct talk){ .pid = -1 };
    if (pipe(ends.orders) != 0) {
        return false;
    }
    if (pipe(ends.answers) != 0) {
        close(ends.orders[0]);
        close(ends.orders[1]);
        return false;
    }
    talk->pid = process_fork(body, &ends);
    close(ends.orders[0]);
    close(ends.answers[1]);
    talk->orders = fdopen(ends.orders[1], "w");
    talk->answers = fdopen(ends.answers[0], "r");
    return talk->pid > 0 && talk->orders != NULL && talk->answers != NULL;
}

void talk_stop(struct talk *talk)
{
    process_kill(talk->pid);
    if (talk->orders != NULL) {
        fclose(talk->orders);
    }
    if (talk->answers != NULL) {
        fclose(talk->answers);
    }
    *talk = (struct talk){ .pid = -1 };
}

void talk_say(struct talk *talk, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(talk->orders, format, arguments);
    va_end(arguments);
    fputc('\n', talk->orders);
    fflush(talk->orders);
}

bool talk_hear(struct talk *talk, char line[TALK_LINE], char problem[256])
{
    struct pollfd waiting = { fileno(talk->answers), POLLIN, 0 };
    if (poll(&waiting, 1, WAIT_MS) != 1 ||
        fgets(line, TALK_LINE, talk->answers) == NULL) {
        snprintf(problem, 256, "it does not answer");
        return false;
    }
    line[strcspn(line, "\n")] = '\0';
    if (strncmp(line, failing, strlen(failing)) == 0) {
        snprintf(problem, 256, "%s", line + strlen(failing));
        return false;
    }
    return true;
}
