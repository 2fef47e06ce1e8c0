#include "module.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "evapid/wire.h"
#include "socket.h"

enum { ATTACH_S = 5, TICK_MS = 100, FULL_REST_US = 200, ADMIT_REST_US = 1000 };

static bool failed(const char *what)
{
    fprintf(stderr, "attaching: %s: %s\n", what, strerror(errno));
    return false;
}

void module_join(struct module *module)
{
    module->slot = ring_join(module->ring, module->lane);
}

/* The ring in its memory file; returns the file, or -1. */
static int ring_file(struct module *module, size_t capacity)
{
    const int file = memfd_create("ring of the benchmark", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    const size_t bytes = ring_bytes(capacity);
    if (file < 0 || ftruncate(file, (off_t)bytes) != 0 ||
        fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        return -1;
    module->ring = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file, 0);
    module->lane =
        mmap(NULL, sizeof(*module->lane), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (module->ring == MAP_FAILED || module->lane == MAP_FAILED)
        return -1;
    errno = ring_make(module->ring, module->lane, capacity, clock_ns());
    if (errno != 0)
        return -1;
    module_join(module);
    return file;
}

static bool hello_send(const struct module *module, int file, const char *address, uint32_t clients)
{
    unsigned char frame[WIRE_HEADER + WIRE_HELLO_MAX];
    const struct wire_text version = { "0", 1 };
    const struct wire_hello hello = { .version = WIRE_VERSION,
                                      .instance = clock_ns(),
                                      .pid = (uint32_t)getpid(),
                                      .workers = 1,
                                      .max_clients = clients,
                                      .framing = WIRE_FRAMING_NETSTRING,
                                      .keep_clients = true,
                                      .bind_addr = { address, strlen(address) },
                                      .module_version = version,
                                      .kamailio_version = version };
    struct iovec bytes = { .iov_base = frame, .iov_len = wire_write_hello(frame, sizeof(frame), &hello) };
    const int descriptors[2] = { file, module->wake[1] };
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(descriptors))] = { 0 };
    struct msghdr message = {
        .msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
    };
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(descriptors));
    memcpy(CMSG_DATA(rights), descriptors, sizeof(descriptors));
    ssize_t sent = -1;
    while ((sent = sendmsg(module->link, &message, MSG_NOSIGNAL)) < 0 && errno == EPERM)
        clock_rest_us(ADMIT_REST_US); /* evapid has not let the connection in yet */
    return bytes.iov_len > 0 && sent == (ssize_t)bytes.iov_len;
}

bool module_attach(struct module *module, const char *socket, size_t ring, const char *address, uint32_t clients)
{
    module->link = socket_connect_unix(socket);
    if (module->link < 0)
        return false;
    const bool paired = socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, module->wake) == 0;
    const int file = ring_file(module, ring);
    if (!paired || file < 0)
        return failed("the ring");
    const bool sent = hello_send(module, file, address, clients);
    close(file);
    if (!sent)
        return failed("HELLO");
    const uint64_t end_ns = clock_ns() + ATTACH_S * CLOCK_NS_PER_S;
    while (module->session == 0 && clock_ns() < end_ns)
        if (!module_serve(module, TICK_MS))
            return false;
    errno = ETIMEDOUT;
    return module->session != 0 || failed("WELCOME");
}

/* ---- up */

/* Frames may be waiting there: they are not touched. */
static bool link_stands(const struct module *module)
{
    struct pollfd at = { .fd = module->link, .events = 0 };
    return poll(&at, 1, 0) == 0 || (at.revents & (POLLHUP | POLLERR)) == 0;
}

bool module_push(struct module *module, struct ring_record record, const char *tag, const char *payload, size_t length)
{
    enum ring_push pushed;
    while ((pushed = ring_push(module->ring, module->lane, module->slot, record, tag, strlen(tag), payload, length)) ==
           RING_FULL) {
        module->full++;
        clock_rest_us(FULL_REST_US);
        if (!link_stands(module))
            return false;
    }
    if (pushed != RING_PUSHED)
        return failed("a record that the ring does not take");
    const uint64_t sleep = ring_sleeper(module->ring, module->lane);
    if (sleep == 0)
        return true;
    module->wakes++;
    if (send(module->wake[0], "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1 && errno != EAGAIN)
        return failed("waking evapid");
    ring_woken(module->ring, sleep);
    return true;
}

bool module_drained(const struct module *module)
{
    return atomic_load_explicit(&module->ring->tail, memory_order_acquire) == module->lane->head;
}

uint32_t module_clients(const struct module *module)
{
    return atomic_load_explicit(&module->ring->presence.clients, memory_order_acquire);
}

/* ---- down */

/* The route of an event, if there were one. */
static bool event_answer(struct module *module, enum wire_type type, const unsigned char *body, size_t length)
{
    struct wire_event event;
    if (!wire_read_event(body, length, &event))
        return failed("a malformed event");
    atomic_store_explicit(&module->ring->workers[0].started, event.sequence, memory_order_release);
    if (type == WIRE_NEW && module->first_client == 0)
        module->first_client = event.connection;
    if (type == WIRE_NEW && module->tags) {
        char tag[EVAPID_TAG_MAX + 1];
        snprintf(tag, sizeof(tag), "t%u", event.connection);
        const struct ring_record give = { .type = RING_TAG, .session = module->session, .target = event.connection };
        if (!module_push(module, give, tag, NULL, 0))
            return false;
    }
    const struct ring_record done = { .type = RING_DONE, .session = module->session, .target = event.sequence };
    return module_push(module, done, "", NULL, 0);
}

static bool frame_take(struct module *module, enum wire_type type, const unsigned char *body, size_t length)
{
    struct wire_welcome welcome;
    struct wire_text text = { "", 0 };
    uint32_t version;
    uint8_t level;
    switch (type) {
    case WIRE_WELCOME:
        if (!wire_read_welcome(body, length, &welcome))
            return failed("a malformed WELCOME");
        module->session = welcome.session;
        return true;
    case WIRE_REFUSED:
        wire_read_refused(body, length, &version, &text);
        fprintf(stderr, "attaching: refused: %.*s\n", (int)text.length, text.bytes);
        return false;
    case WIRE_NOTICE:
        if (wire_read_notice(body, length, &level, &text) && level != WIRE_NOTICE_INFO)
            fprintf(stderr, "evapid: %.*s\n", (int)text.length, text.bytes);
        return true;
    default: return event_answer(module, type, body, length);
    }
}

/* Take the whole frames out of the buffer. */
static bool frames_take(struct module *module)
{
    const size_t body_max = sizeof(module->buffer) - WIRE_HEADER;
    size_t at = 0, body = 0;
    enum wire_type type;
    enum wire_status status;
    while ((status = wire_header(module->buffer + at, module->length - at, body_max, &type, &body)) == WIRE_FRAME &&
           module->length - at - WIRE_HEADER >= body) {
        at += WIRE_HEADER + body;
        if (!frame_take(module, type, module->buffer + at - body, body))
            return false;
    }
    memmove(module->buffer, module->buffer + at, module->length - at);
    module->length -= at;
    return status != WIRE_BAD || failed("a malformed frame");
}

bool module_serve(struct module *module, int wait_ms)
{
    struct pollfd at = { .fd = module->link, .events = POLLIN };
    if (poll(&at, 1, wait_ms) <= 0)
        return true;
    const ssize_t got =
        recv(module->link, module->buffer + module->length, sizeof(module->buffer) - module->length, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (got <= 0) {
        fprintf(stderr, "attaching: evapid has ended the link\n");
        return false;
    }
    module->length += (size_t)got;
    return frames_take(module);
}
