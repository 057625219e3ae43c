/* bench — what all groups of measurements share.
 *
 * A group is one file and one row of the table in bench_optimd.c: it compares things
 * with `compare` and so adds rows to the report. Main thread.
 */
#ifndef OPTIMD_TESTS_BENCH_BENCH_H
#define OPTIMD_TESTS_BENCH_BENCH_H

#include <stdbool.h>

#include "tests/bench/compare.h"
#include "tests/bench/report.h"

struct bench {
    struct report *report;
    bool quick;                      /* less data and shorter runs, same measurements */
    const char *daemon;              /* program */
    const char *deepspeed, *ps_lite; /* peers' programs, or NULL */
    struct compare_effort effort;
};

/* kernels.c: every rule's share of the machine's memory bandwidth. */
void bench_kernels(const struct bench *bench);

/* composition.c: composed and portable kernels against loops by hand and native ones.
 */
void bench_composition(const struct bench *bench);

/* peers.c: updates against PyTorch's and DeepSpeed's, where they are installed. */
void bench_peers(const struct bench *bench);

/* peer_messages.c: pushes and pulls against those of Redis and ps-lite. */
void bench_peer_messages(const struct bench *bench);

/* peer_training.c: synchronous steps against those of ps-lite and PyTorch. */
void bench_peer_training(const struct bench *bench);

/* sparse.c: updates of rows of a small and of a large table. */
void bench_sparse(const struct bench *bench);

/* transfer.c: goodput of pushes and pulls against bare sockets. */
void bench_transfer(const struct bench *bench);

/* latency.c: small pushes against an echo server. */
void bench_latency(const struct bench *bench);

/* turns.c: small pushes that a loop serves itself, and those that are awaited awake. */
void bench_turns(const struct bench *bench);

/* bystander.c: small pushes while another worker sends the largest messages. */
void bench_bystander(const struct bench *bench);

/* since.c: pulls of what has changed against pulls of everything. */
void bench_since(const struct bench *bench);

/* connections.c: small pushes beside many idle connections. */
void bench_connections(const struct bench *bench);

/* scale.c: the same work in models, tensors, rounds and teams of growing size. */
void bench_scale(const struct bench *bench);

/* training.c: synchronous steps of a 25 million parameter model, and its memory. */
void bench_training(const struct bench *bench);

/* slow_link.c: steps by shards against whole rounds over a slow link. */
void bench_slow_link(const struct bench *bench);

/* sharing.c: the same steps by workers that share memory with the daemon. */
void bench_sharing(const struct bench *bench);

/* tls.c: pushes, pulls, steps and connections with TLS against those without. */
void bench_tls(const struct bench *bench);

/* store.c: steps, checkpoints and recoveries against the disk. */
void bench_store(const struct bench *bench);

#endif
