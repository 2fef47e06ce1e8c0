/* Writing the presence into the ring. */
#include "kamailio/publish.h"

struct presence *publish_presence(const struct kamailio *kamailio)
{
    const struct intake *intake = kamailio->attachment.intake;
    return kamailio->stopping || intake == NULL ? NULL : intake_presence(intake);
}

static void publish_tags(struct kamailio *kamailio, struct presence *presence)
{
    struct published *published = &kamailio->published;
    size_t tags = 0;
    presence_begin(presence);
    for (const struct tag *tag = kamailio->bus->tags.tags; tag != NULL; tag = tag->hh.next)
        if (tag->receivers > 0) {
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
    publish_tags(kamailio, presence);
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
        publish_tags(kamailio, presence);
}

void publish_tag(struct kamailio *kamailio, uint64_t hash, bool present)
{
    struct presence *presence = publish_presence(kamailio);
    if (presence != NULL && present)
        presence_add(presence, hash);
    else if (presence != NULL)
        publish_removed_tag(kamailio, presence, hash);
}

void publish_clients(const struct kamailio *kamailio, uint32_t clients, uint32_t expected)
{
    struct presence *presence = publish_presence(kamailio);
    if (presence == NULL)
        return;
    atomic_store_explicit(&presence->clients, clients, memory_order_release);
    atomic_store_explicit(&presence->expected, expected, memory_order_relaxed);
}

void publish_attached(const struct kamailio *kamailio, bool attached)
{
    const struct intake *intake = kamailio->attachment.intake;
    if (intake != NULL)
        atomic_store(&intake_presence(intake)->attached, attached);
}
