/* console — what the demos say while they run, on a terminal and elsewhere. */
#include "client/examples/console.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <pty.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int stdout_kept, reader;
static char said[8192];

/* From now on this end is stdout. */
static void redirect(int writer, int other_end)
{
    fflush(stdout);
    stdout_kept = dup(STDOUT_FILENO);
    cr_assert(stdout_kept >= 0 && dup2(writer, STDOUT_FILENO) == STDOUT_FILENO);
    close(writer);
    reader = other_end;
}

static void on_terminal(unsigned short columns)
{
    struct winsize size = { .ws_row = 24, .ws_col = columns };
    int ends[2];
    cr_assert_eq(openpty(&ends[0], &ends[1], NULL, NULL, &size), 0);
    setenv("TERM", "xterm", 1);
    redirect(ends[1], ends[0]);
}

/* No longer; what was said is in `said`. */
static void listen_to_it(void)
{
    fflush(stdout);
    cr_assert_eq(fcntl(reader, F_SETFL, O_NONBLOCK), 0);
    ssize_t got;
    size_t length = 0;
    while ((got = read(reader, said + length, sizeof said - 1 - length)) > 0) {
        length += (size_t)got;
    }
    said[length] = '\0';
    dup2(stdout_kept, STDOUT_FILENO);
    close(reader);
}

/* The longest run of characters of a line of the screen. */
static size_t longest(void)
{
    size_t most = 0, n = 0;
    for (const char *at = said; *at != '\0'; at++) {
        bool moves = *at == '\r' || *at == '\n';
        bool escape = strncmp(at, "\033[K", 3) == 0;
        at += escape ? 2 : 0;
        n = moves ? 0 : n + !escape;
        most = n > most ? n : most;
    }
    return most;
}

static void tell_how_far(void)
{
    for (int i = 0; i < 50; i++) {
        console_progress(
            "step %d of 1100   loss %.4f   accuracy %.1f %%   %.0f steps/s", i, 0.5,
            97.25, 300.0);
    }
}

Test(console, keeps_progress_on_one_line_of_the_terminal)
{
    static const unsigned short widths[] = { 200, 80, 60, 40, 20, 10, 2 };
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
        on_terminal(widths[i]);
        tell_how_far();
        console_clear();
        listen_to_it();
        cr_assert_null(strchr(said, '\n'), "%s", said);
        cr_assert_lt(longest(), widths[i]);
    }
}

Test(console, leaves_whole_parts_out_where_there_is_no_room)
{
    on_terminal(40);
    console_progress("step %d of 1100   loss %.4f   accuracy %.1f %%   %.0f steps/s", 7,
                     0.5, 97.25, 300.0);
    listen_to_it();
    cr_assert_str_eq(said, "step 7 of 1100   loss 0.5000");
}

Test(console, takes_eighty_columns_where_the_terminal_does_not_say)
{
    on_terminal(0);
    console_progress("%0100d", 1);
    listen_to_it();
    cr_assert_eq(longest(), 79);
}

static void expect_plain_lines(void)
{
    cr_assert(console_wants_progress());
    tell_how_far();
    cr_assert_not(console_wants_progress(), "the next one is for later");
    console_clear();
    cr_assert(console_wants_progress(), "another run begins anew");
    listen_to_it();
    cr_assert_null(strchr(said, '\033'), "%s", said);
    cr_assert(strncmp(said, "step 0 of 1100   loss 0.5000", 28) == 0, "%s", said);
}

Test(console, writes_plain_lines_into_files_and_dumb_terminals)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    redirect(ends[1], ends[0]);
    expect_plain_lines();

    on_terminal(80);
    setenv("TERM", "dumb", 1);
    expect_plain_lines();
}
