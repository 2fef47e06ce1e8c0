/* evapid's answers to a process of Kamailio: the clients page by page, whatever their order, and as many as fit. */
#include "bus/bus_rig.h"

#include "views/answer.h"

static struct kamailio kamailio; /* nobody has ever attached */
static struct listeners listeners;

static const struct status_subject *subject(void)
{
    static struct status_subject of;
    of = (struct status_subject){ .bus = bus, .kamailio = &kamailio, .listeners = &listeners };
    return &of;
}

static unsigned char frame[WIRE_HEADER + WIRE_ANSWER_MAX];

/* An answer about clients: their indexes in its order, and the numbers beside them. */
struct page {
    uint64_t indexes[ANSWER_CLIENTS_MAX];
    unsigned count;
    uint64_t total, shown, left;
};

static void note(struct page *page, const struct answer_item *item)
{
    if (item->kind != ANSWER_NUMBER)
        return;
    if (strcmp(item->name, "index") == 0)
        page->indexes[page->count++] = item->number;
    else if (strcmp(item->name, "total") == 0)
        page->total = item->number;
    else if (strcmp(item->name, "shown") == 0)
        page->shown = item->number;
    else if (strcmp(item->name, "left") == 0)
        page->left = item->number;
}

static struct page read_page(size_t length)
{
    struct page page = { .count = 0 };
    enum wire_type type = WIRE_HELLO;
    size_t body = 0;
    assert_int_equal(wire_header(frame, length, WIRE_ANSWER_MAX, &type, &body), WIRE_FRAME);
    assert_int_equal(type, WIRE_ANSWER);
    assert_int_equal(WIRE_HEADER + body, length);
    assert_true(answer_is_good(frame + WIRE_HEADER, body));
    struct answer_reader reader = answer_reading(frame + WIRE_HEADER, body);
    struct answer_item item;
    while (answer_next(&reader, &item) == ANSWER_ITEM)
        note(&page, &item);
    assert_int_equal(page.shown, page.count);
    return page;
}

static struct page ask(uint32_t after, uint16_t limit, size_t room)
{
    const struct wire_query query = { .subject = WIRE_ASK_CLIENTS, .after = after, .limit = limit };
    const size_t length = answer_write(subject(), &query, frame, room);
    assert_true(length > 0);
    return read_page(length);
}

static int backwards(const struct client *a, const struct client *b)
{
    return a->index < b->index ? 1 : -1;
}

/* The hash has clients in order of arrival; inherited ones may have come in any order. */
static void check_pages(void)
{
    for (uint32_t after = 0; after <= 5; after++) {
        for (uint16_t limit = 0; limit <= 6; limit++) {
            const struct page page = ask(after, limit, sizeof(frame));
            const unsigned behind = 5 - after;
            assert_int_equal(page.total, 5);
            assert_int_equal(page.count, limit < behind ? limit : behind);
            assert_int_equal(page.left, behind - page.count);
            for (unsigned i = 0; i < page.count; i++)
                assert_int_equal(page.indexes[i], after + 1 + i);
        }
    }
}

static void test_clients_come_page_by_page(void **state)
{
    (void)state;
    struct peer peers[5];
    for (unsigned i = 0; i < 5; i++)
        peers[i] = open_pair();
    check_pages();
    HASH_SORT(bus->roster.clients, backwards);
    check_pages();
    for (unsigned i = 0; i < 5; i++)
        hang_up(&peers[i]);
}

/* With any room there is either no answer, or a whole one that says how many clients it leaves out. */
static void test_an_answer_takes_the_room_that_there_is(void **state)
{
    (void)state;
    struct peer peers[3];
    unsigned seen[4] = { 0 };
    for (unsigned i = 0; i < 3; i++) {
        peers[i] = open_pair();
        give_tag(&peers[i], "\x1b[31m");
    }
    const struct wire_query query = { .subject = WIRE_ASK_CLIENTS, .limit = 100 };
    const size_t whole = answer_write(subject(), &query, frame, sizeof(frame));
    for (size_t room = 0; room <= whole + 64; room++) {
        memset(frame, 0xaa, sizeof(frame));
        const size_t length = answer_write(subject(), &query, frame, room);
        assert_true(length <= room && frame[room] == 0xaa);
        if (length == 0)
            continue;
        const struct page page = read_page(length);
        assert_int_equal(page.count + page.left, 3);
        seen[page.count]++;
    }
    assert_true(seen[0] > 0 && seen[1] > 0 && seen[2] > 0 && seen[3] > 0);
    for (unsigned i = 0; i < 3; i++)
        hang_up(&peers[i]);
}

/* More listeners than fit: the answer has those that fit. */
static void test_a_status_is_good_whatever_there_is(void **state)
{
    (void)state;
    const struct sockaddr_storage address = { .ss_family = AF_INET };
    static const struct access everybody;
    struct listener *made[600];
    for (unsigned i = 0; i < 600; i++) {
        made[i] = listener_add(&listeners, &address, &raw_limits, &everybody, UINT32_MAX, LISTENER_MODULE);
        assert_true(made[i] != NULL);
    }
    const struct wire_query query = { .subject = WIRE_ASK_STATUS };
    const size_t length = answer_write(subject(), &query, frame, sizeof(frame));
    assert_in_range(length, WIRE_ANSWER_MAX - 1024, sizeof(frame));
    assert_true(answer_is_good(frame + WIRE_HEADER, length - WIRE_HEADER));
    for (unsigned i = 0; i < 600; i++)
        free(made[i]);
    listeners.first = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(test_clients_come_page_by_page),
        WITH_BUS(test_an_answer_takes_the_room_that_there_is),
        WITH_BUS(test_a_status_is_good_whatever_there_is),
    };
    return cmocka_run_group_tests_name("answering", tests, NULL, NULL);
}
