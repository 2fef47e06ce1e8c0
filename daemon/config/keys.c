/* The table of keys. */
#include "config/keys.h"

#include <string.h>

#include "config/config_type.h"
#include "net/bucket.h"

#define KEEPALIVE_MAX_S 32767 /* tcp(7) */
#define PROBES_MAX 127        /* tcp(7) */

/* ---- words ------------------------------------------------------------------------------------------------------- */

static const char *framing_word(unsigned number)
{
    return framing_name((enum framing)number);
}

static const char *slow_policy_word(unsigned number)
{
    static const char *const names[] = { "disconnect", "drop-newest", "drop-oldest" };
    return names[number];
}

static const char *unicast_mode_word(unsigned number)
{
    return unicast_mode_name((enum unicast_mode)number);
}

static const char *log_level_word(unsigned number)
{
    return log_level_name((enum log_level)number);
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

/* The rule for a value. */
#define OBJECT .rule.kind = (&value_object)
#define OBJECTS .rule.kind = (&value_objects)
#define NUMBER(from, to) .rule.kind = &value_number, .rule.least = (from), .rule.most = (to)
#define CLIENTS(from, to) NUMBER(from, to), .rule.unit = "clients"
#define MESSAGES(from, to) NUMBER(from, to), .rule.unit = "messages"
#define PROBES(from, to) NUMBER(from, to), .rule.unit = "probes"
#define BOOLEAN .rule.kind = (&value_boolean)
#define WORD(name, last) .rule.kind = &value_word, .rule.word = (name), .rule.most = (last)
#define PATH .rule.kind = &value_path, .rule.least = 1, .rule.most = EVAPID_PATH_MAX
#define ADDRESS .rule.kind = (&value_address)
#define SOCKET .rule.kind = (&value_socket)
#define NETWORKS(from) .rule.kind = &value_networks, .rule.least = (from), .rule.most = ACCESS_NETWORKS_MAX
#define MODE .rule.kind = &value_mode, .rule.most = 0777
#define GROUP .rule.kind = (&value_group)
#define USERS .rule.kind = &value_users, .rule.most = DOOR_USERS_MAX
#define OVERRIDES(other) .overrides = (other)

/* The default, as written in the file. */
#define DEFAULT(text) .by_default = (text)
#define QUOTED(text) "\"" text "\""

/* The place in memory. */
#define KEPT(type, member) .offset = offsetof(struct type, member), .rule.width = sizeof(((struct type *)0)->member)
#define CONFIG(member) KEPT(config, member)
#define LISTENER(member) KEPT(config_listener, member)

/* The effect of a reload. */
#define AT_ONCE .reload = RELOAD_AT_ONCE
#define NEW_CLIENTS .reload = RELOAD_NEW_CLIENTS
#define ALL_CLIENTS .reload = RELOAD_ALL_CLIENTS
#define NEW_CONNECTIONS .reload = RELOAD_NEW_CONNECTIONS
#define OPENS .reload = RELOAD_OPENS
#define MOVES .reload = RELOAD_MOVES

const struct key keys[] = {
    { "kamailio_socket", PATH, DEFAULT(QUOTED(EVAPID_KAMAILIO_SOCKET)), CONFIG(kamailio_socket), MOVES },
    { "control_socket", PATH, DEFAULT(QUOTED(EVAPID_CONTROL_SOCKET)), CONFIG(control_socket), MOVES },

    { "kamailio_access", OBJECT, DEFAULT("{}") },
    { "kamailio_access.mode", MODE, DEFAULT("\"0660\""), CONFIG(kamailio_access.mode), NEW_CONNECTIONS },
    { "kamailio_access.group", GROUP, CONFIG(kamailio_access.group), NEW_CONNECTIONS },
    { "kamailio_access.users", USERS, CONFIG(kamailio_access), NEW_CONNECTIONS },
    { "control_access", OBJECT, DEFAULT("{}") },
    { "control_access.mode", MODE, DEFAULT("\"0660\""), CONFIG(control_access.mode), NEW_CONNECTIONS },
    { "control_access.group", GROUP, CONFIG(control_access.group), NEW_CONNECTIONS },
    { "control_access.users", USERS, CONFIG(control_access), NEW_CONNECTIONS },

    { "module_listener", BOOLEAN, DEFAULT("true"), CONFIG(module_listener), OPENS },

    { "listeners", OBJECTS, DEFAULT("[]"), OPENS },
    { "listeners[].address", SOCKET, LISTENER(address), OPENS },
    { "listeners[].mode", MODE, DEFAULT("\"0660\""), LISTENER(access.door.mode), NEW_CONNECTIONS },
    { "listeners[].group", GROUP, LISTENER(access.door.group), NEW_CONNECTIONS },
    { "listeners[].users", USERS, LISTENER(access.door), ALL_CLIENTS },
    { "listeners[].framing", WORD(framing_word, FRAMING_RAW), DEFAULT("\"netstring\""), LISTENER(limits.framing),
      NEW_CLIENTS },
    { "listeners[].max_clients", CLIENTS(1, 1000000), DEFAULT("1024"), LISTENER(max_clients), NEW_CLIENTS },
    { "listeners[].max_message_bytes", OVERRIDES("limits.max_message_bytes"), LISTENER(limits.max_message_bytes) },
    { "listeners[].max_queued_bytes", OVERRIDES("limits.max_queued_bytes"), LISTENER(limits.max_queued_bytes) },
    { "listeners[].slow_policy", OVERRIDES("limits.slow_policy"), LISTENER(limits.slow_policy) },
    { "listeners[].unicast_mode", OVERRIDES("limits.unicast_mode"), LISTENER(limits.unicast_mode) },
    { "listeners[].keep_absent_ms", OVERRIDES("limits.keep_absent_ms"), LISTENER(limits.keep_absent_ms) },
    { "listeners[].message_timeout_ms", OVERRIDES("limits.message_timeout_ms"), LISTENER(limits.message_timeout_ms) },
    { "listeners[].keepalive", OVERRIDES("keepalive") },
    { "listeners[].keepalive.idle_s", OVERRIDES("keepalive.idle_s"), LISTENER(limits.keepalive_idle_s) },
    { "listeners[].keepalive.interval_s", OVERRIDES("keepalive.interval_s"), LISTENER(limits.keepalive_interval_s) },
    { "listeners[].keepalive.probes", OVERRIDES("keepalive.probes"), LISTENER(limits.keepalive_probes) },
    { "listeners[].access", OVERRIDES("access") },
    { "listeners[].access.allow", OVERRIDES("access.allow"), LISTENER(access.allow) },
    { "listeners[].access.deny", OVERRIDES("access.deny"), LISTENER(access.deny) },
    { "listeners[].access.max_clients_per_address", OVERRIDES("access.max_clients_per_address"),
      LISTENER(access.max_clients_per_address) },
    { "listeners[].access.max_connects_per_second", OVERRIDES("access.max_connects_per_second"),
      LISTENER(access.max_connects_per_second) },
    { "listeners[].access.admission_timeout_ms", OVERRIDES("access.admission_timeout_ms"),
      LISTENER(limits.admission_timeout_ms) },

    { "access", OBJECT, DEFAULT("{}") },
    { "access.allow", NETWORKS(1), CONFIG(access.allow), ALL_CLIENTS },
    { "access.deny", NETWORKS(0), DEFAULT("[]"), CONFIG(access.deny), ALL_CLIENTS },
    { "access.max_clients_per_address", CLIENTS(0, 1000000), DEFAULT("0"), CONFIG(access.max_clients_per_address),
      NEW_CLIENTS },
    { "access.max_connects_per_second", CLIENTS(0, BUCKET_RATE_MAX), DEFAULT("0"),
      CONFIG(access.max_connects_per_second), NEW_CLIENTS },
    { "access.admission_timeout_ms", NUMBER(0, 3600000), DEFAULT("60000"), CONFIG(limits.admission_timeout_ms),
      ALL_CLIENTS },

    { "limits", OBJECT, DEFAULT("{}") },
    { "limits.max_message_bytes", NUMBER(1, EVAPID_MESSAGE_MAX), DEFAULT("4194304"), CONFIG(limits.max_message_bytes),
      ALL_CLIENTS },
    { "limits.max_queued_bytes", NUMBER(1024, 1UL << 40), DEFAULT("33554432"), CONFIG(limits.max_queued_bytes),
      ALL_CLIENTS },
    { "limits.slow_policy", WORD(slow_policy_word, SLOW_DROP_OLDEST), DEFAULT("\"disconnect\""),
      CONFIG(limits.slow_policy), ALL_CLIENTS },
    { "limits.unicast_mode", WORD(unicast_mode_word, UNICAST_LEAST_QUEUED), DEFAULT("\"first\""),
      CONFIG(limits.unicast_mode), ALL_CLIENTS },
    { "limits.max_total_queued_bytes", NUMBER(1UL << 20, 1UL << 40), DEFAULT("268435456"),
      CONFIG(max_total_queued_bytes), ALL_CLIENTS },
    { "limits.keep_absent_ms", NUMBER(0, 86400000), DEFAULT("0"), CONFIG(limits.keep_absent_ms), ALL_CLIENTS },
    { "limits.message_timeout_ms", NUMBER(0, 86400000), DEFAULT("30000"), CONFIG(limits.message_timeout_ms),
      ALL_CLIENTS },
    { "limits.linger_ms", NUMBER(0, 600000), DEFAULT("10000"), CONFIG(limits.linger_ms), ALL_CLIENTS },
    { "limits.worker_window_frames", MESSAGES(1, 65536), DEFAULT("256"), CONFIG(worker_window_frames), AT_ONCE },
    { "limits.worker_window_bytes", NUMBER(1024, 1UL << 30), DEFAULT("1048576"), CONFIG(worker_window_bytes), AT_ONCE },

    { "keepalive", OBJECT, DEFAULT("{}") },
    { "keepalive.idle_s", NUMBER(0, KEEPALIVE_MAX_S), DEFAULT("60"), CONFIG(limits.keepalive_idle_s), ALL_CLIENTS },
    { "keepalive.interval_s", NUMBER(1, KEEPALIVE_MAX_S), DEFAULT("10"), CONFIG(limits.keepalive_interval_s),
      ALL_CLIENTS },
    { "keepalive.probes", PROBES(1, PROBES_MAX), DEFAULT("6"), CONFIG(limits.keepalive_probes), ALL_CLIENTS },

    { "shutdown_grace_ms", NUMBER(0, 600000), DEFAULT("2000"), CONFIG(shutdown_grace_ms), AT_ONCE },
    { "attach_hold_ms", NUMBER(0, 600000), DEFAULT("5000"), CONFIG(attach_hold_ms), AT_ONCE },

    { "http", OBJECT, OPENS },
    { "http.address", ADDRESS, DEFAULT(QUOTED(EVAPID_METRICS_ADDRESS)), CONFIG(http.address), MOVES },
    { "http.page", BOOLEAN, DEFAULT("true"), CONFIG(http.page), AT_ONCE },
    { "http.tail", BOOLEAN, DEFAULT("false"), CONFIG(http.tail), AT_ONCE },
    { "metrics", OBJECT, OPENS },
    { "metrics.address", ADDRESS, DEFAULT(QUOTED(EVAPID_METRICS_ADDRESS)), CONFIG(metrics), MOVES },

    { "log", OBJECT, DEFAULT("{}") },
    { "log.level", WORD(log_level_word, LEVEL_DEBUG), DEFAULT("\"info\""), CONFIG(log_level), AT_ONCE },
    { 0 },
};

/* ---- looking a key up -------------------------------------------------------------------------------------------- */

const char *key_own_name(const struct key *key)
{
    const char *dot = strrchr(key->name, '.');
    return dot != NULL ? dot + 1 : key->name;
}

bool key_is_in(const struct key *key, const char *object)
{
    const size_t own = (size_t)(key_own_name(key) - key->name);
    const size_t length = own > 0 ? own - 1 : 0;
    return strlen(object) == length && strncmp(key->name, object, length) == 0;
}

const struct key *key_find(const char *object, const char *name)
{
    for (const struct key *key = keys; key->name != NULL; key++)
        if (key_is_in(key, object) && strcmp(key_own_name(key), name) == 0)
            return key;
    return NULL;
}

const struct key *key_model(const struct key *key)
{
    if (key->overrides == NULL)
        return key;
    const struct key *model = keys;
    while (strcmp(model->name, key->overrides) != 0)
        model++; /* it exists: test_keys.c */
    return model;
}
