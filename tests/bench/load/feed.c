/* feed: events into evapid's ring, in Kamailio's place, so that evapid's own speed is seen and not that of a script.
 *
 * It attaches, asks for a listener, lets so many clients in, and pushes the events as fast as the ring takes them. A full
 * ring is tried again until there is room, so that no event is lost. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "commands.h"
#include "framing.h"
#include "module.h"
#include "options.h"

struct settings {
    const char *socket, *address, *mode;
    uint64_t clients, events, size, ring, timeout_s;
    bool tags, hold;
};

static uint8_t mode_type(const char *mode)
{
    return strcmp(mode, "relay") == 0       ? RING_RELAY
           : strcmp(mode, "multicast") == 0 ? RING_MULTICAST
           : strcmp(mode, "unicast") == 0   ? RING_UNICAST
                                            : 0;
}

/* Let clients in until there are so many. */
static bool feed_admit(struct module *module, const struct settings *settings)
{
    const uint64_t end_ns = clock_ns() + settings->timeout_s * CLOCK_NS_PER_S;
    while (module_clients(module) < settings->clients) {
        if (!module_serve(module, 1))
            return false;
        if (clock_ns() > end_ns) {
            fprintf(stderr, "feed: %u of %" PRIu64 " clients\n", module_clients(module), settings->clients);
            return false;
        }
    }
    return true;
}

static bool feed_push(struct module *module, const struct settings *settings, struct framing *framing)
{
    const struct ring_record record = { .type = mode_type(settings->mode) };
    char tag[EVAPID_TAG_MAX + 1] = "";
    if (record.type != RING_RELAY)
        snprintf(tag, sizeof(tag), "t%u", module->first_client);
    for (uint64_t i = 0; i < settings->events; i++) {
        framing_number(framing, i);
        if (!module_push(module, record, tag, framing->frame, framing->bytes))
            return false;
    }
    return true;
}

/* Serve until evapid has read all that was pushed; forever: until the time is over. */
static bool feed_serve(struct module *module, const struct settings *settings, bool forever)
{
    const uint64_t end_ns = clock_ns() + settings->timeout_s * CLOCK_NS_PER_S;
    while (forever || !module_drained(module)) {
        if (!module_serve(module, 1))
            return false;
        if (clock_ns() > end_ns)
            return forever;
    }
    return true;
}

static bool settings_read(int argc, char **argv, struct settings *settings)
{
    const struct option_spec specs[] = {
        { "socket", OPTION_TEXT, &settings->socket, true, "evapid's socket for Kamailio" },
        { "listen", OPTION_TEXT, &settings->address, false, "where evapid is to listen, besides its own listeners" },
        { "clients", OPTION_NUMBER, &settings->clients, true, "to let in before the first event" },
        { "events", OPTION_NUMBER, &settings->events, true, "to push" },
        { "size", OPTION_NUMBER, &settings->size, true, "bytes of an event" },
        { "mode", OPTION_TEXT, &settings->mode, false, "relay, or multicast or unicast to the first client's tag" },
        { "tags", OPTION_FLAG, &settings->tags, false, "give each client a tag of its own" },
        { "ring", OPTION_NUMBER, &settings->ring, false, "bytes of the ring, a power of two" },
        { "hold", OPTION_FLAG, &settings->hold, false, "stay attached until a signal, or the timeout, ends it" },
        { "timeout", OPTION_NUMBER, &settings->timeout_s, false, "seconds, 60 by default" },
        { 0 },
    };
    return options_read(argc, argv, specs) && mode_type(settings->mode) != 0;
}

int feed_main(int argc, char **argv)
{
    static struct module module;
    struct framing framing;
    struct settings settings = { .address = "", .mode = "relay", .ring = 8UL << 20, .timeout_s = 60 };
    if (!settings_read(argc, argv, &settings) || !framing_make(&framing, "raw", FRAMING_EVENT, (size_t)settings.size))
        return 2;
    module.tags = settings.tags;
    if (!module_attach(&module, settings.socket, (size_t)settings.ring, settings.address, UINT16_MAX))
        return 2;
    puts("ready");
    fflush(stdout);
    if (!feed_admit(&module, &settings))
        return 1;
    const uint64_t first_ns = clock_ns();
    const bool good = feed_push(&module, &settings, &framing);
    const uint64_t last_ns = clock_ns();
    const bool drained = good && feed_serve(&module, &settings, false);
    printf("{\"first_ns\": %" PRIu64 ", \"last_ns\": %" PRIu64 ", \"events\": %" PRIu64
           ", \"failed\": %d, \"full\": %" PRIu64 ", \"wakes\": %" PRIu64 "}\n",
           first_ns, last_ns, settings.events, drained ? 0 : 1, module.full, module.wakes);
    fflush(stdout);
    return drained && (!settings.hold || feed_serve(&module, &settings, true)) ? 0 : 1;
}
