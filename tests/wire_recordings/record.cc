// Write conversation.txtpb as frames, as the protobuf of C++ does: README.md.
#include <fstream>
#include <string>

#include <google/protobuf/text_format.h>

#include "optimd.pb.h"

int main(int, char **argv)
{
    std::ifstream lines("conversation.txtpb");
    std::ofstream out(argv[1], std::ios::binary);
    for (std::string line; std::getline(lines, line);) {
        if (line[0] == '#') {
            continue;
        }
        optimd::v1::Request request;
        if (!google::protobuf::TextFormat::ParseFromString(line, &request)) {
            return 1;
        }
        std::string bytes = request.SerializeAsString();
        for (int i = 0; i < 4; i++) {
            out.put(static_cast<char>(bytes.size() >> 8 * i));
        }
        out << bytes;
    }
    return out.flush() ? 0 : 1;
}
