/* logins — see logins.h. */
#include "tests/support/logins.h"

#include <criterion/criterion.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/raw.h"

void logins_files_open(struct logins_files *files)
{
    snprintf(files->folder, sizeof files->folder, "/tmp/optimd-logins-XXXXXX");
    cr_assert(mkdtemp(files->folder) != NULL);
    snprintf(files->tokens, sizeof files->tokens, "%s/tokens", files->folder);
    snprintf(files->token, sizeof files->token, "%s/token", files->folder);
}

void logins_files_close(struct logins_files *files)
{
    unlink(files->tokens);
    unlink(files->token);
    cr_expect_eq(rmdir(files->folder), 0);
}

const char *logins_digest(const char *token, char out[LOGINS_HEX])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    cr_assert_eq(EVP_Digest(token, strlen(token), digest, &size, EVP_sha256(), NULL),
                 1);
    for (unsigned int i = 0; i < size; i++) {
        snprintf(out + 2 * i, 3, "%02x", digest[i]);
    }
    return out;
}

void logins_write_text(const char *path, const char *text)
{
    char next[LOGINS_PATH + 32];
    snprintf(next, sizeof next, "%s.next", path);
    FILE *file = fopen(next, "we");
    cr_assert_not_null(file);
    cr_assert(fputs(text, file) >= 0);
    cr_assert_eq(fclose(file), 0);
    cr_assert_eq(chmod(next, 0600), 0);
    cr_assert_eq(rename(next, path), 0);
}

void logins_write(const char *path, const char *lines)
{
    char text[1 << 14], token[256], digest[LOGINS_HEX];
    size_t used = 0;
    while (*lines != '\0') {
        if (*lines != '@') {
            text[used++] = *lines++;
            continue;
        }
        size_t size = strcspn(++lines, " \n");
        cr_assert_lt(size, sizeof token);
        memcpy(token, lines, size);
        token[size] = '\0';
        lines += size;
        memcpy(text + used, logins_digest(token, digest), LOGINS_HEX - 1);
        used += LOGINS_HEX - 1;
        cr_assert_lt(used, sizeof text - LOGINS_HEX);
    }
    text[used] = '\0';
    logins_write_text(path, text);
}

static enum opt_status take_answer(int socket, char *text, enum opt_detail *detail,
                                   uint64_t id)
{
    struct raw_reply reply;
    cr_assert(raw_receive(socket, &reply), "closed without a word");
    bool error = reply.reply.message == OPT_MESSAGE_ERROR;
    enum opt_status status = error ? reply.reply.body.error.status : OPT_OK;
    cr_assert(reply.reply.id == id || (error && reply.reply.id == 0));
    if (text != NULL) {
        snprintf(text, OPT_ERROR_TEXT, "%s", error ? reply.reply.body.error.text : "");
    }
    if (detail != NULL) {
        *detail = error ? reply.reply.body.error.detail : OPT_DETAIL_NONE;
    }
    raw_reply_fini(&reply);
    return status;
}

enum opt_status logins_hello(int socket, const char *worker, const void *token,
                             size_t size, char *text)
{
    const struct opt_request hello = {
        .id = 77,
        .message = OPT_MESSAGE_HELLO,
        .body.hello = { .protocol = OPT_PROTOCOL,
                        .worker = worker,
                        .session = 1 + (uint64_t)socket,
                        .client = "logins",
                        .token = token,
                        .token_size = size },
    };
    cr_assert(raw_request(socket, &hello, NULL, 0), "hello was not taken");
    return take_answer(socket, text, NULL, hello.id);
}

int logins_enter(unsigned port, const char *worker, const char *token)
{
    char text[OPT_ERROR_TEXT];
    int fd = raw_connect((uint16_t)port);
    enum opt_status status =
        logins_hello(fd, worker, token, token != NULL ? strlen(token) : 0, text);
    cr_assert_eq(status, OPT_OK, "%s", text);
    return fd;
}

enum opt_status logins_ask(int socket, const struct opt_request *request,
                           size_t data_size, enum opt_detail *detail)
{
    uint8_t *data = data_size > 0 ? calloc(1, data_size) : NULL;
    cr_assert(raw_request(socket, request, data, data_size), "it was not taken");
    free(data);
    return take_answer(socket, NULL, detail, request->id);
}
