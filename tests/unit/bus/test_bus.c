/* The bus: clients come, are admitted, and get events. */
#include "bus/bus_rig.h"

/* ---- coming and being let in --------------------------------------------------------------------------------------- */

static void test_a_new_client_is_told_upstream_and_waits(void **state)
{
    (void)state;
    struct peer a = connect_tcp(&netstring_limits, 0);
    struct sockaddr_in here = { 0 };
    socklen_t size = sizeof(here);
    getsockname(a.fd, (struct sockaddr *)&here, &size);
    assert_int_equal(a.client->index, 1);
    assert_int_equal(a.client->state, CLIENT_ADMITTING);
    assert_string_equal(a.client->address, "127.0.0.1");
    assert_int_equal(a.client->port, ntohs(here.sin_port));
    assert_int_equal(up.of[1].opened, 1);
    assert_int_equal(bus->accepted, 1);
    assert_int_equal(up.admitted_calls, 0);
    struct peer b = connect_pair(&raw_limits);
    assert_int_equal(b.client->index, 2);
    assert_string_equal(b.client->address, "2001:db8::1");
    assert_int_equal(b.client->port, 4711);
    assert_ptr_equal(roster_find(bus, 1), a.client);
    assert_ptr_equal(roster_find(bus, 2), b.client);
    assert_null(roster_find(bus, 0));
    assert_null(roster_find(bus, 3));
    bus_admit(bus, b.client);
    assert_int_equal(b.client->state, CLIENT_OPEN);
    assert_int_equal(up.admitted, 1);
    bus_admit(bus, a.client);
    assert_int_equal(up.admitted, 2);
    hang_up(&a);
    hang_up(&b);
}

static void test_an_index_is_not_used_again_after_its_client(void **state)
{
    (void)state;
    for (uint32_t i = 1; i <= 10; i++) {
        struct peer a = open_client();
        assert_int_equal(a.client->index, i);
        flush_finish(bus, a.client);
        assert_null(roster_find(bus, i));
        hang_up(&a);
    }
}

static void test_indexes_begin_anew_after_the_largest_int_and_pass_over_those_in_use(void **state)
{
    (void)state;
    struct peer one = open_client();
    struct peer two = open_client();
    assert_int_equal(two.client->index, 2);
    bus->last_index = INT32_MAX;
    struct peer three = open_client();
    assert_int_equal(three.client->index, 3);
    assert_ptr_equal(roster_find(bus, 1), one.client);
    hang_up(&one);
    hang_up(&two);
    hang_up(&three);
}

static void test_a_socket_that_cannot_be_watched_is_closed(void **state)
{
    (void)state;
    struct sockaddr_storage address;
    assert_null(address_parse("127.0.0.1:1", &address));
    const struct remote remote = remote_of_address(&address);
    const int file = memfd_create("no socket", MFD_CLOEXEC);
    assert_false(bus_connect(bus, file, &remote, &netstring_limits, &listener));
    assert_int_equal(fcntl(file, F_GETFD), -1);
    assert_null(bus->roster.clients);
    assert_int_equal(bus->accepted, 0);
}

/* The upstream has no memory for it: it is closed, and the upstream never hears of it again. */
static void test_a_client_that_upstream_cannot_take_is_closed(void **state)
{
    (void)state;
    struct sockaddr_storage address;
    int ends[2];
    char byte;
    assert_null(address_parse("127.0.0.1:1", &address));
    const struct remote remote = remote_of_address(&address);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    up.refuse = true;
    assert_false(bus_connect(bus, ends[1], &remote, &netstring_limits, &listener));
    assert_int_equal(up.of[1].opened, 1);
    assert_int_equal(up.of[1].gone, 0);
    assert_null(bus->roster.clients);
    assert_int_equal(bus->accepted, 0);
    assert_int_equal(recv(ends[0], &byte, 1, MSG_DONTWAIT), 0);
    close(ends[0]);
}

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t size = sizeof(value);
    assert_int_equal(getsockopt(fd, level, name, &value, &size), 0);
    return value;
}

static void test_a_socket_gets_the_options_of_its_listener(void **state)
{
    (void)state;
    struct client_limits limits = netstring_limits;
    limits.keepalive_idle_s = 71;
    limits.keepalive_interval_s = 13;
    limits.keepalive_probes = 4;
    struct peer a = connect_tcp(&limits, 0);
    assert_int_equal(option(a.client->stream.fd, IPPROTO_TCP, TCP_NODELAY), 1);
    assert_int_equal(option(a.client->stream.fd, SOL_SOCKET, SO_KEEPALIVE), 1);
    assert_int_equal(option(a.client->stream.fd, IPPROTO_TCP, TCP_KEEPIDLE), 71);
    assert_int_equal(option(a.client->stream.fd, IPPROTO_TCP, TCP_KEEPINTVL), 13);
    assert_int_equal(option(a.client->stream.fd, IPPROTO_TCP, TCP_KEEPCNT), 4);
    limits.keepalive_idle_s = 0;
    struct peer b = connect_tcp(&limits, 0);
    assert_int_equal(option(b.client->stream.fd, IPPROTO_TCP, TCP_NODELAY), 1);
    assert_int_equal(option(b.client->stream.fd, SOL_SOCKET, SO_KEEPALIVE), 0);
    hang_up(&a);
    hang_up(&b);
}

/* ---- who gets an event --------------------------------------------------------------------------------------------- */

static void test_a_relayed_event_reaches_every_client_in_its_framing(void **state)
{
    (void)state;
    struct peer a = open_client();
    struct peer b = admitted(connect_tcp(&raw_limits, 0));
    struct peer c = open_client();
    relay("hello");
    relay("");
    relay("world, too");
    assert_receives(&a, "5:hello,0:,10:world, too,");
    assert_receives(&b, "helloworld, too");
    assert_receives(&c, "5:hello,0:,10:world, too,");
    assert_int_equal(bus->events.relay, 3);
    assert_int_equal(bus->events.no_receiver, 0);
    TURN_UNTIL(flush_is_done(bus));
    assert_int_equal(a.client->tally->delivered, 3);
    assert_int_equal(a.client->tally->delivered_bytes, 25);
    assert_int_equal(b.client->tally->delivered, 2); /* without framing an empty event has no bytes to send */
    assert_int_equal(b.client->tally->delivered_bytes, 15);
    assert_books_balance();
    hang_up(&a);
    hang_up(&b);
    hang_up(&c);
}

static void test_a_client_that_is_not_admitted_gets_nothing_also_not_later(void **state)
{
    (void)state;
    struct peer a = connect_tcp(&netstring_limits, 0);
    struct peer b = open_client();
    relay("before");
    turn();
    assert_int_equal(subscription_tally(a.client)->relayed, 0);
    bus_admit(bus, a.client);
    relay("after");
    assert_receives(&a, "5:after,");
    assert_receives(&b, "6:before,5:after,");
    hang_up(&a);
    hang_up(&b);
}

static void test_an_event_for_nobody_is_counted(void **state)
{
    (void)state;
    relay("x");
    struct peer a = connect_tcp(&netstring_limits, 0);
    relay("x");
    multicast("x", "tag");
    unicast("x", "tag");
    assert_int_equal(bus->events.no_receiver, 4);
    bus_admit(bus, a.client);
    relay("y");
    multicast("x", "tag");
    unicast("x", "tag");
    give_tag(&a, "tag");
    multicast("z", "tag");
    unicast("z", "tag");
    assert_int_equal(bus->events.no_receiver, 6);
    assert_int_equal(bus->events.relay, 3);
    assert_int_equal(bus->events.multicast, 3);
    assert_int_equal(bus->events.unicast, 3);
    assert_receives(&a, "1:y,1:z,1:z,");
    assert_int_equal(bus->totals.relayed, 3);
    hang_up(&a);
}

static void test_a_multicast_reaches_those_with_the_tag(void **state)
{
    (void)state;
    struct peer a = open_client();
    struct peer b = open_client();
    struct peer c = open_client();
    struct peer d = connect_tcp(&netstring_limits, 0);
    give_tag(&a, "x");
    give_tag(&b, "xy");
    give_tag(&c, "x");
    give_tag(&d, "x");
    multicast("1", "x");
    multicast("2", "xy");
    multicast("3", "");
    multicast("4", "X");
    relay("end");
    assert_receives(&a, "1:1,3:end,");
    assert_receives(&b, "1:2,3:end,");
    assert_receives(&c, "1:1,3:end,");
    bus_admit(bus, d.client);
    multicast("5", "x");
    assert_receives(&d, "1:5,");
    assert_int_equal(bus->events.no_receiver, 2);
    hang_up(&a);
    hang_up(&b);
    hang_up(&c);
    hang_up(&d);
}

/* The first client with the tag gets it; when that one goes, the next one does. */
static void test_a_unicast_reaches_the_first_with_the_tag(void **state)
{
    (void)state;
    struct peer a = open_client();
    struct peer b = open_client();
    struct peer c = open_client();
    give_tag(&b, "x");
    give_tag(&a, "x");
    give_tag(&c, "x");
    unicast("1", "x");
    unicast("2", "x");
    give_tag(&b, "y");
    unicast("3", "x");
    flush_finish(bus, a.client);
    unicast("4", "x");
    relay("end");
    assert_receives(&b, "1:1,1:2,3:end,");
    assert_receives(&a, "1:3,");
    assert_ends(&a);
    assert_receives(&c, "1:4,3:end,");
    hang_up(&a);
    hang_up(&b);
    hang_up(&c);
}

static void test_a_unicast_passes_over_a_client_that_is_not_admitted(void **state)
{
    (void)state;
    struct peer a = connect_tcp(&netstring_limits, 0);
    struct peer b = open_client();
    give_tag(&a, "x");
    give_tag(&b, "x");
    unicast("1", "x");
    assert_receives(&b, "1:1,");
    bus_admit(bus, a.client);
    unicast("2", "x");
    assert_receives(&a, "1:2,");
    assert_int_equal(subscription_tally(b.client)->relayed, 1);
    hang_up(&a);
    hang_up(&b);
}

static void test_a_send_reaches_the_client_of_its_index_and_nobody_else(void **state)
{
    (void)state;
    struct peer a = open_client();
    struct peer b = admitted(connect_pair(&raw_limits));
    struct peer c = open_client();
    give_tag(&a, "x");
    give_tag(&c, "x");
    assert_int_equal(send_to("1", a.client->index, NULL), 1);
    assert_int_equal(send_to("2", b.client->index, NULL), 1);
    assert_int_equal(send_to("3", a.client->index, NULL), 1);
    relay("end");
    assert_receives(&a, "1:1,1:3,3:end,");
    assert_receives(&b, "2end");
    assert_receives(&c, "3:end,");
    assert_int_equal(bus->events.send, 3);
    assert_int_equal(bus->events.no_receiver, 0);
    assert_books_balance();
    hang_up(&a);
    hang_up(&b);
    hang_up(&c);
}

static void test_a_send_to_an_index_that_nobody_has_any_more_has_no_receiver(void **state)
{
    (void)state;
    struct peer a = open_client();
    struct peer b = open_client();
    up.keep = true;
    relay("1"); /* so there is something to flush */
    flush_finish(bus, a.client);
    assert_int_equal(send_to("2", a.client->index, NULL), 0);
    TURN_UNTIL(a.client->state == CLIENT_GONE);
    assert_int_equal(send_to("3", a.client->index, NULL), 0);
    assert_int_equal(send_to("4", 0, NULL), 0);
    assert_int_equal(send_to("5", 3, NULL), 0);
    assert_int_equal(send_to("6", INT32_MAX, NULL), 0);
    relay("end");
    assert_receives(&a, "1:1,");
    assert_receives(&b, "1:1,3:end,");
    assert_int_equal(bus->events.send, 5);
    assert_int_equal(bus->events.no_receiver, 5);
    release(a.client);
    hang_up(&a);
    hang_up(&b);
}

static void test_a_tag_may_be_changed_and_taken_away(void **state)
{
    (void)state;
    struct peer a = open_client();
    give_tag(&a, "x");
    give_tag(&a, "y");
    multicast("1", "x");
    multicast("2", "y");
    give_tag(&a, "");
    multicast("3", "y");
    relay("end");
    assert_receives(&a, "1:2,3:end,");
    assert_null(a.client->tagging.tag);
    assert_int_equal(up.present_count, 4);
    assert_present(0, "x", true);
    assert_present(1, "x", false);
    assert_present(2, "y", true);
    assert_present(3, "y", false);
    hang_up(&a);
}

/* Its last routes may ask for the tag. But the client receives nothing any more, and the upstream is told so. */
static void test_a_client_keeps_its_tag_until_it_is_released(void **state)
{
    (void)state;
    up.keep = true;
    struct peer a = open_client();
    give_tag(&a, "x");
    relay("1"); /* so there is something to flush */
    flush_finish(bus, a.client);
    assert_int_equal(a.client->state, CLIENT_FLUSHING);
    assert_int_equal(up.present_count, 2);
    assert_present(1, "x", false);
    multicast("2", "x");
    unicast("3", "x");
    assert_non_null(a.client->tagging.tag);
    TURN_UNTIL(a.client->state == CLIENT_GONE);
    multicast("4", "x");
    give_tag(&a, "y");
    assert_memory_equal(a.client->tagging.tag->name, "y", 1);
    assert_int_equal(bus->events.no_receiver, 3);
    assert_receives(&a, "1:1,");
    assert_ends(&a);
    release(a.client);
    assert_null(bus->tags.tags);
    assert_int_equal(up.present_count, 2);
    hang_up(&a);
}

/* A tag is present if an event for it would reach a client: not while its client is being admitted. */
static void test_a_tag_is_present_when_its_client_gets_events(void **state)
{
    (void)state;
    struct peer a = connect_tcp(&netstring_limits, 0);
    struct peer b = open_client();
    give_tag(&a, "x");
    assert_int_equal(up.present_count, 0);
    bus_admit(bus, a.client);
    assert_int_equal(up.present_count, 1);
    assert_present(0, "x", true);
    give_tag(&b, "x");
    bus_readmit(bus, a.client);
    bus_readmit(bus, b.client);
    assert_int_equal(up.present_count, 2);
    assert_present(1, "x", false);
    bus_admit(bus, b.client);
    assert_present(2, "x", true);
    flush_finish(bus, b.client);
    assert_present(3, "x", false);
    assert_int_equal(up.present_count, 4);
    hang_up(&a);
    hang_up(&b);
}

static void test_upstream_hears_how_many_clients_get_events(void **state)
{
    (void)state;
    struct peer a = open_client();
    struct peer b = connect_tcp(&netstring_limits, 0);
    assert_int_equal(up.admitted, 1);
    bus_admit(bus, b.client);
    assert_int_equal(up.admitted, 2);
    bus_admit(bus, b.client);
    bus_readmit(bus, a.client);
    assert_int_equal(up.admitted, 1);
    bus_readmit(bus, a.client);
    assert_int_equal(up.admitted, 1);
    bus_admit(bus, a.client);
    assert_int_equal(up.admitted, 2);
    flush_finish(bus, b.client);
    assert_int_equal(up.admitted, 1);
    flush_finish(bus, a.client);
    assert_int_equal(up.admitted, 0);
    assert_int_equal(up.admitted_calls, 6);
    hang_up(&a);
    hang_up(&b);
}

/* ---- the guest: the client that a connection-new route is about --------------------------------------------------- */

static void test_a_guest_gets_what_its_own_route_issues_once_it_is_admitted(void **state)
{
    (void)state;
    struct peer guest = connect_tcp(&netstring_limits, 0);
    struct peer other = connect_tcp(&netstring_limits, 0);
    struct peer open = open_client();
    relay("0");
    relay_to("welcome", guest.client);
    relay("1");
    turn();
    turn();
    assert_int_equal(guest.client->tally->delivered, 0); /* nothing is sent before it is admitted */
    assert_int_equal(outq_events(&guest.client->out), 1);
    bus_admit(bus, guest.client);
    relay("2");
    bus_admit(bus, other.client);
    relay("3");
    assert_receives(&guest, "7:welcome,1:2,1:3,");
    assert_receives(&other, "1:3,");
    assert_receives(&open, "1:0,7:welcome,1:1,1:2,1:3,");
    assert_books_balance();
    hang_up(&guest);
    hang_up(&other);
    hang_up(&open);
}

static void test_a_guest_gets_multicast_and_unicast_by_its_tag(void **state)
{
    (void)state;
    struct peer guest = connect_tcp(&netstring_limits, 0);
    struct peer other = connect_tcp(&netstring_limits, 0);
    multicast_to("0", "x", guest.client);
    give_tag(&other, "x");
    give_tag(&guest, "x");
    multicast_to("1", "x", guest.client);
    unicast_to("2", "x", guest.client);
    multicast_to("3", "y", guest.client);
    multicast("4", "x");
    unicast("5", "x");
    bus_admit(bus, guest.client);
    bus_admit(bus, other.client);
    relay("end");
    assert_receives(&guest, "1:1,1:2,3:end,");
    assert_receives(&other, "3:end,");
    assert_int_equal(bus->events.no_receiver, 4);
    hang_up(&guest);
    hang_up(&other);
}

static void test_a_guest_gets_what_is_sent_to_it_by_its_own_route_only(void **state)
{
    (void)state;
    struct peer guest = connect_tcp(&netstring_limits, 0);
    struct peer other = connect_tcp(&netstring_limits, 0);
    assert_int_equal(send_to("0", guest.client->index, NULL), 0);
    assert_int_equal(send_to("1", guest.client->index, guest.client), 1);
    assert_int_equal(send_to("2", guest.client->index, other.client), 0);
    assert_int_equal(send_to("3", other.client->index, guest.client), 0);
    bus_admit(bus, guest.client);
    bus_admit(bus, other.client);
    relay("end");
    assert_receives(&guest, "1:1,3:end,");
    assert_receives(&other, "3:end,");
    assert_int_equal(bus->events.no_receiver, 3);
    assert_books_balance();
    hang_up(&guest);
    hang_up(&other);
}

static void test_a_guest_that_gets_events_anyway_gets_them_once(void **state)
{
    (void)state;
    struct peer a = open_client();
    give_tag(&a, "x");
    relay_to("1", a.client);
    multicast_to("2", "x", a.client);
    unicast_to("3", "x", a.client);
    send_to("4", a.client->index, a.client);
    relay("end");
    assert_receives(&a, "1:1,1:2,1:3,1:4,3:end,");
    hang_up(&a);
}

static void test_a_guest_that_is_refused_sees_nothing(void **state)
{
    (void)state;
    struct peer guest = connect_tcp(&netstring_limits, 0);
    relay_to("secret", guest.client);
    flush_finish(bus, guest.client);
    assert_int_equal(up.of[1].gone, 1);
    assert_ends(&guest);
    assert_int_equal(bus->totals.dropped[DROP_CLOSED], 1);
    assert_int_equal(bus->totals.delivered, 0);
    hang_up(&guest);
}

/* ---- being held back once more: Kamailio has been restarted ------------------------------------------------------- */

static void test_a_client_held_back_gets_nothing_and_is_not_read(void **state)
{
    (void)state;
    struct peer a = open_pair();
    relay("1");
    bus_readmit(bus, a.client);
    assert_int_equal(a.client->state, CLIENT_ADMITTING);
    relay("2");
    send_text(&a, "3:abc,");
    for (int i = 0; i < 5; i++)
        turn();
    assert_int_equal(up.of[1].messages, 0);
    assert_int_equal(a.client->tally->delivered, 0);
    bus_admit(bus, a.client);
    relay("3");
    assert_receives(&a, "1:1,1:3,"); /* what it was given before, and what came later */
    TURN_UNTIL(up.of[1].messages == 1);
    assert_books_balance();
    hang_up(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(test_a_new_client_is_told_upstream_and_waits),
        WITH_BUS(test_an_index_is_not_used_again_after_its_client),
        WITH_BUS(test_indexes_begin_anew_after_the_largest_int_and_pass_over_those_in_use),
        WITH_BUS(test_a_socket_that_cannot_be_watched_is_closed),
        WITH_BUS(test_a_client_that_upstream_cannot_take_is_closed),
        WITH_BUS(test_a_socket_gets_the_options_of_its_listener),
        WITH_BUS(test_a_relayed_event_reaches_every_client_in_its_framing),
        WITH_BUS(test_a_client_that_is_not_admitted_gets_nothing_also_not_later),
        WITH_BUS(test_an_event_for_nobody_is_counted),
        WITH_BUS(test_a_multicast_reaches_those_with_the_tag),
        WITH_BUS(test_a_unicast_reaches_the_first_with_the_tag),
        WITH_BUS(test_a_unicast_passes_over_a_client_that_is_not_admitted),
        WITH_BUS(test_a_send_reaches_the_client_of_its_index_and_nobody_else),
        WITH_BUS(test_a_send_to_an_index_that_nobody_has_any_more_has_no_receiver),
        WITH_BUS(test_a_tag_may_be_changed_and_taken_away),
        WITH_BUS(test_a_client_keeps_its_tag_until_it_is_released),
        WITH_BUS(test_a_tag_is_present_when_its_client_gets_events),
        WITH_BUS(test_upstream_hears_how_many_clients_get_events),
        WITH_BUS(test_a_guest_gets_what_its_own_route_issues_once_it_is_admitted),
        WITH_BUS(test_a_guest_gets_multicast_and_unicast_by_its_tag),
        WITH_BUS(test_a_guest_gets_what_is_sent_to_it_by_its_own_route_only),
        WITH_BUS(test_a_guest_that_gets_events_anyway_gets_them_once),
        WITH_BUS(test_a_guest_that_is_refused_sees_nothing),
        WITH_BUS(test_a_client_held_back_gets_nothing_and_is_not_read),
    };
    return cmocka_run_group_tests_name("bus", tests, NULL, NULL);
}
