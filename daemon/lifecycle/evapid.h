/* The parts of one evapid. */
#ifndef EVAPID_EVAPID_H
#define EVAPID_EVAPID_H

#include <uv.h>

#include "base/turn.h"
#include "bus/bus.h"
#include "client/listener.h"
#include "config/config.h"
#include "control/control.h"
#include "kamailio/kamailio.h"
#include "web/http.h"

struct evapid {
    uv_loop_t loop;
    struct config config;
    struct ledger ledger;
    struct bus bus;
    struct listeners listeners;
    struct kamailio kamailio;
    struct control control;
    struct status_subject subject;
    struct turn turn;
    struct http *http; /* NULL: metrics are off */
};

#endif
