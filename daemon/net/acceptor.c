/* accept(2), and what each of its errors is about. */
#include "net/acceptor.h"

#include <errno.h>

/* Does the error concern only one connection? The next one may be fine (accept(2)). */
static bool is_of_one_connection(int error)
{
    static const int errors[] = { ECONNABORTED, EINTR,     EPERM,  EPROTO,       ENOPROTOOPT, ENETDOWN,
                                  ENETUNREACH,  EHOSTDOWN, ENONET, EHOSTUNREACH, EOPNOTSUPP };
    for (unsigned i = 0; i < sizeof(errors) / sizeof(*errors); i++)
        if (errors[i] == error)
            return true;
    return false;
}

int acceptor_run(int listening, unsigned most, acceptor_take *take, void *owner)
{
    for (unsigned i = 0; i < most; i++) {
        struct sockaddr_storage peer = { 0 };
        socklen_t size = sizeof(peer);
        const int fd = accept4(listening, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            if (!take(owner, fd, &peer))
                return 0;
            continue;
        }
        if (errno == EAGAIN)
            return 0;
        if (!is_of_one_connection(errno))
            return errno;
    }
    return 0;
}
