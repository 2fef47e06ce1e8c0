/* Turns script calls into records. Owns tm's functions, which transaction.c uses, and limits how often a failing call
 * is logged. */
#include <string.h>
#include <time.h>

#include "core/dprint.h"
#include "core/sr_module.h"
#include "modules/tm/tm_load.h"

#include "events.h"
#include "link.h"
#include "publish.h"
#include "queue.h"
#include "transaction.h"

static tm_api_t tm;
static bool tm_loaded;

void publish_bind_tm(void)
{
    if (find_export("load_tm", NO_SCRIPT, 0) == NULL)
        LM_NOTICE("tm is not loaded: the evapi_async_ functions will fail\n");
    else
        tm_loaded = load_tm_api(&tm) == 0 && transaction_init(&tm);
}

/* A KEMI script may run early, in another module's mod_init: Python's does. There is no queue then. */
static bool is_begun(void)
{
    if (!queue_is_made())
        LM_ERR(
            "evapi is not there yet: no function of it can be called before Kamailio has initialized it (mod_init); call it "
            "from a child's initialization or later\n");
    return queue_is_made();
}

/* ---- tags ------------------------------------------------------------------------------------------------------ */

/* Read a tag and copy it: the event is read next and may use the same buffers. */
static bool read_tag(sip_msg_t *msg, const struct text *text, struct tag *tag)
{
    str got;
    if (!text_read(msg, text, &got))
        return false;
    const bool fits = got.len <= EVAPID_TAG_MAX;
    tag->length = fits && got.len > 0 ? (size_t)got.len : 0;
    if (tag->length > 0)
        memcpy(tag->bytes, got.s, tag->length);
    if (!fits)
        LM_ERR("a tag of %d bytes: at most %d are allowed\n", got.len, EVAPID_TAG_MAX);
    text_done();
    return fits;
}

/* ---- connections ----------------------------------------------------------------------------------------------- */

static const struct event *event_here(const char *function)
{
    const struct event *event = events_current();
    if (event == NULL)
        LM_ERR("%s is for the evapi event routes: there is no connection here\n", function);
    return event;
}

static bool read_index(sip_msg_t *msg, const struct text *text, const char *function, uint32_t *index)
{
    str got;
    if (!text_read(msg, text, &got))
        return false;
    unsigned number = 0;
    const bool good = str2int(&got, &number) == 0 && number != 0;
    if (!good)
        LM_ERR("%s: \"%.*s\" is not the index of a connection\n", function, got.len, got.s);
    *index = number;
    text_done();
    return good;
}

/* ---- receivers ------------------------------------------------------------------------------------------------- */

/* Who shall get an event. */
struct address {
    enum ring_type type;
    struct tag tag;               /* RING_MULTICAST, RING_UNICAST */
    uint32_t session, connection; /* RING_SEND: the connection, and the evapid that assigned its index */
    bool guest;                   /* RING_SEND: the connection's own connection-new route runs */
};

static const char *async_name(enum ring_type type)
{
    switch (type) {
    case RING_RELAY: return "evapi_async_relay";
    case RING_MULTICAST: return "evapi_async_multicast";
    case RING_UNICAST: return "evapi_async_unicast";
    default: return "evapi_async_send";
    }
}

static bool read_receivers(sip_msg_t *msg, const struct text *tag, struct address *to)
{
    if (!read_tag(msg, tag, &to->tag))
        return false;
    if (to->tag.length == 0)
        LM_ERR("an event for an empty tag is sent to nobody\n");
    return to->tag.length > 0;
}

/* Is the connection there, as far as an evapid has published? A guest gets its event when its route has let it in; that
 * route runs once more if another evapid goes on with it. */
static bool is_connected(const struct address *to)
{
    const struct presence *presence = queue_presence();
    if (to->guest ? atomic_load_explicit(&presence->session, memory_order_acquire) == to->session
                  : presence_knows(presence, to->session) && presence_connected(presence, to->connection))
        return true;
    LM_DBG("connection %u gets no events: it has gone, or it has not been let in\n", to->connection);
    return false;
}

/* The current event's connection. */
static bool read_asker(struct address *to)
{
    const struct event *event = event_here("evapi_reply");
    if (event == NULL)
        return false;
    if (event->type == WIRE_CLOSED) {
        LM_ERR("evapi_reply: connection %u has gone: nobody gets an answer in connection-closed\n", event->connection);
        return false;
    }
    to->session = event->session;
    to->connection = event->connection;
    to->guest = event->type == WIRE_NEW;
    return is_connected(to);
}

static bool read_connection(sip_msg_t *msg, const struct text *index, const char *function, struct address *to)
{
    if (!read_index(msg, index, function, &to->connection))
        return false;
    const struct event *event = events_current();
    to->session = atomic_load_explicit(&queue_presence()->session, memory_order_acquire);
    to->guest = event != NULL && event->type == WIRE_NEW && event->connection == to->connection &&
                event->session == to->session;
    return is_connected(to);
}

/* text: a tag or an index. NULL: everybody, or the current event's connection (RING_SEND). */
static bool read_address(sip_msg_t *msg, enum ring_type type, const struct text *text, const char *function,
                         struct address *to)
{
    *to = (struct address){ .type = type };
    if (type == RING_RELAY)
        return true;
    if (type != RING_SEND)
        return read_receivers(msg, text, to);
    return text != NULL ? read_connection(msg, text, function, to) : read_asker(to);
}

/* ---- events ---------------------------------------------------------------------------------------------------- */

/* Log that an event found no room, at most once a second: while evapid is down or slow, every event fails so. */
static void log_full(int length)
{
    static time_t logged;
    static unsigned left_out;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    if (now.tv_sec == logged) {
        left_out++;
        return;
    }
    LM_ERR(
        "the queue is full: an event of %d bytes is lost, and %u more since the last such line (queue_size is %zu)\n",
        length, left_out, queue_capacity());
    logged = now.tv_sec;
    left_out = 0;
}

/* Log why the queue refused an event. */
static void log_refused(enum ring_push why, int length)
{
    if (why == RING_FULL)
        log_full(length);
    else if (why == RING_LARGE)
        LM_ERR("an event of %d bytes is too large: with queue_size %zu at most %zu are allowed\n", length,
               queue_capacity(), queue_payload_max());
    else
        LM_CRIT("more than %u processes push: an event of %d bytes is lost\n", RING_SLOTS, length);
}

/* An event from a connection-new route also reaches the route's own client, once it is admitted. */
static struct ring_record record_for(const struct address *to)
{
    struct ring_record record = { .type = (uint8_t)to->type };
    const struct event *here = events_current();
    if (to->type == RING_SEND) {
        record.session = to->session;
        record.target = to->connection;
        record.worker = to->guest ? RING_GUEST : 0;
    } else if (here != NULL && here->type == WIRE_NEW) {
        record.session = here->session;
        record.target = here->connection;
    }
    return record;
}

static bool push_event(const struct address *to, const str *event)
{
    const enum ring_push pushed =
        queue_push(record_for(to), to->tag.bytes, to->tag.length, event->s, (size_t)event->len);
    if (pushed != RING_PUSHED)
        log_refused(pushed, event->len);
    return pushed == RING_PUSHED;
}

static bool read_event(sip_msg_t *msg, const struct text *text, str *event)
{
    if (!text_read(msg, text, event))
        return false;
    if (event->len <= 0)
        LM_ERR("an empty event is not sent\n");
    return event->len > 0;
}

int publish_event(sip_msg_t *msg, enum ring_type type, const struct text *event, const struct text *to)
{
    struct address address;
    str bytes;
    if (!is_begun())
        return -1;
    const bool pushed = read_address(msg, type, to, "evapi_send", &address) && read_event(msg, event, &bytes) &&
                        push_event(&address, &bytes);
    text_done();
    return pushed ? 1 : -1;
}

/* ---- async events ---------------------------------------------------------------------------------------------- */

/* Is there a client that could answer? */
static bool is_anyone_there(const struct address *to)
{
    const struct presence *presence = queue_presence();
    if (to->type == RING_RELAY  ? presence_anyone(presence)
        : to->type == RING_SEND ? presence_receives(presence, to->connection)
                                : presence_tagged(presence, to->tag.bytes, to->tag.length))
        return true;
    LM_DBG("nobody is connected who could answer: the request is not suspended\n");
    return false;
}

static bool has_room(const struct address *to, const str *event)
{
    const enum ring_push answer = queue_probe(to->tag.length, (size_t)event->len);
    if (answer != RING_PUSHED)
        log_refused(answer, event->len);
    return answer == RING_PUSHED;
}

/* Suspend before the push: once the event is in the queue, its answer may reach an evapi worker at once, while this
 * process still runs the script. tm's reference counts and reply lock make that safe if the script exits now, as after
 * any suspend. A transaction that the script has already suspended stays so: the first answer resumes it. */
static bool suspend_and_push(sip_msg_t *msg, struct cell *cell, const struct address *to, const str *event)
{
    if (transaction_is_suspended(cell))
        return push_event(to, event);
    struct suspension suspension = { .cell = cell };
    if (!transaction_suspend(msg, &suspension))
        return false;
    if (push_event(to, event))
        return true;
    transaction_cancel_suspension(&suspension);
    return false;
}

/* Try all that can fail before the suspend, because tm can end a suspension but not undo it. In a failure route the
 * branch that it leaves would count as a new one, and tm would drop the replies it has. */
static bool publish_for(sip_msg_t *msg, struct cell *cell, enum ring_type type, const struct text *event,
                        const struct text *to)
{
    struct address address;
    str bytes;
    const bool pushed = read_address(msg, type, to, async_name(type), &address) && is_anyone_there(&address) &&
                        read_event(msg, event, &bytes) && has_room(&address, &bytes) && text_keep(&bytes) &&
                        suspend_and_push(msg, cell, &address, &bytes);
    text_done();
    return pushed;
}

int publish_async(sip_msg_t *msg, enum ring_type type, const struct text *event, const struct text *to)
{
    if (!is_begun())
        return -1;
    if (!tm_loaded) {
        LM_ERR("tm is not loaded: %s needs it: loadmodule \"tm.so\"\n", async_name(type));
        return -1;
    }
    if (!transaction_possible(msg, async_name(type)))
        return -1;
    /* Find or create the transaction first, for three reasons. A retransmission of a waiting request must be absorbed
     * even when no client is left. A script that gets -1 can use t_reply or t_relay, whatever the reason. The event
     * finds the numbers to resume in $T(id_index) and $T(id_label). */
    struct cell *cell;
    const int found = transaction_find(msg, async_name(type), &cell);
    if (found <= 0)
        return found;
    if (publish_for(msg, cell, type, event, to))
        return 1;
    transaction_refused(msg, cell);
    return -1;
}

/* ---- closing and tagging --------------------------------------------------------------------------------------- */

static int push_control(enum ring_type type, uint32_t session, uint32_t connection, const struct tag *tag)
{
    const struct ring_record record = { .type = (uint8_t)type, .session = session, .target = connection };
    if (link_push_control(record, tag->bytes, tag->length) == RING_PUSHED)
        return 1;
    LM_ERR("the queue is full: connection %u is not %s\n", connection, type == RING_CLOSE ? "closed" : "tagged");
    return -1;
}

int publish_close(void)
{
    if (!is_begun())
        return -1;
    const struct event *event = event_here("evapi_close()");
    if (event == NULL)
        return -1;
    const struct tag none = { .length = 0 };
    return push_control(RING_CLOSE, event->session, event->connection, &none);
}

/* A text is a number if it begins like one: with a sign or a digit. */
static bool is_number(const str *text)
{
    return text->len > 0 && strchr("+-0123456789", text->s[0]) != NULL && text->s[0] != '\0';
}

int publish_close_index(sip_msg_t *msg, const struct text *index)
{
    uint32_t connection;
    if (!is_begun() || !read_index(msg, index, "evapi_close", &connection))
        return -1;
    const struct presence *presence = queue_presence();
    if (atomic_load_explicit(&presence->attached, memory_order_acquire) == 0) {
        LM_ERR("evapi_close: no evapid is attached, so there is no connection %u\n", connection);
        return -1;
    }
    const struct tag none = { .length = 0 };
    return push_control(RING_CLOSE, atomic_load_explicit(&presence->session, memory_order_acquire), connection, &none);
}

int publish_close_named(sip_msg_t *msg, const struct text *text)
{
    str got;
    if (!text_read(msg, text, &got))
        return -1;
    const bool number = is_number(&got);
    text_done();
    return number ? publish_close_index(msg, text) : publish_close();
}

int publish_tag(sip_msg_t *msg, const struct text *tag)
{
    if (!is_begun())
        return -1;
    const struct event *event = event_here("evapi_set_tag");
    struct tag given;
    if (event == NULL || !read_tag(msg, tag, &given))
        return -1;
    const int pushed = push_control(RING_TAG, event->session, event->connection, &given);
    if (pushed > 0)
        events_retag(&given);
    return pushed;
}
