/* redis — see redis.h. The protocol is RESP: every command and answer begins with its
 * length as text, which is known beforehand here. */
#include "tests/bench/redis.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/clock.h"
#include "tests/bench/loopback.h"
#include "tests/bench/process.h"

enum { HEADER = 64, SMALL_MAX = 8192, BATCH = 64 };

static const char program[] = "/usr/bin/redis-server";
static const char get[] = "*2\r\n$3\r\nGET\r\n$1\r\nw\r\n";
static const char fine[] = "+OK\r\n", end[] = "\r\n";
static const double start_seconds = 10;

/* ---------------------------------------------------------------- the server */

static int body(void *context)
{
    char port[8];
    int dropped = open("/dev/null", O_RDWR | O_CLOEXEC);
    snprintf(port, sizeof port, "%u", *(const unsigned *)context);
    dup2(dropped, STDIN_FILENO);
    dup2(dropped, STDOUT_FILENO);
    dup2(dropped, STDERR_FILENO);
    execl(program, program, "--port", port, "--bind", "127.0.0.1", "--save", "",
          "--appendonly", "no", "--daemonize", "no", "--dir", "/tmp", (char *)NULL);
    return 127;
}

/* It listens a moment after it was started. */
static int connect_soon(uint16_t port, const char *congestion)
{
    const struct timespec moment = { 0, 10 * 1000 * 1000 };
    double begin = seconds_now();
    int fd = loopback_connect(port, congestion);
    while (fd < 0 && seconds_now() - begin < start_seconds) {
        nanosleep(&moment, NULL);
        fd = loopback_connect(port, congestion);
    }
    return fd;
}

static void ask_version(struct redis *redis)
{
    static const char info[] = "*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n";
    static const char key[] = "redis_version:";
    char text[4096];
    loopback_send(redis->sockets[0], info, sizeof info - 1);
    ssize_t got = recv(redis->sockets[0], text, sizeof text - 1, 0);
    text[got > 0 ? got : 0] = '\0';
    const char *found = strstr(text, key);
    found = found == NULL ? "of unknown version" : found + strlen(key);
    snprintf(redis->version, sizeof redis->version, "%.*s", (int)strcspn(found, "\r\n"),
             found);
}

bool redis_start(struct redis *redis, const char *congestion, char problem[256])
{
    unsigned port = loopback_port();
    *redis = (struct redis){ .pid = -1, .sockets = { -1, -1, -1, -1 } };
    problem[0] = '\0';
    if (access(program, X_OK) != 0) {
        return false;
    }
    redis->pid = process_fork(body, &port);
    for (int i = 0; i < REDIS_CONNECTIONS; i++) {
        redis->sockets[i] = connect_soon((uint16_t)port, congestion);
        if (redis->sockets[i] < 0) {
            snprintf(problem, 256, "Redis does not listen: %s", strerror(errno));
            return false;
        }
    }
    ask_version(redis);
    return true;
}

void redis_stop(struct redis *redis)
{
    for (int i = 0; i < REDIS_CONNECTIONS; i++) {
        if (redis->sockets[i] >= 0) {
            close(redis->sockets[i]);
        }
        redis->sockets[i] = -1;
    }
    process_kill(redis->pid);
    redis->pid = -1;
}

/* ---------------------------------------------------------------- goodput */

/* All pieces of one message, sent or received; MSG_WAITALL makes it one call. */
static bool transfer(int fd, struct iovec *pieces, size_t count, bool sending)
{
    struct msghdr message = { .msg_iov = pieces, .msg_iovlen = count };
    while (message.msg_iovlen > 0) {
        ssize_t moved = sending ? sendmsg(fd, &message, MSG_NOSIGNAL)
                                : recvmsg(fd, &message, MSG_WAITALL);
        if (moved <= 0) {
            return false;
        }
        while (moved > 0) {
            struct iovec *piece = message.msg_iov;
            size_t part =
                (size_t)moved < piece->iov_len ? (size_t)moved : piece->iov_len;
            piece->iov_base = (char *)piece->iov_base + part;
            piece->iov_len -= part;
            moved -= (ssize_t)part;
            if (piece->iov_len == 0) {
                message.msg_iov++;
                message.msg_iovlen--;
            }
        }
    }
    return true;
}

static size_t set_header(char header[HEADER], size_t bytes)
{
    return (size_t)snprintf(header, HEADER, "*3\r\n$3\r\nSET\r\n$1\r\nw\r\n$%zu\r\n",
                            bytes);
}

static bool request(struct redis *redis, int fd)
{
    const struct exchange *exchange = redis->exchange;
    char header[HEADER];
    if (exchange->operation == EXCHANGE_PULL) {
        return loopback_send(fd, get, sizeof get - 1);
    }
    size_t place = exchange_place(&redis->at, exchange->bytes);
    struct iovec pieces[] = { { header, set_header(header, exchange->bytes) },
                              { exchange->gradients + place, exchange->bytes },
                              { (char *)end, 2 } };
    return transfer(fd, pieces, 3, true);
}

static bool answer(struct redis *redis, int fd)
{
    const struct exchange *exchange = redis->exchange;
    char header[HEADER], wanted[HEADER];
    if (exchange->operation == EXCHANGE_PUSH) {
        return loopback_receive(fd, header, sizeof fine - 1) &&
               memcmp(header, fine, sizeof fine - 1) == 0;
    }
    int length = snprintf(wanted, sizeof wanted, "$%zu\r\n", exchange->bytes);
    size_t place = exchange_place(&redis->at, exchange->bytes);
    struct iovec pieces[] = { { header, (size_t)length },
                              { exchange->weights + place, exchange->bytes },
                              { header + length, 2 } };
    return transfer(fd, pieces, 3, false) &&
           memcmp(header, wanted, (size_t)length) == 0;
}

void redis_describe(const struct redis *redis, char text[64])
{
    snprintf(text, 64, "Redis %s, %zu in flight over %d connection%s",
             redis->exchange->operation == EXCHANGE_PUSH ? "SET" : "GET",
             redis->exchange->in_flight, redis->form == 0 ? 1 : REDIS_CONNECTIONS,
             redis->form == 0 ? "" : "s");
}

bool redis_exchange(void *context, double *values, char problem[256])
{
    struct redis *redis = context;
    const struct exchange *exchange = redis->exchange;
    size_t connections = redis->form == 0 ? 1 : REDIS_CONNECTIONS;
    bool good = true;
    double begin = seconds_now();
    for (size_t i = 0; good && i < exchange->messages + exchange->in_flight; i++) {
        int fd = redis->sockets[i % exchange->in_flight % connections];
        good = (i < exchange->in_flight || answer(redis, fd)) &&
               (i >= exchange->messages || request(redis, fd));
    }
    if (!good) {
        snprintf(problem, 256, "Redis does not answer as expected");
        return false;
    }
    values[0] = exchange_bytes(exchange) / (seconds_now() - begin) / 1e9;
    return true;
}

/* ---------------------------------------------------------------- small values */

/* The command as it is sent, at most HEADER + bytes + 2 long. */
static size_t set_command(char *command, const void *value, size_t bytes)
{
    size_t size = set_header(command, bytes);
    memcpy(command + size, value, bytes);
    memcpy(command + size + bytes, end, 2);
    return size + bytes + 2;
}

bool redis_set(struct redis *redis, const void *value, size_t bytes)
{
    char command[HEADER + SMALL_MAX + 2], said[sizeof fine - 1];
    size_t size = set_command(command, value, bytes);
    return bytes <= SMALL_MAX && loopback_send(redis->sockets[0], command, size) &&
           loopback_receive(redis->sockets[0], said, sizeof said) &&
           memcmp(said, fine, sizeof said) == 0;
}

double redis_sets(struct redis *redis, size_t bytes, size_t count, size_t in_flight)
{
    static char commands[BATCH * (HEADER + SMALL_MAX + 2)];
    static const char value[SMALL_MAX];
    size_t size = 0, sent = 0, received = 0,
           in_flight_max = in_flight < BATCH ? in_flight : BATCH;
    for (size_t i = 0; i < in_flight_max && bytes <= SMALL_MAX; i++) {
        size = set_command(commands + i * size, value, bytes);
    }
    double begin = seconds_now();
    while (received < count * (sizeof fine - 1)) {
        size_t done = received / (sizeof fine - 1),
               free = in_flight_max - (sent - done);
        size_t more = count - sent < free ? count - sent : free;
        char answers[BATCH * (sizeof fine - 1)];
        if (!loopback_send(redis->sockets[0], commands, more * size)) {
            return 0;
        }
        sent += more;
        ssize_t got = recv(redis->sockets[0], answers, sizeof answers, 0);
        if (got <= 0) {
            return 0;
        }
        received += (size_t)got;
    }
    return (double)count / (seconds_now() - begin);
}
