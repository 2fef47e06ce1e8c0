/* Who is at the other end. */
#include "net/remote.h"

#include <string.h>

#include "net/address.h"
#include "net/origin.h"

struct remote remote_of_address(const struct sockaddr_storage *address)
{
    struct remote remote = { .port = address_port(address), .host = network_of(address), .origin = origin_of(address) };
    address_host(address, remote.address);
    return remote;
}

struct remote remote_of_user(uint32_t user)
{
    const struct network network = network_of_user(user);
    return (struct remote){ .address = REMOTE_UNIX, .port = user, .host = network, .origin = network };
}

const char *remote_parse(const char *text, struct network *out)
{
    const size_t prefix = strlen(REMOTE_UNIX);
    uint64_t user = 0;
    if (strncmp(text, REMOTE_UNIX, prefix) != 0)
        return network_parse(text, out);
    *out = (struct network){ .version = NETWORK_USER };
    if (text[prefix] == '\0')
        return NULL;
    const char *digit = text + prefix + 1;
    if (text[prefix] != ':' || *digit == '\0')
        return "expected unix, or unix:NUMBER of a user";
    for (; *digit >= '0' && *digit <= '9' && user <= UINT32_MAX; digit++)
        user = user * 10 + (uint64_t)(*digit - '0');
    if (*digit != '\0' || user > UINT32_MAX)
        return "a user's number is 0 to 4294967295";
    *out = network_of_user((uint32_t)user);
    return NULL;
}
