/* The readers of values, one for each kind. */
#include "config/values.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/identity.h"
#include "net/access.h"
#include "net/address.h"
#include "net/door.h"

#define WORDS_ROOM 128 /* bytes of an error's list of words */

/* ---- numbers, booleans, words ------------------------------------------------------------------------------------ */

static bool read_number(struct reading *in, const json_t *value, const struct value_rule *rule, void *to)
{
    assert(rule->width == sizeof(uint32_t) || rule->width == sizeof(uint64_t));
    if (!json_is_integer(value))
        return reading_fail(in, "expected an integer, found %s", reading_type_name(value));
    const json_int_t number = json_integer_value(value);
    if (number < 0 || (uint64_t)number < rule->least || (uint64_t)number > rule->most)
        return reading_fail(in, "%lld is out of range: %llu to %llu", (long long)number,
                            (unsigned long long)rule->least, (unsigned long long)rule->most);
    if (rule->width == sizeof(uint32_t))
        *(uint32_t *)to = (uint32_t)number;
    else
        *(uint64_t *)to = (uint64_t)number;
    return true;
}

static bool read_boolean(struct reading *in, const json_t *value, const struct value_rule *rule, void *to)
{
    assert(rule->width == sizeof(bool));
    *(bool *)to = json_is_true(value);
    return json_is_boolean(value) || reading_fail(in, "expected true or false, found %s", reading_type_name(value));
}

/* All words that the rule allows: "a", "b" or "c". */
static void list_words(const struct value_rule *rule, char out[WORDS_ROOM])
{
    size_t n = 0;
    for (unsigned i = 0; i <= rule->most && n < WORDS_ROOM; i++) {
        const char *between = i == 0 ? "" : i == rule->most ? " or " : ", ";
        n += (size_t)snprintf(out + n, WORDS_ROOM - n, "%s\"%s\"", between, rule->word(i));
    }
}

static bool read_word(struct reading *in, const json_t *value, const struct value_rule *rule, void *to)
{
    const char *name = json_string_value(value);
    char words[WORDS_ROOM];
    assert(rule->width == sizeof(unsigned));
    for (unsigned i = 0; name != NULL && i <= rule->most; i++)
        if (strcmp(name, rule->word(i)) == 0) {
            *(unsigned *)to = i;
            return true;
        }
    list_words(rule, words);
    return reading_fail(in, "expected %s", words);
}

/* ---- texts ------------------------------------------------------------------------------------------------------- */

static bool read_path(struct reading *in, const json_t *value, const struct value_rule *rule, void *to)
{
    const size_t length = json_string_length(value);
    assert(rule->width > rule->most);
    if (!reading_is_string(in, value))
        return false;
    if (length < rule->least || length > rule->most)
        return reading_fail(in, "a path has %llu to %llu bytes", (unsigned long long)rule->least,
                            (unsigned long long)rule->most);
    memcpy(to, json_string_value(value), length + 1);
    return true;
}

static bool read_address(struct reading *in, const json_t *value, const struct value_rule *rule, void *to)
{
    assert(rule->width == sizeof(struct sockaddr_storage));
    if (!reading_is_string(in, value))
        return false;
    const char *why = address_parse(json_string_value(value), to);
    return why == NULL || reading_fail(in, "\"%s\": %s", json_string_value(value), why);
}

static bool read_socket(struct reading *in, const json_t *value, const struct value_rule *rule, void *to)
{
    assert(rule->width == sizeof(struct sockaddr_storage));
    if (!reading_is_string(in, value))
        return false;
    const char *why = address_parse_any(json_string_value(value), to);
    return why == NULL || reading_fail(in, "\"%s\": %s", json_string_value(value), why);
}

static bool read_mode(struct reading *in, const json_t *value, const struct value_rule *rule, void *to)
{
    const char *text = json_string_value(value);
    const size_t length = json_string_length(value);
    const bool digits = length >= 3 && length <= 4 && strspn(text, "01234567") == length;
    const unsigned long mode = digits ? strtoul(text, NULL, 8) : 0;
    assert(rule->width == sizeof(mode_t));
    if (!digits || mode < rule->least || mode > rule->most)
        return reading_fail(in, "expected octal digits in a string, \"%04o\" to \"%04o\"", (unsigned)rule->least,
                            (unsigned)rule->most);
    *(mode_t *)to = (mode_t)mode;
    return true;
}

/* ---- lists, users and groups ------------------------------------------------------------------------------------- */

/* An empty `allow` list would let nobody connect, so it must be a mistake. Without the key everybody may. */
static bool has_enough_networks(const struct reading *in, const json_t *array, const struct value_rule *rule)
{
    if (json_array_size(array) < rule->least)
        return reading_fail(in, "nobody could connect: name networks, or all of them: \"0.0.0.0/0\", \"::/0\"");
    if (json_array_size(array) > rule->most)
        return reading_fail(in, "a list has at most %llu networks", (unsigned long long)rule->most);
    return true;
}

static bool read_networks(struct reading *in, const json_t *array, const struct value_rule *rule, void *to)
{
    struct network_list *list = to;
    size_t i = 0;
    const json_t *value = NULL;
    if (!reading_is_array(in, array) || !has_enough_networks(in, array, rule))
        return false;
    list->count = 0;
    json_array_foreach(array, i, value)
    {
        const size_t outer = reading_enter_element(in, i);
        if (!reading_is_string(in, value))
            return false;
        const char *why = network_parse(json_string_value(value), &list->networks[list->count++]);
        if (why != NULL)
            return reading_fail(in, "\"%s\": %s", json_string_value(value), why);
        reading_leave(in, outer);
    }
    return true;
}

/* Read a name that this machine knows, or a number. */
static bool read_identity(struct reading *in, const json_t *value, enum identity_kind kind, uint32_t *id)
{
    static const struct value_rule numbers = { .least = 0, .most = UINT32_MAX - 1, .width = sizeof(*id) };
    const char *noun = kind == IDENTITY_USER ? "user" : "group";
    if (!json_is_string(value) && !json_is_integer(value))
        return reading_fail(in, "expected the name or the number of a %s, found %s", noun, reading_type_name(value));
    if (json_is_integer(value))
        return read_number(in, value, &numbers, id);
    const char *name = json_string_value(value);
    return identity_find(kind, name, id) ||
           reading_fail(in, "there is no %s \"%s\"%s", noun, name,
                        identity_asks() ? ""
                                        : " in this machine's own files, and others are not asked while evapid runs");
}

static bool read_group(struct reading *in, const json_t *value, const struct value_rule *rule, void *to)
{
    assert(rule->width == sizeof(gid_t));
    return read_identity(in, value, IDENTITY_GROUP, to);
}

static bool read_users(struct reading *in, const json_t *array, const struct value_rule *rule, void *to)
{
    struct door_access *access = to;
    size_t i = 0;
    const json_t *value = NULL;
    if (!reading_is_array(in, array))
        return false;
    if (json_array_size(array) > rule->most)
        return reading_fail(in, "a list has at most %llu users", (unsigned long long)rule->most);
    access->restricted = true;
    json_array_foreach(array, i, value)
    {
        const size_t outer = reading_enter_element(in, i);
        if (!read_identity(in, value, IDENTITY_USER, &access->users[access->user_count++]))
            return false;
        reading_leave(in, outer);
    }
    return true;
}

const struct value_kind value_object = { "object", "object", NULL };
const struct value_kind value_objects = { "objects", "array", NULL };
const struct value_kind value_number = { "number", "integer", read_number };
const struct value_kind value_boolean = { "boolean", "boolean", read_boolean };
const struct value_kind value_word = { "word", "string", read_word };
const struct value_kind value_path = { "path", "string", read_path };
const struct value_kind value_address = { "address", "string", read_address };
const struct value_kind value_socket = { "socket", "string", read_socket };
const struct value_kind value_networks = { "networks", "array", read_networks };
const struct value_kind value_mode = { "mode", "string", read_mode };
const struct value_kind value_group = { "group", "string or integer", read_group };
const struct value_kind value_users = { "users", "array", read_users };
