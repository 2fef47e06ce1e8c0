#include "socket.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 4096 };

/* Resolve an address in numbers, without names. The caller frees the result with freeaddrinfo; NULL on failure. */
static struct addrinfo *address_read(const char *address)
{
    char host[64];
    const char *colon = strrchr(address, ':');
    const bool bracket = address[0] == '[';
    const size_t length = colon == NULL ? 0 : (size_t)(colon - address) - (bracket ? 2 : 0);
    struct addrinfo *found = NULL;
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV };
    if (length > 0 && length < sizeof(host)) {
        memcpy(host, address + (bracket ? 1 : 0), length);
        host[length] = '\0';
        if (getaddrinfo(host, colon + 1, &hints, &found) == 0)
            return found;
    }
    fprintf(stderr, "%s: not an address and a port\n", address);
    return NULL;
}

static int failed(int fd, const char *address)
{
    fprintf(stderr, "%s: %s\n", address, strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

bool socket_without_delay(int fd)
{
    return setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int)) == 0;
}

int socket_connect(const char *address, int receive_buffer)
{
    struct addrinfo *to = address_read(address);
    if (to == NULL)
        return -1;
    const int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool good = fd >= 0;
    if (good && receive_buffer > 0)
        good = setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer)) == 0;
    good = good && connect(fd, to->ai_addr, to->ai_addrlen) == 0 && socket_without_delay(fd);
    freeaddrinfo(to);
    return good ? fd : failed(fd, address);
}

int socket_connect_unix(const char *path)
{
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof(to.sun_path)) {
        errno = ENAMETOOLONG;
        return failed(-1, path);
    }
    memcpy(to.sun_path, path, strlen(path));
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&to, sizeof(to)) != 0)
        return failed(fd, path);
    return fd;
}

int socket_listen(const char *address)
{
    struct addrinfo *at = address_read(address);
    if (at == NULL)
        return -1;
    const int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool good = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)) == 0 &&
                      bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0;
    freeaddrinfo(at);
    return good ? fd : failed(fd, address);
}

bool socket_nonblocking(int fd)
{
    const int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

bool socket_send_all(int fd, const void *bytes, size_t length)
{
    const char *at = bytes;
    while (length > 0) {
        const ssize_t sent = send(fd, at, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0) {
            perror("send");
            return false;
        }
        at += sent;
        length -= (size_t)sent;
    }
    return true;
}

void socket_raise_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        perror("limit of descriptors");
}
