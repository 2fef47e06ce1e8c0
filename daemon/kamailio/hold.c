/* When a hold begins and ends. */
#include "kamailio/hold.h"

#include "base/log.h"

#define SUBJECT "kamailio"

static struct log_limit ends = { .kind = "kamailio: holds that have ended" };
static struct log_limit shortfalls = { .kind = "kamailio: holds that have waited in vain" };

bool hold_is_on(const struct kamailio *kamailio)
{
    return kamailio->queue != NULL && kamailio->queue->state == QUEUE_HELD;
}

void hold_publish_clients(const struct kamailio *kamailio)
{
    struct presence *presence = kamailio_presence(kamailio);
    const uint32_t clients = kamailio->bus->roster.receiver_count;
    if (presence == NULL)
        return;
    atomic_store_explicit(&presence->clients, clients, memory_order_release);
    atomic_store_explicit(&presence->expected,
                          hold_is_on(kamailio) && kamailio->expected > clients ? kamailio->expected : clients,
                          memory_order_relaxed);
}

void hold_end(struct kamailio *kamailio, const char *why)
{
    if (!hold_is_on(kamailio) || kamailio->stopping)
        return;
    uv_timer_stop(&kamailio->hold);
    log_limited(&ends, LEVEL_INFO, SUBJECT, "%s: delivering the %zu bytes of events that waited", why,
                queue_used(kamailio->queue));
    queue_resume(kamailio->queue);
    hold_publish_clients(kamailio);
}

void hold_check(struct kamailio *kamailio)
{
    if (hold_is_on(kamailio) && kamailio->attachment == ATTACHED && kamailio->announced == 0 && !kamailio->placing &&
        kamailio->bus->roster.receiver_count >= kamailio->expected)
        hold_end(kamailio, "the clients are there");
}

void hold_on_over(uv_timer_t *timer)
{
    struct kamailio *kamailio = timer->data;
    if (hold_is_on(kamailio))
        log_limited(&shortfalls, LEVEL_WARNING, SUBJECT,
                    "%u of %u clients are there after %u ms (attach_hold_ms), %u are being announced",
                    kamailio->bus->roster.receiver_count, kamailio->expected, kamailio->config->attach_hold_ms,
                    kamailio->announced);
    hold_end(kamailio, "waited long enough");
}

void hold_begin(struct kamailio *kamailio, uint32_t clients_before)
{
    const bool backlog = queue_used(kamailio->queue) > 0;
    kamailio->expected = clients_before > 0 ? clients_before : backlog;
    if (kamailio->config->attach_hold_ms == 0 || (kamailio->expected == 0 && kamailio->unplaced == NULL)) {
        queue_resume(kamailio->queue);
        hold_publish_clients(kamailio);
        return;
    }
    queue_hold(kamailio->queue);
    hold_publish_clients(kamailio);
    uv_timer_start(&kamailio->hold, hold_on_over, kamailio->config->attach_hold_ms, 0);
}
