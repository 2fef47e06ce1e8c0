/* Gives the bus an event in one call: bus_issue with the event's fields as parameters. */
#ifndef EVAPID_TEST_GIVE_H
#define EVAPID_TEST_GIVE_H

#include "bus/bus.h"

static inline uint32_t give_relay(struct bus *to, const struct payload *payload, struct client *guest)
{
    return bus_issue(to, &(struct event){ .kind = EVENT_RELAY, .payload = payload, .guest = guest });
}

static inline uint32_t give_multicast(struct bus *to, const struct payload *payload, const char *tag, size_t tag_length,
                                      struct client *guest)
{
    return bus_issue(
        to, &(struct event){
                .kind = EVENT_MULTICAST, .payload = payload, .tag = tag, .tag_length = tag_length, .guest = guest });
}

static inline uint32_t give_unicast(struct bus *to, const struct payload *payload, const char *tag, size_t tag_length,
                                    struct client *guest)
{
    return bus_issue(
        to, &(struct event){
                .kind = EVENT_UNICAST, .payload = payload, .tag = tag, .tag_length = tag_length, .guest = guest });
}

static inline uint32_t give_send(struct bus *to, const struct payload *payload, uint32_t index, struct client *guest)
{
    return bus_issue(to, &(struct event){ .kind = EVENT_SEND, .payload = payload, .index = index, .guest = guest });
}

#endif
