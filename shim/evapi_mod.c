/* The Kamailio module evapi: what kamailio.cfg sees of evapid. Owns the tables of functions and variables. The work is
 * done in publish (calls), events (routes and variables), link (evapi worker processes), and rpc and statistics
 * (Kamailio's own tools). */
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "core/cfg/cfg_struct.h"
#include "core/dprint.h"
#include "core/kemi.h"
#include "core/pt.h"
#include "core/sr_module.h"
#include "core/timer.h"

#include "events.h"
#include "link.h"
#include "parameters.h"
#include "publish.h"
#include "queue.h"
#include "rpc.h"
#include "statistics.h"
#include "text.h"

/* Kamailio calls with fixed parameters, and few functions need them all. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

MODULE_VERSION

int mod_register(char *path, int *dlflags, void *unused, void *unused2); /* Kamailio finds it by this name */

static struct link_settings settings;

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

static int reply(sip_msg_t *msg, char *event, char *unused)
{
    return publish_event(msg, RING_SEND, (const struct text *)event, NULL);
}

static int send_to(sip_msg_t *msg, char *index, char *event)
{
    return publish_event(msg, RING_SEND, (const struct text *)event, (const struct text *)index);
}

static int async_send(sip_msg_t *msg, char *index, char *event)
{
    return publish_async(msg, RING_SEND, (const struct text *)event, (const struct text *)index);
}

static int close_current(sip_msg_t *msg, char *unused, char *unused2)
{
    return publish_close();
}

static int close_named(sip_msg_t *msg, char *index, char *unused)
{
    return publish_close_named(msg, (const struct text *)index);
}

static int set_tag(sip_msg_t *msg, char *tag, char *unused)
{
    return publish_tag(msg, (const struct text *)tag);
}

#define INDEX_TEXT 12 /* bytes: any int, and a NUL */
#define ASYNC_ROUTES (REQUEST_ROUTE | FAILURE_ROUTE)

static cmd_export_t functions[] = {
    { "evapi_relay", relay, 1, text_fixup, text_free_fixup, ANY_ROUTE },
    { "evapi_async_relay", async_relay, 1, text_fixup, text_free_fixup, ASYNC_ROUTES },
    { "evapi_multicast", multicast, 2, text_fixup, text_free_fixup, ANY_ROUTE },
    { "evapi_async_multicast", async_multicast, 2, text_fixup, text_free_fixup, ASYNC_ROUTES },
    { "evapi_unicast", unicast, 2, text_fixup, text_free_fixup, ANY_ROUTE },
    { "evapi_async_unicast", async_unicast, 2, text_fixup, text_free_fixup, ASYNC_ROUTES },
    { "evapi_reply", reply, 1, text_fixup, text_free_fixup, ANY_ROUTE },
    { "evapi_send", send_to, 2, text_fixup, text_free_fixup, ANY_ROUTE },
    { "evapi_async_send", async_send, 2, text_fixup, text_free_fixup, ASYNC_ROUTES },
    { "evapi_close", close_current, 0, 0, 0, ANY_ROUTE },
    { "evapi_close", close_named, 1, text_fixup, text_free_fixup, ANY_ROUTE },
    { "evapi_set_tag", set_tag, 1, text_fixup, text_free_fixup, ANY_ROUTE },
    { 0, 0, 0, 0, 0, 0 },
};

/* ---- functions of KEMI scripts --------------------------------------------------------------------------------- */

/* Strings arrive as the script built them; variables in them are not expanded. The event of an async call is thus
 * complete before its transaction is suspended. The script therefore creates the transaction first (KSR.tm.t_newtran),
 * and finds the numbers to resume in $T(id_index) and $T(id_label). */

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

static int kemi_reply(sip_msg_t *msg, str *event)
{
    const struct text text = text_literal(event);
    return publish_event(msg, RING_SEND, &text, NULL);
}

/* The text of an index, in buffer. */
static str index_text(int index, char buffer[INDEX_TEXT])
{
    return (str){ .s = buffer, .len = snprintf(buffer, INDEX_TEXT, "%d", index) };
}

static int kemi_send(sip_msg_t *msg, int index, str *event)
{
    char buffer[INDEX_TEXT];
    const str number = index_text(index, buffer);
    const struct text text = text_literal(event);
    const struct text to = text_literal(&number);
    return publish_event(msg, RING_SEND, &text, &to);
}

static int kemi_async_send(sip_msg_t *msg, int index, str *event)
{
    char buffer[INDEX_TEXT];
    const str number = index_text(index, buffer);
    const struct text text = text_literal(event);
    const struct text to = text_literal(&number);
    return publish_async(msg, RING_SEND, &text, &to);
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
    { KEMI_EVAPI("reply"), kemi_reply, { SR_KEMIP_STR } },
    { KEMI_EVAPI("send"), kemi_send, { SR_KEMIP_INT, SR_KEMIP_STR } },
    { KEMI_EVAPI("async_send"), kemi_async_send, { SR_KEMIP_INT, SR_KEMIP_STR } },
    { KEMI_EVAPI("close"), kemi_close, { SR_KEMIP_NONE } },
    { KEMI_EVAPI("set_tag"), kemi_set_tag, { SR_KEMIP_STR } },
    { { 0, 0 }, { 0, 0 }, 0, NULL, { 0 } },
};

/* ---- the module's life ----------------------------------------------------------------------------------------- */

static bool make_settings(void)
{
    const struct parameters *given = parameters_read();
    settings = (struct link_settings){
        .socket = given->socket,
        .bind_addr = given->bind_addr,
        .netstrings = given->netstrings,
        .max_clients = given->max_clients,
        .keep_clients = given->keep_clients,
        .workers = given->workers,
    };
    return getrandom(&settings.instance, sizeof(settings.instance), 0) == (ssize_t)sizeof(settings.instance);
}

/* In Kamailio's timer process, every second. */
static void mend(unsigned ticks, void *unused)
{
    queue_mend();
}

static int mod_init(void)
{
    const struct parameters *given = parameters_read();
    const char *failed = queue_make(given->queue_size);
    if (failed == NULL && !make_settings())
        failed = "getrandom";
    if (failed != NULL) {
        LM_ERR("the queue of %zu bytes can't be made: %s: %s\n", given->queue_size, failed, strerror(errno));
        return -1;
    }
    if (register_timer(mend, NULL, 1) < 0 || !statistics_init())
        return -1;
    rpc_init(&settings);
    events_init(given->event_callback);
    register_procs(given->workers);
    cfg_register_child(given->workers);
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
    if (rank == PROC_INIT)
        publish_bind_tm();
    if (rank != PROC_MAIN)
        return 0;
    settings.kamailio = getpid();
    for (int index = 0; index < settings.workers; index++)
        if (fork_worker((uint16_t)index) < 0)
            return -1;
    return 0;
}

static pv_export_t variables[] = {
    { str_init("evapi"), PVT_OTHER, events_get_variable, events_set_variable, events_parse_variable, 0, 0, 0 },
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
