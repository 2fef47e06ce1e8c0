/* Sets the parameters. A setter returns -1 for a value that makes no sense. Kamailio then names file and line, reads on
 * to report every error, and does not start. */
#include <string.h>

#include "core/dprint.h"
#include "core/globals.h"
#include "evapid/limits.h"

#include "binding.h"
#include "parameters.h"

/* Kamailio calls with fixed parameters, and a setter knows its type. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

static char socket_path[EVAPID_PATH_MAX + 1] = EVAPID_KAMAILIO_SOCKET;
static struct binding binding = { .at = "127.0.0.1:8448" };

static struct parameters values = {
    .socket = socket_path,
    .bind_addr = binding.at,
    .queue_size = EVAPID_RING_DEFAULT,
    .workers = 1,
    .netstrings = true,
    .max_clients = 8,
    .keep_clients = true,
};

const struct parameters *parameters_read(void)
{
    return &values;
}

/* Kamailio passes an integer in place of a pointer. */
static int number_in(void *value)
{
    return (int)(intptr_t)value;
}

static int set_socket(modparam_t type, void *value)
{
    const char *path = value;
    const size_t length = strlen(path);
    if (length == 0 || length > EVAPID_PATH_MAX) {
        LM_ERR("parameter socket is \"%s\": it must be a path of 1 to %d bytes, as " EVAPID_KAMAILIO_SOCKET "\n", path,
               EVAPID_PATH_MAX);
        return -1;
    }
    memcpy(socket_path, path, length + 1);
    return 0;
}

static int set_queue_size(modparam_t type, void *value)
{
    const long size = number_in(value);
    if (size < (long)EVAPID_RING_MIN || size > (long)EVAPID_RING_MAX) {
        LM_ERR("parameter queue_size is %ld: it must be from %lu to %lu bytes\n", size, EVAPID_RING_MIN,
               EVAPID_RING_MAX);
        return -1;
    }
    for (values.queue_size = EVAPID_RING_MIN; values.queue_size < (size_t)size;)
        values.queue_size *= 2;
    return 0;
}

/* EVAPI starts with any number of these processes, because they run nothing there; even none is enough for it. */
static int set_workers(modparam_t type, void *value)
{
    const int given = number_in(value);
    if (given < 0) {
        LM_ERR("parameter workers is %d: it must be from 1 to %d\n", given, EVAPID_WORKERS_MAX);
        return -1;
    }
    const int used = given == 0 ? 1 : given <= EVAPID_WORKERS_MAX ? given : EVAPID_WORKERS_MAX;
    if (used != given)
        LM_WARN("parameter workers is %d, which must be from 1 to %d: it is taken for %d\n", given, EVAPID_WORKERS_MAX,
                used);
    values.workers = (uint16_t)used;
    return 0;
}

static int set_netstring_format(modparam_t type, void *value)
{
    const int given = number_in(value);
    if (given != 0 && given != 1)
        LM_NOTICE("parameter netstring_format is %d: netstrings, as with 1\n", given);
    values.netstrings = given != 0;
    return 0;
}

static int set_max_clients(modparam_t type, void *value)
{
    const int given = number_in(value);
    if (given < 0) {
        LM_ERR("parameter max_clients is %d: it must be 0 or more\n", given);
        return -1;
    }
    if (given == 0)
        LM_WARN("parameter max_clients is 0: no client can connect where bind_addr says\n");
    values.max_clients = (uint32_t)given;
    return 0;
}

static int set_keep_clients(modparam_t type, void *value)
{
    const int given = number_in(value);
    if (given != 0 && given != 1) {
        LM_ERR("parameter keep_clients is %d: it must be 0 or 1\n", given);
        return -1;
    }
    values.keep_clients = given != 0;
    return 0;
}

/* `kamailio -c` reports a name that cannot be resolved as an error. At a start the name server may be the cause, and
 * SIP must not fail with it. */
static int miss_name(const char *text, const char *why)
{
    if (config_check) {
        LM_ERR("parameter bind_addr is \"%s\": the name has no address: %s\n", text, why);
        return -1;
    }
    LM_ERR(
        "parameter bind_addr is \"%s\": the name has no address: %s; evapid does not listen for this Kamailio until it is "
        "started again\n",
        text, why);
    return 0;
}

static int set_bind_addr(modparam_t type, void *value)
{
    const char *text = value;
    const char *why = binding_read(text, &binding);
    if (why != NULL && binding.is_name)
        return miss_name(text, why);
    if (why != NULL) {
        LM_ERR(
            "parameter bind_addr is \"%s\": %s; it must be IP:PORT or NAME:PORT, as in 127.0.0.1:8448, [::1]:8448 or "
            "localhost:8448, or empty for no listener\n",
            text, why);
        return -1;
    }
    if (binding.addresses > 1)
        LM_WARN("parameter bind_addr is \"%s\": that is %s; evapid listens at the first, as EVAPI does\n", text,
                binding.all);
    else if (binding.is_name)
        LM_NOTICE("parameter bind_addr is \"%s\": that is %s\n", text, binding.at);
    return 0;
}

static int set_event_callback(modparam_t type, void *value)
{
    static char name[128];
    const str *given = value;
    if (given->len < 0 || given->len >= (int)sizeof(name)) {
        LM_ERR("parameter event_callback is a name of %d bytes: it must be of at most %zu\n", given->len,
               sizeof(name) - 1);
        return -1;
    }
    memcpy(name, given->s, (size_t)given->len);
    values.event_callback = (str){ .s = name, .len = given->len };
    return 0;
}

/* Parameters of newer EVAPI releases, for its dispatcher process and its memory. They are accepted, so that such a
 * configuration needs no change. */
static int not_needed(const char *parameter)
{
    LM_NOTICE("parameter %s has no effect: evapid does not wait or allocate where it applied\n", parameter);
    return 0;
}

static int set_wait_idle(modparam_t type, void *value)
{
    return not_needed("wait_idle");
}

static int set_wait_increase(modparam_t type, void *value)
{
    return not_needed("wait_increase");
}

static int set_send_task_timeout(modparam_t type, void *value)
{
    return not_needed("send_task_timeout");
}

static int set_send_data_timeout(modparam_t type, void *value)
{
    return not_needed("send_data_timeout");
}

static int set_context_mlimit(modparam_t type, void *value)
{
    return not_needed("context_mlimit");
}

#define NUMBER (PARAM_INT | PARAM_USE_FUNC)
#define TEXT (PARAM_STRING | PARAM_USE_FUNC)

param_export_t parameters[] = {
    { "socket", TEXT, (void *)set_socket },
    { "queue_size", NUMBER, (void *)set_queue_size },
    { "workers", NUMBER, (void *)set_workers },
    { "bind_addr", TEXT, (void *)set_bind_addr },
    { "netstring_format", NUMBER, (void *)set_netstring_format },
    { "event_callback", PARAM_STR | PARAM_USE_FUNC, (void *)set_event_callback },
    { "max_clients", NUMBER, (void *)set_max_clients },
    { "keep_clients", NUMBER, (void *)set_keep_clients },
    { "wait_idle", NUMBER, (void *)set_wait_idle },
    { "wait_increase", NUMBER, (void *)set_wait_increase },
    { "send_task_timeout", NUMBER, (void *)set_send_task_timeout },
    { "send_data_timeout", NUMBER, (void *)set_send_data_timeout },
    { "context_mlimit", NUMBER, (void *)set_context_mlimit },
    { 0, 0, 0 },
};
