/* One line for each kind of refusal. */
#include "client/refusal.h"

#include "base/log.h"

/* One for each reason, so that a flood of one kind does not hide the others. */
static struct log_limit limits[REFUSALS] = {
    [REFUSAL_FULL] = { .kind = "listeners: clients refused, max_clients" },
    [REFUSAL_DENIED] = { .kind = "listeners: clients refused, not allowed" },
    [REFUSAL_ADDRESS] = { .kind = "listeners: clients refused, max_clients_per_address" },
    [REFUSAL_RATE] = { .kind = "listeners: clients refused, max_connects_per_second" },
    [REFUSAL_MEMORY] = { .kind = "listeners: clients refused, no memory" },
    [REFUSAL_ADMISSION] = { .kind = "listeners: clients not admitted in time" },
    [REFUSAL_REVOKED] = { .kind = "listeners: clients closed, not allowed any more" },
};

void refusal_log(enum refusal refusal, const struct remote *remote, const struct refusal_facts *facts)
{
    struct log_limit *limit = &limits[refusal];
    const struct access *access = facts->access;
    const bool is_user = remote->origin.version == NETWORK_USER;
    const char *allowed = is_user ? "not among users" : access->allow.count > 0 ? "not allowed" : "denied";
    const char *whose = is_user ? "it" : "its address";
    const char *noun = remote_noun(&remote->origin);
    switch (refusal) {
    case REFUSAL_DENIED:
        log_limited(limit, LEVEL_WARNING, facts->subject, "refused %s %s %u: %s is %s (access)", remote->address, noun,
                    remote->port, whose, allowed);
        break;
    case REFUSAL_FULL:
        log_limited(limit, LEVEL_WARNING, facts->subject,
                    "refused %s %s %u: %u places are taken (max_clients), %u of them by clients that have gone and "
                    "whose routes have not ended",
                    remote->address, noun, remote->port, facts->places, facts->gone);
        break;
    case REFUSAL_ADDRESS:
        log_limited(limit, LEVEL_WARNING, facts->subject,
                    "refused %s %s %u: %s has %u places already (max_clients_per_address)", remote->address, noun,
                    remote->port, whose, access->max_clients_per_address);
        break;
    case REFUSAL_RATE:
        log_limited(limit, LEVEL_WARNING, facts->subject,
                    "refused %s %s %u: more than %u connect in a second (max_connects_per_second)", remote->address,
                    noun, remote->port, access->max_connects_per_second);
        break;
    case REFUSAL_ADMISSION:
        log_limited(limit, LEVEL_WARNING, facts->subject,
                    "closing %s %s %u: connection-new has not let it in within %u ms (admission_timeout_ms)",
                    remote->address, noun, remote->port, facts->admission_timeout_ms);
        break;
    case REFUSAL_REVOKED:
        log_limited(limit, LEVEL_WARNING, facts->subject, "closing %s %s %u: %s is %s by now (access)", remote->address,
                    noun, remote->port, whose, allowed);
        break;
    default:
        log_limited(limit, LEVEL_ERROR, facts->subject, "refused %s %s %u: no memory for another client",
                    remote->address, noun, remote->port);
        break;
    }
}
