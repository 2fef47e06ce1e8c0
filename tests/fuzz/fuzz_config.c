/* Fuzzing the configuration. Any file is read, or refused with an error that names a place in it. All values read are
 * within the documented ranges. A file with its comments blanked gives the same configuration. */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "config/config.h"
#include "config/place.h"
#include "input.h"

static char path[64];
static int file = -1;

static void write_file(const void *bytes, size_t length)
{
    if (file < 0) {
        file = memfd_create("evapid.json", MFD_CLOEXEC);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
    }
    assert(file >= 0 && ftruncate(file, 0) == 0);
    assert(pwrite(file, bytes, length, 0) == (ssize_t)length);
}

static void check_limits(const struct client_limits *limits)
{
    assert(limits->framing == FRAMING_NETSTRING || limits->framing == FRAMING_RAW);
    assert(limits->max_message_bytes >= 1 && limits->max_message_bytes <= EVAPID_MESSAGE_MAX);
    assert(limits->max_queued_bytes >= 1024 && limits->max_queued_bytes <= 1UL << 40);
    assert(limits->keepalive_idle_s <= 32767 && limits->keepalive_interval_s >= 1);
    assert(limits->keepalive_interval_s <= 32767 && limits->keepalive_probes >= 1 && limits->keepalive_probes <= 127);
}

static void check_good(const struct config *config)
{
    const size_t path_room = sizeof(config->control_socket);
    assert(strnlen(config->control_socket, path_room) < path_room && config->control_socket[0] != '\0');
    assert(strnlen(config->kamailio_socket, path_room) < path_room && config->kamailio_socket[0] != '\0');
    assert(strcmp(config->control_socket, config->kamailio_socket) != 0);
    check_limits(&config->limits);
    assert(config->worker_window_frames >= 1 && config->worker_window_frames <= 65536);
    assert(config->worker_window_bytes >= 1024 && config->worker_window_bytes <= 1UL << 30);
    assert(config->shutdown_grace_ms <= 600000 && config->attach_hold_ms <= 600000);
    assert(config->log_level >= LEVEL_ERROR && config->log_level <= LEVEL_DEBUG);
    for (size_t i = 0; i < config->listener_count; i++) {
        const struct config_listener *listener = &config->listeners[i];
        char text[ADDRESS_TEXT];
        struct sockaddr_storage again;
        check_limits(&listener->limits);
        assert(listener->max_clients >= 1 && listener->max_clients <= 1000000);
        address_print(&listener->address, text);
        assert(address_parse(text, &again) == NULL && address_equal(&again, &listener->address));
        for (size_t k = 0; k < i; k++)
            assert(!address_equal(&config->listeners[k].address, &listener->address));
    }
}

/* The error is "PATH:LINE:COLUMN: why", and the file has that line and column. */
static void check_error(const char *error, const char *text, size_t length)
{
    unsigned line = 0;
    unsigned column = 0;
    int used = 0;
    assert(strncmp(error, path, strlen(path)) == 0);
    if (length > 1U << 20)
        return;
    assert(sscanf(error + strlen(path), ":%u:%u: %n", &line, &column, &used) == 2 && used > 0);
    assert(error[strlen(path) + (size_t)used] != '\0' && line >= 1 && column >= 1);
    const char *at = text;
    const char *end = text + length;
    for (; line > 1; line--) {
        at = memchr(at, '\n', (size_t)(end - at));
        assert(at != NULL);
        at++;
    }
    const char *over = memchr(at, '\n', (size_t)(end - at));
    assert(column <= (size_t)((over != NULL ? over : end) - at) + 1);
}

static bool read_text(const char *text, size_t length, struct config *config)
{
    char error[CONFIG_ERROR];
    memset(error, 'x', sizeof(error));
    write_file(text, length);
    const bool good = config_read(config, path, error);
    if (good) {
        check_good(config);
        return true;
    }
    assert(config->listeners == NULL && strnlen(error, sizeof(error)) < sizeof(error));
    check_error(error, text, length);
    return false;
}

static void check_same(const struct config *a, const struct config *b)
{
    assert(a->limits.max_message_bytes == b->limits.max_message_bytes);
    assert(a->limits.max_queued_bytes == b->limits.max_queued_bytes);
    assert(strcmp(a->control_socket, b->control_socket) == 0);
    assert(a->listener_count == b->listener_count && a->log_level == b->log_level);
    for (size_t i = 0; i < a->listener_count; i++) {
        assert(a->listeners[i].max_clients == b->listeners[i].max_clients);
        assert(address_equal(&a->listeners[i].address, &b->listeners[i].address));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct config config;
    struct config blank;
    const bool good = read_text((const char *)bytes, length, &config);
    char *text = copy_of(bytes, length);
    const size_t comment = place_blank_comments(text, length);
    assert(comment <= length && (comment == length || !good));
    for (size_t i = 0; i < length; i++)
        assert((text[i] == '\n') == (bytes[i] == '\n'));
    if (comment == length) {
        assert(read_text(text, length, &blank) == good);
        if (good) {
            check_same(&config, &blank);
            config_free(&blank);
        }
    }
    if (good)
        config_free(&config);
    free(text);
    return 0;
}
