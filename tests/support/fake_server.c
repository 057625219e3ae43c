#include "tests/support/fake_inside.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/frame.h"

struct incoming {
    struct opt_arena arena;
    struct opt_request request;
    uint8_t *data;
};

static void on_header(struct fake_conn *conn, struct opt_frame_reader *reader,
                      struct incoming *in)
{
    struct fake_server *server = conn->server;
    size_t size;
    const uint8_t *header = opt_frame_header(reader, &size);
    size_t data_size = opt_frame_data_size(reader);
    struct opt_error error;
    opt_arena_reset(&in->arena);
    if (opt_request_read(header, size, data_size, &in->arena, &in->request, &error) !=
        OPT_OK) {
        fprintf(stderr, "fake_server: the client sent: %s\n", error.text);
        abort();
    }
    free(in->data);
    in->data = malloc(data_size + 1);
    opt_frame_place(reader, in->data);
    if (server->options.begun != NULL) {
        pthread_mutex_lock(&server->lock);
        server->options.begun(conn, &in->request, server->options.context);
        pthread_mutex_unlock(&server->lock);
    }
}

static void on_request(struct fake_conn *conn, struct opt_frame_reader *reader,
                       struct incoming *in)
{
    struct fake_server *server = conn->server;
    size_t data_size = opt_frame_data_size(reader);
    pthread_mutex_lock(&server->lock);
    if (!conn->cut && !fake_cut_here(conn)) {
        enum fake_action action = FAKE_SERVE;
        if (server->options.hook != NULL) {
            action = server->options.hook(conn, &in->request, in->data, data_size,
                                          server->options.context);
        }
        if (action == FAKE_HANG_UP) {
            conn->cut = true;
        } else if (action == FAKE_SERVE) {
            fake_serve(conn, &in->request, in->data, data_size);
        }
    }
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
}

static void serve_connection(struct fake_conn *conn, struct opt_frame_reader *reader,
                             struct incoming *in)
{
    while (!conn->cut) {
        uint8_t *base;
        size_t size;
        opt_frame_space(reader, &base, &size);
        ssize_t received = recv(conn->fd, base, size, 0);
        if (received <= 0) {
            return;
        }
        opt_frame_received(reader, (size_t)received);
        enum opt_frame_event event;
        while ((event = opt_frame_next(reader)) != OPT_FRAME_MORE) {
            if (event == OPT_FRAME_BROKEN || event == OPT_FRAME_EARLY) {
                fprintf(stderr, "fake_server: %s\n", opt_frame_error(reader)->text);
                abort();
            }
            if (event == OPT_FRAME_LONG && !opt_frame_grow(reader)) {
                abort();
            }
            if (event == OPT_FRAME_HEADER) {
                on_header(conn, reader, in);
            } else if (event == OPT_FRAME_END) {
                on_request(conn, reader, in);
            }
        }
    }
}

static void *conn_thread(void *argument)
{
    struct fake_conn *conn = argument;
    struct fake_server *server = conn->server;
    struct opt_frame_reader *reader = opt_frame_reader_new((struct opt_frame_limits){
        .frame_bytes = OPT_FRAME_BYTES, .header_bytes = OPT_HEADER_BYTES });
    struct incoming in = { .data = NULL };
    opt_arena_init(&in.arena, OPT_ARENA_BYTES);
    serve_connection(conn, reader, &in);
    opt_frame_reader_free(reader);
    opt_arena_fini(&in.arena);
    free(in.data);
    pthread_mutex_lock(&server->lock);
    fake_drop_gradients(conn);
    for (size_t i = 0; i < MODELS; i++) {
        if (server->models[i].creator == conn && !server->options.keep_models) {
            fake_model_forget(&server->models[i]);
        }
    }
    /* Abruptly: what is still on its way is lost, as when a machine dies. */
    struct linger linger = { .l_onoff = 1, .l_linger = 0 };
    setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    close(conn->fd);
    conn->fd = -1;
    conn->ended = true;
    pthread_mutex_unlock(&server->lock);
    return NULL;
}

static void *accept_thread(void *argument)
{
    struct fake_server *server = argument;
    for (;;) {
        int fd = accept(server->fd, NULL, NULL);
        pthread_mutex_lock(&server->lock);
        if (fd < 0 || server->stopping || server->connections == CONNS) {
            pthread_mutex_unlock(&server->lock);
            if (fd >= 0) {
                close(fd);
            }
            return NULL;
        }
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        struct fake_conn *conn = calloc(1, sizeof(*conn));
        conn->server = server;
        conn->fd = fd;
        server->conns[server->connections++] = conn;
        conn->number = server->connections;
        pthread_create(&conn->thread, NULL, conn_thread, conn);
        pthread_cond_broadcast(&server->changed);
        pthread_mutex_unlock(&server->lock);
    }
}

static bool listen_on_path(struct fake_server *server)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", server->options.path);
    snprintf(server->address, sizeof(server->address), "unix:%s", address.sun_path);
    server->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return bind(server->fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
           listen(server->fd, 64) == 0;
}

static bool listen_on_port(struct fake_server *server)
{
    int on = 1;
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons(server->options.port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof(address);
    server->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(server->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(server->fd, (struct sockaddr *)&address, size) != 0 ||
        listen(server->fd, 64) != 0 ||
        getsockname(server->fd, (struct sockaddr *)&address, &size) != 0) {
        return false;
    }
    snprintf(server->address, sizeof(server->address), "127.0.0.1:%u",
             (unsigned)ntohs(address.sin_port));
    return true;
}

struct fake_server *fake_server_start(const struct fake_options *options)
{
    struct fake_server *server = calloc(1, sizeof(*server));
    server->options = *options;
    pthread_mutex_init(&server->lock, NULL);
    pthread_cond_init(&server->changed, NULL);
    if (options->path != NULL ? !listen_on_path(server) : !listen_on_port(server)) {
        perror("fake_server");
        abort();
    }
    pthread_create(&server->thread, NULL, accept_thread, server);
    return server;
}

void fake_server_stop(struct fake_server *server)
{
    pthread_mutex_lock(&server->lock);
    server->stopping = true;
    pthread_mutex_unlock(&server->lock);
    shutdown(server->fd, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    close(server->fd);
    fake_server_cut(server);
    for (unsigned i = 0; i < server->connections; i++) {
        pthread_join(server->conns[i]->thread, NULL);
        free(server->conns[i]);
    }
    fake_server_forget(server);
    pthread_mutex_destroy(&server->lock);
    pthread_cond_destroy(&server->changed);
    free(server);
}

const char *fake_server_address(const struct fake_server *server)
{
    return server->address;
}

static unsigned count_of(struct fake_server *server, const unsigned *counter)
{
    pthread_mutex_lock(&server->lock);
    unsigned value = *counter;
    pthread_mutex_unlock(&server->lock);
    return value;
}

unsigned fake_server_connections(struct fake_server *server)
{
    return count_of(server, &server->connections);
}

unsigned fake_server_frames(struct fake_server *server)
{
    return count_of(server, &server->frames);
}

unsigned fake_server_pushes(struct fake_server *server)
{
    return count_of(server, &server->pushes);
}

unsigned fake_server_heartbeats(struct fake_server *server)
{
    return count_of(server, &server->heartbeats);
}

bool fake_server_wait(struct fake_server *server, bool (*look)(const void *context),
                      const void *context)
{
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += 10;
    pthread_mutex_lock(&server->lock);
    while (!look(context) &&
           pthread_cond_timedwait(&server->changed, &server->lock, &limit) == 0) {
    }
    bool reached = look(context);
    pthread_mutex_unlock(&server->lock);
    return reached;
}

struct awaited {
    const struct fake_server *server;
    unsigned connections;
};

static bool are_accepted(const void *context)
{
    const struct awaited *awaited = context;
    return awaited->server->connections >= awaited->connections;
}

bool fake_server_wait_connections(struct fake_server *server, unsigned count)
{
    return fake_server_wait(server, are_accepted, &(struct awaited){ server, count });
}

void fake_server_cut(struct fake_server *server)
{
    pthread_mutex_lock(&server->lock);
    for (unsigned i = 0; i < server->connections; i++) {
        struct fake_conn *conn = server->conns[i];
        if (!conn->ended) {
            conn->cut = true;
            shutdown(conn->fd, SHUT_RDWR);
        }
    }
    pthread_mutex_unlock(&server->lock);
}

void fake_server_forget(struct fake_server *server)
{
    pthread_mutex_lock(&server->lock);
    for (size_t i = 0; i < MODELS; i++) {
        fake_model_forget(&server->models[i]);
    }
    pthread_mutex_unlock(&server->lock);
}
