/* ps_lite — a parameter server of ps-lite and its workers, for bench_optimd.
 *
 *   ps_lite TENSORS ELEMENTS THREADS
 *
 * Compiled with a checkout of ps-lite. The environment says which role a process has,
 * as ps-lite wants it. Every process says "ps-lite VERSION" when all have come. A
 * worker then answers each line:
 *
 *   push|pull BYTES MESSAGES OUTSTANDING    seconds for all of them
 *   ping BYTES MESSAGES                     two numbers: p50 and p99 of a push, seconds
 *   step FORM STEPS                         median seconds of a synchronous step, for
 *                                           FORM 0: all gradients pushed, waited for,
 *                                           all weights pulled; 1: both in one request
 *                                           for each tensor
 *
 * A value has one key. What the server does is the least there can be: it keeps the
 * array that was pushed and gives it back, without a copy, or, for the tensors of a
 * step, applies optimd's Adam as soon as the gradients of all workers have come.
 */
#include "ps/ps.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include "tests/bench/peers/adam.h"

using Array = ps::SArray<float>;

static const ps::Key plain_keys = 1 << 20;  /* from here on: keep and give back */
static const std::size_t region = 50 << 20; /* floats, more than any cache */

static double seconds_now()
{
    return std::chrono::duration<double>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

/* ---------------------------------------------------------------- the server */

class Server
{
  public:
    Server(std::size_t tensors, std::size_t elements, int threads)
        : adam_(adam_new(tensors, elements, threads)), elements_(elements),
          rounds_(tensors), served_(0)
    {
        served_.set_request_handle(
            [this](const ps::KVMeta &meta, const ps::KVPairs<float> &pairs,
                   ps::KVServer<float> *) { handle(meta, pairs); });
    }

  private:
    /* Who has pushed a tensor for the next step, and who waits for its weights. */
    struct Round {
        std::vector<int> senders;
        std::vector<Array> gradients;
        std::vector<ps::KVMeta> waiting;
    };

    void handle(const ps::KVMeta &meta, const ps::KVPairs<float> &pairs)
    {
        if (pairs.keys[0] >= plain_keys) {
            keep(meta, pairs);
        } else {
            train(meta, pairs);
        }
    }

    void keep(const ps::KVMeta &meta, const ps::KVPairs<float> &pairs)
    {
        ps::KVPairs<float> &kept = kept_[pairs.keys[0]];
        if (meta.push) {
            kept = pairs;
        }
        served_.Response(meta, meta.pull ? kept : ps::KVPairs<float>());
    }

    void answer(const ps::KVMeta &meta, ps::Key key)
    {
        ps::KVPairs<float> pairs;
        pairs.keys = ps::SArray<ps::Key>(1, key);
        pairs.vals = Array(adam_weights(adam_, key), elements_);
        served_.Response(meta, pairs);
    }

    void train(const ps::KVMeta &meta, const ps::KVPairs<float> &pairs)
    {
        ps::Key key = pairs.keys[0];
        Round &round = rounds_[key];
        bool open = std::count(round.senders.begin(), round.senders.end(), meta.sender);
        if (meta.push) {
            round.senders.push_back(meta.sender);
            round.gradients.push_back(pairs.vals);
        }
        if (meta.pull && (meta.push || open)) {
            round.waiting.push_back(meta);
        } else if (meta.pull) {
            answer(meta, key);
        } else {
            served_.Response(meta);
        }
        if (round.senders.size() == static_cast<std::size_t>(ps::NumWorkers())) {
            close(key, round);
        }
    }

    void close(ps::Key key, Round &round)
    {
        const float *gradients[ADAM_WORKERS_MAX];
        for (std::size_t i = 0; i < round.gradients.size(); i++) {
            gradients[i] = round.gradients[i].data();
        }
        adam_step(adam_, key, gradients, round.gradients.size());
        for (const ps::KVMeta &meta : round.waiting) {
            answer(meta, key);
        }
        round = Round();
    }

    struct adam *adam_;
    std::size_t elements_;
    std::vector<Round> rounds_; /* per tensor */
    std::unordered_map<ps::Key, ps::KVPairs<float>> kept_;
    ps::KVServer<float> served_;
};

/* ---------------------------------------------------------------- a worker */

class Worker
{
  public:
    Worker(std::size_t tensors, std::size_t elements)
        : tensors_(tensors), elements_(elements), from_(region, 0.01f), to_(region),
          at_(0), worker_(0, 0)
    {
    }

    double move(bool push, std::size_t bytes, std::size_t messages,
                std::size_t outstanding)
    {
        ps::SArray<ps::Key> key(1, plain_keys + bytes);
        std::size_t floats = bytes / sizeof(float);
        std::deque<int> calls;
        std::vector<Array> places(outstanding);
        worker_.Wait(worker_.ZPush(key, Array(&from_[0], floats)));
        double begin = seconds_now();
        for (std::size_t i = 0; i < messages; i++) {
            if (calls.size() == outstanding) {
                worker_.Wait(calls.front());
                calls.pop_front();
            }
            at_ = at_ + floats > region ? 0 : at_;
            Array &place = places[i % outstanding];
            place = Array((push ? from_ : to_).data() + at_, floats);
            at_ += floats;
            calls.push_back(push ? worker_.ZPush(key, place)
                                 : worker_.ZPull(key, &place));
        }
        for (int call : calls) {
            worker_.Wait(call);
        }
        return seconds_now() - begin;
    }

    std::vector<double> ping(std::size_t bytes, std::size_t messages)
    {
        ps::SArray<ps::Key> key(1, plain_keys + bytes);
        Array value(&from_[0], bytes / sizeof(float));
        std::vector<double> seconds;
        for (std::size_t i = 0; i < messages; i++) {
            double begin = seconds_now();
            worker_.Wait(worker_.ZPush(key, value));
            seconds.push_back(seconds_now() - begin);
        }
        return seconds;
    }

    std::vector<double> step(bool together, std::size_t steps)
    {
        std::vector<double> seconds;
        for (std::size_t i = 0; i < steps; i++) {
            double begin = seconds_now();
            if (together) {
                sweep([this](const ps::SArray<ps::Key> &key, Array &g, Array &w) {
                    return worker_.ZPushPull(key, g, &w);
                });
            } else {
                sweep([this](const ps::SArray<ps::Key> &key, Array &g, Array &) {
                    return worker_.ZPush(key, g);
                });
                sweep([this](const ps::SArray<ps::Key> &key, Array &, Array &w) {
                    return worker_.ZPull(key, &w);
                });
            }
            seconds.push_back(seconds_now() - begin);
        }
        return seconds;
    }

  private:
    /* A request for every tensor, and all of them waited for. */
    template <typename Request> void sweep(Request request)
    {
        std::vector<Array> weights(tensors_);
        std::vector<int> calls;
        for (std::size_t i = 0; i < tensors_; i++) {
            Array gradient(&from_[i * elements_], elements_);
            weights[i] = Array(&to_[i * elements_], elements_);
            calls.push_back(request(ps::SArray<ps::Key>(1, i), gradient, weights[i]));
        }
        for (int call : calls) {
            worker_.Wait(call);
        }
    }

    std::size_t tensors_, elements_;
    std::vector<float> from_, to_;
    std::size_t at_;
    ps::KVWorker<float> worker_;
};

static double share_of(std::vector<double> values, double share)
{
    std::sort(values.begin(), values.end());
    return values[static_cast<std::size_t>(static_cast<double>(values.size()) * share)];
}

static void obey(Worker &worker, const char *line)
{
    char what[16];
    std::size_t a = 0, b = 0, c = 1;
    if (std::sscanf(line, "%15s %zu %zu %zu", what, &a, &b, &c) < 3) {
        std::puts("error: no such order");
    } else if (std::strcmp(what, "ping") == 0) {
        std::vector<double> seconds = worker.ping(a, b);
        std::printf("%.9f %.9f\n", share_of(seconds, 0.5), share_of(seconds, 0.99));
    } else if (std::strcmp(what, "step") == 0) {
        std::printf("%.9f\n", share_of(worker.step(a == 1, b), 0.5));
    } else {
        std::printf("%.9f\n", worker.move(std::strcmp(what, "push") == 0, a, b, c));
    }
    std::fflush(stdout);
}

int main(int count, char **words)
{
    if (count != 4) {
        return 64;
    }
    std::size_t tensors = std::strtoull(words[1], nullptr, 10);
    std::size_t elements = std::strtoull(words[2], nullptr, 10);
    ps::Start(0);
    if (ps::IsServer()) {
        new Server(tensors, elements, std::atoi(words[3])); /* as long as the process */
    }
    Worker *worker = ps::IsWorker() ? new Worker(tensors, elements) : nullptr;
    ps::Postoffice::Get()->Barrier(0, ps::kWorkerGroup + ps::kServerGroup +
                                          ps::kScheduler);
    std::puts("ps-lite " PS_LITE_VERSION);
    std::fflush(stdout);
    char line[128];
    while (std::fgets(line, sizeof line, stdin) != nullptr) {
        if (worker != nullptr) {
            obey(*worker, line);
        }
    }
    std::_Exit(0); /* the threads of ps-lite do not end by themselves */
}
