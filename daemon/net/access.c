/* Allowed and denied addresses. */
#include "net/access.h"

static bool list_has(const struct network_list *list, const struct network *host)
{
    for (size_t i = 0; i < list->count; i++)
        if (network_covers(&list->networks[i], host))
            return true;
    return false;
}

bool access_admits(const struct access *access, const struct network *host)
{
    return !list_has(&access->deny, host) && (access->allow.count == 0 || list_has(&access->allow, host));
}

const char *refusal_name(enum refusal refusal)
{
    static const char *const names[REFUSALS] = {
        "full", "denied", "address", "rate", "memory", "admission", "revoked"
    };
    return names[refusal];
}
