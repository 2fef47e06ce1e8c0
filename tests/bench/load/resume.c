/* resume: an application on the bus that sends every event back unchanged. A script that suspends a request names the
 * transaction in its event, and resumes it when the event comes back. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "commands.h"
#include "options.h"
#include "peer.h"

static volatile sig_atomic_t over;

static void end(int number)
{
    (void)number;
    over = 1;
}

/* Answer the messages that have come. Returns how many, or -1 if the connection is unusable. */
static int answer(struct peer *peer)
{
    struct netstring frame;
    int answers = 0, found = 0;
    if (!peer_read(peer))
        return -1;
    while (peer_room(peer, PEER_MESSAGE_MAX) && (found = peer_next(peer, &frame)) > 0) {
        peer_say(peer, frame.payload, frame.length);
        answers++;
    }
    if (found < 0)
        fputs("the server sent something that is no netstring\n", stderr);
    return found < 0 || !peer_flush(peer, peer) ? -1 : answers;
}

static bool watch_signals(unsigned seconds)
{
    const struct sigaction action = { .sa_handler = end };
    alarm(seconds);
    return sigaction(SIGTERM, &action, NULL) == 0 && sigaction(SIGALRM, &action, NULL) == 0;
}

int resume_main(int argc, char **argv)
{
    static struct peer peer;
    const char *address;
    uint64_t timeout_s = 60, answers = 0;
    const struct option_spec specs[] = {
        { "connect", OPTION_TEXT, &address, true, "the server's address and port" },
        { "timeout", OPTION_NUMBER, &timeout_s, false, "seconds, 60 by default; SIGTERM ends it too" },
        { 0 },
    };
    if (!options_read(argc, argv, specs))
        return 2;
    const int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0 || !watch_signals((unsigned)timeout_s) || !peer_open(&peer, address, epoll, &peer))
        return 2;
    puts("ready");
    fflush(stdout);
    int answered = 0;
    struct epoll_event event;
    while (!over && answered >= 0) {
        if (epoll_wait(epoll, &event, 1, -1) < 1)
            continue;
        answered = answer(&peer);
        answers += answered > 0 ? (uint64_t)answered : 0;
    }
    printf("{\"answers\": %" PRIu64 "}\n", answers);
    return answered < 0 ? 1 : 0;
}
