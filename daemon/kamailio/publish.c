/* Writing the presence into the ring. */
#include "kamailio/publish.h"

#include "bus/kept.h"

struct presence *publish_presence(const struct kamailio *kamailio)
{
    const struct intake *intake = kamailio->attachment.intake;
    return kamailio->stopping || intake == NULL ? NULL : intake_presence(intake);
}

static void add_connections(const struct kamailio *kamailio, struct presence *presence)
{
    presence_disconnect_all(presence);
    for (const struct client *client = kamailio->bus->roster.clients; client != NULL; client = client->hh.next) {
        if (client->roster.there)
            presence_connect(presence, client->index, true);
        if (client->roster.receives)
            presence_receive(presence, client->index, true);
    }
}

/* Write the set of tags anew, and the connections too if they are another evapid's. */
static void publish_sets(struct kamailio *kamailio, struct presence *presence, bool connections)
{
    struct published *published = &kamailio->published;
    size_t tags = 0;
    presence_begin(presence);
    if (connections)
        add_connections(kamailio, presence);
    for (const struct tag *tag = kamailio->bus->tags.tags; tag != NULL; tag = tag->hh.next)
        if (tag->receivers > 0 || tag->waits) {
            presence_add(presence, tag->hash);
            tags++;
        }
    presence_end(presence, tags);
    published->tags_removed = 0;
}

void publish_all(struct kamailio *kamailio)
{
    struct presence *presence = publish_presence(kamailio);
    if (presence == NULL)
        return;
    struct published *published = &kamailio->published;
    published->none_waits = false;
    publish_sets(kamailio, presence, true);
    publish_kept(kamailio);
    kamailio->bus->ledger->header->session = kamailio->attachment.session;
    atomic_store(&presence->before, kamailio->attachment.before);
    atomic_store(&presence->session, kamailio->attachment.session);
}

/* Removed tags leave places in the set that slow every lookup down: now and then the set is rewritten. */
static void publish_removed_tag(struct kamailio *kamailio, struct presence *presence, uint64_t hash)
{
    struct published *published = &kamailio->published;
    presence_remove(presence, hash);
    if (++published->tags_removed < PRESENCE_REVIEW)
        return;
    published->tags_removed = 0;
    if (presence_left(presence) > PRESENCE_LEFT_MAX || atomic_load(&presence->crowded) != 0)
        publish_sets(kamailio, presence, false);
}

void publish_tag(struct kamailio *kamailio, uint64_t hash, bool present)
{
    struct presence *presence = publish_presence(kamailio);
    if (presence != NULL && present)
        presence_add(presence, hash);
    else if (presence != NULL)
        publish_removed_tag(kamailio, presence, hash);
}

void publish_connection(const struct kamailio *kamailio, uint32_t index, bool there)
{
    struct presence *presence = publish_presence(kamailio);
    if (presence != NULL)
        presence_connect(presence, index, there);
}

void publish_receiver(const struct kamailio *kamailio, uint32_t index, bool receives)
{
    struct presence *presence = publish_presence(kamailio);
    if (presence != NULL)
        presence_receive(presence, index, receives);
}

void publish_clients(const struct kamailio *kamailio, uint32_t clients, uint32_t expected)
{
    struct presence *presence = publish_presence(kamailio);
    if (presence == NULL)
        return;
    atomic_store_explicit(&presence->clients, clients, memory_order_release);
    atomic_store_explicit(&presence->expected, expected, memory_order_relaxed);
}

void publish_kept(const struct kamailio *kamailio)
{
    const struct keeping *keeping = &kamailio->bus->keeping;
    struct presence *presence = publish_presence(kamailio);
    if (presence != NULL)
        atomic_store_explicit(&presence->kept, keeping->count - keeping->full, memory_order_release);
}

void publish_waiting(struct kamailio *kamailio)
{
    struct published *published = &kamailio->published;
    const struct keeping *keeping = &kamailio->bus->keeping;
    if (publish_presence(kamailio) == NULL || (keeping->count == 0 && published->none_waits))
        return;
    struct waiting *waiting = &kamailio->attachment.intake->ring.header->waiting;
    for (uint32_t i = 0; i < WAITING_PLACES; i++) {
        const struct kept *kept = keeping->places[i];
        waiting_put(waiting, i, kept != NULL ? kept->tag->hash : 0, kept != NULL ? kept_waiting(kept) : 0);
    }
    atomic_store_explicit(&waiting->crowded, keeping->unplaced > 0, memory_order_relaxed);
    published->none_waits = keeping->count == 0;
}

void publish_attached(const struct kamailio *kamailio, bool attached)
{
    const struct intake *intake = kamailio->attachment.intake;
    if (intake != NULL)
        atomic_store(&intake_presence(intake)->attached, attached);
}
