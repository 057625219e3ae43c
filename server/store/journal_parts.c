/* journal_parts — see journal_parts.h. */
#include "server/store/journal_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static const char segment_magic[8] = { 'o', 'p', 't', 'i', 'm', 'd', 'J', '\n' };
static const char record_magic[4] = { 'o', 'R', 'e', 'c' };

static void put(uint8_t *out, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        out[i] = (uint8_t)(value >> (8 * i));
    }
}

static uint64_t get(const uint8_t *from, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = bytes; i-- > 0;) {
        value = value << 8 | from[i];
    }
    return value;
}

void segment_header_pack(const struct segment_header *header,
                         uint8_t out[SEGMENT_HEADER])
{
    memcpy(out, segment_magic, sizeof segment_magic);
    put(out + 8, header->format, 4);
    put(out + 12, SEGMENT_HEADER, 4);
    put(out + 16, header->identity, 8);
    put(out + 24, header->number, 8);
    put(out + 32, header->first, 8);
    put(out + 40, header->previous_end, 8);
    put(out + 48, header->lost, 8);
    put(out + 56, XXH3_64bits(out, 56), 8);
}

bool segment_header_unpack(const uint8_t bytes[SEGMENT_HEADER],
                           struct segment_header *out)
{
    *out = (struct segment_header){
        .format = (uint32_t)get(bytes + 8, 4),
        .identity = get(bytes + 16, 8),
        .number = get(bytes + 24, 8),
        .first = get(bytes + 32, 8),
        .previous_end = get(bytes + 40, 8),
        .lost = get(bytes + 48, 8),
    };
    return memcmp(bytes, segment_magic, sizeof segment_magic) == 0 &&
           get(bytes + 56, 8) == XXH3_64bits(bytes, 56) &&
           (out->format != JOURNAL_FORMAT || get(bytes + 12, 4) == SEGMENT_HEADER);
}

uint64_t segment_seed(uint64_t identity, uint64_t number)
{
    return identity + number * UINT64_C(0x9E3779B97F4A7C15);
}

void record_header_pack(const struct record_header *header, uint64_t seed,
                        uint8_t out[RECORD_HEADER])
{
    memcpy(out, record_magic, sizeof record_magic);
    put(out + 8, header->size, 8);
    put(out + 16, header->index, 8);
    put(out + 24, header->durable, 8);
    put(out + 32, header->sum, 8);
    put(out + 4, XXH3_64bits_withSeed(out + 8, RECORD_HEADER - 8, seed), 4);
}

bool record_header_unpack(const uint8_t bytes[RECORD_HEADER], uint64_t seed,
                          struct record_header *out)
{
    *out = (struct record_header){
        .size = get(bytes + 8, 8),
        .index = get(bytes + 16, 8),
        .durable = get(bytes + 24, 8),
        .sum = get(bytes + 32, 8),
    };
    return memcmp(bytes, record_magic, sizeof record_magic) == 0 &&
           get(bytes + 4, 4) ==
               (uint32_t)XXH3_64bits_withSeed(bytes + 8, RECORD_HEADER - 8, seed);
}

void segment_name(uint64_t number, char out[SEGMENT_NAME])
{
    snprintf(out, SEGMENT_NAME, "%020" PRIu64 ".journal", number);
}

bool segment_number(const char *name, uint64_t *out)
{
    char again[SEGMENT_NAME];
    *out = strtoull(name, NULL, 10);
    segment_name(*out, again);
    return strcmp(name, again) == 0;
}

void segment_path(const char *path, uint64_t number, char *into, size_t size)
{
    char name[SEGMENT_NAME];
    segment_name(number, name);
    snprintf(into, size, "%s/%s", path, name);
}
