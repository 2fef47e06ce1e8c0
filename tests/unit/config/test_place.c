/* Places: only comments are blanked, and every value of a JSON text is found at its place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/place.h"

/* ---- comments ---------------------------------------------------------------------------------------------------- */

/* The text with its comments blanked. Its memory ends with the text, without a NUL, so the sanitizer sees a read after
 * the end. *open: where an unclosed comment begins, or length. The caller frees. */
static char *blanked(const char *text, size_t length, size_t *open)
{
    char *copy = malloc(length > 0 ? length : 1);
    assert_non_null(copy);
    memcpy(copy, text, length);
    *open = place_blank_comments(copy, length);
    return copy;
}

static void test_comments_are_blanked_byte_for_byte(void **state)
{
    (void)state;
    static const struct {
        const char *text, *expected;
    } cases[] = {
        { "", "" },
        { "{}", "{}" },
        { "# all", "     " },
        { "// all", "      " },
        { "/* all */", "         " },
        { "{} # to the end\n1", "{}             \n1" },
        { "{} // to the end\r\n1", "{}               \n1" },
        { "#a\n#b\n{}", "  \n  \n{}" },
        { "[1,/* one */2]", "[1,         2]" },
        { "/* two\nlines */[]", "      \n        []" },
        { "/**/[]", "    []" },
        { "/*/[]*/[]", "       []" },
        { "/***/[]", "     []" },
        { "/* * / */[]", "         []" },
        { "/* # */1", "       1" },
        { "/* // */1", "        1" },
        { "/* \" */1", "       1" },
        { "# /*\n1 */", "    \n1 */" },
        { "// /*\n1", "     \n1" },
        { "# \"\n1", "   \n1" },
        { "///\n1", "   \n1" },
        { "\"#\"", "\"#\"" },
        { "\"//\"", "\"//\"" },
        { "\"/* */\"", "\"/* */\"" },
        { "\"a\" # \"b\"", "\"a\"      " },
        { "\"a\\\" # b\" # c", "\"a\\\" # b\"    " },
        { "\"a\\\\\" # c", "\"a\\\\\"    " },
        { "\"a\\\\\\\" # b\"", "\"a\\\\\\\" # b\"" },
        { "\"\" # a", "\"\"    " },
        { "1 / 2", "1 / 2" },
        { "/", "/" },
        { "*/", "*/" },
        { "\"open # a", "\"open # a" },
        { "\"open\n# a", "\"open\n   " },
        { "\"open\\", "\"open\\" },
        { "\xc3\xa9 # \xc3\xa9", "\xc3\xa9     " },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const size_t length = strlen(cases[i].text);
        size_t open;
        char *out = blanked(cases[i].text, length, &open);
        assert_int_equal(open, length);
        if (length != strlen(cases[i].expected) || memcmp(out, cases[i].expected, length) != 0)
            fail_msg("%s gives %.*s, expected %s", cases[i].text, (int)length, out, cases[i].expected);
        free(out);
    }
}

static void test_nothing_after_the_length_is_touched(void **state)
{
    (void)state;
    static const char text[] = "/* a */ # b\n\"c\\\"\" // d\n/* e";
    for (size_t length = 0; length < sizeof(text); length++) {
        char copy[sizeof(text)];
        memcpy(copy, text, sizeof(text));
        place_blank_comments(copy, length);
        assert_memory_equal(copy + length, text + length, sizeof(text) - length);
    }
}

static void test_an_unclosed_block_comment_is_reported_at_its_place(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t at;
    } cases[] = {
        { "/*", 0 },        { "/*/", 0 },       { "/* *", 0 },
        { "{} /* {} ", 3 }, { "/**/ /*", 5 },   { "# /*\n\n/* # */ 1 /*", 16 },
        { "\"/*\" /*", 5 }, { "// /*\n\n", 7 }, { "/* // */ \"a\" // /*", 18 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        size_t open;
        free(blanked(cases[i].text, strlen(cases[i].text), &open));
        assert_int_equal(open, cases[i].at);
    }
}

/* The same rules written a second time, as a table of states. Returns the start of an unclosed block comment, or
 * length. */
static size_t expect_blanked(char *out, const char *text, size_t length)
{
    enum { PLAIN, STRING, ESCAPED, LINE, BLOCK } in = PLAIN;
    size_t block = 0;
    for (size_t i = 0; i < length; i++) {
        const char c = text[i];
        const char next = i + 1 < length ? text[i + 1] : '\0';
        out[i] = c;
        switch (in) {
        case PLAIN:
            if (c == '"') {
                in = STRING;
            } else if (c == '#' || (c == '/' && next == '/')) {
                in = LINE;
                out[i] = ' ';
            } else if (c == '/' && next == '*') {
                in = BLOCK;
                block = i;
                out[i] = ' ';
                out[++i] = ' ';
            }
            break;
        case STRING:
            if (c == '\\' && i + 1 < length)
                in = ESCAPED;
            else if (c == '"' || c == '\n')
                in = PLAIN;
            break;
        case ESCAPED: in = STRING; break;
        case LINE:
            if (c == '\n')
                in = PLAIN;
            else
                out[i] = ' ';
            break;
        case BLOCK:
            if (c == '*' && next == '/') {
                out[i] = ' ';
                out[++i] = ' ';
                in = PLAIN;
            } else if (c != '\n') {
                out[i] = ' ';
            }
            break;
        }
    }
    return in == BLOCK ? block : length;
}

/* Every text of up to seven bytes, of the bytes that have a meaning here. */
static void test_every_short_text_is_blanked_as_the_rules_say(void **state)
{
    (void)state;
    static const char bytes[] = { '"', '\\', '/', '*', '#', '\n', 'a' };
    enum { LONGEST = 7, BYTES = sizeof(bytes) };
    size_t total = 1;
    for (size_t length = 1; length <= LONGEST; length++) {
        total *= BYTES;
        for (size_t n = 0; n < total; n++) {
            char text[LONGEST + 1] = { 0 };
            char expected[LONGEST];
            for (size_t i = 0, rest = n; i < length; i++, rest /= BYTES)
                text[i] = bytes[rest % BYTES];
            size_t open;
            const size_t expected_open = expect_blanked(expected, text, length);
            char *out = blanked(text, length, &open);
            if (open != expected_open)
                fail_msg("%s has an open comment at %zu, expected %zu", text, open, expected_open);
            if (memcmp(out, expected, expected_open) != 0)
                fail_msg("%s gives %.*s, expected %.*s", text, (int)length, out, (int)length, expected);
            free(out);
        }
    }
}

static void test_the_place_of_every_byte(void **state)
{
    (void)state;
    static const char text[] = "ab\n\nc\td\n";
    static const struct place places[] = { { 1, 1 }, { 1, 2 }, { 1, 3 }, { 2, 1 }, { 3, 1 },
                                           { 3, 2 }, { 3, 3 }, { 3, 4 }, { 4, 1 } };
    for (size_t i = 0; i < sizeof(text); i++) {
        assert_int_equal(place_of(text, i).line, places[i].line);
        assert_int_equal(place_of(text, i).column, places[i].column);
    }
}

/* ---- finding ----------------------------------------------------------------------------------------------------- */

static void assert_place(const char *text, const char *path, unsigned line, unsigned column)
{
    const struct place place = place_find(text, path);
    if (place.line != line || place.column != column)
        fail_msg("%s in %s: %u:%u, expected %u:%u", path, text, place.line, place.column, line, column);
}

static void test_values_are_found_by_their_path(void **state)
{
    (void)state;
    static const char text[] = "\n"
                               "  {\n"
                               "\t\"a\": 1,\n"
                               "    \"list\" : [ {\"x\":10, \"y\":\"}]\\\",\"}, [ 1,[2, 3] ],\n"
                               "      null , \"\"],\"b\":\n"
                               "    {\"a\":{\"a\":true}}, \"\": 5\n"
                               "}\n";
    static const struct {
        const char *path;
        unsigned line, column;
    } cases[] = {
        { "", 2, 3 },
        { "a", 3, 7 },
        { "list", 4, 14 },
        { "list[0]", 4, 16 },
        { "list[0].x", 4, 21 },
        { "list[0].y", 4, 29 },
        { "list[1]", 4, 39 },
        { "list[1][0]", 4, 41 },
        { "list[1][1]", 4, 43 },
        { "list[1][1][0]", 4, 44 },
        { "list[1][1][1]", 4, 47 },
        { "list[2]", 5, 7 },
        { "list[3]", 5, 14 },
        { "b", 6, 5 },
        { "b.a", 6, 10 },
        { "b.a.a", 6, 15 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        assert_place(text, cases[i].path, cases[i].line, cases[i].column);
}

static void test_a_missing_value_has_the_place_of_the_last_part_that_exists(void **state)
{
    (void)state;
    static const char text[] = "{\"a\":[1,{\"b\":2}],\n\"c\":\"d\", \"e\":[],\n\"f\":{}}";
    assert_place(text, "x", 1, 1);
    assert_place(text, "x.a", 1, 1);
    assert_place(text, "[0]", 1, 1);
    assert_place(text, "a.b", 1, 6);
    assert_place(text, "a[2]", 1, 6);
    assert_place(text, "a[99999]", 1, 6);
    assert_place(text, "a[0].x", 1, 7);
    assert_place(text, "a[1].x", 1, 9);
    assert_place(text, "a[1].b.x", 1, 14);
    assert_place(text, "a[1].b[0]", 1, 14);
    assert_place(text, "c.d", 2, 5);
    assert_place(text, "e[0]", 2, 14);
    assert_place(text, "f.a", 3, 5);
    assert_place(text, "A", 1, 1);
    assert_place("{\"a\":[\"b\",1]}", "a.b", 1, 6);
}

/* Keys are compared whole: a key that only begins or ends in the same way does not match. */
static void test_keys_are_compared_whole(void **state)
{
    (void)state;
    assert_place("{\"aa\":1,\"a\":2,\"aaa\":3}", "a", 1, 13);
    assert_place("{\"aa\":1,\"a\":2,\"aaa\":3}", "aaa", 1, 21);
    assert_place("{\"aa\":1,\"ba\":2}", "a", 1, 1);
    assert_place("{\"x\":{\"a\":1},\"a\":2}", "a", 1, 18);
    assert_place("{\"x\":\"a\",\"a\":2}", "a", 1, 14);
}

static void test_texts_of_one_value(void **state)
{
    (void)state;
    assert_place("1", "", 1, 1);
    assert_place("\n\n  \"a\"", "", 3, 3);
    assert_place("[]", "[0]", 1, 1);
    assert_place("[7]", "[0]", 1, 2);
    assert_place(" [\n7,8]", "[1]", 2, 3);
    assert_place("{}", "a", 1, 1);
}

/* ---- any JSON text ----------------------------------------------------------------------------------------------- */

#define TEXT_MAX 65536
#define VALUES_MAX 512

/* A random JSON text while it is written, and the place of each of its values. */
struct writing {
    char text[TEXT_MAX];
    size_t length;
    struct place at;
    unsigned seed;
    struct {
        char path[256];
        struct place place;
    } values[VALUES_MAX];
    size_t count;
};

static unsigned pick(struct writing *w, unsigned of)
{
    return (unsigned)rand_r(&w->seed) % of;
}

static void put(struct writing *w, const char *text)
{
    for (; *text != '\0'; text++) {
        assert_true(w->length < TEXT_MAX - 1);
        w->text[w->length++] = *text;
        w->at.column++;
        if (*text == '\n')
            w->at = (struct place){ w->at.line + 1, 1 };
    }
    w->text[w->length] = '\0';
}

static void put_space(struct writing *w)
{
    static const char *const spaces[] = { "", "", "", " ", "\n", "\t", "\r\n", "  \n\n  " };
    put(w, spaces[pick(w, sizeof(spaces) / sizeof(*spaces))]);
}

static void put_scalar(struct writing *w)
{
    static const char *const scalars[] = { "1",       "-2.5e3",      "true",     "false",        "null",
                                           "\"\"",    "\"a\"",       "\"}\"",    "\"]\"",        "\"[{\"",
                                           "\"a,b\"", "\"a:\\\"b\"", "\"\\\\\"", "\"\\\\\\\"\"", "\"\\u0022\"",
                                           "\" \"",   "\"\xc3\xa9\"" };
    put(w, scalars[pick(w, sizeof(scalars) / sizeof(*scalars))]);
}

static void put_value(struct writing *w, const char *path, unsigned depth);

static void put_members(struct writing *w, const char *path, unsigned depth, bool object)
{
    const unsigned count = depth > 2 && pick(w, 8) == 0 ? 12 : pick(w, 5); /* 12: two-digit indexes */
    for (unsigned i = 0; i < count; i++) {
        char inner[256];
        char key[16];
        const int cut = i % 2; /* some keys begin alike: k0, k1x, k2, ... */
        snprintf(key, sizeof(key), "k%u%s", i, cut == 1 ? "x" : "");
        if (object)
            snprintf(inner, sizeof(inner), "%.200s%s%s", path, path[0] != '\0' ? "." : "", key);
        else
            snprintf(inner, sizeof(inner), "%.200s[%u]", path, i);
        if (i > 0)
            put(w, ",");
        put_space(w);
        if (object) {
            put(w, "\"");
            put(w, key);
            put(w, "\"");
            put_space(w);
            put(w, ":");
            put_space(w);
        }
        put_value(w, inner, depth + 1);
        put_space(w);
    }
    if (count == 0)
        put_space(w);
}

static void put_value(struct writing *w, const char *path, unsigned depth)
{
    assert_true(w->count < VALUES_MAX);
    snprintf(w->values[w->count].path, sizeof(w->values[w->count].path), "%s", path);
    w->values[w->count++].place = w->at;
    const unsigned kind = depth >= 4 ? 2 : pick(w, 3);
    if (kind == 2 && depth > 0) {
        put_scalar(w);
        return;
    }
    put(w, kind == 0 ? "{" : "[");
    put_members(w, path, depth, kind == 0);
    put(w, kind == 0 ? "}" : "]");
}

static void test_every_value_of_random_texts_is_found(void **state)
{
    (void)state;
    size_t found = 0;
    struct writing *w = malloc(sizeof(*w));
    assert_non_null(w);
    for (unsigned seed = 1; seed <= 2000; seed++) {
        w->length = w->count = 0;
        w->at = (struct place){ 1, 1 };
        w->seed = seed;
        put_space(w);
        put_value(w, "", 0);
        put_space(w);
        for (size_t i = 0; i < w->count; i++, found++)
            assert_place(w->text, w->values[i].path, w->values[i].place.line, w->values[i].place.column);
    }
    assert_true(found > 10000);
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_comments_are_blanked_byte_for_byte),
        cmocka_unit_test(test_an_unclosed_block_comment_is_reported_at_its_place),
        cmocka_unit_test(test_nothing_after_the_length_is_touched),
        cmocka_unit_test(test_every_short_text_is_blanked_as_the_rules_say),
        cmocka_unit_test(test_the_place_of_every_byte),
        cmocka_unit_test(test_values_are_found_by_their_path),
        cmocka_unit_test(test_a_missing_value_has_the_place_of_the_last_part_that_exists),
        cmocka_unit_test(test_keys_are_compared_whole),
        cmocka_unit_test(test_texts_of_one_value),
        cmocka_unit_test(test_every_value_of_random_texts_is_found),
    };
    return cmocka_run_group_tests_name("place", tests, NULL, NULL);
}
