/* When a hold begins and ends. */
#include "kamailio/hold.h"

#include "base/log.h"
#include "kamailio/publish.h"

#define SUBJECT "kamailio"

static struct log_limit ends = { .kind = "kamailio: holds that have ended" };
static struct log_limit shortfalls = { .kind = "kamailio: holds that have waited in vain" };

bool hold_is_on(const struct kamailio *kamailio)
{
    return kamailio->attachment.intake != NULL && kamailio->attachment.intake->state == INTAKE_HELD;
}

void hold_publish_clients(const struct kamailio *kamailio)
{
    const uint32_t clients = kamailio->bus->roster.receiver_count;
    const uint32_t expected = kamailio->hold.expected;
    publish_clients(kamailio, clients, hold_is_on(kamailio) && expected > clients ? expected : clients);
}

void hold_end(struct kamailio *kamailio, const char *why)
{
    if (!hold_is_on(kamailio) || kamailio->stopping)
        return;
    uv_timer_stop(&kamailio->hold.timer);
    log_limited(&ends, LEVEL_INFO, SUBJECT, "%s: delivering the %zu bytes of events that waited", why,
                intake_used(kamailio->attachment.intake));
    intake_resume(kamailio->attachment.intake);
    hold_publish_clients(kamailio);
}

void hold_check(struct kamailio *kamailio)
{
    if (hold_is_on(kamailio) && kamailio->attachment.state == ATTACHED && kamailio->seats.announced == 0 &&
        !kamailio->seats.placing && kamailio->bus->roster.receiver_count >= kamailio->hold.expected)
        hold_end(kamailio, "the clients are there");
}

static void hold_on_over(uv_timer_t *timer)
{
    struct kamailio *kamailio = timer->data;
    if (hold_is_on(kamailio))
        log_limited(&shortfalls, intake_used(kamailio->attachment.intake) > 0 ? LEVEL_WARNING : LEVEL_NOTICE, SUBJECT,
                    "%u of %u clients are there after %u ms (attach_hold_ms), %u are being announced",
                    kamailio->bus->roster.receiver_count, kamailio->hold.expected, kamailio->config->attach_hold_ms,
                    kamailio->seats.announced);
    hold_end(kamailio, "waited long enough");
}

void hold_begin(struct kamailio *kamailio, uint32_t clients_before)
{
    struct hold *hold = &kamailio->hold;
    const bool backlog = intake_used(kamailio->attachment.intake) > 0;
    hold->expected = clients_before > 0 ? clients_before : backlog;
    if (kamailio->config->attach_hold_ms == 0 || (hold->expected == 0 && kamailio->seats.unplaced == NULL)) {
        intake_resume(kamailio->attachment.intake);
        hold_publish_clients(kamailio);
        return;
    }
    intake_hold(kamailio->attachment.intake);
    hold_publish_clients(kamailio);
    uv_timer_start(&kamailio->hold.timer, hold_on_over, kamailio->config->attach_hold_ms, 0);
}

void hold_open(struct kamailio *kamailio)
{
    struct hold *hold = &kamailio->hold;
    uv_timer_init(kamailio->loop, &hold->timer);
    hold->timer.data = kamailio;
}

void hold_close(struct kamailio *kamailio)
{
    uv_close((uv_handle_t *)&kamailio->hold.timer, NULL);
}

/* ---- hand-over -------------------------------------------------------------------------------------------------- */

void hold_expect(struct kamailio *kamailio, uint32_t clients)
{
    struct hold *hold = &kamailio->hold;
    hold->expected = clients;
}

uint64_t hold_left_ms(const struct kamailio *kamailio)
{
    return uv_timer_get_due_in(&kamailio->hold.timer);
}

void hold_go_on(struct kamailio *kamailio, uint64_t left_ms)
{
    if (hold_is_on(kamailio))
        uv_timer_start(&kamailio->hold.timer, hold_on_over, left_ms, 0);
}
