/* RPC commands: what kamcmd, kamcli and other users of Kamailio's management interfaces see of the module and of evapid, and
 * may have done. They run in whatever process serves the interface. */
#ifndef EVAPI_RPC_H
#define EVAPI_RPC_H

#include "core/rpc.h"

#include "link.h"

/* For the module's exports. */
extern rpc_export_t rpc_commands[];

/* Where evapid is asked, and what the module was told to be; before the first command. */
void rpc_init(const struct link_settings *settings);

#endif
