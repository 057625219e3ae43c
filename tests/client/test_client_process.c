/* process — which process this is, also in a child. */
#include <criterion/criterion.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/process.h"

/* Exit status of a child that runs check. */
static int in_child(int (*check)(void))
{
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        _exit(check());
    }
    int status = -1;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int differs(void)
{
    return process_id() == getpid() ? 0 : 1;
}

static int differs_in_grandchild(void)
{
    return differs() + in_child(differs);
}

Test(process, is_noticed_to_be_another_one_after_a_fork)
{
    cr_assert(process_begin());
    cr_assert(process_begin());
    cr_expect_eq(process_id(), getpid());
    cr_expect_eq(in_child(differs_in_grandchild), 0);
    cr_expect_eq(process_id(), getpid());
}
