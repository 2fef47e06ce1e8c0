/* Converts text to networks, and tells which address is in which. */
#include "net/network.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "evapid/limits.h"

static const unsigned char v4_mapped[12] = { [10] = 0xff, [11] = 0xff }; /* RFC 4291, 2.5.5.2: ::ffff:0:0/96 */

static const struct network link_local[] = {
    { .bytes = { 169, 254 }, .version = 4, .prefix = 16 },   /* RFC 3927 */
    { .bytes = { 0xfe, 0x80 }, .version = 6, .prefix = 10 }, /* RFC 4291, 2.5.6 */
};
static const struct network own[] = {
    { .bytes = { 127 }, .version = 4, .prefix = 8 },      { .bytes = { [15] = 1 }, .version = 6, .prefix = 128 },
    { .bytes = { 10 }, .version = 4, .prefix = 8 }, /* RFC 1918 */
    { .bytes = { 172, 16 }, .version = 4, .prefix = 12 }, { .bytes = { 192, 168 }, .version = 4, .prefix = 16 },
    { .bytes = { 0xfc }, .version = 6, .prefix = 7 }, /* RFC 4193 */
};

#define COUNT(networks) (sizeof(networks) / sizeof(*(networks)))

static bool any_covers(const struct network *networks, size_t count, const struct network *host)
{
    for (size_t i = 0; i < count; i++)
        if (network_covers(&networks[i], host))
            return true;
    return false;
}

bool network_is_link_local(const struct network *host)
{
    return any_covers(link_local, COUNT(link_local), host);
}

bool network_is_public(const struct network *host)
{
    return !network_is_link_local(host) && !any_covers(own, COUNT(own), host);
}

struct network network_of_user(uint32_t user)
{
    const uint32_t number = htonl(user);
    struct network network = { .version = NETWORK_USER, .prefix = 32 };
    memcpy(network.bytes, &number, sizeof(number));
    return network;
}

struct network network_widen(struct network network, uint8_t prefix)
{
    if (prefix >= network.prefix)
        return network;
    network.prefix = prefix;
    const size_t whole = prefix / 8;
    network.bytes[whole] &= (unsigned char)(0xff00 >> prefix % 8);
    memset(network.bytes + whole + 1, 0, sizeof(network.bytes) - whole - 1);
    return network;
}

bool network_covers(const struct network *outer, const struct network *inner)
{
    if (outer->version != inner->version || outer->version == 0 || outer->prefix > inner->prefix)
        return false;
    const struct network around = network_widen(*inner, outer->prefix);
    return memcmp(around.bytes, outer->bytes, sizeof(around.bytes)) == 0;
}

struct network network_of(const struct sockaddr_storage *address)
{
    struct network host = { .version = 0 };
    if (address->ss_family == AF_INET) {
        host.version = 4;
        host.prefix = 32;
        memcpy(host.bytes, &((const struct sockaddr_in *)address)->sin_addr, 4);
    } else if (address->ss_family == AF_INET6) {
        const unsigned char *bytes = ((const struct sockaddr_in6 *)address)->sin6_addr.s6_addr;
        const bool mapped = memcmp(bytes, v4_mapped, sizeof(v4_mapped)) == 0;
        host.version = mapped ? 4 : 6;
        host.prefix = mapped ? 32 : 128;
        memcpy(host.bytes, mapped ? bytes + sizeof(v4_mapped) : bytes, mapped ? 4 : 16);
    }
    return host;
}

/* On entry out is the network of the address before the prefix. */
static const char *parse_prefix(const char *text, struct network *out)
{
    unsigned value = 0;
    if (*text == '\0')
        return "the prefix after / is missing";
    if (text[0] == '0' && text[1] != '\0')
        return "the prefix after / begins with a 0";
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return "the prefix after / is not a number";
        value = value * 10 + (unsigned)(*text - '0');
        if (value > out->prefix)
            return out->version == 4 ? "the prefix of an IPv4 network is at most 32"
                                     : "the prefix of an IPv6 network is at most 128";
    }
    const struct network wide = network_widen(*out, (uint8_t)value);
    if (memcmp(wide.bytes, out->bytes, sizeof(wide.bytes)) != 0)
        return "the address has bits after the prefix: write the first address of the network, or a longer prefix";
    *out = wide;
    return NULL;
}

const char *network_parse(const char *text, struct network *out)
{
    char host[EVAPID_ADDRESS_MAX];
    const char *slash = strchr(text, '/');
    const size_t length = slash != NULL ? (size_t)(slash - text) : strlen(text);
    if (length >= sizeof(host))
        return "the address is too long";
    memcpy(host, text, length);
    host[length] = '\0';
    const bool v6 = strchr(host, ':') != NULL;
    *out = (struct network){ .version = v6 ? 6 : 4, .prefix = v6 ? 128 : 32 };
    if (inet_pton(v6 ? AF_INET6 : AF_INET, host, out->bytes) != 1)
        return v6 ? "not an IPv6 address" : "not an IPv4 address";
    if (v6 && memcmp(out->bytes, v4_mapped, sizeof(v4_mapped)) == 0)
        return "an IPv4 network is written without ::ffff:";
    return slash != NULL ? parse_prefix(slash + 1, out) : NULL;
}

bool network_is_loopback(const struct network *host)
{
    static const struct network v4 = { .bytes = { 127 }, .version = 4, .prefix = 8 };
    static const struct network v6 = { .bytes = { [15] = 1 }, .version = 6, .prefix = 128 };
    return network_covers(&v4, host) || network_covers(&v6, host);
}
