/* The configuration in memory. config.h reads it; keys.h has a row for each key of the file. */
#ifndef EVAPID_CONFIG_TYPE_H
#define EVAPID_CONFIG_TYPE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "client/terms.h"
#include "net/access.h"
#include "net/address.h"
#include "net/door.h"

struct config_listener {
    struct sockaddr_storage address;
    struct client_limits limits;
    struct access access;
    uint32_t max_clients;
};

/* The HTTP endpoint (web/http.h). */
struct config_http {
    struct sockaddr_storage address; /* AF_UNSPEC: there is none */
    bool page, tail;                 /* it has the status page; that shows events and messages */
};

struct config {
    const char *file; /* its path, the caller's; NULL: none was read */
    json_t *given;    /* the file's object, as it was read */
    char kamailio_socket[EVAPID_PATH_MAX + 1];
    char control_socket[EVAPID_PATH_MAX + 1];
    struct door_access kamailio_access, control_access;
    bool module_listener;        /* the module may declare a listener */
    struct client_limits limits; /* of listeners that do not set their own, and of the module's */
    struct access access;        /* of the same listeners */
    struct config_listener *listeners;
    size_t listener_count;
    size_t max_total_queued_bytes;                    /* memory of the queues of all clients */
    size_t worker_window_frames, worker_window_bytes; /* messages that a worker may have whose routes have not ended */
    uint32_t shutdown_grace_ms, attach_hold_ms;
    struct config_http http;
    struct sockaddr_storage metrics; /* as http.address, without the page; http has it after reading */
    enum log_level log_level;
};

#endif
