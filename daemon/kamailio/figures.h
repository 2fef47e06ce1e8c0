/* The figures in the ring's header: evapid's totals, for Kamailio's statistics (evapid/figures.h). */
#ifndef EVAPID_DAEMON_FIGURES_H
#define EVAPID_DAEMON_FIGURES_H

#include "kamailio/kamailio_type.h"

/* The end of a loop turn, when all that it did has been counted: write them into the ring, if there is one. */
void figures_publish(const struct kamailio *kamailio);

#endif
