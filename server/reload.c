/* reload — see reload.h. */
#include "server/reload.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/log.h"
#include "server/access/access.h"
#include "server/net/credentials.h"
#include "server/settings.h"
#include "server/turn/engine.h"

/* What came through a pipe has gone: read again it would be empty, and mean something
 * else. */
static enum opt_status check_readable(const struct reload *reload,
                                      struct opt_error *error)
{
    struct stat file;
    const char *path = settings_path(reload->argc, reload->argv);
    if (path == NULL || stat(path, &file) != 0 || S_ISREG(file.st_mode)) {
        return OPT_OK; /* a file that is not there is named when it is read */
    }
    return opt_fail(error, OPT_FAILED_PRECONDITION,
                    "%s: the configuration did not come from a regular file, so it "
                    "cannot be read again",
                    path);
}

static enum opt_status read_all(struct reload *reload, struct settings *next,
                                struct opt_error *error)
{
    enum settings_action action;
    struct opt_tls *tls = NULL;
    enum opt_status status = check_readable(reload, error);
    if (status == OPT_OK) {
        status = settings_read(reload->argc, reload->argv, next, &action, error);
    }
    if (status == OPT_OK && reload->credentials != NULL) {
        status = credentials_read(reload->credentials, &tls, error);
    }
    if (status == OPT_OK) { /* the last thing that can fail takes effect at once */
        struct access_settings access = settings_access(next);
        access.insecure = reload->settings->insecure;
        status = access_reload(reload->access, &access, error);
    }
    if (status == OPT_OK && reload->credentials != NULL) {
        credentials_use(reload->credentials, tls);
    } else {
        opt_tls_free(tls);
    }
    return status;
}

/* Settings that are others now, for who has asked. */
static char *unchanged;

static void on_other(const char *name)
{
    size_t used = strlen(unchanged);
    snprintf(unchanged + used, RELOAD_TEXT - used, "%s%s", used > 0 ? ", " : "", name);
    opt_log(OPT_LOG_WARN, "setting_not_changed", "setting=%s why=%s", name,
            "it cannot change while the daemon runs: it is as it was until the daemon "
            "is started again");
}

enum opt_status reload_now(struct reload *reload, struct opt_error *error)
{
    struct settings next;
    enum opt_status status = read_all(reload, &next, error);
    if (status != OPT_OK) {
        opt_log(OPT_LOG_ERROR, "reload_failed", "why=%s effect=%s", error->text,
                "everything is as it was");
        return status;
    }
    struct settings *settings = reload->settings;
    unchanged = reload->unchanged;
    unchanged[0] = '\0';
    settings_change(settings, &next, on_other);
    opt_log_set_level(settings->log_level);
    if (reload->engine != NULL) {
        const struct engine_limits limits = {
            .max_tensors = (size_t)settings->max_tensors,
            .max_models = (size_t)settings->max_models,
            .lease_ms = (uint32_t)settings->lease,
            .grace_ms = (uint32_t)settings->grace,
            .heartbeat_ms = (uint32_t)settings->heartbeat,
            .timeout_limit_ms = (uint32_t)settings->timeout_limit,
        };
        engine_adjust(reload->engine, &limits);
    }
    opt_log(OPT_LOG_INFO, "reloaded", "log_level=%s tokens=%zu certificates=%s",
            opt_log_level_name(settings->log_level), access_tokens(reload->access),
            reload->credentials != NULL ? reload->credentials->files.cert : "none");
    return OPT_OK;
}

/* ---------------------------------------------------------------- peers that ask */

static struct letters take_asked(struct reload *reload, bool stays_open)
{
    uv_mutex_lock(&reload->lock);
    struct letters asked = reload->asked;
    reload->asked = (struct letters){ 0 };
    reload->open = reload->open && stays_open;
    uv_mutex_unlock(&reload->lock);
    return asked;
}

/* One time is enough for all who have asked until now. */
static void on_wake(uv_async_t *wake)
{
    struct reload *reload = wake->data;
    struct letters asked = take_asked(reload, true);
    struct opt_error error;
    enum opt_status status = asked.first != NULL ? reload_now(reload, &error) : OPT_OK;
    for (struct letter *letter; (letter = letters_take(&asked)) != NULL;) {
        if (status != OPT_OK) {
            letter_fail(letter, OPT_FAILED_PRECONDITION, OPT_DETAIL_UNFIT,
                        "everything is as it was: %s", error.text);
        } else {
            letter->reply = (struct opt_reply){
                .id = letter->request.id,
                .message = OPT_MESSAGE_RELOAD,
                .body.reload = { letter_text(letter, reload->unchanged) },
            };
        }
        engine_answered(reload->engine, letter);
    }
}

enum opt_status reload_open(struct reload *reload, uv_loop_t *loop,
                            struct opt_error *error)
{
    if (uv_mutex_init(&reload->lock) != 0) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no resources for a lock");
    }
    int code = uv_async_init(loop, &reload->wake, on_wake);
    if (code != 0) {
        uv_mutex_destroy(&reload->lock);
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "cannot be woken: %s",
                        uv_strerror(code));
    }
    reload->wake.data = reload;
    reload->is_made = true;
    reload->open = true;
    return OPT_OK;
}

void reload_close(struct reload *reload)
{
    if (!reload->is_made) {
        return;
    }
    struct letters asked = take_asked(reload, false);
    for (struct letter *letter; (letter = letters_take(&asked)) != NULL;) {
        letter_fail(letter, OPT_UNAVAILABLE, OPT_DETAIL_STOPPING,
                    "the daemon is stopping");
        engine_answered(reload->engine, letter);
    }
    uv_close((uv_handle_t *)&reload->wake, NULL);
}

void reload_fini(struct reload *reload)
{
    if (reload->is_made) {
        uv_mutex_destroy(&reload->lock);
    }
}

bool reload_ask(void *context, struct letter *letter)
{
    struct reload *reload = context;
    uv_mutex_lock(&reload->lock);
    bool open = reload->open;
    if (open) {
        letters_append(&reload->asked, letter);
        uv_async_send(&reload->wake);
    }
    uv_mutex_unlock(&reload->lock);
    return open;
}
