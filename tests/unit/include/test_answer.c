/* Answers: writing, reading, and bytes that are no answer. */
#include "include/wire_rig.h"

#include "evapid/answer.h"

static unsigned char written[4096];

/* The length of the body that c has written. */
static size_t body_of(const struct wire_cursor *c)
{
    assert_false(c->failed);
    return (size_t)(c->at - written);
}

static struct wire_cursor writing(void)
{
    return (struct wire_cursor){ .at = written, .end = written + sizeof(written) };
}

static bool is_good(const void *bytes, size_t length)
{
    return answer_is_good(at_the_end(bytes, length), length);
}

/* version = "0.1", workers = [ { pid = 258 }, {} ]. */
static const unsigned char example[] = "\x04\x07"
                                       "version\x03\0"
                                       "0.1"
                                       "\x02\x07"
                                       "workers"
                                       "\x01\0"
                                       "\x03\x03pid\x02\x01\0\0\0\0\0\0"
                                       "\0"
                                       "\x01\0"
                                       "\0"
                                       "\0";

static size_t write_example(void)
{
    struct wire_cursor c = writing();
    answer_put_text(&c, "version", "0.1", 3);
    answer_put_list(&c, "workers");
    answer_put_struct(&c, "");
    answer_put_number(&c, "pid", 258);
    answer_put_end(&c);
    answer_put_struct(&c, "");
    answer_put_end(&c);
    answer_put_end(&c);
    return body_of(&c);
}

static void test_the_bytes_of_an_answer(void **state)
{
    (void)state;
    assert_int_equal(write_example(), sizeof(example) - 1);
    assert_memory_equal(written, example, sizeof(example) - 1);
}

static void expect(struct answer_reader *reader, enum answer_kind kind, const char *name)
{
    struct answer_item item;
    assert_int_equal(answer_next(reader, &item), ANSWER_ITEM);
    assert_int_equal(item.kind, kind);
    assert_string_equal(item.name, name);
    if (kind == ANSWER_NUMBER)
        assert_true(item.number == 258);
    if (kind == ANSWER_TEXT)
        assert_text(item.text, TEXT("0.1"));
}

static void test_an_answer_comes_back(void **state)
{
    (void)state;
    const size_t length = sizeof(example) - 1;
    struct answer_item item;
    struct answer_reader reader = answer_reading(at_the_end(example, length), length);
    expect(&reader, ANSWER_TEXT, "version");
    expect(&reader, ANSWER_LIST, "workers");
    expect(&reader, ANSWER_STRUCT, "");
    expect(&reader, ANSWER_NUMBER, "pid");
    expect(&reader, ANSWER_END, "");
    expect(&reader, ANSWER_STRUCT, "");
    expect(&reader, ANSWER_END, "");
    expect(&reader, ANSWER_END, "");
    assert_int_equal(answer_next(&reader, &item), ANSWER_OVER);
    assert_true(is_good(example, length));
    assert_true(is_good("", 0));
}

/* Cut after its first item it is a shorter answer. Cut anywhere else it is none. */
static void test_an_answer_cut_at_every_byte(void **state)
{
    (void)state;
    for (size_t length = 1; length < sizeof(example) - 1; length++)
        assert_int_equal(is_good(example, length), length == 14);
}

static void test_bytes_that_could_do_harm_are_written_as_digits(void **state)
{
    (void)state;
    struct wire_cursor c = writing();
    answer_put_text(&c, "tag", "a\0\x1b\\\x7f\xff z", 8);
    const size_t length = body_of(&c);
    struct answer_item item;
    struct answer_reader reader = answer_reading(at_the_end(written, length), length);
    assert_int_equal(answer_next(&reader, &item), ANSWER_ITEM);
    assert_text(item.text, TEXT("a\\x00\\x1b\\x5c\\x7f\\xff z"));
}

static void test_a_long_text_ends_between_two_of_its_bytes(void **state)
{
    (void)state;
    static const char plain[2 * WIRE_TEXT_MAX] = "";
    struct wire_cursor c = writing();
    answer_put_text(&c, "tag", plain, sizeof(plain));
    struct answer_item item;
    struct answer_reader reader = answer_reading(written, body_of(&c));
    assert_int_equal(answer_next(&reader, &item), ANSWER_ITEM);
    assert_int_equal(item.text.length, WIRE_TEXT_MAX);
    assert_memory_equal(item.text.bytes + WIRE_TEXT_MAX - 4, "\\x00", 4);
}

static void test_items_that_no_answer_has(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t length;
    } bad[] = {
        { "\0", 1 }, /* an end without a beginning */
        { "\x05\x01"
          "a",
          3 },             /* an unknown kind */
        { "\x01\0\0", 3 }, /* no name, though not in a list */
        { "\x02\x01"
          "a\x01\x01"
          "b\0\0",
          8 }, /* a name in a list */
        { "\x02\x01"
          "a\x03\0\0\0\0\0\0\0\0\0\0",
          14 }, /* a number in a list */
        { "\x04\x01"
          "A\0\0",
          5 }, /* a character that no name has */
        { "\x04\x01"
          "a\x01\0\x1b",
          6 }, /* a byte that no text has */
        { "\x04\x01"
          "a\x01\0\xff",
          6 },
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        if (is_good(bad[i].bytes, bad[i].length))
            fail_msg("number %zu is taken for an answer", i);
    assert_true(is_good("\x02\x01"
                        "a\x01\0\0\0",
                        7));
}

static void test_a_name_has_a_limit(void **state)
{
    (void)state;
    char name[ANSWER_NAME_MAX + 2];
    memset(name, 'a', sizeof(name));
    name[ANSWER_NAME_MAX + 1] = '\0';
    struct wire_cursor c = writing();
    answer_put_number(&c, name, 1);
    assert_false(is_good(written, body_of(&c)));
    c = writing();
    answer_put_number(&c, name + 1, 1);
    assert_true(is_good(written, body_of(&c)));
}

static void test_a_text_has_a_limit(void **state)
{
    (void)state;
    unsigned char body[WIRE_TEXT_MAX + 6] = "\x04\x01t\0\x02";
    memset(body + 5, 'x', WIRE_TEXT_MAX + 1);
    assert_true(is_good(body, WIRE_TEXT_MAX + 5));
    body[3] = 1;
    assert_false(is_good(body, WIRE_TEXT_MAX + 6));
}

static void test_structs_are_nested_up_to_a_limit(void **state)
{
    (void)state;
    for (unsigned depth = ANSWER_DEPTH; depth <= ANSWER_DEPTH + 1; depth++) {
        struct wire_cursor c = writing();
        for (unsigned i = 0; i < depth; i++)
            answer_put_struct(&c, "a");
        for (unsigned i = 0; i < depth; i++)
            answer_put_end(&c);
        assert_int_equal(is_good(written, body_of(&c)), depth == ANSWER_DEPTH);
    }
}

static void test_random_answers(void **state)
{
    (void)state;
    unsigned seed = 4711;
    size_t accepted = 0;
    size_t rejected = 0;
    for (size_t round = 0; round < 200000; round++) {
        unsigned char body[sizeof(example)];
        memcpy(body, example, sizeof(body));
        for (int changes = 1 + rand_r(&seed) % 3; changes > 0; changes--)
            body[(size_t)rand_r(&seed) % (sizeof(body) - 1)] = (unsigned char)rand_r(&seed);
        const bool good = is_good(body, (size_t)rand_r(&seed) % sizeof(body));
        accepted += good;
        rejected += !good;
    }
    assert_true(accepted > 1000 && rejected > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_bytes_of_an_answer),
        cmocka_unit_test(test_an_answer_comes_back),
        cmocka_unit_test(test_an_answer_cut_at_every_byte),
        cmocka_unit_test(test_bytes_that_could_do_harm_are_written_as_digits),
        cmocka_unit_test(test_a_long_text_ends_between_two_of_its_bytes),
        cmocka_unit_test(test_items_that_no_answer_has),
        cmocka_unit_test(test_a_name_has_a_limit),
        cmocka_unit_test(test_a_text_has_a_limit),
        cmocka_unit_test(test_structs_are_nested_up_to_a_limit),
        cmocka_unit_test(test_random_answers),
    };
    return cmocka_run_group_tests_name("answer", tests, open_window, close_window);
}
