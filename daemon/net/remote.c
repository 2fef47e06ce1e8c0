/* Who is at the other end. */
#include "net/remote.h"

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
