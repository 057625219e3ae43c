/* The shared library in a program that loads it when it needs it, as an interpreter's
 * module does, and lets go of it again: nothing of it is run that is not there any
 * more, in the program or in its children, and it can be loaded once more.
 */
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"

/* What is used of it. */
static struct {
    void *handle;
    __typeof__(optclient_connect) *connect;
    __typeof__(optclient_create) *create;
    __typeof__(optclient_push_start) *push_start;
    __typeof__(optclient_call_wait) *call_wait;
    __typeof__(optclient_call_free) *call_free;
    __typeof__(optclient_close) *close;
} loaded;

/* ISO C knows no way from a pointer to an object to one to a function. */
static void find(const char *name, void *function)
{
    void *symbol = dlsym(loaded.handle, name);
    cr_assert_not_null(symbol, "%s", name);
    memcpy(function, &symbol, sizeof(symbol));
}

static void load(void)
{
    const char *build = getenv("OPTIMD_BUILD");
    char path[256];
    snprintf(path, sizeof(path), "%s/liboptclient.so.0",
             build == NULL ? "build" : build);
    loaded.handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    cr_assert_not_null(loaded.handle, "%s", dlerror());
    find("optclient_connect", &loaded.connect);
    find("optclient_create", &loaded.create);
    find("optclient_push_start", &loaded.push_start);
    find("optclient_call_wait", &loaded.call_wait);
    find("optclient_call_free", &loaded.call_free);
    find("optclient_close", &loaded.close);
}

static void on_done(struct optclient_call *call, void *context)
{
    (void)call, (void)context;
}

/* With its thread, one for callbacks, and a look-up. */
static void use(uint16_t port)
{
    const struct optclient_tensor tensor = { .name = "w" };
    const struct optclient_values push = { .values = &(float){ 1 } };
    struct optclient_options options = test_options();
    struct optclient *client;
    struct optclient_model *model;
    struct optclient_call *call;
    char address[32];
    snprintf(address, sizeof(address), "localhost:%u", (unsigned)port);
    cr_assert_eq(loaded.connect(address, &options, &client), OPTCLIENT_OK);
    cr_assert_eq(loaded.create(client, "m", "sgd", NULL, &tensor, 1, NULL, &model),
                 OPTCLIENT_OK);
    cr_assert_eq(loaded.push_start(model, &push, 1, NULL, on_done, NULL, &call),
                 OPTCLIENT_OK);
    cr_assert_eq(loaded.call_wait(call, NULL), OPTCLIENT_OK);
    loaded.call_free(call);
    loaded.close(client);
}

Test(unloaded, library_is_used_no_more_and_can_be_loaded_again, .timeout = 30)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    for (int life = 0; life < 2; life++) {
        load();
        use(daemon.port);
        cr_assert_eq(dlclose(loaded.handle), 0);
        pid_t child = fork();
        if (child == 0) {
            _exit(7);
        }
        int status = 0;
        cr_assert_eq(waitpid(child, &status, 0), child);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 7, "%d", status);
    }
    daemon_stop(&daemon);
}
