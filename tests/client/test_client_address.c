#include <criterion/criterion.h>
#include <string.h>
#include <sys/socket.h>

#include "client/address.h"

static void expect_address(const char *text, const char *host, const char *port)
{
    struct address address;
    struct opt_error error;
    cr_assert_eq(address_parse(text, &address, &error), OPT_OK, "%s: %s", text,
                 error.text);
    cr_assert_str_eq(address.host, host);
    cr_assert_str_eq(address.port, port);
}

/* Refused, with a sentence that shows the address and has these words. */
static void expect_refusal(const char *text, const char *words)
{
    struct address address = { .host = "untouched" };
    struct opt_error error;
    cr_assert_eq(address_parse(text, &address, &error), OPT_INVALID_ARGUMENT, "%s",
                 text);
    cr_assert(strstr(error.text, words) != NULL, "%s: %s", text, error.text);
    cr_assert_str_eq(address.host, "untouched");
}

Test(address, takes_names_and_both_kinds_of_numbers)
{
    expect_address("127.0.0.1:7070", "127.0.0.1", "7070");
    expect_address("[::1]:7070", "::1", "7070");
    expect_address("[fe80::1%eth0]:1", "fe80::1%eth0", "1");
    expect_address("ps.internal:65535", "ps.internal", "65535");
    expect_address("localhost:00080", "localhost", "00080");
}

Test(address, refuses_what_has_no_host_or_port)
{
    expect_refusal(NULL, "NULL");
    expect_refusal("", "no port");
    expect_refusal("localhost", "no port");
    expect_refusal(":7070", "host");
    expect_refusal("localhost:", "port");
    expect_refusal("[]:7070", "host");
    expect_refusal("[::1]", "[HOST]:PORT");
    expect_refusal("[::1]7070", "[HOST]:PORT");
    expect_refusal("[::1:7070", "[HOST]:PORT");
}

Test(address, refuses_ports_that_are_none)
{
    expect_refusal("localhost:0", "port \"0\"");
    expect_refusal("localhost:65536", "port \"65536\"");
    expect_refusal("localhost:100000", "port \"100000\"");
    expect_refusal("localhost:-1", "port \"-1\"");
    expect_refusal("localhost:+1", "port");
    expect_refusal("localhost: 1", "port");
    expect_refusal("localhost:80x", "port \"80x\"");
    expect_refusal("localhost:http", "port \"http\"");
}

Test(address, wants_brackets_around_ipv6)
{
    expect_refusal("::1:7070", "brackets");
}

Test(address, refuses_hosts_past_the_limit)
{
    char text[400];
    memset(text, 'a', sizeof(text));
    strcpy(text + ADDRESS_HOST_MAX, ":1");
    struct address address;
    struct opt_error error;
    cr_assert_eq(address_parse(text, &address, &error), OPT_OK);
    memset(text, 'a', sizeof(text));
    strcpy(text + ADDRESS_HOST_MAX + 1, ":1");
    expect_refusal(text, "254 bytes");
}

Test(address, takes_paths)
{
    struct address address;
    struct opt_error error;
    cr_assert_eq(address_parse("unix:/run/optimd.sock", &address, &error), OPT_OK, "%s",
                 error.text);
    cr_assert_str_eq(address.port, "");
    cr_assert_eq(address.path.sun_family, AF_UNIX);
    cr_assert_str_eq(address.path.sun_path, "/run/optimd.sock");
    expect_refusal("unix:optimd.sock", "must begin with /");
    expect_refusal("unix:", "must begin with /");
    char text[200] = "unix:/";
    memset(text + 6, 'x', 120);
    expect_refusal(text, "121 bytes; expected at most 107");
}
