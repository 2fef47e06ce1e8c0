/* Receives descriptors from others, and closes them without waiting. */
#include "base/passed.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83 /* asm-generic/socket.h */
#endif
#define MESSAGE_MAX 253U /* descriptors in one message: SCM_MAX_FD of the kernel */

void passed_allow(int socket, bool allowed)
{
    const int on = allowed;
    setsockopt(socket, SOL_SOCKET, SO_PASSRIGHTS, &on, sizeof(on));
}

void passed_close(int fd)
{
    const struct linger none = { 0 };
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
    close(fd);
}

/* The first free place; NULL: there is none. */
static int *free_place(int *kept, size_t places)
{
    for (size_t i = 0; i < places; i++)
        if (kept[i] < 0)
            return &kept[i];
    return NULL;
}

static void take(const struct cmsghdr *rights, int *kept, size_t places)
{
    const size_t count = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
        int fd = -1;
        memcpy(&fd, CMSG_DATA(rights) + i * sizeof(int), sizeof(fd));
        int *place = free_place(kept, places);
        if (place != NULL)
            *place = fd;
        else
            passed_close(fd);
    }
}

ssize_t passed_receive(int socket, void *bytes, size_t room, int *kept, size_t places, bool *curtailed)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(MESSAGE_MAX * sizeof(int))];
    } control;
    struct iovec iov = { bytes, room };
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)
    };
    const ssize_t n = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0)
        return n;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c != NULL; c = CMSG_NXTHDR(&message, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
            take(c, kept, places);
    *curtailed |= (message.msg_flags & MSG_CTRUNC) != 0;
    return n;
}

void passed_end(int socket)
{
    char bytes[4096];
    bool curtailed = false;
    ssize_t n = 0;
    shutdown(socket, SHUT_RDWR); /* nothing more can arrive */
    do
        n = passed_receive(socket, bytes, sizeof(bytes), NULL, 0, &curtailed);
    while (n > 0 || (n < 0 && errno == EINTR));
    close(socket);
}
