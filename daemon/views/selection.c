/* Chooses and orders clients. */
#include "client/subscription.h"
#include "views/selection.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const order_names[] = { "index",     "address", "tag",      "queued",  "dropped",
                                           "delivered", "sent",    "messages", "received" };

_Static_assert(sizeof(order_names) / sizeof(*order_names) == SELECTION_ORDERS, "each order has a name");

bool selection_order_find(const char *name, enum selection_order *order)
{
    for (int i = 0; i < SELECTION_ORDERS; i++)
        if (strcmp(name, order_names[i]) == 0) {
            *order = (enum selection_order)i;
            return true;
        }
    return false;
}

bool selection_state_find(const char *name, enum client_state *state)
{
    for (int i = CLIENT_ADMITTING; i <= CLIENT_GONE; i++)
        if (strcmp(name, client_state_name((enum client_state)i)) == 0) {
            *state = (enum client_state)i;
            return true;
        }
    return false;
}

const char *selection_read(struct selection *selection, const struct selection_words *words)
{
    static char wrong[96];
    const char *why = NULL;
    *selection = (struct selection){ .by_tag = words->tag != NULL,
                                     .tag = words->tag,
                                     .tag_length = words->tag_length,
                                     .by_state = words->state != NULL,
                                     .by_address = words->address != NULL,
                                     .slow = words->slow,
                                     .idle_ms = (uint64_t)words->idle_s * 1000 };
    if (words->idle_s < 0 || words->idle_s > INT32_MAX)
        snprintf(wrong, sizeof(wrong), "idle_s is out of range: 0 to %d", INT32_MAX);
    else if (words->address != NULL && (why = remote_parse(words->address, &selection->address)) != NULL)
        snprintf(wrong, sizeof(wrong), "address: %s", why);
    else if (words->state != NULL && !selection_state_find(words->state, &selection->state))
        return "state must be one of " SELECTION_STATE_NAMES;
    else if (words->sort != NULL && !selection_order_find(words->sort, &selection->order))
        return "sort must be one of " SELECTION_ORDER_NAMES;
    else
        return NULL;
    return wrong;
}

/* The client's address may end with a scope ("fe80::1%eth0"). If an IPv6 socket shows an IPv4 address, it is written as
 * IPv6. */
static bool comes_from(const struct client *client, const struct network *network)
{
    char host[EVAPID_ADDRESS_MAX];
    struct network own;
    if (client->origin.version == NETWORK_USER)
        return network_covers(network, &client->origin);
    const char *v4 = strstr(client->address, "::ffff:");
    const char *text = v4 == client->address ? v4 + strlen("::ffff:") : client->address;
    const size_t length = strcspn(text, "%");
    memcpy(host, text, length);
    host[length] = '\0';
    return network_parse(host, &own) == NULL && network_covers(network, &own);
}

static bool has_tag(const struct client *client, const char *tag, size_t length)
{
    if (client->tagging.tag == NULL)
        return length == 0;
    return client->tagging.tag->length == length && memcmp(client->tagging.tag->name, tag, length) == 0;
}

static bool selection_meets(const struct selection *selection, const struct client *client)
{
    return (!selection->by_tag || has_tag(client, selection->tag, selection->tag_length)) &&
           (!selection->by_state || client->state == selection->state) &&
           (!selection->slow || client->pace.slow_since_ms != 0) && client_idle_ms(client) >= selection->idle_ms &&
           (!selection->by_address || comes_from(client, &selection->address));
}

/* The rank for orders that go by a number: the largest comes first. */
static uint64_t rank_of(enum selection_order order, struct client *client)
{
    const struct tally *tally = subscription_tally(client);
    switch (order) {
    case ORDER_QUEUED: return outq_bytes(&client->out);
    case ORDER_DROPPED: return tally_dropped(tally);
    case ORDER_DELIVERED: return tally->delivered;
    case ORDER_SENT: return tally->delivered_bytes;
    case ORDER_MESSAGES: return tally->messages;
    case ORDER_RECEIVED: return tally->message_bytes;
    default: return 0;
    }
}

struct choice {
    struct client *client;
    uint64_t rank;
    enum selection_order order;
};

static int by_tag_name(const struct tag *a, const struct tag *b)
{
    if (a == NULL || b == NULL)
        return (a == NULL) - (b == NULL);
    const size_t shorter = a->length < b->length ? a->length : b->length;
    const int difference = memcmp(a->name, b->name, shorter);
    return difference != 0 ? difference : (int)a->length - (int)b->length;
}

/* At a Unix socket the user takes the place of an address. */
static int by_address(const struct client *a, const struct client *b)
{
    const int difference = strcmp(a->address, b->address);
    if (difference != 0 || a->origin.version != NETWORK_USER)
        return difference;
    return (a->port > b->port) - (a->port < b->port);
}

/* Equal clients are ordered by their indexes. */
static int by_order(const void *left, const void *right)
{
    const struct choice *a = left;
    const struct choice *b = right;
    int difference = (a->rank < b->rank) - (a->rank > b->rank);
    if (a->order == ORDER_ADDRESS)
        difference = by_address(a->client, b->client);
    else if (a->order == ORDER_TAG)
        difference = by_tag_name(a->client->tagging.tag, b->client->tagging.tag);
    return difference != 0 ? difference : (a->client->index > b->client->index) - (a->client->index < b->client->index);
}

struct client **selection_make(const struct selection *selection, const struct bus *bus, size_t *chosen,
                               size_t *matching)
{
    const size_t count = HASH_COUNT(bus->roster.clients);
    struct choice *choices = malloc((count + 1) * sizeof(*choices));
    struct client **clients = malloc((count + 1) * sizeof(struct client *));
    *chosen = *matching = 0;
    if (choices == NULL || clients == NULL) {
        free(choices);
        free((void *)clients);
        return NULL;
    }
    for (struct client *client = bus->roster.clients; client != NULL; client = client->hh.next)
        if (selection_meets(selection, client))
            choices[(*matching)++] = (struct choice){ client, rank_of(selection->order, client), selection->order };
    qsort(choices, *matching, sizeof(*choices), by_order);
    *chosen = *matching < selection->limit ? *matching : selection->limit;
    for (size_t i = 0; i < *chosen; i++)
        clients[i] = choices[i].client;
    free(choices);
    return clients;
}
