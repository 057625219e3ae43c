/* checkpoints — of a real daemon: asked for by an operator, taken when it stops, as the
 * documentation of the data directory says, and readable by whoever follows the
 * formats.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/optclient.h"
#include "server/store/file.h"
#include "tests/support/operator.h"

enum { N = 20000 };

static char directory[DAEMON_PATH + 16];

static void start(const char *durability)
{
    static char template[] = "/tmp/optimd-checkpoints-XXXXXX";
    if (directory[0] == '\0') {
        cr_assert_not_null(mkdtemp(template));
        snprintf(directory, sizeof directory, "%s/data", template);
    }
    daemon_start(&operator_server,
                 (const char *[]){ "--data-dir", directory, "--durability", durability,
                                   "--checkpoint-interval", "1h", NULL });
    cr_assert_eq(setenv("OPTIMD_SERVER", operator_server.address, 1), 0);
}

static void remove_all(void)
{
    char command[DAEMON_PATH + 64];
    *strrchr(directory, '/') = '\0';
    snprintf(command, sizeof command, "rm -r '%s'", directory);
    cr_assert_eq(system(command), 0);
}

/* A model of N weights, and so many pushes of ones to it, at a rate of 1. */
static void train(struct optclient **client, struct optclient_model **model,
                  unsigned pushes)
{
    const uint64_t shape[] = { N };
    const struct optclient_tensor tensor = { .name = "w", .shape = shape, .rank = 1 };
    float *ones = malloc(N * sizeof *ones);
    cr_assert_not_null(ones);
    for (size_t i = 0; i < N; i++) {
        ones[i] = 1;
    }
    const struct optclient_options options = { .worker = "a" };
    cr_assert_eq(optclient_connect(operator_server.address, &options, client),
                 OPTCLIENT_OK, "%s", optclient_error());
    cr_assert_eq(optclient_create(*client, "m", "momentum(lr=1, momentum=0.5)", NULL,
                                  &tensor, 1, NULL, model),
                 OPTCLIENT_OK, "%s", optclient_error());
    for (unsigned i = 0; i < pushes; i++) {
        const struct optclient_values values = { .tensor = 0, .values = ones };
        cr_assert_eq(optclient_push(*model, &values, 1, NULL, NULL), OPTCLIENT_OK, "%s",
                     optclient_error());
    }
    free(ones);
}

/* A file of a checkpoint as it is; to be freed. */
static char *load(const char *folder, const char *name, size_t *size)
{
    char path[512];
    char *bytes;
    struct opt_error error;
    snprintf(path, sizeof path, "%s/%s/%s", directory, folder, name);
    cr_assert_eq(file_load(AT_FDCWD, path, 1 << 26, path, &bytes, size, &error), OPT_OK,
                 "%s", error.text);
    return bytes;
}

/* The first value of the only tensor, as the format says: 8 bytes are the size of the
 * header, the values follow it. */
static float first_value(const char *folder, const char *name, const char *tensor)
{
    size_t size;
    uint64_t header;
    float value;
    char *bytes = load(folder, name, &size);
    memcpy(&header, bytes, sizeof header);
    json_t *entries =
        json_loadb(bytes + 8, (size_t)header, JSON_REJECT_DUPLICATES, NULL);
    cr_assert_not_null(entries);
    const json_t *entry = json_object_get(entries, tensor);
    cr_assert_str_eq(json_string_value(json_object_get(entry, "dtype")), "F32");
    cr_assert_eq(
        json_integer_value(json_array_get(json_object_get(entry, "data_offsets"), 1)),
        N * 4);
    cr_assert_eq(size, 8 + header + N * 4);
    memcpy(&value, bytes + 8 + header, sizeof value);
    json_decref(entries);
    free(bytes);
    return value;
}

static void expect_checkpoint(const char *folder, uint64_t step, float weight,
                              float slot)
{
    size_t size;
    char *text = load(folder, "manifest.json", &size);
    json_t *manifest = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
    cr_assert_not_null(manifest);
    cr_expect_eq((uint64_t)json_integer_value(json_object_get(manifest, "step")), step);
    cr_expect_str_eq(operator_text(manifest, "name"), "m");
    json_decref(manifest);
    free(text);
    cr_expect_eq(first_value(folder, "weights.safetensors", "w"), weight);
    cr_expect_eq(
        first_value(folder, "slot.momentum_buffer.safetensors", "w.momentum_buffer"),
        slot);
}

/* The name of the newest checkpoint of the only model there is. */
static void find_newest(char folder[256])
{
    char path[512];
    struct dirent **entries;
    snprintf(path, sizeof path, "%s/models", directory);
    int count = scandir(path, &entries, NULL, alphasort);
    cr_assert_eq(count, 3); /* with . and .. */
    snprintf(folder, 256, "models/%.64s", entries[2]->d_name);
    for (int i = 0; i < count; i++) {
        free(entries[i]);
    }
    free(entries);
    snprintf(path, sizeof path, "%s/%s", directory, folder);
    count = scandir(path, &entries, NULL, alphasort);
    cr_assert_gt(count, 2);
    size_t used = strlen(folder);
    (void)snprintf(folder + used, 256 - used, "/%.100s", entries[count - 1]->d_name);
    for (int i = 0; i < count; i++) {
        free(entries[i]);
    }
    free(entries);
}

/* What has been pushed is in the checkpoint that is asked for; what came after it is in
 * the one that is made when the daemon stops; and what comes back is that. */
Test(checkpoints, are_made_when_asked_for_and_at_the_end, .timeout = 60)
{
    struct optclient *client;
    struct optclient_model *model;
    struct optclient_checkpoint_info info;
    char folder[256];
    start("checkpoint");
    train(&client, &model, 2);
    cr_assert_eq(RUN("checkpoint", "m", "--json"), 0, "%s", operator_out);
    json_t *said = operator_json();
    cr_assert_eq(json_integer_value(json_object_get(said, "step")), 2);
    snprintf(folder, sizeof folder, "%s", operator_text(said, "folder"));
    json_decref(said);
    cr_expect_not_null(strstr(folder, "/0000000001-step-2"));
    expect_checkpoint(folder, 2, -2.5f, 1.5f);
    cr_assert_eq(optclient_checkpoint(client, "m", &info), OPTCLIENT_OK);
    cr_expect_str_eq(info.folder, folder, "nothing has changed");
    cr_expect_eq(info.step, 2);
    cr_assert_eq(RUN("checkpoint", "m"), 0, "%s", operator_out);
    cr_expect_not_null(strstr(operator_out, "step 2 is in models/"));
    cr_expect_neq(RUN("checkpoint", "other"), 0);
    cr_expect_not_null(strstr(operator_out, "other"));
    optclient_close(client);
    train(&client, &model, 1);
    daemon_signal(&operator_server, SIGTERM);
    cr_assert_eq(daemon_wait(&operator_server, DAEMON_WAIT_MS), 0);
    optclient_close(client);
    find_newest(folder);
    cr_expect_not_null(strstr(folder, "-step-3"), "%s", folder);
    expect_checkpoint(folder, 3, -4.25f, 1.75f);
    daemon_remove(&operator_server);
    start("interval");
    cr_assert(daemon_logged(&operator_server, "info recovered", DAEMON_WAIT_MS));
    cr_assert_eq(RUN("show", "m", "--json"), 0, "%s", operator_out);
    said = operator_json();
    cr_expect_eq(json_integer_value(json_object_get(said, "step")), 3);
    json_decref(said);
    daemon_stop(&operator_server);
    remove_all();
}

Test(checkpoints, cannot_be_asked_for_where_nothing_is_kept, .init = operator_start,
     .fini = operator_stop)
{
    cr_assert_eq(RUN("create", "m", "--spec", "sgd", "--tensor", "w:3"), 0);
    cr_expect_neq(RUN("checkpoint", "m"), 0);
    cr_expect_not_null(strstr(operator_out, "--data-dir"), "%s", operator_out);
}

/* By whoever has only the formats' documentation and numpy. */
Test(checkpoints, are_read_by_numpy, .timeout = 60)
{
    static const char script[] =
        "import json, struct, sys\n"
        "import numpy\n"
        "folder = sys.argv[1]\n"
        "def read(name):\n"
        "    data = open(folder + '/' + name, 'rb').read()\n"
        "    size, = struct.unpack('<Q', data[:8])\n"
        "    header = json.loads(data[8:8 + size])\n"
        "    header.pop('__metadata__', None)\n"
        "    return {key: numpy.frombuffer(data, '<f4', offset=8 + size +\n"
        "            entry['data_offsets'][0], count=(entry['data_offsets'][1] -\n"
        "            entry['data_offsets'][0]) // 4).reshape(entry['shape'])\n"
        "            for key, entry in header.items()}\n"
        "manifest = json.load(open(folder + '/manifest.json'))\n"
        "assert manifest['step'] == 2\n"
        "assert (read('weights.safetensors')['w'] == -2.5).all()\n"
        "assert (read('slot.momentum_buffer.safetensors')['w.momentum_buffer'] == 1.5)"
        ".all()\n";
    struct optclient *client;
    struct optclient_model *model;
    char file[64], command[1024];
    if (system("/usr/bin/python3 -c 'import numpy' 2>/dev/null") != 0) {
        cr_skip_test("python3-numpy is not installed");
    }
    start("interval");
    train(&client, &model, 2);
    cr_assert_eq(RUN("checkpoint", "m", "--json"), 0, "%s", operator_out);
    json_t *said = operator_json();
    operator_write_file(script, file);
    snprintf(command, sizeof command, "/usr/bin/python3 %s '%s/%s'", file, directory,
             operator_text(said, "folder"));
    cr_expect_eq(system(command), 0, "%s", command);
    json_decref(said);
    optclient_close(client);
    daemon_stop(&operator_server);
    remove_all();
}
