/* Which known name was probably meant by an unknown one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/spelling.h"

static const char *const names[] = {
    "status",           "stats", "top", "tag", "tags", "tail", "close", "clients", "client", "max_message_bytes",
    "max_queued_bytes", "idle_s"
};

static const char *meant(const char *word)
{
    struct spelling guess = spelling_of(word);
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        spelling_try(&guess, names[i]);
    return guess.nearest != NULL ? guess.nearest : "";
}

static void test_a_name_with_a_slip_is_found(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        { "statsu", "status" },    { "stauts", "status" },   { "sttus", "status" },
        { "stat", "stats" },       { "cleints", "clients" }, { "colse", "close" },
        { "tpo", "top" },          { "taggs", "tags" },      { "max_mesage_byte", "max_message_bytes" },
        { "idle_ms", "idle_s" },   { "clints", "clients" },  { "max_queued_byts", "max_queued_bytes" },
        { "clientss", "clients" }, { "Top", "top" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        assert_string_equal(meant(cases[i][0]), cases[i][1]);
}

static void test_a_word_that_shares_little_with_every_name_means_none(void **state)
{
    (void)state;
    static const char *const words[] = {
        "foo", "bar", "xyzzy", "", "t", "to", "stop", "queue", "max", "ring", "listen"
    };
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
        assert_string_equal(meant(words[i]), strcmp(words[i], "stop") == 0 ? "top" : "");
}

static void test_a_word_of_any_length_is_compared(void **state)
{
    (void)state;
    char word[5000];
    memset(word, 't', sizeof(word) - 1);
    for (size_t length = sizeof(word) - 1; length > 30; length -= length > 100 ? 97 : 1) {
        word[length] = '\0';
        assert_string_equal(meant(word), "");
        struct spelling guess = spelling_of("top");
        spelling_try(&guess, word);
        assert_null(guess.nearest);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_name_with_a_slip_is_found),
        cmocka_unit_test(test_a_word_that_shares_little_with_every_name_means_none),
        cmocka_unit_test(test_a_word_of_any_length_is_compared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
