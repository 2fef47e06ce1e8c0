/* The endpoint on a loop: another address, one that cannot be had, what is answered before another evapid takes over,
 * and short memory. */
#include "bus/bus_rig.h"

#include "base/descriptors.h"
#include "net/address.h"
#include "web/http.h"

static struct kamailio kamailio; /* nobody has ever attached */
static struct listeners listeners;
static struct door door;
static struct turn turns;
static struct status_subject subject;

static struct config_http terms;

static const struct config_http *terms_of(const struct sockaddr_storage *address)
{
    terms.address = *address;
    return &terms;
}

static const char request[] = "GET /healthz HTTP/1.1\r\nHost: evapid\r\n\r\n";

static void prepare(void)
{
    subject = (struct status_subject){
        .bus = bus, .kamailio = &kamailio, .listeners = &listeners, .control = &door, .turn = &turns
    };
}

/* A socket at a free port of the loopback, and its address. evapid can have that port too while nobody listens. */
static int any_socket(struct sockaddr_storage *address)
{
    const int on = 1;
    socklen_t size = sizeof(*address);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    memset(address, 0, sizeof(*address));
    assert_null(address_parse("127.0.0.1:1", address));
    ((struct sockaddr_in *)address)->sin_port = 0;
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)address, address_size(address)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)address, &size), 0);
    return fd;
}

/* An address that no other process gets during the test; held until its end. */
static struct sockaddr_storage free_address(void)
{
    struct sockaddr_storage address;
    any_socket(&address);
    return address;
}

static int taken_socket(struct sockaddr_storage *address)
{
    const int fd = any_socket(address);
    assert_int_equal(listen(fd, 8), 0);
    return fd;
}

static struct http *open_at(const struct sockaddr_storage *address)
{
    const char *why = NULL;
    struct http *http = http_open(bus->loop, terms_of(address), -1, &subject, &why);
    assert_non_null(http);
    assert_null(why);
    return http;
}

/* A connection; -1: nobody listens there. */
static int visit(const struct sockaddr_storage *address)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (const struct sockaddr *)address, address_size(address)) == 0)
        return fd;
    close(fd);
    return -1;
}

static void run_some_turns(void)
{
    for (int i = 0; i < 5; i++)
        uv_run(bus->loop, UV_RUN_NOWAIT);
}

/* The answer to the request has arrived. Closes the connection. */
static void assert_answered(int fd, bool expected)
{
    char answer[1024];
    const ssize_t n = recv(fd, answer, sizeof(answer) - 1, MSG_DONTWAIT);
    answer[n > 0 ? n : 0] = '\0';
    assert_int_equal(strncmp(answer, "HTTP/1.1 200 OK\r\n", 17) == 0, expected);
    close(fd);
}

static void test_another_address_takes_the_place_of_the_first(void **state)
{
    (void)state;
    prepare();
    const struct sockaddr_storage first = free_address();
    const struct sockaddr_storage second = free_address();
    const struct sockaddr_storage none = { .ss_family = AF_UNSPEC };
    struct http *http = NULL;
    assert_null(http_reconfigure(&http, bus->loop, &none, &terms, &subject));
    assert_null(http);
    assert_null(http_reconfigure(&http, bus->loop, &first, &terms, &subject));
    struct http *const one = http;
    assert_null(http_reconfigure(&http, bus->loop, &first, &terms, &subject));
    assert_ptr_equal(http, one); /* this one stays as it is */
    assert_null(http_reconfigure(&http, bus->loop, &second, &terms, &subject));
    assert_int_equal(visit(&first), -1);
    const int fd = visit(&second);
    assert_true(fd >= 0);
    assert_int_equal(send(fd, request, sizeof(request) - 1, 0), sizeof(request) - 1);
    run_some_turns();
    assert_answered(fd, true);
    assert_null(http_reconfigure(&http, bus->loop, &none, &terms, &subject));
    assert_null(http);
    assert_int_equal(visit(&second), -1);
    run_some_turns();
}

static void test_an_address_that_cannot_be_had_leaves_the_first_as_it_is(void **state)
{
    (void)state;
    prepare();
    struct sockaddr_storage taken;
    const int other = taken_socket(&taken);
    const struct sockaddr_storage first = free_address();
    struct http *http = open_at(&first);
    struct http *const one = http;
    const char *why = http_reconfigure(&http, bus->loop, &taken, &terms, &subject);
    assert_non_null(why);
    assert_string_equal(why, "address in use");
    assert_ptr_equal(http, one);
    const int fd = visit(&first);
    assert_true(fd >= 0);
    close(fd);
    http_close(http);
    close(other);
    run_some_turns();
}

/* An accepted connection is answered even though the loop no longer runs. */
static void test_who_has_connected_is_answered_before_somebody_else_takes_over(void **state)
{
    (void)state;
    prepare();
    const struct sockaddr_storage address = free_address();
    struct http *http = open_at(&address);
    const int asks = visit(&address);
    const int says_nothing = visit(&address);
    run_some_turns();
    assert_int_equal(send(asks, request, sizeof(request) - 1, 0), sizeof(request) - 1);
    const uint64_t began_ns = uv_hrtime();
    http_drain(http);
    assert_true(uv_hrtime() - began_ns < 30000000000U); /* it does not wait for the other one */
    assert_answered(asks, true);
    assert_answered(says_nothing, false);
    http_close(http);
    run_some_turns();
}

static void test_the_socket_goes_over_under_its_name(void **state)
{
    (void)state;
    prepare();
    struct descriptors descriptors = { 0 };
    const char *why = NULL;
    assert_true(http_list_socket(NULL, &descriptors));
    const struct sockaddr_storage address = free_address();
    struct http *http = open_at(&address);
    assert_true(http_list_socket(http, &descriptors));
    const int inherited = dup(descriptors_remove(&descriptors, "metrics"));
    assert_true(inherited >= 0);
    http_close(http); /* the leaving one */
    struct http *successor = http_open(bus->loop, terms_of(&address), inherited, &subject, &why);
    assert_non_null(successor);
    const int fd = visit(&address);
    assert_true(fd >= 0);
    close(fd);
    http_close(successor);
    run_some_turns();
}

static void test_a_socket_is_told_by_its_address(void **state)
{
    (void)state;
    static const struct sockaddr_storage none;
    struct sockaddr_storage address;
    const int fd = taken_socket(&address);
    const struct sockaddr_storage other = free_address();
    assert_true(http_is_at(fd, &address));
    assert_false(http_is_at(fd, &other));
    assert_false(http_is_at(fd, &none));
    close(fd);
}

static void test_a_socket_leaves_when_its_address_is_not_wanted(void **state)
{
    (void)state;
    prepare();
    static const struct sockaddr_storage none;
    const struct sockaddr_storage address = free_address();
    const struct sockaddr_storage other = free_address();
    struct http *http = open_at(&address);
    assert_null(http_leaving(NULL, &address));
    assert_null(http_leaving(http, &address));
    assert_non_null(http_leaving(http, &other));
    assert_true(http_is_at(*http_leaving(http, &none), &address));
    http_close(http);
    run_some_turns();
}

static void test_without_memory_there_is_no_endpoint_or_no_connection(void **state)
{
    (void)state;
    prepare();
    const char *why = NULL;
    const struct sockaddr_storage address = free_address();
    memory_limit(0);
    struct http *http = http_open(bus->loop, terms_of(&address), -1, &subject, &why);
    memory_limit(-1);
    assert_null(http);
    assert_string_equal(why, "no memory");
    http = open_at(&address);
    const int refused = visit(&address);
    memory_limit(0);
    run_some_turns();
    memory_limit(-1);
    char byte = 0;
    assert_int_equal(recv(refused, &byte, 1, 0), 0);
    close(refused);
    const int fd = visit(&address);
    assert_int_equal(send(fd, request, sizeof(request) - 1, 0), sizeof(request) - 1);
    run_some_turns();
    assert_answered(fd, true);
    http_close(http);
    run_some_turns();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(test_another_address_takes_the_place_of_the_first),
        WITH_BUS(test_an_address_that_cannot_be_had_leaves_the_first_as_it_is),
        WITH_BUS(test_who_has_connected_is_answered_before_somebody_else_takes_over),
        WITH_BUS(test_the_socket_goes_over_under_its_name),
        WITH_BUS(test_a_socket_is_told_by_its_address),
        WITH_BUS(test_a_socket_leaves_when_its_address_is_not_wanted),
        WITH_BUS(test_without_memory_there_is_no_endpoint_or_no_connection),
    };
    return cmocka_run_group_tests_name("http", tests, NULL, NULL);
}
