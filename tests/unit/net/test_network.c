/* Networks: what is read, what is refused and why, and which address is in which. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "net/network.h"
#include "net/remote.h"

static struct network parsed(const char *text)
{
    static int before = 0x5a;
    struct network network;
    memset(&network, before++, sizeof(network)); /* earlier content must not show */
    const char *why = network_parse(text, &network);
    if (why != NULL)
        fail_msg("%s: %s", text, why);
    return network;
}

static void assert_refused(const char *text, const char *expected)
{
    struct network network;
    const char *why = network_parse(text, &network);
    if (why == NULL)
        fail_msg("%s is read", text);
    assert_string_equal(why, expected);
}

/* The network of a socket address, as accept(2) gives it. */
static struct network host(const char *text)
{
    struct sockaddr_storage address;
    memset(&address, 0x5a, sizeof(address));
    struct sockaddr_in *v4 = (struct sockaddr_in *)&address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address;
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1)
        v4->sin_family = AF_INET;
    else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1)
        v6->sin6_family = AF_INET6;
    else
        fail_msg("%s is no address", text);
    return network_of(&address);
}

static bool has(const char *network, const char *address)
{
    const struct network outer = parsed(network);
    const struct network inner = host(address);
    return network_covers(&outer, &inner);
}

/* ---- what is read -------------------------------------------------------------------------------------------------- */

static void test_a_network_is_its_address_and_its_prefix(void **state)
{
    (void)state;
    const struct network v4 = parsed("10.32.0.0/11");
    static const unsigned char v4_bytes[16] = { 10, 32 };
    assert_int_equal(v4.version, 4);
    assert_int_equal(v4.prefix, 11);
    assert_memory_equal(v4.bytes, v4_bytes, 16);
    const struct network v6 = parsed("2001:db8:8000::/33");
    static const unsigned char v6_bytes[16] = { 0x20, 0x01, 0x0d, 0xb8, 0x80 };
    assert_int_equal(v6.version, 6);
    assert_int_equal(v6.prefix, 33);
    assert_memory_equal(v6.bytes, v6_bytes, 16);
}

static void test_a_bare_address_is_the_network_of_just_that(void **state)
{
    (void)state;
    const struct network same[][2] = { { parsed("192.0.2.7"), parsed("192.0.2.7/32") },
                                       { parsed("2001:db8::7"), parsed("2001:db8::7/128") },
                                       { parsed("192.0.2.7"), host("192.0.2.7") },
                                       { parsed("2001:db8::7"), host("2001:db8::7") },
                                       { parsed("::1"), parsed("0:0:0:0:0:0:0:1") } };
    for (size_t i = 0; i < sizeof(same) / sizeof(*same); i++)
        assert_memory_equal(&same[i][0], &same[i][1], sizeof(struct network));
}

static void test_every_prefix_is_read_and_bits_behind_it_are_refused(void **state)
{
    (void)state;
    static const char *const behind =
        "the address has bits after the prefix: write the first address of the network, or a longer prefix";
    for (unsigned prefix = 0; prefix <= 128; prefix++) {
        char text[80];
        snprintf(text, sizeof(text), "::/%u", prefix);
        assert_int_equal(parsed(text).prefix, prefix);
        snprintf(text, sizeof(text), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/%u", prefix);
        if (prefix < 128)
            assert_refused(text, behind);
        if (prefix > 32)
            continue;
        snprintf(text, sizeof(text), "0.0.0.0/%u", prefix);
        assert_int_equal(parsed(text).prefix, prefix);
        snprintf(text, sizeof(text), "255.255.255.255/%u", prefix);
        if (prefix < 32)
            assert_refused(text, behind);
    }
    assert_refused("10.0.0.1/8", behind);
    assert_refused("10.0.0.0/6", behind); /* 10 is 00001010 */
    assert_int_equal(parsed("10.0.0.0/7").prefix, 7);
    assert_refused("2001:db8::1/64", behind);
}

static void test_what_is_no_network_is_refused_with_the_reason(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        { "", "not an IPv4 address" },
        { "/8", "not an IPv4 address" },
        { "localhost", "not an IPv4 address" },
        { "10.0.0", "not an IPv4 address" },
        { "10.0.0.0.0", "not an IPv4 address" },
        { "10.0.0.256", "not an IPv4 address" },
        { " 10.0.0.0", "not an IPv4 address" },
        { "10.0.0.0:80", "not an IPv6 address" },
        { "[::1]", "not an IPv6 address" },
        { "fe80::1%lo", "not an IPv6 address" },
        { "2001:db8:::/32", "not an IPv6 address" },
        { "10.0.0.0/", "the prefix after / is missing" },
        { "10.0.0.0/8 ", "the prefix after / is not a number" },
        { "10.0.0.0/08", "the prefix after / begins with a 0" },
        { "10.0.0.0/-8", "the prefix after / is not a number" },
        { "10.0.0.0/+8", "the prefix after / is not a number" },
        { "10.0.0.0/8/8", "the prefix after / is not a number" },
        { "10.0.0.0/255.0.0.0", "the prefix of an IPv4 network is at most 32" },
        { "0.0.0.0/33", "the prefix of an IPv4 network is at most 32" },
        { "0.0.0.0/4294967296", "the prefix of an IPv4 network is at most 32" },
        { "::/129", "the prefix of an IPv6 network is at most 128" },
        { "::/99999999999999999999", "the prefix of an IPv6 network is at most 128" },
        { "::ffff:10.0.0.0/104", "an IPv4 network is written without ::ffff:" },
        { "::ffff:10.0.0.1", "an IPv4 network is written without ::ffff:" },
        { "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000", "the address is too long" },
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_refused(bad[i][0], bad[i][1]);
}

/* ---- which is in which --------------------------------------------------------------------------------------------- */

static void test_a_network_has_its_first_and_last_address_and_none_beside(void **state)
{
    (void)state;
    static const struct {
        const char *network, *first, *last, *before, *behind;
    } cases[] = {
        { "10.0.0.0/8", "10.0.0.0", "10.255.255.255", "9.255.255.255", "11.0.0.0" },
        { "172.16.0.0/12", "172.16.0.0", "172.31.255.255", "172.15.255.255", "172.32.0.0" },
        { "192.0.2.128/25", "192.0.2.128", "192.0.2.255", "192.0.2.127", "192.0.3.0" },
        { "192.0.2.4/31", "192.0.2.4", "192.0.2.5", "192.0.2.3", "192.0.2.6" },
        { "192.0.2.4", "192.0.2.4", "192.0.2.4", "192.0.2.3", "192.0.2.5" },
        { "2001:db8::/32", "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
          "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::" },
        { "2001:db8:0:0:8000::/65", "2001:db8:0:0:8000::", "2001:db8::ffff:ffff:ffff:ffff",
          "2001:db8::7fff:ffff:ffff:ffff", "2001:db8:0:1::" },
        { "::1", "::1", "::1", "::", "::2" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        assert_true(has(cases[i].network, cases[i].first));
        assert_true(has(cases[i].network, cases[i].last));
        assert_false(has(cases[i].network, cases[i].before));
        assert_false(has(cases[i].network, cases[i].behind));
    }
}

static void test_ipv4_and_ipv6_are_never_in_each_other(void **state)
{
    (void)state;
    assert_true(has("0.0.0.0/0", "255.255.255.255"));
    assert_true(has("::/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
    assert_false(has("0.0.0.0/0", "::1"));
    assert_false(has("::/0", "127.0.0.1"));
    assert_false(has("::/0", "0.0.0.0"));
}

static void test_an_ipv4_mapped_address_is_ipv4(void **state)
{
    (void)state;
    assert_true(has("10.0.0.0/8", "::ffff:10.1.2.3"));
    assert_false(has("10.0.0.0/8", "::ffff:11.1.2.3"));
    assert_false(has("10.0.0.0/8", "::10.1.2.3"));
    assert_false(has("::/0", "::ffff:10.1.2.3"));
    const struct network mapped = host("::ffff:192.0.2.1");
    const struct network plain = host("192.0.2.1");
    assert_memory_equal(&mapped, &plain, sizeof(plain));
}

static void test_what_is_no_ip_is_in_no_network(void **state)
{
    (void)state;
    const struct sockaddr_storage unix_socket = { .ss_family = AF_UNIX };
    const struct network none = network_of(&unix_socket);
    const struct network all[] = { parsed("0.0.0.0/0"), parsed("::/0") };
    assert_false(network_covers(&all[0], &none));
    assert_false(network_covers(&all[1], &none));
    assert_false(network_covers(&none, &none));
}

static void test_a_network_covers_the_smaller_and_not_the_larger(void **state)
{
    (void)state;
    const struct network large = parsed("10.0.0.0/8");
    const struct network small = parsed("10.1.0.0/16");
    assert_true(network_covers(&large, &small));
    assert_true(network_covers(&large, &large));
    assert_false(network_covers(&small, &large));
}

static void test_widening_clears_the_bits_behind_the_prefix(void **state)
{
    (void)state;
    const struct network address = host("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff");
    for (unsigned prefix = 0; prefix <= 128; prefix++) {
        const struct network wide = network_widen(address, (uint8_t)prefix);
        assert_int_equal(wide.prefix, prefix);
        for (unsigned bit = 0; bit < 128; bit++) {
            const unsigned was = address.bytes[bit / 8] >> (7 - bit % 8) & 1;
            assert_int_equal(wide.bytes[bit / 8] >> (7 - bit % 8) & 1, bit < prefix ? was : 0);
        }
        const struct network again = network_widen(wide, 128);
        assert_memory_equal(&again, &wide, sizeof(wide)); /* it is never made smaller */
    }
}

/* ---- what an address is good for ------------------------------------------------------------------------------------ */

static void test_private_addresses_are_not_public(void **state)
{
    (void)state;
    static const char *const own[] = { "127.0.0.1",       "127.255.255.255", "10.0.0.0",    "10.255.255.255",
                                       "172.16.0.0",      "172.31.255.255",  "192.168.0.0", "192.168.255.255",
                                       "169.254.0.0",     "169.254.255.255", "::1",         "fc00::",
                                       "fdff:ffff::1",    "fe80::1",         "febf::1",     "::ffff:10.0.0.1",
                                       "::ffff:127.0.0.1" };
    static const char *const public[] = {
        "0.0.0.0",    "::",          "8.8.8.8",     "126.255.255.255", "128.0.0.0",   "11.0.0.0",
        "172.15.0.1", "172.32.0.0",  "192.167.0.1", "192.169.0.0",     "169.253.0.1", "169.255.0.0",
        "::2",        "2001:db8::1", "fbff::1",     "fe00::1",         "fec0::1",     "::ffff:8.8.8.8"
    };
    for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++) {
        const struct network address = host(own[i]);
        if (network_is_public(&address))
            fail_msg("%s is public", own[i]);
    }
    for (size_t i = 0; i < sizeof(public) / sizeof(*public); i++) {
        const struct network address = host(public[i]);
        if (!network_is_public(&address))
            fail_msg("%s is not public", public[i]);
    }
}

static void test_link_local_addresses(void **state)
{
    (void)state;
    static const char *const on_link[] = { "169.254.1.1", "fe80::1", "febf:ffff::1" };
    static const char *const others[] = { "169.253.1.1", "fec0::1", "fe7f::1", "::1", "127.0.0.1", "10.0.0.1" };
    for (size_t i = 0; i < sizeof(on_link) / sizeof(*on_link); i++) {
        const struct network address = host(on_link[i]);
        assert_true(network_is_link_local(&address));
    }
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++) {
        const struct network address = host(others[i]);
        assert_false(network_is_link_local(&address));
    }
}

/* A user of this machine is an origin, and in no network. */
static void test_a_user_is_in_no_network(void **state)
{
    (void)state;
    struct network all;
    struct network all_v6;
    const struct remote root = remote_of_user(0);
    const struct remote other = remote_of_user(65536);
    assert_null(network_parse("0.0.0.0/0", &all));
    assert_null(network_parse("::/0", &all_v6));
    assert_false(network_covers(&all, &root.host) || network_covers(&all_v6, &root.host));
    assert_memory_not_equal(&root.origin, &other.origin, sizeof(root.origin));
    assert_string_equal(other.address, "unix");
    assert_int_equal(other.port, 65536);
    assert_string_equal(remote_noun(&other.origin), "user");
}

static void test_whom_to_look_for_is_an_address_a_network_or_a_user(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why;
    } wrong[] = { { "unix:", "expected unix, or unix:NUMBER of a user" },
                  { "unix1000", "expected unix, or unix:NUMBER of a user" },
                  { "unix:root", "a user's number is 0 to 4294967295" },
                  { "unix:4294967296", "a user's number is 0 to 4294967295" },
                  { "unix:18446744073709551616", "a user's number is 0 to 4294967295" },
                  { "unix:10 ", "a user's number is 0 to 4294967295" },
                  { "unit", "not an IPv4 address" } };
    const struct remote last = remote_of_user(UINT32_MAX);
    struct network wanted;
    assert_null(remote_parse("unix", &wanted));
    assert_true(network_covers(&wanted, &last.host));
    assert_null(remote_parse("unix:4294967295", &wanted));
    assert_true(network_covers(&wanted, &last.host));
    assert_null(remote_parse("unix:0", &wanted));
    assert_false(network_covers(&wanted, &last.host));
    assert_null(remote_parse("10.0.0.0/8", &wanted));
    assert_int_equal(wanted.version, 4);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
        assert_string_equal(remote_parse(wrong[i].text, &wanted), wrong[i].why);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_network_is_its_address_and_its_prefix),
        cmocka_unit_test(test_a_bare_address_is_the_network_of_just_that),
        cmocka_unit_test(test_every_prefix_is_read_and_bits_behind_it_are_refused),
        cmocka_unit_test(test_what_is_no_network_is_refused_with_the_reason),
        cmocka_unit_test(test_a_network_has_its_first_and_last_address_and_none_beside),
        cmocka_unit_test(test_ipv4_and_ipv6_are_never_in_each_other),
        cmocka_unit_test(test_an_ipv4_mapped_address_is_ipv4),
        cmocka_unit_test(test_what_is_no_ip_is_in_no_network),
        cmocka_unit_test(test_a_network_covers_the_smaller_and_not_the_larger),
        cmocka_unit_test(test_widening_clears_the_bits_behind_the_prefix),
        cmocka_unit_test(test_private_addresses_are_not_public),
        cmocka_unit_test(test_link_local_addresses),
        cmocka_unit_test(test_a_user_is_in_no_network),
        cmocka_unit_test(test_whom_to_look_for_is_an_address_a_network_or_a_user),
    };
    return cmocka_run_group_tests_name("network", tests, NULL, NULL);
}
