/* Opening the module's listener, and reporting the result in both logs. */
#include "kamailio/declaration.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/state.h"

#define SUBJECT "kamailio"
#define CLIENTS_MAX 1000000U

/* Log it, and tell the module's log too: it concerns the author of kamailio.cfg. */
__attribute__((format(printf, 3, 4))) static void notify(struct worker *worker, uint8_t level, const char *format, ...)
{
    static const enum log_level levels[] = { LEVEL_INFO, LEVEL_WARNING, LEVEL_ERROR };
    static struct log_limit limits[] = { { .kind = "kamailio: what there is to say of the module's listener" },
                                         { .kind = "kamailio: what to be warned of at the module's listener" },
                                         { .kind = "kamailio: what is wrong with the module's listener" } };
    char text[WIRE_TEXT_MAX];
    unsigned char frame[WIRE_HEADER + WIRE_TEXT_MAX + 16];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log_limited(&limits[level], levels[level], SUBJECT, "%s", text);
    worker_say(worker, frame, wire_write_notice(frame, sizeof(frame), level, (struct wire_text){ text, strlen(text) }));
}

static void declaration_drop(struct declaration *declaration)
{
    if (declaration->listener != NULL)
        listener_stop(declaration->listener);
    declaration->listener = NULL;
}

static void declaration_warn(struct worker *worker, const struct listener *listener)
{
    if (listener_is_exposed(listener))
        notify(worker, WIRE_NOTICE_WARNING, "listener %s: " LISTENER_EXPOSED, listener->name);
}

/* Add the declared listener and start it; *why says why it could not start. False: no memory. */
static bool declaration_open(struct declaration *declaration, const char **why)
{
    const struct config *config = declaration->config;
    struct client_limits limits = config->limits;
    limits.framing = declaration->framing;
    declaration->listener = listener_revive(declaration->listeners, &declaration->address, &limits, &config->access,
                                            declaration->max_clients);
    if (declaration->listener == NULL)
        declaration->listener = listener_add(declaration->listeners, &declaration->address, &limits, &config->access,
                                             declaration->max_clients, LISTENER_MODULE);
    if (declaration->listener == NULL)
        return false;
    *why = listener_start(declaration->listener);
    listeners_expect(declaration->listeners);
    return true;
}

/* Open the listener that kamailio.cfg asks for, or give its values to one that is open. */
static bool declaration_apply(struct declaration *declaration, struct worker *worker)
{
    const enum framing framing = declaration->framing;
    const uint32_t max_clients = declaration->max_clients;
    struct listener *there = listener_find(declaration->listeners, &declaration->address);
    if (there != NULL && there->source == LISTENER_CONFIG) {
        declaration_drop(declaration);
        const bool same = there->limits.framing == framing && there->max_clients == max_clients;
        notify(
            worker, same ? WIRE_NOTICE_INFO : WIRE_NOTICE_WARNING,
            "listener %s stands in evapid's configuration with %s framing and max_clients %u, in kamailio.cfg with %s framing and "
            "max_clients %u: evapid's configuration holds",
            there->name, framing_name(there->limits.framing), there->max_clients, framing_name(framing), max_clients);
        return true;
    }
    if (there != NULL) {
        declaration_set(declaration, there);
        declaration_warn(worker, there);
        return true;
    }
    declaration_drop(declaration);
    const char *why = NULL;
    if (!declaration_open(declaration, &why))
        return false;
    if (why != NULL)
        notify(worker, WIRE_NOTICE_ERROR, "listener %s: %s; trying again every second", declaration->listener->name,
               why);
    declaration_warn(worker, declaration->listener);
    return true;
}

static bool declaration_read(struct declaration *declaration, struct worker *worker, const struct wire_hello *hello)
{
    struct sockaddr_storage address;
    char text[ADDRESS_TEXT];
    if (hello->bind_addr.length == 0) {
        declaration->made = false;
        declaration_drop(declaration);
        return true;
    }
    snprintf(text, sizeof(text), "%.*s", (int)hello->bind_addr.length, hello->bind_addr.bytes);
    const char *why = address_parse(text, &address);
    if (why != NULL) {
        notify(worker, WIRE_NOTICE_ERROR, "listener %s (bind_addr): %s", text, why);
        return true;
    }
    declaration->made = true;
    declaration->address = address;
    declaration->framing = hello->framing == WIRE_FRAMING_RAW ? FRAMING_RAW : FRAMING_NETSTRING;
    declaration->max_clients = hello->max_clients < CLIENTS_MAX ? hello->max_clients : CLIENTS_MAX;
    if (declaration->config->module_listener)
        return declaration_apply(declaration, worker);
    notify(worker, WIRE_NOTICE_INFO, "listener %s is not opened: evapid's configuration has module_listener false",
           text);
    return true;
}

bool declaration_accept(struct declaration *declaration, struct worker *worker, const struct wire_hello *hello)
{
    const bool taken = declaration_read(declaration, worker, hello);
    listeners_drop_spares(declaration->listeners); /* nobody can ask for them any more */
    return taken;
}

/* ---- reload ----------------------------------------------------------------------------------------------------- */

bool declaration_claims(const struct declaration *declaration, const struct config *config,
                        const struct sockaddr_storage *address)
{
    if (!config->module_listener || !declaration->made || !address_equal(&declaration->address, address))
        return false;
    for (size_t i = 0; i < config->listener_count; i++)
        if (address_equal(&config->listeners[i].address, address))
            return false;
    return true;
}

void declaration_restore(struct declaration *declaration, struct listener *listener)
{
    declaration->listener = listener;
}

void declaration_set(struct declaration *declaration, struct listener *listener)
{
    const struct config *config = declaration->config;
    struct client_limits limits = config->limits;
    limits.framing = declaration->framing;
    declaration->listener = listener;
    if (listener != NULL)
        listener_set(listener, &limits, &config->access, declaration->max_clients, LISTENER_MODULE);
}

/* ---- hand-over -------------------------------------------------------------------------------------------------- */

void declaration_save(const struct declaration *declaration, struct state_out *out)
{
    char name[ADDRESS_TEXT] = "";
    if (declaration->made)
        address_print(&declaration->address, name);
    state_put_text(out, "address", name);
    state_put(out, "framing", (uint64_t)declaration->framing);
    state_put(out, "max-clients", declaration->max_clients);
}

bool declaration_load(struct declaration *declaration, struct state_in *in)
{
    char name[ADDRESS_TEXT];
    const struct wire_text text = state_get_bytes(in, "address");
    snprintf(name, sizeof(name), "%.*s", (int)(text.length < sizeof(name) ? text.length : 0), text.bytes);
    declaration->framing = state_get(in, "framing", FRAMING_NETSTRING) == FRAMING_RAW ? FRAMING_RAW : FRAMING_NETSTRING;
    declaration->max_clients = (uint32_t)state_get(in, "max-clients", 0);
    declaration->made = name[0] != '\0';
    return !in->at.failed && (!declaration->made || address_parse(name, &declaration->address) == NULL);
}

void declaration_go_on(struct declaration *declaration)
{
    const char *why = NULL;
    if (!declaration->made || !declaration->config->module_listener ||
        listener_find(declaration->listeners, &declaration->address) != NULL)
        return;
    if (!declaration_open(declaration, &why))
        why = "no memory";
    if (why != NULL)
        log_line(LEVEL_ERROR, SUBJECT, "the module's listener can't be opened again: %s", why);
}
