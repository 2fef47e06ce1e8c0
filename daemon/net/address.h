/* TCP addresses as text: "127.0.0.1:8448", "[::1]:8448". Numbers only, no names: nothing waits for DNS. */
#ifndef EVAPID_ADDRESS_H
#define EVAPID_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "evapid/limits.h"

#define ADDRESS_TEXT (EVAPID_ADDRESS_MAX + 10) /* a host in brackets, a colon, a port, a NUL */

/* Read text into *out. Returns NULL, or why it is not an address. */
const char *address_parse(const char *text, struct sockaddr_storage *out);

/* Write host and port in the form that address_parse reads. */
void address_print(const struct sockaddr_storage *address, char out[ADDRESS_TEXT]);

/* Write only the host, without brackets. */
void address_host(const struct sockaddr_storage *address, char out[EVAPID_ADDRESS_MAX]);

uint16_t address_port(const struct sockaddr_storage *address);

/* Bytes of the socket address, for bind(2). */
socklen_t address_size(const struct sockaddr_storage *address);

bool address_equal(const struct sockaddr_storage *a, const struct sockaddr_storage *b);

#endif
