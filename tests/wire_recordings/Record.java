// Write conversation.txtpb as frames, as the protobuf of Java does: README.md.
import com.google.protobuf.TextFormat;
import java.io.FileOutputStream;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Paths;
import optimd.v1.Optimd;

class Record {
    public static void main(String[] arguments) throws Exception {
        try (OutputStream out = new FileOutputStream(arguments[0])) {
            for (String line : Files.readAllLines(Paths.get("conversation.txtpb"))) {
                if (line.startsWith("#")) {
                    continue;
                }
                Optimd.Request.Builder request = Optimd.Request.newBuilder();
                TextFormat.merge(line, request);
                byte[] bytes = request.build().toByteArray();
                out.write(ByteBuffer.allocate(4).order(ByteOrder.LITTLE_ENDIAN)
                    .putInt(bytes.length).array());
                out.write(bytes);
            }
        }
    }
}
