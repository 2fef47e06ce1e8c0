/* The Kamailio module evapi: what kamailio.cfg sees of evapid. Owns the parameters and the tables of what is exported;
 * the work is done in publish (calls), events (routes and variables), link (evapi worker processes), and rpc and statistics
 * (Kamailio's own tools). */
#include <arpa/inet.h>
#include <limits.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "core/cfg/cfg_struct.h"
#include "core/dprint.h"
#include "core/kemi.h"
#include "core/pt.h"
#include "core/sr_module.h"
#include "evapid/limits.h"

#include "events.h"
#include "link.h"
#include "publish.h"
#include "queue.h"
#include "rpc.h"
#include "statistics.h"
#include "text.h"

/* Kamailio calls with fixed parameters; few functions need them all. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

MODULE_VERSION

int mod_register(char *path, int *dlflags, void *unused, void *unused2); /* found by its name */

/* ---- parameters ------------------------------------------------------------------------------------------------ */

static char *socket_path = EVAPID_KAMAILIO_SOCKET;
static char *bind_addr = "127.0.0.1:8448";
static int queue_size = EVAPID_RING_DEFAULT;
static int workers = 1;
static int netstring_format = 1;
static int max_clients = 8;
static int keep_clients = 1;
static str event_callback = STR_NULL;

static struct link_settings settings;

/* Parameters of newer EVAPI releases, about its dispatcher process and its memory. They are accepted, so that a
 * configuration for those needs no change. */
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

static param_export_t parameters[] = {
    { "socket", PARAM_STRING, &socket_path },
    { "queue_size", PARAM_INT, &queue_size },
    { "workers", PARAM_INT, &workers },
    { "bind_addr", PARAM_STRING, &bind_addr },
    { "netstring_format", PARAM_INT, &netstring_format },
    { "event_callback", PARAM_STR, &event_callback },
    { "max_clients", PARAM_INT, &max_clients },
    { "keep_clients", PARAM_INT, &keep_clients },
    { "wait_idle", PARAM_INT | PARAM_USE_FUNC, (void *)set_wait_idle },
    { "wait_increase", PARAM_INT | PARAM_USE_FUNC, (void *)set_wait_increase },
    { "send_task_timeout", PARAM_INT | PARAM_USE_FUNC, (void *)set_send_task_timeout },
    { "send_data_timeout", PARAM_INT | PARAM_USE_FUNC, (void *)set_send_data_timeout },
    { "context_mlimit", PARAM_INT | PARAM_USE_FUNC, (void *)set_context_mlimit },
    { 0, 0, 0 },
};

static bool check_number(const char *parameter, int value, int min, int max)
{
    if (value >= min && value <= max)
        return true;
    LM_ERR("parameter %s is %d: it must be from %d to %d\n", parameter, value, min, max);
    return false;
}

static bool check_socket(void)
{
    const size_t length = strlen(socket_path);
    if (length > 0 && length <= EVAPID_PATH_MAX)
        return true;
    LM_ERR("parameter socket is \"%s\": it must be a path of 1 to %d bytes\n", socket_path, EVAPID_PATH_MAX);
    return false;
}

static bool is_port(const char *text)
{
    const str digits = { .s = (char *)(uintptr_t)text, .len = (int)strlen(text) };
    unsigned port;
    return str2int((str *)(uintptr_t)&digits, &port) == 0 && port > 0 && port <= 65535;
}

/* "ADDRESS:PORT" or "[ADDRESS]:PORT", with numbers, as evapid reads it. */
static bool is_listener(const char *text)
{
    const bool v6 = text[0] == '[';
    const char *end = v6 ? strstr(text, "]:") : strrchr(text, ':');
    if (end == NULL || !is_port(end + (v6 ? 2 : 1)))
        return false;
    char host[INET6_ADDRSTRLEN];
    const size_t length = (size_t)(end - text) - v6;
    if (length >= sizeof(host))
        return false;
    memcpy(host, text + v6, length);
    host[length] = '\0';
    struct in6_addr address;
    return inet_pton(v6 ? AF_INET6 : AF_INET, host, &address) == 1;
}

static bool check_bind_addr(void)
{
    if (bind_addr[0] == '\0' || is_listener(bind_addr))
        return true;
    LM_ERR("parameter bind_addr is \"%s\": it must be IP:PORT, as in 127.0.0.1:8448 or [::1]:8448, or empty for no "
           "listener\n",
           bind_addr);
    return false;
}

/* All of them are checked, so that one start shows all that is wrong. */
static bool check_parameters(void)
{
    bool good = check_socket();
    good &= check_number("queue_size", queue_size, EVAPID_RING_MIN, EVAPID_RING_MAX);
    good &= check_number("workers", workers, 1, EVAPID_WORKERS_MAX);
    good &= check_number("netstring_format", netstring_format, 0, 1);
    good &= check_number("max_clients", max_clients, 1, INT_MAX);
    good &= check_number("keep_clients", keep_clients, 0, 1);
    return check_bind_addr() && good;
}

/* ---- functions of the native script ---------------------------------------------------------------------------- */

static int relay(sip_msg_t *msg, char *event, char *unused)
{
    return publish_event(msg, RING_RELAY, (const struct text *)event, NULL);
}

static int async_relay(sip_msg_t *msg, char *event, char *unused)
{
    return publish_async(msg, RING_RELAY, (const struct text *)event, NULL);
}

static int multicast(sip_msg_t *msg, char *event, char *tag)
{
    return publish_event(msg, RING_MULTICAST, (const struct text *)event, (const struct text *)tag);
}

static int async_multicast(sip_msg_t *msg, char *event, char *tag)
{
    return publish_async(msg, RING_MULTICAST, (const struct text *)event, (const struct text *)tag);
}

static int unicast(sip_msg_t *msg, char *event, char *tag)
{
    return publish_event(msg, RING_UNICAST, (const struct text *)event, (const struct text *)tag);
}

static int async_unicast(sip_msg_t *msg, char *event, char *tag)
{
    return publish_async(msg, RING_UNICAST, (const struct text *)event, (const struct text *)tag);
}

static int close_current(sip_msg_t *msg, char *unused, char *unused2)
{
    return publish_close();
}

static int close_index(sip_msg_t *msg, char *index, char *unused)
{
    return publish_close_index(msg, (const struct text *)index);
}

static int set_tag(sip_msg_t *msg, char *tag, char *unused)
{
    return publish_tag(msg, (const struct text *)tag);
}

#define ASYNC_ROUTES (REQUEST_ROUTE | FAILURE_ROUTE)

static cmd_export_t functions[] = {
    { "evapi_relay", relay, 1, text_fixup, text_free_fixup, ANY_ROUTE },
    { "evapi_async_relay", async_relay, 1, text_fixup, text_free_fixup, ASYNC_ROUTES },
    { "evapi_multicast", multicast, 2, text_fixup, text_free_fixup, ANY_ROUTE },
    { "evapi_async_multicast", async_multicast, 2, text_fixup, text_free_fixup, ASYNC_ROUTES },
    { "evapi_unicast", unicast, 2, text_fixup, text_free_fixup, ANY_ROUTE },
    { "evapi_async_unicast", async_unicast, 2, text_fixup, text_free_fixup, ASYNC_ROUTES },
    { "evapi_close", close_current, 0, 0, 0, ANY_ROUTE },
    { "evapi_close", close_index, 1, text_fixup, text_free_fixup, ANY_ROUTE },
    { "evapi_set_tag", set_tag, 1, text_fixup, text_free_fixup, ANY_ROUTE },
    { 0, 0, 0, 0, 0, 0 },
};

/* ---- functions of KEMI scripts --------------------------------------------------------------------------------- */

/* Strings come as the script made them, and are not searched for variables. An async event is therefore complete before
 * its transaction is suspended: the script creates the transaction first (KSR.tm.t_newtran) and then finds the numbers
 * to resume in $T(id_index) and $T(id_label). */

static int kemi_relay(sip_msg_t *msg, str *event)
{
    const struct text text = text_literal(event);
    return publish_event(msg, RING_RELAY, &text, NULL);
}

static int kemi_async_relay(sip_msg_t *msg, str *event)
{
    const struct text text = text_literal(event);
    return publish_async(msg, RING_RELAY, &text, NULL);
}

static int kemi_multicast(sip_msg_t *msg, str *event, str *tag)
{
    const struct text text = text_literal(event);
    const struct text tag_text = text_literal(tag);
    return publish_event(msg, RING_MULTICAST, &text, &tag_text);
}

static int kemi_async_multicast(sip_msg_t *msg, str *event, str *tag)
{
    const struct text text = text_literal(event);
    const struct text tag_text = text_literal(tag);
    return publish_async(msg, RING_MULTICAST, &text, &tag_text);
}

static int kemi_unicast(sip_msg_t *msg, str *event, str *tag)
{
    const struct text text = text_literal(event);
    const struct text tag_text = text_literal(tag);
    return publish_event(msg, RING_UNICAST, &text, &tag_text);
}

static int kemi_async_unicast(sip_msg_t *msg, str *event, str *tag)
{
    const struct text text = text_literal(event);
    const struct text tag_text = text_literal(tag);
    return publish_async(msg, RING_UNICAST, &text, &tag_text);
}

static int kemi_close(sip_msg_t *msg)
{
    return publish_close();
}

static int kemi_set_tag(sip_msg_t *msg, str *tag)
{
    const struct text text = text_literal(tag);
    return publish_tag(msg, &text);
}

#define KEMI_EVAPI(name) str_init("evapi"), str_init(name), SR_KEMIP_INT

static sr_kemi_t kemi_functions[] = {
    { KEMI_EVAPI("relay"), kemi_relay, { SR_KEMIP_STR } },
    { KEMI_EVAPI("async_relay"), kemi_async_relay, { SR_KEMIP_STR } },
    { KEMI_EVAPI("relay_multicast"), kemi_multicast, { SR_KEMIP_STR, SR_KEMIP_STR } },
    { KEMI_EVAPI("async_multicast"), kemi_async_multicast, { SR_KEMIP_STR, SR_KEMIP_STR } },
    { KEMI_EVAPI("relay_unicast"), kemi_unicast, { SR_KEMIP_STR, SR_KEMIP_STR } },
    { KEMI_EVAPI("async_unicast"), kemi_async_unicast, { SR_KEMIP_STR, SR_KEMIP_STR } },
    { KEMI_EVAPI("close"), kemi_close, { SR_KEMIP_NONE } },
    { KEMI_EVAPI("set_tag"), kemi_set_tag, { SR_KEMIP_STR } },
    { { 0, 0 }, { 0, 0 }, 0, NULL, { 0 } },
};

/* ---- the module's life ----------------------------------------------------------------------------------------- */

static size_t round_up(size_t size)
{
    size_t capacity = EVAPID_RING_MIN;
    while (capacity < size)
        capacity *= 2;
    return capacity;
}

static bool make_settings(void)
{
    settings = (struct link_settings){
        .socket = socket_path,
        .bind_addr = bind_addr,
        .netstrings = netstring_format != 0,
        .max_clients = (uint32_t)max_clients,
        .keep_clients = keep_clients != 0,
        .workers = (uint16_t)workers,
    };
    return getrandom(&settings.instance, sizeof(settings.instance), 0) == (ssize_t)sizeof(settings.instance);
}

static int mod_init(void)
{
    if (!check_parameters())
        return -1;
    const char *failed = queue_make(round_up((size_t)queue_size));
    if (failed == NULL && !make_settings())
        failed = "getrandom";
    if (failed != NULL) {
        LM_ERR("the queue of %d bytes can't be made: %s: %s\n", queue_size, failed, strerror(errno));
        return -1;
    }
    if (!publish_init() || !statistics_init())
        return -1;
    rpc_init(&settings);
    events_init(event_callback);
    register_procs(workers);
    cfg_register_child(workers);
    register_fds(QUEUE_FDS);
    return 0;
}

static int fork_worker(uint16_t index)
{
    char description[sizeof("EVAPI Worker 65535")];
    snprintf(description, sizeof(description), "EVAPI Worker %u", index);
    const int pid = fork_process(PROC_RPC, description, 1);
    if (pid < 0) {
        LM_ERR("%s can't be started\n", description);
        return -1;
    }
    if (pid > 0)
        return 0;
    if (cfg_child_init() != 0) {
        LM_ERR("%s: its configuration can't be made\n", description);
        return -1;
    }
    link_work(index, &settings);
}

static int child_init(int rank)
{
    if (rank != PROC_MAIN)
        return 0;
    settings.kamailio = getpid();
    for (int index = 0; index < workers; index++)
        if (fork_worker((uint16_t)index) < 0)
            return -1;
    return 0;
}

static pv_export_t variables[] = {
    { str_init("evapi"), PVT_OTHER, events_get_variable, 0, events_parse_variable, 0, 0, 0 },
    { { 0, 0 }, 0, 0, 0, 0, 0, 0, 0 },
};

struct module_exports exports = {
    .name = "evapi",
    .dlflags = DEFAULT_DLFLAGS,
    .cmds = functions,
    .params = parameters,
    .rpc_methods = rpc_commands,
    .pv_items = variables,
    .init_mod_f = mod_init,
    .init_child_f = child_init,
};

int mod_register(char *path, int *dlflags, void *unused, void *unused2)
{
    return sr_kemi_modules_add(kemi_functions) == 0 ? 0 : -1;
}
