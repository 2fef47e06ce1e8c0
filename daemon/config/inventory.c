/* Looks up what the file sets, and otherwise the defaults in the table of keys. */
#include "config/inventory.h"

#include <stdio.h>
#include <string.h>

#include "config/keys.h"

#define PATH_ROOM 160
#define OF_LISTENERS "listeners[]"

/* The value of one key. */
struct holding {
    json_t *value; /* a reference; NULL: memory is short */
    const char *from;
    bool is_default, own; /* own: not the value of a key that this one overrides */
};

static bool is_of_listener(const struct key *key)
{
    return strncmp(key->name, OF_LISTENERS ".", strlen(OF_LISTENERS ".")) == 0;
}

/* Has it a value of its own? Objects only have keys. */
static bool has_value(const struct key *key)
{
    return key_model(key)->rule.kind->read != NULL;
}

/* The key's path in the file: "listeners[2].framing". */
static void key_path(const struct key *key, size_t listener, char path[PATH_ROOM])
{
    if (is_of_listener(key))
        snprintf(path, PATH_ROOM, "listeners[%zu]%s", listener, key->name + strlen(OF_LISTENERS));
    else
        snprintf(path, PATH_ROOM, "%s", key->name);
}

/* What the file sets under this path in an object. NULL: nothing. */
static json_t *member_at(json_t *object, const char *path)
{
    char name[PATH_ROOM];
    for (const char *dot = strchr(path, '.'); dot != NULL; dot = strchr(path, '.')) {
        snprintf(name, sizeof(name), "%.*s", (int)(dot - path), path);
        object = json_object_get(object, name);
        path = dot + 1;
    }
    return json_object_get(object, path);
}

/* All that the file sets for one listener. */
static json_t *listener_given(const struct config *config, size_t listener)
{
    return json_array_get(json_object_get(config->given, "listeners"), listener);
}

static json_t *given_of(const struct config *config, const struct key *key, size_t listener)
{
    return is_of_listener(key) ? member_at(listener_given(config, listener), key->name + strlen(OF_LISTENERS "."))
                               : member_at(config->given, key->name);
}

/* Is the object there in which the key lies? Only then does the key have a default. */
static bool has_object(const struct config *config, const struct key *key)
{
    const struct key *object = keys;
    while (object->name != NULL && !(object->rule.kind == &value_object && key_is_in(key, object->name)))
        object++;
    return object->name == NULL || object->by_default != NULL || member_at(config->given, object->name) != NULL;
}

static json_t *default_of(const struct config *config, const struct key *key)
{
    return key->by_default != NULL && has_object(config, key) ? json_loads(key->by_default, JSON_DECODE_ANY, NULL)
                                                              : json_null();
}

static struct holding hold(const struct config *config, const struct key *key, size_t listener)
{
    const struct key *model = key_model(key);
    json_t *given = given_of(config, key, listener);
    json_t *fallback = default_of(config, model);
    const char *from = given != NULL ? "file" : model == key ? "default" : model->name;
    const bool own = given != NULL || model == key;
    if (given == NULL && model != key)
        given = given_of(config, model, 0);
    json_t *value = fallback == NULL ? NULL : json_incref(given != NULL ? given : fallback);
    const bool is_default = json_equal(value, fallback);
    json_decref(fallback);
    return (struct holding){ .value = value, .from = from, .is_default = is_default, .own = own };
}

/* ---- the rows ---------------------------------------------------------------------------------------------------- */

/* The log's level was set while evapid runs. */
static void set_level(struct holding *holding, const struct key *key)
{
    char quoted[32];
    json_decref(holding->value);
    snprintf(quoted, sizeof(quoted), "\"%s\"", log_level_name(log_level()));
    *holding = (struct holding){ .value = json_string(log_level_name(log_level())),
                                 .from = "evapictl",
                                 .is_default = strcmp(quoted, key->by_default) == 0 };
}

static json_t *describe(const struct config *config, const struct key *key, size_t listener)
{
    char path[PATH_ROOM];
    struct holding holding = hold(config, key, listener);
    key_path(key, listener, path);
    if (strcmp(key->name, "log.level") == 0 && log_level() != config->log_level)
        set_level(&holding, key);
    return json_pack("{s:s, s:o, s:b, s:s}", "key", path, "value", holding.value, "default", holding.is_default, "from",
                     holding.from);
}

/* The key at this place among those of the whole file, or of a listener. NULL: there are only `*before`. */
static const struct key *key_at(bool of_listener, size_t place, size_t *before)
{
    *before = 0;
    for (const struct key *key = keys; key->name != NULL; key++) {
        if (!has_value(key) || is_of_listener(key) != of_listener)
            continue;
        if (*before == place)
            return key;
        ++*before;
    }
    return NULL;
}

static size_t count_keys(bool of_listener)
{
    size_t count = 0;
    key_at(of_listener, SIZE_MAX, &count);
    return count;
}

size_t inventory_count(const struct config *config)
{
    return count_keys(false) + config->listener_count * count_keys(true);
}

json_t *inventory_describe(const struct config *config, size_t row)
{
    size_t shared = 0;
    const struct key *key = key_at(false, row, &shared);
    if (key != NULL)
        return describe(config, key, 0);
    const size_t of_each = count_keys(true);
    if (of_each == 0)
        return NULL; /* the table has such keys, which clang-tidy does not see */
    const size_t listener = (row - shared) / of_each;
    return describe(config, key_at(true, (row - shared) % of_each, &shared), listener);
}

/* ---- differences ------------------------------------------------------------------------------------------------- */

static bool is_at(const struct config *config, size_t listener, const struct sockaddr_storage *address)
{
    return listener < config->listener_count && address_equal(&config->listeners[listener].address, address);
}

/* The listener at this address, which probably has the same place as before. listener_count: there is none. */
static size_t listener_at(const struct config *config, const struct sockaddr_storage *address, size_t probable)
{
    size_t i = 0;
    if (is_at(config, probable, address))
        return probable;
    while (i < config->listener_count && !is_at(config, i, address))
        i++;
    return i;
}

/* Add the key's name if its values differ. If neither listener has a value of its own, the key that they share has
 * changed, and not this one. */
static bool name_if_changed(json_t *names, const struct config *before, size_t i, const struct config *after, size_t k,
                            const struct key *key)
{
    char path[PATH_ROOM];
    if (!has_value(key))
        return true;
    struct holding was = hold(before, key, i);
    struct holding is = hold(after, key, k);
    bool good = was.value != NULL && is.value != NULL;
    if (good && (was.own || is.own) && !json_equal(was.value, is.value)) {
        key_path(key, k, path);
        good = json_array_append_new(names, json_string(path)) == 0;
    }
    json_decref(was.value);
    json_decref(is.value);
    return good;
}

static bool name_listeners(json_t *names, const struct config *before, const struct config *after)
{
    size_t stayed = 0;
    for (size_t k = 0; k < after->listener_count; k++) {
        const size_t i = listener_at(before, &after->listeners[k].address, k);
        if (i == before->listener_count)
            continue;
        stayed++;
        if (json_equal(listener_given(before, i), listener_given(after, k)))
            continue; /* most of them, of perhaps thousands: none of its keys is worth a look */
        for (const struct key *key = keys; key->name != NULL; key++)
            if (is_of_listener(key) && strcmp(key_own_name(key), "address") != 0 &&
                !name_if_changed(names, before, i, after, k, key))
                return false;
    }
    return (stayed == before->listener_count && stayed == after->listener_count) ||
           json_array_append_new(names, json_string("listeners")) == 0;
}

json_t *inventory_changes(const struct config *before, const struct config *after)
{
    json_t *names = json_array();
    bool good = names != NULL;
    for (const struct key *key = keys; key->name != NULL && good; key++)
        if (!is_of_listener(key))
            good = key->rule.kind == &value_objects ? name_listeners(names, before, after)
                                                    : name_if_changed(names, before, 0, after, 0, key);
    if (good)
        return names;
    json_decref(names);
    return NULL;
}
