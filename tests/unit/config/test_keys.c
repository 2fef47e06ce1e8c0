/* The table of the keys: rules that hold for every row. With --json the program prints the table, and
 * tests/system/docs/test_docs.py compares it with the documents. */
#include "config/config_rig.h"

#include <jansson.h>

#include "config/keys.h"

static bool is_of_listener(const struct key *key)
{
    return strncmp(key->name, "listeners[]", strlen("listeners[]")) == 0;
}

/* Does the configuration store a value for this key? For an object it stores only the object's keys. */
static bool is_kept(const struct key *key)
{
    return key_model(key)->rule.kind->read != NULL;
}

/* ---- rows ----------------------------------------------------------------------------------------------------------- */

static void test_every_row_has_a_rule_and_only_objects_have_no_place(void **state)
{
    (void)state;
    for (const struct key *key = keys; key->name != NULL; key++) {
        assert_non_null(key_model(key)->rule.kind);
        assert_int_equal(is_kept(key), key->rule.width > 0);
        const size_t room = is_of_listener(key) ? sizeof(struct config_listener) : sizeof(struct config);
        assert_true(key->offset + key->rule.width <= room);
    }
}

static void test_every_row_is_found_by_its_object_and_its_name(void **state)
{
    (void)state;
    for (const struct key *key = keys; key->name != NULL; key++) {
        char object[128];
        snprintf(object, sizeof(object), "%s", key->name);
        char *dot = strrchr(object, '.');
        const char *name = dot != NULL ? dot + 1 : key->name;
        if (dot != NULL)
            *dot = '\0';
        else
            object[0] = '\0';
        assert_ptr_equal(key_find(object, name), key); /* so each name is unique */
    }
    assert_null(key_find("", "limits.linger_ms"));
    assert_null(key_find("limits", "linger"));
    assert_null(key_find("limit", "linger_ms"));
}

static void test_a_row_that_overrides_another_differs_from_it_only_in_its_place(void **state)
{
    (void)state;
    for (const struct key *key = keys; key->name != NULL; key++) {
        const struct key *model = keys;
        if (key->overrides == NULL)
            continue;
        while (model->name != NULL && strcmp(model->name, key->overrides) != 0)
            model++;
        assert_non_null(model->name);
        assert_null(model->overrides);
        assert_true(is_of_listener(key) && !is_of_listener(model));
        assert_null(key->rule.kind);
        assert_null(key->by_default);
        assert_int_equal(key->reload, RELOAD_NOTHING);
        assert_int_equal(key->rule.width, model->rule.width);
    }
}

/* ---- places --------------------------------------------------------------------------------------------------------- */

/* The list of users restricts the whole socket: its place also covers mode and group. */
static bool may_overlap(const struct key *a, const struct key *b)
{
    return is_of_listener(a) != is_of_listener(b) || a->rule.kind == &value_users || b->rule.kind == &value_users;
}

static void test_no_two_keys_are_kept_in_one_place(void **state)
{
    (void)state;
    for (const struct key *a = keys; a->name != NULL; a++)
        for (const struct key *b = keys; b < a; b++)
            if (!may_overlap(a, b) && a->offset < b->offset + b->rule.width && b->offset < a->offset + a->rule.width)
                fail_msg("%s is kept where %s is", a->name, b->name);
}

#define TEXT_ROOM 256

/* Put the members in text into the object that is the last part of path, and cut that part off. */
static void wrap(char text[TEXT_ROOM], char *path)
{
    char inner[TEXT_ROOM];
    char *dot = strrchr(path, '.');
    const char *name = dot != NULL ? dot + 1 : path;
    memcpy(inner, text, sizeof(inner));
    if (strcmp(name, "listeners[]") == 0) /* only a Unix socket has a mode */
        snprintf(text, TEXT_ROOM, "\"listeners\":[{%.180s%s\"address\":\"%s\"}]", inner, inner[0] != '\0' ? "," : "",
                 strncmp(inner, "\"mode\"", 6) == 0 ? "unix:/tmp/x" : "1.2.3.4:5");
    else
        snprintf(text, TEXT_ROOM, "\"%.60s\":{%.180s}", name, inner);
    *(dot != NULL ? dot : path) = '\0';
}

/* Write a file with the objects that contain the key. set: with the key too, at its default. */
static void write_key(char text[TEXT_ROOM], const struct key *key, bool set)
{
    char inner[TEXT_ROOM] = "";
    char path[128];
    snprintf(path, sizeof(path), "%s", key->name);
    char *dot = strrchr(path, '.');
    if (set)
        snprintf(inner, sizeof(inner), "\"%.60s\":%s", dot != NULL ? dot + 1 : path, key->by_default);
    *(dot != NULL ? dot : path) = '\0';
    while (path[0] != '\0')
        wrap(inner, path);
    snprintf(text, TEXT_ROOM, "{%.250s}", inner);
}

static const char *kept(const struct config *config, const struct key *key)
{
    return (is_of_listener(key) ? (const char *)&config->listeners[0] : (const char *)config) + key->offset;
}

static void test_a_default_equals_the_same_text_in_the_file(void **state)
{
    (void)state;
    for (const struct key *key = keys; key->name != NULL; key++) {
        char with[TEXT_ROOM];
        char without[TEXT_ROOM];
        if (key->by_default == NULL || !is_kept(key))
            continue;
        write_key(with, key, true);
        write_key(without, key, false);
        struct config set = read_text(with);
        struct config unset = read_text(without);
        if (memcmp(kept(&set, key), kept(&unset, key), key->rule.width) != 0)
            fail_msg("%s and %s differ in %s", with, without, key->name);
        config_free(&set);
        config_free(&unset);
    }
}

/* ---- the table as JSON ---------------------------------------------------------------------------------------------- */

static json_t *words_of(const struct value_rule *rule)
{
    json_t *words = json_array();
    for (unsigned i = 0; rule->word != NULL && i <= rule->most; i++)
        json_array_append_new(words, json_string(rule->word(i)));
    return words;
}

static json_t *row_of(const struct key *key)
{
    const struct key *model = key_model(key);
    const struct value_rule *rule = &model->rule;
    return json_pack("{s:s, s:s, s:s, s:s?, s:I, s:I, s:o, s:s?, s:s?, s:s}", "name", key->name, "kind",
                     rule->kind->name, "type", rule->kind->type, "unit", rule->unit, "least", (json_int_t)rule->least,
                     "most", (json_int_t)rule->most, "words", words_of(rule), "default", key->by_default, "overrides",
                     key->overrides, "reload", key_reload_name(model->reload));
}

static int print_table(void)
{
    json_t *table = json_array();
    for (const struct key *key = keys; key->name != NULL; key++)
        json_array_append_new(table, row_of(key));
    const int bad = json_dumpf(table, stdout, JSON_INDENT(1)) != 0 || fflush(stdout) != 0;
    json_decref(table);
    return bad;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_row_has_a_rule_and_only_objects_have_no_place),
        cmocka_unit_test(test_every_row_is_found_by_its_object_and_its_name),
        cmocka_unit_test(test_a_row_that_overrides_another_differs_from_it_only_in_its_place),
        cmocka_unit_test(test_no_two_keys_are_kept_in_one_place),
        cmocka_unit_test(test_a_default_equals_the_same_text_in_the_file),
    };
    if (argc == 2 && strcmp(argv[1], "--json") == 0)
        return print_table();
    return cmocka_run_group_tests_name("config, keys", tests, enter_directory, remove_directory);
}
