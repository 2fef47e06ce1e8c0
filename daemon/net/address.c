/* Converts text to socket addresses and back. */
#include "net/address.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <uv.h>

static const char *parse_port(const char *text, uint16_t *port)
{
    unsigned value = 0;
    if (*text == '\0')
        return "a port is missing";
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return "the port is not a number";
        value = value * 10 + (unsigned)(*text - '0');
        if (value > 65535)
            return "the port is over 65535";
    }
    if (value == 0)
        return "the port is 0";
    *port = (uint16_t)value;
    return NULL;
}

/* A scope ("fe80::1%eth0") names an interface, which must exist: without the scope this would be another address. */
static const char *parse_v6(const char *host, uint16_t port, struct sockaddr_in6 *out)
{
    if (uv_ip6_addr(host, port, out) != 0)
        return "not an IPv6 address";
    return strchr(host, '%') != NULL && out->sin6_scope_id == 0 ? "there is no such interface" : NULL;
}

const char *address_parse(const char *text, struct sockaddr_storage *out)
{
    const bool v6 = text[0] == '[';
    const char *end = v6 ? strchr(text, ']') : strrchr(text, ':');
    if (v6 && (end == NULL || end[1] != ':'))
        return "expected [ADDRESS]:PORT";
    if (end == NULL)
        return "expected ADDRESS:PORT";
    char host[EVAPID_ADDRESS_MAX];
    const char *start = v6 ? text + 1 : text;
    const size_t length = (size_t)(end - start);
    if (length >= sizeof(host))
        return "the address is too long";
    memcpy(host, start, length);
    host[length] = '\0';
    uint16_t port = 0;
    const char *why = parse_port(v6 ? end + 2 : end + 1, &port);
    if (why != NULL)
        return why;
    memset(out, 0, sizeof(*out));
    if (v6)
        return parse_v6(host, port, (struct sockaddr_in6 *)out);
    if (strchr(host, ':') != NULL)
        return "an IPv6 address is written in brackets: [ADDRESS]:PORT";
    return uv_ip4_addr(host, port, (struct sockaddr_in *)out) == 0 ? NULL : "not an IPv4 address";
}

/* The path stands in log lines, and in the metrics' labels. */
static const char *check_path(const char *path)
{
    if (path[0] == '\0' || strlen(path) > EVAPID_PATH_MAX)
        return "a path has 1 to 107 bytes";
    if (path[0] != '/')
        return "the path does not begin with /";
    for (const char *at = path; *at != '\0'; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            return "the path has a control character";
    return NULL;
}

const char *address_parse_any(const char *text, struct sockaddr_storage *out)
{
    struct sockaddr_un *address = (struct sockaddr_un *)out;
    const char *path = text + strlen(ADDRESS_UNIX);
    if (strncmp(text, ADDRESS_UNIX, strlen(ADDRESS_UNIX)) != 0)
        return address_parse(text, out);
    const char *why = check_path(path);
    if (why != NULL)
        return why;
    memset(out, 0, sizeof(*out));
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, strlen(path));
    return NULL;
}

const char *address_path(const struct sockaddr_storage *address)
{
    return ((const struct sockaddr_un *)address)->sun_path;
}

void address_host(const struct sockaddr_storage *address, char out[EVAPID_ADDRESS_MAX])
{
    if (uv_ip_name((const struct sockaddr *)address, out, EVAPID_ADDRESS_MAX) != 0)
        snprintf(out, EVAPID_ADDRESS_MAX, "?");
    char interface[IF_NAMESIZE];
    const uint32_t scope = address->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)address)->sin6_scope_id : 0;
    if (scope == 0 || if_indextoname(scope, interface) == NULL)
        return;
    const size_t length = strlen(out);
    snprintf(out + length, EVAPID_ADDRESS_MAX - length, "%%%s", interface);
}

uint16_t address_port(const struct sockaddr_storage *address)
{
    if (address_is_unix(address))
        return 0;
    return ntohs(address->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)address)->sin6_port
                                                : ((const struct sockaddr_in *)address)->sin_port);
}

void address_print(const struct sockaddr_storage *address, char out[ADDRESS_TEXT])
{
    char host[EVAPID_ADDRESS_MAX];
    if (address_is_unix(address)) {
        snprintf(out, ADDRESS_TEXT, ADDRESS_UNIX "%s", address_path(address));
        return;
    }
    address_host(address, host);
    const char *form = address->ss_family == AF_INET6 ? "[%s]:%u" : "%s:%u";
    snprintf(out, ADDRESS_TEXT, form, host, address_port(address));
}

socklen_t address_size(const struct sockaddr_storage *address)
{
    return address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

bool address_equal(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    const struct sockaddr_in6 *left = (const struct sockaddr_in6 *)a;
    const struct sockaddr_in6 *right = (const struct sockaddr_in6 *)b;
    if (a->ss_family != b->ss_family || address_port(a) != address_port(b))
        return false;
    if (address_is_unix(a))
        return strcmp(address_path(a), address_path(b)) == 0;
    if (a->ss_family != AF_INET6)
        return ((const struct sockaddr_in *)a)->sin_addr.s_addr == ((const struct sockaddr_in *)b)->sin_addr.s_addr;
    return left->sin6_scope_id == right->sin6_scope_id &&
           memcmp(&left->sin6_addr, &right->sin6_addr, sizeof(left->sin6_addr)) == 0;
}
