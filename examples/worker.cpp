// The minimal worker in C++: what was opened is closed, whatever happens.
//
//     optimd &
//     worker [HOST:PORT] [STEPS]
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <optclient.h>
#include <stdexcept>
#include <string>
#include <vector>

namespace
{

void check(optclient_status status)
{
    if (status != OPTCLIENT_OK) {
        throw std::runtime_error(optclient_error());
    }
}

using Client = std::unique_ptr<optclient, decltype(&optclient_close)>;
using Model = std::unique_ptr<optclient_model, decltype(&optclient_model_close)>;

Client connect(const std::string &address)
{
    optclient *client = nullptr;
    check(optclient_connect(address.c_str(), nullptr, &client));
    return Client(client, optclient_close);
}

Model create(const Client &client, const char *name, const char *specification,
             const std::vector<optclient_tensor> &tensors)
{
    optclient_model *model = nullptr;
    check(optclient_create(client.get(), name, specification, nullptr, tensors.data(),
                           tensors.size(), nullptr, &model));
    return Model(model, optclient_model_close);
}

// Of the mean over 16 samples of the squared error of y = weight[0] x + weight[1].
std::vector<float> gradient_of_line(const std::vector<float> &weight)
{
    std::vector<float> gradient(2);
    for (int i = 0; i < 16; i++) {
        float x = static_cast<float>(i) / 8 - 1;
        float error = weight[0] * x + weight[1] - (3 * x - 1);
        gradient[0] += 2 * error * x / 16;
        gradient[1] += 2 * error / 16;
    }
    return gradient;
}

} // namespace

int main(int argc, char **argv)
try {
    const int steps = argc > 2 ? std::atoi(argv[2]) : 200;
    const std::uint64_t shape[] = { 2 };
    optclient_tensor line{};
    line.name = "slope_and_offset";
    line.shape = shape;
    line.rank = 1;
    Client client = connect(argc > 1 ? argv[1] : "127.0.0.1:7070");
    Model model = create(client, "line in C++", "momentum(lr=0.05)", { line });
    std::vector<float> weight(2);
    optclient_values weights{};
    weights.values = weight.data();
    check(optclient_pull(model.get(), &weights, 1, nullptr, nullptr));
    for (int step = 0; step < steps; step++) {
        std::vector<float> gradient = gradient_of_line(weight);
        optclient_values gradients{};
        gradients.values = gradient.data();
        check(optclient_push_pull(model.get(), &gradients, 1, nullptr, &weights, 1,
                                  nullptr, nullptr));
    }
    std::printf("y = %.3f x + %.3f\n", static_cast<double>(weight[0]),
                static_cast<double>(weight[1]));
    return 0;
} catch (const std::exception &error) {
    std::fprintf(stderr, "worker: %s\n", error.what());
    return 1;
}
