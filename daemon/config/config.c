/* Reading the configuration: the file as a whole, its objects and its listeners. keys.c has a row for each key. */
#include "config/config.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/spelling.h"
#include "config/keys.h"
#include "config/place.h"
#include "config/reading.h"

#define FILE_MAX (1U << 20) /* bytes of a configuration file */

/* ---- keys -------------------------------------------------------------------------------------------------------- */

static bool set_default(struct reading *in, const struct key *key, void *base)
{
    json_t *value = json_loads(key->by_default, JSON_DECODE_ANY, NULL);
    const bool good = value != NULL ? key->rule.kind->read(in, value, &key->rule, (char *)base + key->offset)
                                    : reading_fail(in, "no memory");
    json_decref(value);
    return good;
}

/* Give the keys of an object their defaults, including the objects in it that exist by default. */
static bool set_defaults(struct reading *in, const char *object, void *base)
{
    for (const struct key *key = keys; key->name != NULL; key++) {
        if (key->by_default == NULL || !key_is_in(key, object))
            continue;
        if (key->rule.kind == &value_object && !set_defaults(in, key->name, base))
            return false;
        if (key->rule.kind->read != NULL && !set_default(in, key, base))
            return false;
    }
    return true;
}

/* The key that was probably meant by a name that the object does not have: one of the object's with a similar name, or
 * one of this name in another object. NULL: none. */
static const char *key_meant(const char *object, const char *name)
{
    struct spelling guess = spelling_of(name);
    const char *elsewhere = NULL;
    for (const struct key *key = keys; key->name != NULL; key++) {
        if (key_is_in(key, object))
            spelling_try(&guess, key_own_name(key));
        else if (elsewhere == NULL && key->overrides == NULL && strcmp(key_own_name(key), name) == 0)
            elsewhere = key->name;
    }
    return guess.nearest != NULL ? guess.nearest : elsewhere;
}

static bool fail_unknown(const struct reading *in, const char *object, const char *name)
{
    const char *meant = key_meant(object, name);
    return meant != NULL ? reading_fail(in, "unknown key; did you mean %s?", meant) : reading_fail(in, "unknown key");
}

static bool read_object(struct reading *in, const char *name, json_t *object, void *base);

/* base: the struct to which the key's offset refers. */
static bool read_key(struct reading *in, const struct key *key, json_t *value, void *base)
{
    const struct value_rule *rule = &key_model(key)->rule;
    if (rule->kind == &value_objects)
        return true; /* read_listeners reads it */
    if (rule->kind != &value_object)
        return rule->kind->read(in, value, rule, (char *)base + key->offset);
    if (key->by_default == NULL && !set_defaults(in, key->name, base))
        return false;
    return read_object(in, key->name, value, base);
}

/* name: as in the table's rows, "" for the whole file. */
static bool read_object(struct reading *in, const char *name, json_t *object, void *base)
{
    const char *member = NULL;
    json_t *value = NULL;
    if (!reading_is_object(in, object))
        return false;
    json_object_foreach(object, member, value)
    {
        const struct key *key = key_find(name, member);
        const size_t outer = reading_enter(in, member);
        if (key == NULL)
            return fail_unknown(in, name, member);
        if (!read_key(in, key, value, base))
            return false;
        reading_leave(in, outer);
    }
    return true;
}

/* ---- listeners --------------------------------------------------------------------------------------------------- */

static bool has_own_address(struct reading *in, const struct config *config, const struct config_listener *listener)
{
    const size_t outer = reading_enter(in, "address");
    for (const struct config_listener *other = config->listeners; other < listener; other++)
        if (address_equal(&other->address, &listener->address))
            return reading_fail(in, "the same address as listeners[%d]", (int)(other - config->listeners));
    if (address_is_unix(&listener->address) &&
        (strcmp(address_path(&listener->address), config->kamailio_socket) == 0 ||
         strcmp(address_path(&listener->address), config->control_socket) == 0))
        return reading_fail(in, "the same path as kamailio_socket or control_socket");
    if (config->http.address.ss_family != AF_UNSPEC && address_equal(&config->http.address, &listener->address))
        return reading_fail(in, "the same address as %s", config->metrics.ss_family != AF_UNSPEC ? "metrics" : "http");
    reading_leave(in, outer);
    return true;
}

/* Keys that say nothing about a Unix socket, and those that say nothing about TCP. */
static bool has_fitting_keys(struct reading *in, json_t *object, const struct config_listener *listener)
{
    static const char *const of_unix[] = { "mode", "group", "users" };
    static const char *const of_tcp[] = { "allow", "deny" };
    const json_t *access = json_object_get(object, "access");
    if (!address_is_unix(&listener->address)) {
        for (size_t i = 0; i < sizeof(of_unix) / sizeof(*of_unix); i++)
            if (json_object_get(object, of_unix[i]) != NULL) {
                reading_enter(in, of_unix[i]);
                return reading_fail(in, "only a Unix socket has it: \"address\": \"unix:PATH\"");
            }
        return true;
    }
    for (size_t i = 0; i < sizeof(of_tcp) / sizeof(*of_tcp); i++)
        if (json_object_get(access, of_tcp[i]) != NULL) {
            reading_enter(in, "access");
            reading_enter(in, of_tcp[i]);
            return reading_fail(in, "a Unix socket's clients have no network: name its users");
        }
    return true;
}

static bool read_listener(struct reading *in, json_t *object, struct config *config, struct config_listener *listener)
{
    *listener = (struct config_listener){ .limits = config->limits, .access = config->access };
    if (!set_defaults(in, "listeners[]", listener) || !read_object(in, "listeners[]", object, listener))
        return false;
    if (json_object_get(object, "address") == NULL)
        return reading_fail(in, "address is missing");
    if (!has_fitting_keys(in, object, listener))
        return false;
    return has_own_address(in, config, listener);
}

static bool read_listeners(struct reading *in, json_t *array, struct config *config)
{
    size_t i = 0;
    json_t *value = NULL;
    if (array == NULL)
        return true;
    const size_t outer = reading_enter(in, "listeners");
    if (!reading_is_array(in, array))
        return false;
    config->listeners = calloc(json_array_size(array) + 1, sizeof(*config->listeners));
    if (config->listeners == NULL)
        return reading_fail(in, "no memory");
    json_array_foreach(array, i, value)
    {
        const size_t list = reading_enter_element(in, i);
        if (!read_listener(in, value, config, &config->listeners[i]))
            return false;
        config->listener_count++;
        reading_leave(in, list);
    }
    reading_leave(in, outer);
    return true;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

/* metrics is another name of http, from before there was a page: it has none, so that nobody is shown more than before. */
static bool merge_metrics(struct reading *in, struct config *config)
{
    if (config->metrics.ss_family == AF_UNSPEC)
        return true;
    if (config->http.address.ss_family != AF_UNSPEC) {
        reading_enter(in, "metrics");
        return reading_fail(in, "another name of http, which is there too: give only one of them");
    }
    config->http = (struct config_http){ .address = config->metrics };
    return true;
}

/* Listeners come last: they start with the limits that the rest of the file sets. */
static bool read_root(struct reading *in, json_t *root, struct config *config)
{
    if (!set_defaults(in, "", config) || !read_object(in, "", root, config))
        return false;
    if (strcmp(config->kamailio_socket, config->control_socket) == 0) {
        reading_enter(in, "control_socket");
        return reading_fail(in, "the same path as kamailio_socket");
    }
    return merge_metrics(in, config) && read_listeners(in, json_object_get(root, "listeners"), config);
}

/* The file's text with a NUL after it; NULL: error says why. */
static char *load(const char *path, size_t *length, char error[CONFIG_ERROR])
{
    FILE *file = fopen(path, "re");
    char *text = malloc(FILE_MAX + 1);
    *length = file != NULL && text != NULL ? fread(text, 1, FILE_MAX + 1, file) : 0;
    const bool bad = file == NULL || text == NULL || ferror(file) != 0;
    if (bad || *length > FILE_MAX) {
        snprintf(error, CONFIG_ERROR, "%s: %s", path, bad ? strerror(errno) : "larger than 1 MiB");
        free(text);
        text = NULL;
    } else {
        text[*length] = '\0';
    }
    if (file != NULL)
        fclose(file);
    return text;
}

/* Set what has no key, and the keys without a default. */
static void clear(struct config *config)
{
    *config = (struct config){
        .kamailio_access = { .group = DOOR_OWN_GROUP, .passes = true },
        .control_access = { .group = DOOR_OWN_GROUP },
        .limits = { .framing = FRAMING_NETSTRING },
        .access = { .door = { .group = DOOR_OWN_GROUP } },
    };
}

bool config_read(struct config *config, const char *path, char error[CONFIG_ERROR])
{
    size_t length = 0;
    json_error_t bad = { .line = 0 };
    clear(config);
    char *text = load(path, &length, error);
    if (text == NULL)
        return false;
    const size_t open_comment = place_blank_comments(text, length);
    json_t *root = open_comment == length ? json_loadb(text, length, JSON_REJECT_DUPLICATES, &bad) : NULL;
    bool good = root != NULL;
    config->file = path;
    config->given = root;
    if (open_comment < length) {
        const struct place place = place_of(text, open_comment);
        snprintf(error, CONFIG_ERROR, "%s:%u:%u: this comment has no end", path, place.line, place.column);
    } else if (good) {
        struct reading in = { .file = path, .text = text, .error = error, .error_room = CONFIG_ERROR };
        good = read_root(&in, root, config);
    } else {
        snprintf(error, CONFIG_ERROR, "%s:%d:%d: %s", path, bad.line > 0 ? bad.line : 1,
                 bad.column > 0 ? bad.column : 1, bad.text);
    }
    free(text);
    if (!good)
        config_free(config);
    return good;
}

void config_free(struct config *config)
{
    json_decref(config->given);
    free(config->listeners);
    config->given = NULL;
    config->listeners = NULL;
    config->listener_count = 0;
}
