/* Choosing one of a tag's clients. */
#include "bus/group.h"

#include <stdint.h>

#include "bus/tag.h"
#include "client/client.h"

/* How well a client can take the event; lower is better. */
enum fitness {
    FIT,        /* no problem */
    STRUGGLING, /* there is room, but it is slow or has ended its side */
    FULL        /* its policy will decide */
};

struct choice {
    struct client *client;
    enum fitness fitness;
    size_t queued; /* bytes; 0 if that does not matter */
};

static enum fitness fitness_of(const struct client *client, size_t length)
{
    if (client->subscription.skipped_by != NULL || framing_size(client->out.framing, length) > outq_room(&client->out))
        return FULL;
    return client->pace.slow_since_ms != 0 || client->state == CLIENT_FINISHING ? STRUGGLING : FIT;
}

/* Is this client better than the best so far? Among equals the first stays, because its turn comes earlier. */
static void consider(struct choice *best, struct client *client, bool by_queue, size_t length)
{
    const struct choice choice = { .client = client,
                                   .fitness = fitness_of(client, length),
                                   .queued = by_queue ? outq_bytes(&client->out) : 0 };
    if (choice.fitness < best->fitness || (choice.fitness == best->fitness && choice.queued < best->queued))
        *best = choice;
}

/* No client can be better. */
static bool is_best(const struct choice *choice)
{
    return choice->fitness == FIT && choice->queued == 0;
}

static struct client *group_look(struct tag *tag, const struct client *guest, size_t length)
{
    struct client *first = tag->first;
    while (first != NULL && !client_receives(first, guest))
        first = first->tagging.next;
    if (first == NULL || first->unicast_mode == UNICAST_FIRST)
        return first;
    const bool by_queue = first->unicast_mode == UNICAST_LEAST_QUEUED;
    struct choice best = { .client = first, .fitness = FULL, .queued = SIZE_MAX }; /* before the first is considered */
    struct client *const begin = tag->turn != NULL ? tag->turn : tag->first;
    struct client *client = begin;
    do {
        if (client_receives(client, guest))
            consider(&best, client, by_queue, length);
        client = client->tagging.next != NULL ? client->tagging.next : tag->first;
    } while (client != begin && !is_best(&best));
    tag->turn = best.client->tagging.next;
    return best.client;
}

/* Does it still get events? If there is no room for size bytes in its queue, it may make some by sending, which may show
 * that its connection is broken. */
static bool still_receives(struct client *client, const struct client *guest, size_t size)
{
    if (size > outq_room(&client->out) && !client->output.full && client->state != CLIENT_ADMITTING) {
        client->host->commit(client);
        client_flush(client); /* it is watched then for what it now needs */
    }
    return client_receives(client, guest);
}

struct client *group_choose(struct tag *tag, const struct client *guest, size_t length)
{
    struct client *client = group_look(tag, guest, length);
    while (client != NULL && !still_receives(client, guest, framing_size(client->out.framing, length)))
        client = group_look(tag, guest, length);
    return client;
}
