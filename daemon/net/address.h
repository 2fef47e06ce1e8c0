/* Addresses as text: "127.0.0.1:8448" and "[::1]:8448" of TCP, "unix:/run/evapid/clients.sock" of a Unix socket.
 * Numbers only, no names: nothing waits for DNS. */
#ifndef EVAPID_ADDRESS_H
#define EVAPID_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "evapid/limits.h"

#define ADDRESS_UNIX "unix:"
#define ADDRESS_TEXT (EVAPID_PATH_MAX + 6) /* "unix:", a path, a NUL; a host with its port is shorter */

/* Read the text of a TCP address into *out; address_parse_any: or of a Unix socket's. Returns NULL, or why it is
 * none. */
const char *address_parse(const char *text, struct sockaddr_storage *out);
const char *address_parse_any(const char *text, struct sockaddr_storage *out);

/* Write the address in the form that address_parse_any reads. */
void address_print(const struct sockaddr_storage *address, char out[ADDRESS_TEXT]);

/* Write only the host, without brackets. */
void address_host(const struct sockaddr_storage *address, char out[EVAPID_ADDRESS_MAX]);

/* 0: a Unix socket has none. */
uint16_t address_port(const struct sockaddr_storage *address);

static inline bool address_is_unix(const struct sockaddr_storage *address)
{
    return address->ss_family == AF_UNIX;
}

/* The path of a Unix socket's address. */
const char *address_path(const struct sockaddr_storage *address);

/* Bytes of the socket address, for bind(2). */
socklen_t address_size(const struct sockaddr_storage *address);

bool address_equal(const struct sockaddr_storage *a, const struct sockaddr_storage *b);

#endif
