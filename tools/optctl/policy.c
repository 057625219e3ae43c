/* policy — see policy.h. */
#include "tools/optctl/policy.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/optim/number.h"

static const char *const modes[] = { "sync", "async", "bounded", NULL };
static const char *const losses[] = { "shrink", "wait", "fail", NULL };
static const char *const atomics[] = { "default", "round", "shard", NULL };
static const char *const durabilities[] = { "default", "always", "interval",
                                            "checkpoint", NULL };

/* What may follow the mode. */
enum kind { COUNT, COUNT_64, NUMBER, FLAG, LOSS, ATOMIC, DURABILITY };
static const struct field {
    const char *name;
    enum kind kind;
    size_t at; /* in struct optclient_policy */
} fields[] = {
    { "loss", LOSS, offsetof(struct optclient_policy, loss) },
    { "min_workers", COUNT, offsetof(struct optclient_policy, min_workers) },
    { "samples", COUNT_64, offsetof(struct optclient_policy, samples) },
    { "backup", COUNT, offsetof(struct optclient_policy, backup) },
    { "staleness", COUNT, offsetof(struct optclient_policy, staleness) },
    { "damping", FLAG, offsetof(struct optclient_policy, damping) },
    { "delay_compensation", NUMBER,
      offsetof(struct optclient_policy, delay_compensation) },
    { "atomic", ATOMIC, offsetof(struct optclient_policy, atomic) },
    { "durability", DURABILITY, offsetof(struct optclient_policy, durability) },
    { "checkpoint_steps", COUNT_64,
      offsetof(struct optclient_policy, checkpoint_steps) },
};
enum { FIELDS = sizeof(fields) / sizeof(fields[0]) };

static bool find_word(const char *const *words, const char *text, size_t size, int *out)
{
    for (int i = 0; words[i] != NULL; i++) {
        if (strlen(words[i]) == size && memcmp(words[i], text, size) == 0) {
            *out = i;
            return true;
        }
    }
    return false;
}

/* A whole decimal number, or NULL: none. */
static bool read_count(const char *text, size_t size, uint64_t most, uint64_t *out)
{
    char digits[24] = "";
    if (text == NULL || size == 0 || size >= sizeof(digits) ||
        strspn(text, "0123456789") < size) {
        return false;
    }
    memcpy(digits, text, size);
    errno = 0;
    *out = strtoull(digits, NULL, 10);
    return errno == 0 && *out <= most;
}

static bool read_real(const char *text, size_t size, double *out)
{
    char copy[64] = "", *end = copy;
    if (text == NULL || size == 0 || size >= sizeof(copy)) {
        return false;
    }
    memcpy(copy, text, size);
    *out = strtod(copy, &end);
    return *end == '\0' && *out >= 0;
}

/* value NULL: there is no "=". */
static bool read_field(const struct field *field, const char *value, size_t size,
                       struct optclient_policy *out)
{
    void *to = (char *)out + field->at;
    uint64_t count;
    int word;
    switch (field->kind) {
    case COUNT:
        if (!read_count(value, size, UINT32_MAX, &count)) {
            return false;
        }
        *(uint32_t *)to = (uint32_t)count;
        return true;
    case COUNT_64:
        return read_count(value, size, UINT64_MAX, to);
    case NUMBER:
        return read_real(value, size, to);
    case LOSS:
        if (value == NULL || !find_word(losses, value, size, &word)) {
            return false;
        }
        out->loss = (enum optclient_loss)word;
        return true;
    case ATOMIC:
        if (value == NULL || !find_word(atomics, value, size, &word)) {
            return false;
        }
        out->atomic = (enum optclient_atomic)word;
        return true;
    case DURABILITY:
        if (value == NULL || !find_word(durabilities, value, size, &word)) {
            return false;
        }
        out->durability = (enum optclient_durability)word;
        return true;
    case FLAG:
        *(int *)to = 1;
        return value == NULL;
    }
    return false;
}

static bool read_item(const char *item, size_t size, struct optclient_policy *out)
{
    const char *equals = memchr(item, '=', size);
    size_t name = equals == NULL ? size : (size_t)(equals - item);
    for (size_t i = 0; i < FIELDS; i++) {
        if (strlen(fields[i].name) == name && memcmp(fields[i].name, item, name) == 0) {
            return read_field(&fields[i], equals == NULL ? NULL : equals + 1,
                              equals == NULL ? 0 : size - name - 1, out);
        }
    }
    return false;
}

const char *policy_durability_name(enum optclient_durability durability)
{
    return durability == OPTCLIENT_DURABILITY_DEFAULT ? "none"
                                                      : durabilities[durability];
}

bool policy_durability(const char *text, struct optclient_policy *out)
{
    int word;
    if (!find_word(durabilities, text, strlen(text), &word)) {
        return false;
    }
    out->durability = (enum optclient_durability)word;
    return true;
}

bool policy_read(const char *text, struct optclient_policy *out, const char **wrong,
                 size_t *wrong_size)
{
    int mode;
    size_t size = strcspn(text, ",");
    *wrong = text;
    *wrong_size = size;
    if (!find_word(modes, text, size, &mode)) {
        return false;
    }
    out->mode = (enum optclient_mode)mode;
    for (const char *at = text + size; *at != '\0'; at += size) {
        at++;
        size = strcspn(at, ",");
        *wrong = at;
        *wrong_size = size;
        if (!read_item(at, size, out)) {
            return false;
        }
    }
    return true;
}

void policy_print(const struct optclient_policy *policy)
{
    fputs(modes[policy->mode], stdout);
    for (size_t i = 0; i < FIELDS; i++) {
        const void *from = (const char *)policy + fields[i].at;
        switch (fields[i].kind) {
        case COUNT:
            if (*(const uint32_t *)from > 0) {
                printf(",%s=%" PRIu32, fields[i].name, *(const uint32_t *)from);
            }
            break;
        case COUNT_64:
            if (*(const uint64_t *)from > 0) {
                printf(",%s=%" PRIu64, fields[i].name, *(const uint64_t *)from);
            }
            break;
        case NUMBER:
            if (*(const double *)from > 0) {
                char number[OPT_NUMBER_TEXT];
                opt_number_print(*(const double *)from, number);
                printf(",%s=%s", fields[i].name, number);
            }
            break;
        case LOSS:
            printf(",%s=%s", fields[i].name, losses[policy->loss]);
            break;
        case ATOMIC:
            if (policy->atomic == OPTCLIENT_ATOMIC_SHARD) {
                printf(",%s=%s", fields[i].name, atomics[policy->atomic]);
            }
            break;
        case DURABILITY:
            if (policy->durability != OPTCLIENT_DURABILITY_DEFAULT) {
                printf(",%s=%s", fields[i].name, durabilities[policy->durability]);
            }
            break;
        case FLAG:
            printf("%s%s", policy->damping != 0 ? "," : "",
                   policy->damping != 0 ? fields[i].name : "");
            break;
        }
    }
}

json_t *policy_json(const struct optclient_policy *policy)
{
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:b, s:f, s:s, s:s, s:I}", "mode",
                     modes[policy->mode], "loss", losses[policy->loss], "min_workers",
                     (json_int_t)policy->min_workers, "samples",
                     (json_int_t)policy->samples, "backup", (json_int_t)policy->backup,
                     "staleness", (json_int_t)policy->staleness, "damping",
                     policy->damping, "delay_compensation", policy->delay_compensation,
                     "atomic",
                     policy->atomic == OPTCLIENT_ATOMIC_SHARD ? "shard" : "round",
                     "durability", policy_durability_name(policy->durability),
                     "checkpoint_steps", (json_int_t)policy->checkpoint_steps);
}

void policy_items(bool first, void (*on_item)(const char *item, void *context),
                  void *context)
{
    char item[64];
    for (size_t i = 0; first && modes[i] != NULL; i++) {
        on_item(modes[i], context);
    }
    for (size_t i = 0; !first && i < (size_t)FIELDS; i++) {
        const char *const *words = fields[i].kind == LOSS         ? losses
                                   : fields[i].kind == ATOMIC     ? atomics
                                   : fields[i].kind == DURABILITY ? durabilities
                                                                  : NULL;
        for (size_t k = 0; words != NULL && words[k] != NULL; k++) {
            snprintf(item, sizeof(item), "%s=%s", fields[i].name, words[k]);
            on_item(item, context);
        }
        if (words == NULL) {
            snprintf(item, sizeof(item), "%s%s", fields[i].name,
                     fields[i].kind == FLAG ? "" : "=");
            on_item(item, context);
        }
    }
}
