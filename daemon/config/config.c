/* Reading the configuration: every key in one table of readers, every error with its place. */
#include "config/config.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/identity.h"
#include "config/place.h"
#include "net/bucket.h"

#define FILE_MAX (1U << 20) /* bytes of a configuration file */

/* What is being read, and where: path is the key of the value at hand, "listeners[0].max_clients". */
struct reading {
    const char *file;
    const char *text; /* comments blanked */
    char *error;      /* CONFIG_ERROR bytes */
    char path[128];
};

/* A number's key, where it goes, and what it may be. */
struct number_key {
    const char *name;
    void *to;
    size_t width; /* of *to, in bytes: 4 or 8 */
    uint64_t least, most;
};

__attribute__((format(printf, 2, 3))) static bool fail(const struct reading *in, const char *format, ...)
{
    const struct place place = place_find(in->text, in->path);
    const int n = snprintf(in->error, CONFIG_ERROR, "%s:%u:%u: %s%s", in->file, place.line, place.column, in->path,
                           in->path[0] != '\0' ? ": " : "");
    va_list args;
    va_start(args, format);
    if (n > 0 && n < CONFIG_ERROR)
        vsnprintf(in->error + n, CONFIG_ERROR - (size_t)n, format, args);
    va_end(args);
    return false;
}

/* Go into the value called name; returns what leave takes to come back. */
static size_t enter(struct reading *in, const char *name)
{
    const size_t outer = strlen(in->path);
    snprintf(in->path + outer, sizeof(in->path) - outer, "%s%s", outer > 0 ? "." : "", name);
    return outer;
}

static void leave(struct reading *in, size_t outer)
{
    in->path[outer] = '\0';
}

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number with a fraction";
    case JSON_TRUE:
    case JSON_FALSE: return "a boolean";
    case JSON_NULL: break;
    }
    return "null";
}

static bool read_number(struct reading *in, const json_t *value, const struct number_key *key)
{
    if (!json_is_integer(value))
        return fail(in, "expected an integer, found %s", type_name(value));
    const json_int_t number = json_integer_value(value);
    if (number < 0 || (uint64_t)number < key->least || (uint64_t)number > key->most)
        return fail(in, "%lld is out of range: %llu to %llu", (long long)number, (unsigned long long)key->least,
                    (unsigned long long)key->most);
    if (key->width == sizeof(uint32_t))
        *(uint32_t *)key->to = (uint32_t)number;
    else
        *(uint64_t *)key->to = (uint64_t)number;
    return true;
}

static bool is_object(struct reading *in, const json_t *value)
{
    return json_is_object(value) || fail(in, "expected an object, found %s", type_name(value));
}

static const struct number_key *find_number(const struct number_key *keys, const char *name)
{
    for (; keys->name != NULL; keys++)
        if (strcmp(keys->name, name) == 0)
            return keys;
    return NULL;
}

/* Reads the value of a key of an object into what to points at. */
typedef bool key_reader(struct reading *in, const char *name, json_t *value, void *to);

static bool read_object(struct reading *in, json_t *object, key_reader *read_one, void *to)
{
    const char *name = NULL;
    json_t *value = NULL;
    if (!is_object(in, object))
        return false;
    json_object_foreach(object, name, value)
    {
        const size_t outer = enter(in, name);
        if (!read_one(in, name, value, to))
            return false;
        leave(in, outer);
    }
    return true;
}

/* An object that holds numbers alone. */
static bool read_numbers(struct reading *in, json_t *object, const struct number_key *keys)
{
    const char *name = NULL;
    json_t *value = NULL;
    if (!is_object(in, object))
        return false;
    json_object_foreach(object, name, value)
    {
        const struct number_key *key = find_number(keys, name);
        const size_t outer = enter(in, name);
        if (key == NULL)
            return fail(in, "unknown key");
        if (!read_number(in, value, key))
            return false;
        leave(in, outer);
    }
    return true;
}

static bool read_path(struct reading *in, const json_t *value, char out[EVAPID_PATH_MAX + 1])
{
    if (!json_is_string(value))
        return fail(in, "expected a string, found %s", type_name(value));
    if (json_string_length(value) == 0 || json_string_length(value) > EVAPID_PATH_MAX)
        return fail(in, "a path has 1 to %d bytes", EVAPID_PATH_MAX);
    memcpy(out, json_string_value(value), json_string_length(value) + 1);
    return true;
}

static bool read_framing(struct reading *in, const json_t *value, enum framing *framing)
{
    const char *name = json_string_value(value);
    if (name != NULL && strcmp(name, "netstring") == 0)
        *framing = FRAMING_NETSTRING;
    else if (name != NULL && strcmp(name, "raw") == 0)
        *framing = FRAMING_RAW;
    else
        return fail(in, "expected \"netstring\" or \"raw\"");
    return true;
}

static bool read_slow_policy(struct reading *in, const json_t *value, enum slow_policy *policy)
{
    static const char *const names[] = { "disconnect", "drop-newest", "drop-oldest" };
    const char *name = json_string_value(value);
    for (int i = SLOW_DISCONNECT; name != NULL && i <= SLOW_DROP_OLDEST; i++)
        if (strcmp(name, names[i]) == 0) {
            *policy = (enum slow_policy)i;
            return true;
        }
    return fail(in, "expected \"disconnect\", \"drop-newest\" or \"drop-oldest\"");
}

static bool read_unicast_mode(struct reading *in, const json_t *value, enum unicast_mode *mode)
{
    const char *name = json_string_value(value);
    for (int i = UNICAST_FIRST; name != NULL && i <= UNICAST_LEAST_QUEUED; i++)
        if (strcmp(name, unicast_mode_name((enum unicast_mode)i)) == 0) {
            *mode = (enum unicast_mode)i;
            return true;
        }
    return fail(in, "expected \"first\", \"round-robin\" or \"least-queued\"");
}

static bool read_keepalive(struct reading *in, json_t *value, struct client_limits *limits)
{
    const struct number_key keys[] = {
        { "idle_s", &limits->keepalive_idle_s, 4, 0, 32767 }, /* 0: off; the most: tcp(7) */
        { "interval_s", &limits->keepalive_interval_s, 4, 1, 32767 },
        { "probes", &limits->keepalive_probes, 4, 1, 127 },
        { 0 },
    };
    return read_numbers(in, value, keys);
}

/* The object's networks come in place of those that were there. */
static bool read_networks(struct reading *in, json_t *array, struct network_list *list)
{
    size_t i = 0;
    json_t *value = NULL;
    const size_t outer = strlen(in->path);
    if (!json_is_array(array))
        return fail(in, "expected an array, found %s", type_name(array));
    if (json_array_size(array) > ACCESS_NETWORKS_MAX)
        return fail(in, "a list has at most %u networks", ACCESS_NETWORKS_MAX);
    list->count = 0;
    json_array_foreach(array, i, value)
    {
        snprintf(in->path + outer, sizeof(in->path) - outer, "[%zu]", i);
        if (!json_is_string(value))
            return fail(in, "expected a string, found %s", type_name(value));
        const char *why = network_parse(json_string_value(value), &list->networks[list->count++]);
        if (why != NULL)
            return fail(in, "\"%s\": %s", json_string_value(value), why);
        leave(in, outer);
    }
    return true;
}

/* An empty list of those who may connect can't be meant; without the key, all may. */
static bool read_allow(struct reading *in, json_t *value, struct network_list *list)
{
    if (json_is_array(value) && json_array_size(value) == 0)
        return fail(in, "nobody could connect: name networks, or all of them: \"0.0.0.0/0\", \"::/0\"");
    return read_networks(in, value, list);
}

struct access_keys {
    struct access *access;
    struct client_limits *limits;
};

static bool read_access_key(struct reading *in, const char *name, json_t *value, void *to)
{
    struct access *access = ((struct access_keys *)to)->access;
    struct client_limits *limits = ((struct access_keys *)to)->limits;
    const struct number_key keys[] = {
        { "max_clients_per_address", &access->max_clients_per_address, 4, 0, 1000000 },
        { "max_connects_per_second", &access->max_connects_per_second, 4, 0, BUCKET_RATE_MAX },
        { "admission_timeout_ms", &limits->admission_timeout_ms, 4, 0, 3600000 },
        { 0 },
    };
    const struct number_key *key = find_number(keys, name);
    if (key != NULL)
        return read_number(in, value, key);
    if (strcmp(name, "allow") == 0)
        return read_allow(in, value, &access->allow);
    if (strcmp(name, "deny") == 0)
        return read_networks(in, value, &access->deny);
    return fail(in, "unknown key");
}

static bool read_access(struct reading *in, json_t *object, struct access *access, struct client_limits *limits)
{
    struct access_keys to = { access, limits };
    return read_object(in, object, read_access_key, &to);
}

static bool read_mode(struct reading *in, const json_t *value, mode_t *mode)
{
    const char *text = json_string_value(value);
    const size_t length = json_string_length(value);
    if (length < 3 || length > 4 || strspn(text, "01234567") != length || (length == 4 && text[0] != '0'))
        return fail(in, "expected octal digits in a string, \"0000\" to \"0777\"");
    *mode = (mode_t)strtoul(text, NULL, 8);
    return true;
}

/* A name that this machine knows, or a number. kind: "user" or "group". */
static bool read_identity(struct reading *in, const json_t *value, const char *kind, uint32_t *id)
{
    const struct number_key key = { kind, id, 4, 0, UINT32_MAX - 1 };
    if (!json_is_string(value) && !json_is_integer(value))
        return fail(in, "expected the name or the number of a %s, found %s", kind, type_name(value));
    if (json_is_integer(value))
        return read_number(in, value, &key);
    const char *name = json_string_value(value);
    return identity_find(kind[0] == 'u' ? IDENTITY_USER : IDENTITY_GROUP, name, id) ||
           fail(in, "there is no %s \"%s\"%s", kind, name,
                identity_asks() ? "" : " in this machine's own files, and others are not asked while evapid runs");
}

static bool read_users(struct reading *in, json_t *array, struct door_access *access)
{
    size_t i = 0;
    json_t *value = NULL;
    const size_t outer = strlen(in->path);
    if (!json_is_array(array))
        return fail(in, "expected an array, found %s", type_name(array));
    if (json_array_size(array) > DOOR_USERS_MAX)
        return fail(in, "a list has at most %u users", DOOR_USERS_MAX);
    access->restricted = true;
    json_array_foreach(array, i, value)
    {
        snprintf(in->path + outer, sizeof(in->path) - outer, "[%zu]", i);
        if (!read_identity(in, value, "user", &access->users[access->user_count++]))
            return false;
        leave(in, outer);
    }
    return true;
}

static bool read_door_key(struct reading *in, const char *name, json_t *value, void *to)
{
    struct door_access *access = to;
    if (strcmp(name, "mode") == 0)
        return read_mode(in, value, &access->mode);
    if (strcmp(name, "group") == 0)
        return read_identity(in, value, "group", &access->group);
    if (strcmp(name, "users") == 0)
        return read_users(in, value, access);
    return fail(in, "unknown key");
}

static bool read_address(struct reading *in, const json_t *value, struct sockaddr_storage *address)
{
    if (!json_is_string(value))
        return fail(in, "expected a string, found %s", type_name(value));
    const char *why = address_parse(json_string_value(value), address);
    return why == NULL || fail(in, "\"%s\": %s", json_string_value(value), why);
}

static bool read_listener_key(struct reading *in, const char *name, json_t *value, void *to)
{
    struct config_listener *listener = to;
    const struct number_key keys[] = {
        { "max_clients", &listener->max_clients, 4, 1, 1000000 },
        { "max_message_bytes", &listener->limits.max_message_bytes, 8, 1, EVAPID_MESSAGE_MAX },
        { "max_queued_bytes", &listener->limits.max_queued_bytes, 8, 1024, 1UL << 40 },
        { "message_timeout_ms", &listener->limits.message_timeout_ms, 4, 0, 86400000 },
        { 0 },
    };
    const struct number_key *key = find_number(keys, name);
    if (key != NULL)
        return read_number(in, value, key);
    if (strcmp(name, "address") == 0)
        return read_address(in, value, &listener->address);
    if (strcmp(name, "framing") == 0)
        return read_framing(in, value, &listener->limits.framing);
    if (strcmp(name, "slow_policy") == 0)
        return read_slow_policy(in, value, &listener->limits.slow_policy);
    if (strcmp(name, "unicast_mode") == 0)
        return read_unicast_mode(in, value, &listener->limits.unicast_mode);
    if (strcmp(name, "keepalive") == 0)
        return read_keepalive(in, value, &listener->limits);
    if (strcmp(name, "access") == 0)
        return read_access(in, value, &listener->access, &listener->limits);
    return fail(in, "unknown key");
}

static bool read_listener(struct reading *in, json_t *object, struct config *config, struct config_listener *listener)
{
    *listener = (struct config_listener){ .limits = config->limits, .access = config->access, .max_clients = 1024 };
    if (!read_object(in, object, read_listener_key, listener))
        return false;
    if (json_object_get(object, "address") == NULL)
        return fail(in, "address is missing");
    for (const struct config_listener *other = config->listeners; other < listener; other++)
        if (address_equal(&other->address, &listener->address)) {
            enter(in, "address");
            return fail(in, "the same address as listeners[%d]", (int)(other - config->listeners));
        }
    if (config->metrics.ss_family != AF_UNSPEC && address_equal(&config->metrics, &listener->address)) {
        enter(in, "address");
        return fail(in, "the same address as metrics");
    }
    return true;
}

static bool read_listeners(struct reading *in, json_t *array, struct config *config)
{
    size_t i = 0;
    json_t *value = NULL;
    if (array == NULL)
        return true;
    enter(in, "listeners");
    if (!json_is_array(array))
        return fail(in, "expected an array, found %s", type_name(array));
    config->listeners = calloc(json_array_size(array) + 1, sizeof(*config->listeners));
    if (config->listeners == NULL)
        return fail(in, "no memory");
    json_array_foreach(array, i, value)
    {
        snprintf(in->path, sizeof(in->path), "listeners[%zu]", i);
        if (!read_listener(in, value, config, &config->listeners[i]))
            return false;
        config->listener_count++;
    }
    leave(in, 0);
    return true;
}

static bool read_log_key(struct reading *in, const char *name, json_t *value, void *to)
{
    struct config *config = to;
    if (strcmp(name, "level") != 0)
        return fail(in, "unknown key");
    return (json_is_string(value) && log_level_find(json_string_value(value), &config->log_level)) ||
           fail(in, "expected \"error\", \"warning\", \"notice\", \"info\" or \"debug\"");
}

static bool read_limit(struct reading *in, const char *name, json_t *value, void *to)
{
    struct config *config = to;
    const struct number_key keys[] = {
        { "max_message_bytes", &config->limits.max_message_bytes, 8, 1, EVAPID_MESSAGE_MAX },
        { "max_queued_bytes", &config->limits.max_queued_bytes, 8, 1024, 1UL << 40 },
        { "max_total_queued_bytes", &config->max_total_queued_bytes, 8, 1UL << 20, 1UL << 40 },
        { "message_timeout_ms", &config->limits.message_timeout_ms, 4, 0, 86400000 }, /* 0: none */
        { "linger_ms", &config->limits.linger_ms, 4, 0, 600000 },
        { "worker_window_frames", &config->worker_window_frames, 8, 1, 65536 },
        { "worker_window_bytes", &config->worker_window_bytes, 8, 1024, 1UL << 30 },
        { 0 },
    };
    const struct number_key *key = find_number(keys, name);
    if (key != NULL)
        return read_number(in, value, key);
    if (strcmp(name, "slow_policy") == 0)
        return read_slow_policy(in, value, &config->limits.slow_policy);
    if (strcmp(name, "unicast_mode") == 0)
        return read_unicast_mode(in, value, &config->limits.unicast_mode);
    return fail(in, "unknown key");
}

/* The object alone turns it on, where nobody else can reach it. */
static bool read_metrics_key(struct reading *in, const char *name, json_t *value, void *to)
{
    return strcmp(name, "address") == 0 ? read_address(in, value, to) : fail(in, "unknown key");
}

static bool read_metrics(struct reading *in, json_t *object, struct sockaddr_storage *address)
{
    address_parse(EVAPID_METRICS_ADDRESS, address);
    return read_object(in, object, read_metrics_key, address);
}

static bool read_boolean(struct reading *in, const json_t *value, bool *to)
{
    *to = json_is_true(value);
    return json_is_boolean(value) || fail(in, "expected true or false, found %s", type_name(value));
}

static bool read_key(struct reading *in, const char *name, json_t *value, void *to)
{
    struct config *config = to;
    const struct number_key keys[] = {
        { "shutdown_grace_ms", &config->shutdown_grace_ms, 4, 0, 600000 },
        { "attach_hold_ms", &config->attach_hold_ms, 4, 0, 600000 },
        { 0 },
    };
    const struct number_key *key = find_number(keys, name);
    if (key != NULL)
        return read_number(in, value, key);
    if (strcmp(name, "kamailio_socket") == 0)
        return read_path(in, value, config->kamailio_socket);
    if (strcmp(name, "control_socket") == 0)
        return read_path(in, value, config->control_socket);
    if (strcmp(name, "module_listener") == 0)
        return read_boolean(in, value, &config->module_listener);
    if (strcmp(name, "limits") == 0)
        return read_object(in, value, read_limit, config);
    if (strcmp(name, "keepalive") == 0)
        return read_keepalive(in, value, &config->limits);
    if (strcmp(name, "log") == 0)
        return read_object(in, value, read_log_key, config);
    if (strcmp(name, "metrics") == 0)
        return read_metrics(in, value, &config->metrics);
    if (strcmp(name, "access") == 0)
        return read_access(in, value, &config->access, &config->limits);
    if (strcmp(name, "kamailio_access") == 0)
        return read_object(in, value, read_door_key, &config->kamailio_access);
    if (strcmp(name, "control_access") == 0)
        return read_object(in, value, read_door_key, &config->control_access);
    return strcmp(name, "listeners") == 0 || fail(in, "unknown key");
}

/* Listeners come last: they begin from the limits that the rest of the file sets. */
static bool read_root(struct reading *in, json_t *root, struct config *config)
{
    if (!read_object(in, root, read_key, config))
        return false;
    if (strcmp(config->kamailio_socket, config->control_socket) == 0) {
        enter(in, "control_socket");
        return fail(in, "the same path as kamailio_socket");
    }
    return read_listeners(in, json_object_get(root, "listeners"), config);
}

/* The file's text with a NUL behind it, or NULL with the reason in error. */
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

static void set_defaults(struct config *config)
{
    *config = (struct config){
        .kamailio_socket = EVAPID_KAMAILIO_SOCKET,
        .control_socket = EVAPID_CONTROL_SOCKET,
        .kamailio_access = { .mode = 0660, .group = DOOR_OWN_GROUP, .passes = true },
        .control_access = { .mode = 0660, .group = DOOR_OWN_GROUP },
        .module_listener = true,
        .limits = { .framing = FRAMING_NETSTRING,
                    .max_message_bytes = 4U << 20,
                    .max_queued_bytes = 32U << 20,
                    .slow_policy = SLOW_DISCONNECT,
                    .unicast_mode = UNICAST_FIRST,
                    .message_timeout_ms = 30000,
                    .linger_ms = 10000,
                    .keepalive_idle_s = 60,
                    .keepalive_interval_s = 10,
                    .keepalive_probes = 6,
                    .admission_timeout_ms = 60000 },
        .access = { .max_clients_per_address = 0, .max_connects_per_second = 0 },
        .max_total_queued_bytes = 256U << 20,
        .worker_window_frames = 256,
        .worker_window_bytes = 1U << 20,
        .shutdown_grace_ms = 2000,
        .attach_hold_ms = 5000,
        .log_level = LEVEL_INFO,
    };
}

bool config_read(struct config *config, const char *path, char error[CONFIG_ERROR])
{
    size_t length = 0;
    json_error_t bad = { .line = 0 };
    set_defaults(config);
    char *text = load(path, &length, error);
    if (text == NULL)
        return false;
    const size_t open_comment = place_blank_comments(text, length);
    json_t *root = open_comment == length ? json_loadb(text, length, JSON_REJECT_DUPLICATES, &bad) : NULL;
    bool good = root != NULL;
    if (open_comment < length) {
        const struct place place = place_of(text, open_comment);
        snprintf(error, CONFIG_ERROR, "%s:%u:%u: this comment has no end", path, place.line, place.column);
    } else if (good) {
        struct reading in = { .file = path, .text = text, .error = error };
        good = read_root(&in, root, config);
    } else {
        snprintf(error, CONFIG_ERROR, "%s:%d:%d: %s", path, bad.line > 0 ? bad.line : 1,
                 bad.column > 0 ? bad.column : 1, bad.text);
    }
    json_decref(root);
    free(text);
    if (!good)
        config_free(config);
    return good;
}

void config_free(struct config *config)
{
    free(config->listeners);
    config->listeners = NULL;
    config->listener_count = 0;
}
