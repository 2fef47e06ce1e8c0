/* Addresses: what is read, what is refused and why, and that printed addresses can be read again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/address.h"

static struct sockaddr_storage parsed(const char *text)
{
    static int before = 0x5a;
    struct sockaddr_storage address;
    memset(&address, before++, sizeof(address)); /* earlier content must not show */
    const char *why = address_parse(text, &address);
    if (why != NULL)
        fail_msg("%s: %s", text, why);
    return address;
}

static void assert_printed(const struct sockaddr_storage *address, const char *expected)
{
    char out[ADDRESS_TEXT];
    address_print(address, out);
    assert_string_equal(out, expected);
}

/* ---- what is read ------------------------------------------------------------------------------------------------ */

static void test_an_ipv4_address(void **state)
{
    (void)state;
    const struct sockaddr_storage address = parsed("127.0.0.1:8448");
    const struct sockaddr_in *in = (const struct sockaddr_in *)&address;
    assert_int_equal(in->sin_family, AF_INET);
    assert_int_equal(ntohl(in->sin_addr.s_addr), 0x7f000001);
    assert_int_equal(ntohs(in->sin_port), 8448);
    assert_int_equal(address_port(&address), 8448);
    assert_int_equal(address_size(&address), sizeof(struct sockaddr_in));
}

static void test_an_ipv6_address(void **state)
{
    (void)state;
    const struct sockaddr_storage address = parsed("[2001:db8::1]:8448");
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&address;
    static const unsigned char bytes[16] = { 0x20, 0x01, 0x0d, 0xb8, [15] = 1 };
    assert_int_equal(in6->sin6_family, AF_INET6);
    assert_memory_equal(&in6->sin6_addr, bytes, sizeof(bytes));
    assert_int_equal(ntohs(in6->sin6_port), 8448);
    assert_int_equal(in6->sin6_scope_id, 0);
    assert_int_equal(in6->sin6_flowinfo, 0);
    assert_int_equal(address_port(&address), 8448);
    assert_int_equal(address_size(&address), sizeof(struct sockaddr_in6));
}

static void test_a_scope_is_the_index_of_the_interface(void **state)
{
    (void)state;
    const struct sockaddr_storage address = parsed("[fe80::1%lo]:8448");
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&address;
    assert_int_equal(in6->sin6_scope_id, if_nametoindex("lo"));
    assert_true(in6->sin6_scope_id > 0);
}

static void test_good_addresses_and_how_they_are_printed(void **state)
{
    (void)state;
    static const struct {
        const char *text, *printed, *host;
    } good[] = {
        { "0.0.0.0:1", "0.0.0.0:1", "0.0.0.0" },
        { "255.255.255.255:65535", "255.255.255.255:65535", "255.255.255.255" },
        { "10.0.0.1:0080", "10.0.0.1:80", "10.0.0.1" },
        { "[::]:8448", "[::]:8448", "::" },
        { "[::1]:1", "[::1]:1", "::1" },
        { "[0:0:0:0:0:0:0:1]:65535", "[::1]:65535", "::1" },
        { "[2001:DB8:0:0:1:0:0:1]:8448", "[2001:db8::1:0:0:1]:8448", "2001:db8::1:0:0:1" },
        { "[::ffff:192.0.2.1]:8448", "[::ffff:192.0.2.1]:8448", "::ffff:192.0.2.1" },
        { "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
          "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" },
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        char host[EVAPID_ADDRESS_MAX];
        const struct sockaddr_storage address = parsed(good[i].text);
        assert_printed(&address, good[i].printed);
        address_host(&address, host);
        assert_string_equal(host, good[i].host);
        const struct sockaddr_storage again = parsed(good[i].printed);
        assert_true(address_equal(&address, &again));
        assert_memory_equal(&address, &again, sizeof(address));
    }
}

/* A printed address names the interface too: else the same address on two interfaces would look the same. */
static void test_a_scope_is_printed_and_read_again(void **state)
{
    (void)state;
    const struct sockaddr_storage address = parsed("[fe80::1%lo]:8448");
    assert_printed(&address, "[fe80::1%lo]:8448");
}

static void test_every_port_is_read_and_printed(void **state)
{
    (void)state;
    for (unsigned port = 1; port <= 65535; port++) {
        char text[32];
        snprintf(text, sizeof(text), "127.0.0.1:%u", port);
        const struct sockaddr_storage address = parsed(text);
        assert_int_equal(address_port(&address), port);
        assert_printed(&address, text);
    }
}

/* ---- what is refused --------------------------------------------------------------------------------------------- */

#define TEN "1234567890"

static void test_what_is_no_address_is_refused_with_the_reason(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why;
    } bad[] = {
        { "", "expected ADDRESS:PORT" },
        { "8448", "expected ADDRESS:PORT" },
        { "127.0.0.1", "expected ADDRESS:PORT" },
        { ":8448", "not an IPv4 address" },
        { ":", "a port is missing" },
        { "127.0.0.1:", "a port is missing" },
        { "127.0.0.1:0", "the port is 0" },
        { "127.0.0.1:65536", "the port is over 65535" },
        { "127.0.0.1:99999999999999999999", "the port is over 65535" },
        { "127.0.0.1:4294967297", "the port is over 65535" },
        { "127.0.0.1:+80", "the port is not a number" },
        { "127.0.0.1:-1", "the port is not a number" },
        { "127.0.0.1: 80", "the port is not a number" },
        { "127.0.0.1:80 ", "the port is not a number" },
        { "127.0.0.1:0x50", "the port is not a number" },
        { "127.0.0.1:http", "the port is not a number" },
        { " 127.0.0.1:80", "not an IPv4 address" },
        { "127.0.0.1 :80", "not an IPv4 address" },
        { "127.1:80", "not an IPv4 address" },
        { "127.0.0.256:80", "not an IPv4 address" },
        { "1.2.3.4.5:80", "not an IPv4 address" },
        { "localhost:80", "not an IPv4 address" },
        { "*:80", "not an IPv4 address" },
        { "::1:80", "an IPv6 address is written in brackets: [ADDRESS]:PORT" },
        { "2001:db8::1:8448", "an IPv6 address is written in brackets: [ADDRESS]:PORT" },
        { "127.0.0.1:80:90", "an IPv6 address is written in brackets: [ADDRESS]:PORT" },
        { "[::1]", "expected [ADDRESS]:PORT" },
        { "[::1", "expected [ADDRESS]:PORT" },
        { "[", "expected [ADDRESS]:PORT" },
        { "[::1]8448", "expected [ADDRESS]:PORT" },
        { "[::1] :8448", "expected [ADDRESS]:PORT" },
        { "[::1]]:8448", "expected [ADDRESS]:PORT" },
        { "[::1]:", "a port is missing" },
        { "[::1]:0", "the port is 0" },
        { "[::1]:65536", "the port is over 65535" },
        { "[::1]:8x", "the port is not a number" },
        { "[]:8448", "not an IPv6 address" },
        { "[127.0.0.1]:8448", "not an IPv6 address" },
        { "[::1::2]:8448", "not an IPv6 address" },
        { "[12345::]:8448", "not an IPv6 address" },
        { "[1:2:3:4:5:6:7:8:9]:8448", "not an IPv6 address" },
        { "[[::1]:8448", "not an IPv6 address" },
        { TEN TEN TEN TEN TEN TEN "123:80", "not an IPv4 address" },
        { TEN TEN TEN TEN TEN TEN "1234:80", "the address is too long" },
        { "[" TEN TEN TEN TEN TEN TEN "1234]:80", "the address is too long" },
        { TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN ":80", "the address is too long" },
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct sockaddr_storage address;
        char *text = strdup(bad[i].text); /* lets the sanitizer see its end */
        const char *why = address_parse(text, &address);
        if (why == NULL || strcmp(why, bad[i].why) != 0)
            fail_msg("\"%s\": %s; expected: %s", bad[i].text, why == NULL ? "read" : why, bad[i].why);
        free(text);
    }
}

/* It must not count as an address without a scope, which would be another address. */
static void test_a_scope_that_is_no_interface_is_refused(void **state)
{
    (void)state;
    struct sockaddr_storage address;
    assert_non_null(address_parse("[fe80::1%nosuch0]:8448", &address));
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

static void test_addresses_are_equal_when_host_and_port_are(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "127.0.0.1:8448", "127.0.0.1:8449", "127.0.0.2:8448", "[::1]:8448",         "[::1]:8449",
        "[::2]:8448",     "0.0.0.0:8448",   "[::]:8448",      "[::127.0.0.1]:8448", "[::ffff:127.0.0.1]:8448",
    };
    const size_t count = sizeof(texts) / sizeof(*texts);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < count; j++) {
            const struct sockaddr_storage a = parsed(texts[i]);
            const struct sockaddr_storage b = parsed(texts[j]);
            if (address_equal(&a, &b) != (i == j))
                fail_msg("%s and %s", texts[i], texts[j]);
        }
}

static void test_spelling_makes_no_difference(void **state)
{
    (void)state;
    const struct sockaddr_storage a = parsed("[2001:0DB8:0::0:1]:08448");
    const struct sockaddr_storage b = parsed("[2001:db8::1]:8448");
    assert_true(address_equal(&a, &b));
}

/* Two listeners at the same link-local address of two interfaces are no duplicates. */
static void test_the_same_address_in_two_scopes_is_two_addresses(void **state)
{
    (void)state;
    const struct sockaddr_storage a = parsed("[fe80::1]:8448");
    struct sockaddr_storage b = a;
    ((struct sockaddr_in6 *)&b)->sin6_scope_id = if_nametoindex("lo");
    assert_false(address_equal(&a, &b));
}

/* A peer of another family still has a name. */
static void test_a_host_of_another_family_is_shown_as_a_question_mark(void **state)
{
    (void)state;
    struct sockaddr_storage address = { .ss_family = AF_UNIX };
    char host[EVAPID_ADDRESS_MAX];
    address_host(&address, host);
    assert_string_equal(host, "?");
}

/* ---- Unix sockets ------------------------------------------------------------------------------------------------ */

static void test_a_path_comes_back_and_is_no_tcp_address(void **state)
{
    char longest[5 + 107 + 2] = "unix:";
    char text[ADDRESS_TEXT];
    struct sockaddr_storage address;
    struct sockaddr_storage other;
    (void)state;
    memset(longest + 5, '/', 107);
    assert_null(address_parse_any(longest, &address));
    assert_true(address_is_unix(&address));
    address_print(&address, text);
    assert_string_equal(text, longest);
    assert_int_equal(address_port(&address), 0);
    assert_null(address_parse_any("unix:/tmp/x", &other));
    assert_string_equal(address_path(&other), "/tmp/x");
    assert_false(address_equal(&address, &other));
    assert_true(address_equal(&other, &other));
    assert_null(address_parse_any("127.0.0.1:1", &address));
    assert_false(address_equal(&address, &other));
    longest[5 + 107] = 'x';
    assert_non_null(address_parse_any(longest, &address));
    assert_string_equal(address_parse_any("unix:", &address), "a path has 1 to 107 bytes");
    assert_string_equal(address_parse_any("unix:tmp/x", &address), "the path does not begin with /");
    assert_string_equal(address_parse_any("unix:/tmp/x\n", &address), "the path has a control character");
    assert_string_equal(address_parse_any("unix:/tmp/\x7f", &address), "the path has a control character");
    assert_null(address_parse_any("unix:/tmp/\xc3\xa9 \"", &address));
    assert_non_null(address_parse("unix:/tmp/x", &address));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_ipv4_address),
        cmocka_unit_test(test_an_ipv6_address),
        cmocka_unit_test(test_a_scope_is_the_index_of_the_interface),
        cmocka_unit_test(test_good_addresses_and_how_they_are_printed),
        cmocka_unit_test(test_a_scope_is_printed_and_read_again),
        cmocka_unit_test(test_every_port_is_read_and_printed),
        cmocka_unit_test(test_what_is_no_address_is_refused_with_the_reason),
        cmocka_unit_test(test_a_scope_that_is_no_interface_is_refused),
        cmocka_unit_test(test_addresses_are_equal_when_host_and_port_are),
        cmocka_unit_test(test_spelling_makes_no_difference),
        cmocka_unit_test(test_the_same_address_in_two_scopes_is_two_addresses),
        cmocka_unit_test(test_a_host_of_another_family_is_shown_as_a_question_mark),
        cmocka_unit_test(test_a_path_comes_back_and_is_no_tcp_address),
    };
    return cmocka_run_group_tests_name("address", tests, NULL, NULL);
}
