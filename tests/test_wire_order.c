/* What a plain protobuf library writes has `data` last, whatever its language. */
#include <criterion/criterion.h>

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
