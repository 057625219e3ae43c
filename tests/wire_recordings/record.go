// Write conversation.txtpb as frames, as the protobuf of Go does: README.md.
//
//	record FILE          with the generated messages
//	record FILE dynamic  with messages made of the descriptor, whose fields come in any
//	                     order: run again until data is not the last of one
package main

import (
	"bufio"
	"encoding/binary"
	"os"
	"strings"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"

	pb "record/optimd/v1"
)

func main() {
	file, err := os.Open("conversation.txtpb")
	if err != nil {
		panic(err)
	}
	var out []byte
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		var request proto.Message = &pb.Request{}
		if len(os.Args) > 2 {
			request = dynamicpb.NewMessage((&pb.Request{}).ProtoReflect().Descriptor())
		}
		if err := prototext.Unmarshal(lines.Bytes(), request); err != nil {
			panic(err)
		}
		bytes, err := proto.Marshal(request)
		if err != nil {
			panic(err)
		}
		out = binary.LittleEndian.AppendUint32(out, uint32(len(bytes)))
		out = append(out, bytes...)
	}
	if err := os.WriteFile(os.Args[1], out, 0o644); err != nil {
		panic(err)
	}
}
