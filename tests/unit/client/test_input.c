/* The bus: what clients send, and how they end. */
#include "bus/bus_rig.h"

/* ---- how a peer goes ----------------------------------------------------------------------------------------------- */

static void test_a_peer_that_half_closes_still_gets_its_answers(void **state)
{
    (void)state;
    struct peer a = open_client();
    give_tag(&a, "x");
    send_text(&a, "5:hello,3:bye,");
    shutdown(a.fd, SHUT_WR);
    TURN_UNTIL(up.of[1].ended == 1);
    assert_int_equal(up.of[1].messages, 2);
    assert_int_equal(a.client->state, CLIENT_FINISHING);
    relay("1");
    multicast("2", "x");
    unicast("3", "x");
    assert_receives(&a, "1:1,1:2,1:3,");
    relay("4");
    flush_finish(bus, a.client);
    assert_receives(&a, "1:4,");
    assert_ends(&a);
    assert_int_equal(up.of[1].ended, 1);
    assert_int_equal(up.of[1].gone, 1);
    hang_up(&a);
}

/* The host may close the client in the very callback that reports the end of its input. */
static void test_a_client_may_be_closed_when_its_input_ends(void **state)
{
    (void)state;
    static const char *const inputs[] = { "", "5:hello,", "5:hel", "x", "5:hello,x", "5:hello,3:bye,0", "5:hello,05" };
    up.finish_ended = true;
    for (size_t i = 0; i < sizeof(inputs) / sizeof(*inputs); i++)
        for (size_t cut = 0; cut <= strlen(inputs[i]); cut++) {
            bus->last_index = 0;
            free(up.of[1].heard);
            memset(&up.of[1], 0, sizeof(up.of[1]));
            struct peer a = open_pair();
            send_bytes(&a, inputs[i], cut);
            turn();
            turn();
            if (cut < strlen(inputs[i])) /* after the last byte the client may already be closed */
                send_text(&a, inputs[i] + cut);
            shutdown(a.fd, SHUT_WR);
            TURN_UNTIL(up.of[1].gone == 1);
            assert_int_equal(up.of[1].ended, 1);
            assert_ends(&a);
            hang_up(&a);
            assert_int_equal(bus->totals.messages_dropped[LOSS_CLOSED], 0); /* the host got every complete message */
        }
}

static void test_a_peer_that_resets_ends_its_client(void **state)
{
    (void)state;
    struct peer a = open_client();
    struct peer b = open_client();
    send_text(&a, "5:hello,");
    TURN_UNTIL(up.of[1].messages == 1);
    reset(&a);
    TURN_UNTIL(up.of[1].ended == 1);
    for (int i = 0; i < 10; i++) {
        relay("x");
        turn();
    }
    assert_receives(&b, "1:x,1:x,1:x,1:x,1:x,1:x,1:x,1:x,1:x,1:x,");
    assert_books_balance();
    flush_finish(bus, a.client);
    TURN_UNTIL(up.of[1].gone == 1);
    assert_int_equal(up.of[1].ended, 1);
    assert_books_balance();
    hang_up(&b);
}

static void test_a_peer_that_resets_with_much_queued_ends_its_client(void **state)
{
    (void)state;
    struct peer a = far_behind();
    assert_true(a.client->output.blocked);
    reset(&a);
    TURN_UNTIL(up.of[1].ended == 1 && outq_is_empty(&a.client->out));
    assert_int_equal(bus->totals.relayed, 8);
    assert_int_equal(bus->totals.delivered + bus->totals.dropped[DROP_CLOSED], 8);
    assert_books_balance();
    flush_finish(bus, a.client);
    assert_int_equal(up.of[1].gone, 1);
}

/* If the peer resets, evapid closes the client at once. It does not wait for the deadline. */
static void test_a_peer_that_resets_while_it_is_flushed_is_gone(void **state)
{
    (void)state;
    struct peer a = admitted(connect_tcp(&netstring_limits, 4096));
    const struct payload event = big_event(8 << 20, 'x');
    give_relay(bus, &event, NULL);
    turn();
    flush_finish(bus, a.client);
    assert_int_equal(a.client->state, CLIENT_FLUSHING);
    reset(&a);
    TURN_UNTIL(up.of[1].gone == 1);
    assert_int_equal(bus->totals.dropped[DROP_CLOSED], 1);
}

static void test_a_peer_that_hangs_up_before_its_admission_ends_its_client(void **state)
{
    (void)state;
    struct peer a = connect_tcp(&netstring_limits, 0);
    hang_up(&a);
    TURN_UNTIL(up.of[1].ended == 1);
    assert_false(uv_is_active((const uv_handle_t *)&a.client->poll)); /* else libuv reports it in every turn */
    bus_admit(bus, a.client);
    assert_int_equal(a.client->state, CLIENT_FINISHING);
    flush_finish(bus, a.client);
    assert_int_equal(up.of[1].gone, 1);
}

/* After the client's admission, the host gets the messages sent before it, and then the end of input. */
static void test_messages_sent_before_a_hang_up_wait_for_the_admission(void **state)
{
    (void)state;
    struct peer a = connect_tcp(&netstring_limits, 0);
    send_text(&a, "5:hello,3:bye,");
    hang_up(&a);
    for (int i = 0; i < 50; i++)
        turn();
    assert_int_equal(up.of[1].ended, 0);
    assert_false(uv_is_active((const uv_handle_t *)&a.client->poll));
    bus_admit(bus, a.client);
    TURN_UNTIL(up.of[1].ended == 1);
    assert_int_equal(up.of[1].messages, 2);
    flush_finish(bus, a.client);
}

/* ---- messages ------------------------------------------------------------------------------------------------------ */

static const char stream[] = "5:hello,0:, \r\n\t1:x,12:0123456789\n,,\n10:a:b,1:c,d,,   3:end,";
static const char stream_messages[] = "hello||x|0123456789\n,|a:b,1:c,d,|end";

#define STREAM_MESSAGES 6

/* Run turns until evapid has read so many bytes. A socket pair delivers bytes as soon as they are sent. */
static void let_read(const struct peer *peer, size_t sent)
{
    TURN_UNTIL(peer->client->input.offset + peer->client->input.end - peer->client->input.start == sent);
}

static void test_messages_are_found_whatever_pieces_they_come_in(void **state)
{
    (void)state;
    const size_t length = sizeof(stream) - 1;
    for (size_t first = 1; first < length; first++) {
        for (size_t second = 0; second <= 1; second++) { /* two pieces; then three, the middle one a single byte */
            bus->last_index = 0;
            free(up.of[1].heard);
            memset(&up.of[1], 0, sizeof(up.of[1]));
            struct peer a = open_pair();
            send_bytes(&a, stream, first);
            let_read(&a, first);
            if (second > 0) {
                send_bytes(&a, stream + first, second);
                let_read(&a, first + second);
            }
            send_bytes(&a, stream + first + second, length - first - second);
            let_read(&a, length);
            assert_heard(1, stream_messages);
            assert_int_equal(a.client->tally->messages, STREAM_MESSAGES);
            assert_int_equal(a.client->tally->message_bytes, strlen(stream_messages) - (STREAM_MESSAGES - 1));
            assert_null(a.client->input.bytes); /* no buffer is kept when nothing is left */
            assert_int_equal(a.client->state, CLIENT_OPEN);
            hang_up(&a);
            TURN_UNTIL(up.of[1].ended == 1);
            flush_finish(bus, a.client);
        }
    }
}

static void test_messages_are_found_byte_by_byte(void **state)
{
    (void)state;
    struct peer a = open_pair();
    for (size_t i = 0; i < sizeof(stream) - 1; i++) {
        send_bytes(&a, stream + i, 1);
        let_read(&a, i + 1);
    }
    assert_heard(1, stream_messages);
    hang_up(&a);
}

static void test_messages_may_hold_any_bytes(void **state)
{
    (void)state;
    char message[256 + 5] = "256:";
    struct peer a = open_pair();
    for (unsigned i = 0; i < 256; i++)
        message[4 + i] = (char)i;
    message[260] = ',';
    send_bytes(&a, message, sizeof(message));
    TURN_UNTIL(up.of[1].messages == 1);
    uint32_t length;
    memcpy(&length, up.of[1].heard, sizeof(length));
    assert_int_equal(length, 256);
    assert_memory_equal(up.of[1].heard + sizeof(length), message + 4, 256);
    hang_up(&a);
}

static void test_raw_input_is_handed_on_as_it_comes(void **state)
{
    (void)state;
    struct peer a = admitted(connect_pair(&raw_limits));
    static const char *const pieces[] = { "x", "5:hello,", "\n", "last" };
    for (size_t i = 0; i < 4; i++) {
        send_text(&a, pieces[i]);
        TURN_UNTIL(up.of[1].messages == i + 1);
    }
    assert_heard(1, "x|5:hello,|\n|last");
    hang_up(&a);
}

static void test_a_piece_of_raw_input_is_no_longer_than_a_message_may_be(void **state)
{
    (void)state;
    struct client_limits limits = raw_limits;
    limits.max_message_bytes = 4;
    struct peer a = admitted(connect_pair(&limits));
    send_text(&a, "abcdefghij");
    TURN_UNTIL(up.of[1].messages == 3);
    assert_heard(1, "abcd|efgh|ij");
    hang_up(&a);
}

/* Some messages are larger than one read, and than the room that a message gets first. Each has others around it. */
static void test_messages_of_any_size_up_to_the_limit_come_whole(void **state)
{
    (void)state;
    static const size_t sizes[] = { 1, 4095, 4096, 4097, 65535, 65536, 65537, 100000, 1 << 20 };
    static char frame[(1 << 20) + 16];
    struct peer a = open_pair();
    const int buffer = 4 << 20;
    setsockopt(a.fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        const size_t head = (size_t)snprintf(frame, sizeof(frame), "%zu:", sizes[i]);
        memset(frame + head, (int)('a' + i), sizes[i]);
        frame[head + sizes[i]] = ',';
        up.of[1].heard_length = up.of[1].messages = 0;
        send_text(&a, "3:one,");
        for (size_t sent = 0; sent < head + sizes[i] + 1;) {
            const ssize_t n = send(a.fd, frame + sent, head + sizes[i] + 1 - sent, MSG_DONTWAIT);
            if (n > 0)
                sent += (size_t)n;
            turn();
        }
        send_text(&a, "3:two,");
        TURN_UNTIL(up.of[1].messages == 3);
        const char *heard = up.of[1].heard;
        assert_int_equal(up.of[1].heard_length, 4 + 3 + 4 + sizes[i] + 4 + 3);
        assert_memory_equal(heard + 4, "one", 3);
        assert_memory_equal(heard + 4 + 3 + 4, frame + head, sizes[i]);
        assert_memory_equal(heard + 4 + 3 + 4 + sizes[i] + 4, "two", 3);
    }
    hang_up(&a);
}

/* Memory grows with the bytes received, not with the length announced. */
static void test_an_announced_length_takes_no_memory(void **state)
{
    (void)state;
    struct peer a = open_pair();
    send_text(&a, "1000000:abc");
    let_read(&a, 11);
    assert_true(a.client->input.room <= 8192);
    hang_up(&a);
}

/* ---- malformed input ----------------------------------------------------------------------------------------------- */

/* Write standard error to a file until end_catch. */
static int caught_file, real_stderr;

static void begin_catch(void)
{
    caught_file = memfd_create("stderr", MFD_CLOEXEC);
    real_stderr = dup(STDERR_FILENO);
    fflush(stderr);
    dup2(caught_file, STDERR_FILENO);
    log_open(LEVEL_WARNING); /* the log may have opened a pipe or terminal of its own */
}

static const char *end_catch(void)
{
    static char text[4096];
    fflush(stderr);
    dup2(real_stderr, STDERR_FILENO);
    log_open(LEVEL_WARNING);
    const ssize_t n = pread(caught_file, text, sizeof(text) - 1, 0);
    close(real_stderr);
    close(caught_file);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

static const struct {
    const char *input, *heard, *where; /* where: a part of the log line, which says what is wrong and where */
} malformed[] = {
    { "x", "", "at byte 0 of its stream (0x78): a length in decimal digits and a colon was expected" },
    { ":,", "", "at byte 0 of its stream (0x3a): a length in decimal digits and a colon was expected" },
    { "5:hello,\n3:abc,\x01", "hello|abc", "at byte 15 of its stream (0x01): a length in decimal digits" },
    { "5:hello,000000000000000000005:hello,", "hello",
      "at byte 28 of its stream (0x35): the length has over 20 digits" },
    { "5:hello,  1048577:", "hello", "at byte 10 of its stream (0x31): the length is over the limit (limit 1048576" },
    { "5:hello,3:abcd,", "hello", "at byte 13 of its stream (0x64): no comma after the payload" },
};

#define MALFORMED (sizeof(malformed) / sizeof(*malformed))

static void test_malformed_input_ends_the_client_and_the_log_says_where(void **state)
{
    (void)state;
    struct peer healthy = open_pair();
    for (size_t i = 0; i < MALFORMED; i++) {
        const uint32_t index = (uint32_t)i + 2;
        struct peer a = open_pair();
        begin_catch();
        for (size_t sent = 0; malformed[i].input[sent] != '\0'; sent++) { /* positions count from the stream's start */
            send_bytes(&a, malformed[i].input + sent, 1);
            turn();
            turn();
        }
        const char *line = end_catch();
        assert_int_equal(up.of[index].ended, 1);
        assert_heard(index, malformed[i].heard);
        if (strstr(line, malformed[i].where) == NULL || strstr(line, "client ") == NULL)
            fail_msg("%s: %s", malformed[i].input, line);
        assert_int_equal(a.client->state, CLIENT_FINISHING);
        flush_finish(bus, a.client);
        assert_ends(&a);
        hang_up(&a);
    }
    relay("still here");
    send_text(&healthy, "2:me,");
    assert_receives(&healthy, "10:still here,");
    TURN_UNTIL(up.of[1].messages == 1);
    assert_int_equal(up.of[1].ended, 0);
    hang_up(&healthy);
}

static void test_malformed_input_in_any_two_pieces_ends_the_same_way(void **state)
{
    (void)state;
    for (size_t i = 0; i < MALFORMED; i++)
        for (size_t cut = 0; cut < strlen(malformed[i].input); cut++) {
            bus->last_index = 0;
            free(up.of[1].heard);
            memset(&up.of[1], 0, sizeof(up.of[1]));
            struct peer a = open_pair();
            send_bytes(&a, malformed[i].input, cut);
            if (cut > 0)
                let_read(&a, cut);
            send_text(&a, malformed[i].input + cut);
            send_text(&a, "3:not,");
            TURN_UNTIL(up.of[1].ended == 1);
            turn();
            assert_heard(1, malformed[i].heard);
            assert_int_equal(up.of[1].ended, 1);
            flush_finish(bus, a.client);
            hang_up(&a);
        }
}

/* A length of 5 is accepted, and a length of 6 is an error. */
static void test_a_message_s_limit_is_to_the_byte(void **state)
{
    (void)state;
    struct client_limits limits = netstring_limits;
    limits.max_message_bytes = 5;
    struct peer a = admitted(connect_pair(&limits));
    send_text(&a, "5:hello,");
    TURN_UNTIL(up.of[1].messages == 1);
    send_text(&a, "6:");
    TURN_UNTIL(up.of[1].ended == 1);
    hang_up(&a);
}

/* ---- messages that the host refuses ---------------------------------------------------------------------------------- */

static void test_a_message_that_the_host_refuses_is_kept_and_comes_first(void **state)
{
    (void)state;
    struct peer a = open_pair();
    up.take = 2;
    send_text(&a, "1:a,1:b,1:c,1:d,1:e,");
    TURN_UNTIL(up.of[1].refused == 1);
    assert_true(client_has_waiting(a.client));
    assert_heard(1, "a|b");
    for (int i = 0; i < 10; i++)
        turn();
    assert_int_equal(up.of[1].refused, 1); /* evapid does not offer the message again by itself */
    up.take = 1;
    client_resume(a.client);
    assert_true(client_has_waiting(a.client));
    assert_heard(1, "a|b|c");
    assert_int_equal(a.client->tally->messages, 3);
    up.take = -1;
    client_resume(a.client);
    assert_false(client_has_waiting(a.client));
    assert_heard(1, "a|b|c|d|e");
    send_text(&a, "1:f,");
    TURN_UNTIL(up.of[1].messages == 6);
    assert_heard(1, "a|b|c|d|e|f");
    hang_up(&a);
}

/* evapid stops reading, so TCP holds the sender back. */
static void test_a_client_with_a_waiting_message_is_not_read(void **state)
{
    (void)state;
    char chunk[10000] = "9990:";
    memset(chunk + 5, 'x', 9990);
    chunk[9995] = ',';
    struct peer a = open_pair();
    size_t sent = 0;
    up.take = 0;
    for (int full = 0; full < 20;) {
        const ssize_t n = send(a.fd, chunk + sent % 9996, 9996 - sent % 9996, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0)
            sent += (size_t)n;
        else
            full++;
        turn();
    }
    assert_int_equal(up.of[1].refused, 1);
    assert_true(a.client->input.end <= CLIENT_SCRATCH);
    assert_true(sent > a.client->input.end); /* the rest is in the kernel */
    up.take = -1;
    client_resume(a.client);
    TURN_UNTIL(up.of[1].messages == sent / 9996);
    hang_up(&a);
}

static void test_events_reach_a_client_with_a_waiting_message(void **state)
{
    (void)state;
    struct peer a = open_pair();
    up.take = 0;
    send_text(&a, "1:a,");
    TURN_UNTIL(up.of[1].refused == 1);
    relay("hello");
    assert_receives(&a, "5:hello,");
    hang_up(&a);
}

/* The host gets every message once and in order, however few it accepts at a time, and however they are cut. */
static void test_messages_come_in_order_and_once_however_they_are_accepted(void **state)
{
    (void)state;
    enum { MESSAGES = 3000 };
    unsigned seed = 11;
    for (int framed = 0; framed < 3; framed++) {
        static char input[MESSAGES * 16];
        size_t length = 0;
        const uint32_t index = (uint32_t)framed + 1;
        struct peer a = open_pair();
        for (unsigned n = 0; n < MESSAGES; n++)
            length += (size_t)snprintf(input + length, 16, "6:%06u,", n);
        size_t sent = 0;
        while (up.of[index].messages < MESSAGES) {
            size_t piece = (size_t)rand_r(&seed) % (framed == 0 ? 7 : framed == 1 ? 100 : 5000);
            piece = piece > length - sent ? length - sent : piece;
            if (piece > 0) {
                const ssize_t n = send(a.fd, input + sent, piece, MSG_DONTWAIT);
                sent += n > 0 ? (size_t)n : 0;
            }
            up.take = rand_r(&seed) % 12;
            turn();
            if (client_has_waiting(a.client))
                client_resume(a.client);
            if (rand_r(&seed) % 50 == 0) {
                bus_readmit(bus, a.client);
                turn();
                bus_admit(bus, a.client);
            }
        }
        for (unsigned n = 0; n < MESSAGES; n++) {
            char expected[16];
            snprintf(expected, sizeof(expected), "%06u", n);
            assert_memory_equal(up.of[index].heard + n * 10 + 4, expected, 6);
        }
        assert_int_equal(a.client->tally->messages, MESSAGES);
        assert_int_equal(a.client->tally->messages_dropped[LOSS_CLOSED], 0);
        hang_up(&a);
    }
}

static void test_raw_input_that_the_host_refuses_is_kept_too(void **state)
{
    (void)state;
    struct peer a = admitted(connect_pair(&raw_limits));
    up.take = 0;
    send_text(&a, "abc");
    TURN_UNTIL(up.of[1].refused == 1);
    send_text(&a, "def");
    turn();
    client_resume(a.client);
    assert_int_equal(up.of[1].refused, 2);
    up.take = -1;
    client_resume(a.client);
    assert_heard(1, "abc");
    TURN_UNTIL(up.of[1].messages == 2);
    assert_heard(1, "abc|def");
    hang_up(&a);
}

/* The host hears of the end after it has accepted the waiting messages. */
static void test_the_end_of_input_comes_after_waiting_messages(void **state)
{
    (void)state;
    struct peer a = open_pair();
    up.take = 1;
    send_text(&a, "1:a,1:b,1:c,");
    hang_up(&a);
    TURN_UNTIL(up.of[1].refused == 1);
    for (int i = 0; i < 10; i++)
        turn();
    assert_int_equal(up.of[1].ended, 0);
    up.take = -1;
    client_resume(a.client);
    TURN_UNTIL(up.of[1].ended == 1);
    assert_heard(1, "a|b|c");
}

/* The client was disconnected because it read too slowly. The host can still get what it sent. */
static void test_messages_of_a_client_that_has_gone_still_reach_the_host(void **state)
{
    (void)state;
    struct peer a = open_pair();
    up.keep = true;
    up.take = 0;
    send_text(&a, "1:a,1:b,1:c,");
    TURN_UNTIL(up.of[1].refused == 1);
    client_drop(a.client, DROP_SLOW);
    assert_int_equal(up.of[1].gone, 1);
    assert_true(client_has_waiting(a.client));
    up.take = 2;
    client_resume(a.client);
    assert_heard(1, "a|b");
    assert_int_equal(bus->totals.messages_dropped[LOSS_CLOSED], 0);
    release(a.client); /* Kamailio is gone for good: the third message is lost, and counted */
    assert_int_equal(bus->totals.messages_dropped[LOSS_CLOSED], 1);
    assert_int_equal(bus->totals.messages, 3);
    assert_int_equal(bus->totals.message_bytes, 3);
    hang_up(&a);
}

static void test_messages_that_a_close_drops_are_counted(void **state)
{
    (void)state;
    struct peer a = open_pair();
    struct peer b = admitted(connect_pair(&raw_limits));
    up.take = 1;
    send_text(&a, "1:a,1:b,1:c,5:hel"); /* the last message is incomplete and does not count */
    TURN_UNTIL(up.of[1].refused == 1);
    flush_finish(bus, a.client);
    assert_int_equal(bus->totals.messages, 3);
    assert_int_equal(bus->totals.message_bytes, 3);
    assert_int_equal(bus->totals.messages_dropped[LOSS_CLOSED], 2);
    assert_int_equal(tally_messages_waiting(&bus->totals), 1);
    send_text(&b, "abc");
    TURN_UNTIL(up.of[2].refused == 1);
    flush_finish(bus, b.client);
    assert_int_equal(bus->totals.messages_dropped[LOSS_CLOSED], 3);
    assert_int_equal(bus->totals.message_bytes, 6);
    assert_int_equal(tally_messages_waiting(&bus->totals), 1);
    hang_up(&a);
    hang_up(&b);
}

/* Without memory to keep a message, evapid drops it, counts it and ends the client's input. */
static void test_messages_that_there_is_no_memory_to_keep_are_counted(void **state)
{
    (void)state;
    struct peer a = open_pair();
    struct peer b = admitted(connect_pair(&raw_limits));
    send_text(&a, "1:z,");
    TURN_UNTIL(up.of[1].messages == 1);
    up.take = 1;
    memory_limit(0);
    send_text(&a, "1:a,2:bb,3:ccc,5:hel");
    TURN_UNTIL(up.of[1].ended == 1);
    send_text(&b, "abcd");
    TURN_UNTIL(up.of[2].ended == 1);
    memory_limit(-1);
    assert_heard(1, "z|a");
    assert_false(client_has_waiting(a.client) || client_has_waiting(b.client));
    assert_int_equal(a.client->tally->messages, 4);
    assert_int_equal(a.client->tally->message_bytes, 7);
    assert_int_equal(a.client->tally->messages_dropped[LOSS_MEMORY], 2);
    assert_int_equal(b.client->tally->messages_dropped[LOSS_MEMORY], 1);
    assert_int_equal(b.client->tally->message_bytes, 4);
    assert_books_balance();
    assert_int_equal(tally_messages_waiting(&bus->totals), 2);
    books_count_route(a.client); /* a message's route has ended */
    assert_int_equal(tally_messages_waiting(&bus->totals), 1);
    hang_up(&a);
    hang_up(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(test_a_peer_that_half_closes_still_gets_its_answers),
        WITH_BUS(test_a_client_may_be_closed_when_its_input_ends),
        WITH_BUS(test_a_peer_that_resets_ends_its_client),
        WITH_BUS(test_a_peer_that_resets_with_much_queued_ends_its_client),
        WITH_BUS(test_a_peer_that_resets_while_it_is_flushed_is_gone),
        WITH_BUS(test_a_peer_that_hangs_up_before_its_admission_ends_its_client),
        WITH_BUS(test_messages_sent_before_a_hang_up_wait_for_the_admission),
        WITH_BUS(test_messages_are_found_whatever_pieces_they_come_in),
        WITH_BUS(test_messages_are_found_byte_by_byte),
        WITH_BUS(test_messages_may_hold_any_bytes),
        WITH_BUS(test_raw_input_is_handed_on_as_it_comes),
        WITH_BUS(test_a_piece_of_raw_input_is_no_longer_than_a_message_may_be),
        WITH_BUS(test_messages_of_any_size_up_to_the_limit_come_whole),
        WITH_BUS(test_an_announced_length_takes_no_memory),
        WITH_BUS(test_malformed_input_ends_the_client_and_the_log_says_where),
        WITH_BUS(test_malformed_input_in_any_two_pieces_ends_the_same_way),
        WITH_BUS(test_a_message_s_limit_is_to_the_byte),
        WITH_BUS(test_a_message_that_the_host_refuses_is_kept_and_comes_first),
        WITH_BUS(test_a_client_with_a_waiting_message_is_not_read),
        WITH_BUS(test_events_reach_a_client_with_a_waiting_message),
        WITH_BUS(test_messages_come_in_order_and_once_however_they_are_accepted),
        WITH_BUS(test_raw_input_that_the_host_refuses_is_kept_too),
        WITH_BUS(test_the_end_of_input_comes_after_waiting_messages),
        WITH_BUS(test_messages_of_a_client_that_has_gone_still_reach_the_host),
        WITH_BUS(test_messages_that_a_close_drops_are_counted),
        WITH_BUS(test_messages_that_there_is_no_memory_to_keep_are_counted),
    };
    return cmocka_run_group_tests_name("bus, input", tests, NULL, NULL);
}
