/* What a plain protobuf library writes has `data` last, whatever its language. */
#include <criterion/criterion.h>
#include <stdio.h>

#include "common/frame.h"
#include "common/wire_parts.h"

/* Go's library writes the members of a oneof behind everything else, and every library
 * writes the other fields by their numbers. */
static void expect_data_last(const ProtobufCMessageDescriptor *descriptor)
{
    unsigned highest = 0;
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        cr_expect_eq(field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF, 0, "%s.%s",
                     descriptor->short_name, field->name);
        highest = field->id > highest ? field->id : highest;
    }
    cr_expect_eq(highest, OPT_FRAME_DATA_FIELD, "%s", descriptor->short_name);
}

Test(wire_order, data_has_the_highest_number_and_no_field_is_in_a_oneof)
{
    expect_data_last(&optimd__v1__request__descriptor);
    expect_data_last(&optimd__v1__reply__descriptor);
}

Test(wire_order, a_checksum_of_0_is_not_taken_for_none)
{
    struct opt_request request = {
        .id = 1, .has_checksum = true, .checksum = 0, .message = OPT_MESSAGE_LIST
    };
    uint8_t packed[64];
    size_t size = opt_request_pack(&request, packed, sizeof(packed));
    struct opt_arena arena;
    opt_arena_init(&arena, OPT_ARENA_BYTES);
    struct opt_request back;
    struct opt_error error;
    cr_assert_eq(opt_request_read(packed, size, 0, &arena, &back, &error), OPT_OK);
    cr_expect(back.has_checksum);
    cr_expect_eq(back.checksum, opt_checksum(0));
    cr_expect_eq(opt_checksum(7), 7);
    opt_arena_fini(&arena);
}

/* ---------------------------------------------------------------- recorded bytes */

enum { FRAMES = 6, ROOM = 4096 };

/* What came out of a file: each request as we pack it, and its data behind it. */
struct recorded {
    size_t frames;
    size_t early; /* whose data was not last */
    size_t size;
    uint8_t bytes[ROOM];
};

static void take_request(struct recorded *out, struct opt_frame_reader *reader,
                         const char *path)
{
    size_t size;
    const uint8_t *header = opt_frame_header(reader, &size);
    size_t data_size = opt_frame_data_size(reader);
    struct opt_arena arena;
    opt_arena_init(&arena, OPT_ARENA_BYTES);
    struct opt_request request;
    struct opt_error error;
    cr_assert_eq(opt_request_read(header, size, data_size, &arena, &request, &error),
                 OPT_OK, "%s: %s", path, error.text);
    out->size += opt_request_pack(&request, out->bytes + out->size, ROOM - out->size);
    cr_assert_leq(out->size + data_size, ROOM);
    opt_frame_place(reader, data_size > 0 ? out->bytes + out->size : NULL);
    out->size += data_size;
    out->early += opt_frame_is_early(reader);
    out->frames++;
    opt_arena_fini(&arena);
}

static void read_recorded(struct recorded *out, const char *name)
{
    char path[128];
    snprintf(path, sizeof(path), "tests/wire_recordings/%s.bin", name);
    FILE *file = fopen(path, "rb");
    cr_assert_not_null(file, "%s", path);
    *out = (struct recorded){ 0 };
    struct opt_frame_reader *reader = opt_frame_reader_new((struct opt_frame_limits){
        .frame_bytes = OPT_FRAME_BYTES, .header_bytes = OPT_HEADER_BYTES });
    for (;;) {
        enum opt_frame_event event;
        while ((event = opt_frame_next(reader)) != OPT_FRAME_MORE) {
            cr_assert_neq(event, OPT_FRAME_BROKEN, "%s", path);
            cr_assert_neq(event, OPT_FRAME_LONG, "%s", path);
            if (event == OPT_FRAME_EARLY) {
                static uint8_t held[ROOM]; /* it belongs behind the header */
                cr_assert_leq(opt_frame_data_size(reader), ROOM);
                opt_frame_place(reader, held);
            } else if (event == OPT_FRAME_HEADER) {
                take_request(out, reader, path);
            }
        }
        uint8_t *base;
        size_t size;
        opt_frame_space(reader, &base, &size);
        size_t got = fread(base, 1, size, file);
        if (got == 0) {
            break;
        }
        opt_frame_received(reader, got);
    }
    cr_expect(!opt_frame_pending(reader), "%s", path);
    opt_frame_reader_free(reader);
    fclose(file);
}

Test(wire_order, go_java_cpp_and_python_write_data_last)
{
    static struct recorded first, other;
    static const char *const names[] = { "go", "java", "cpp", "python", "python-pure" };
    read_recorded(&first, names[0]);
    cr_assert_eq(first.frames, FRAMES);
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        read_recorded(&other, names[i]);
        cr_expect_eq(other.early, 0, "%s", names[i]);
        cr_assert_eq(other.size, first.size, "%s", names[i]);
        cr_expect_arr_eq(other.bytes, first.bytes, first.size, "%s", names[i]);
    }
}

Test(wire_order, fields_in_any_order_say_the_same)
{
    static struct recorded first, other;
    read_recorded(&first, "go");
    read_recorded(&other, "go-dynamic");
    cr_expect_gt(other.early, 0);
    cr_assert_eq(other.size, first.size);
    cr_expect_arr_eq(other.bytes, first.bytes, first.size);
}
