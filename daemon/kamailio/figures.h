/* The figures in the ring's header: evapid's totals, for Kamailio's statistics (evapid/figures.h). */
#ifndef EVAPID_DAEMON_FIGURES_H
#define EVAPID_DAEMON_FIGURES_H

#include "kamailio/kamailio_type.h"

/* Write the totals into the ring, if there is one. Call it at the end of a turn, when everything has been counted. */
void figures_publish(const struct kamailio *kamailio);

#endif
