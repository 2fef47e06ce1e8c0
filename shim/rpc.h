/* RPC commands: what kamcmd, kamcli and other users of Kamailio's management interfaces can see and do with the module
 * and evapid. A command runs in the process that serves the interface. */
#ifndef EVAPI_RPC_H
#define EVAPI_RPC_H

#include "core/rpc.h"

#include "link.h"

/* For the module's exports. */
extern rpc_export_t rpc_commands[];

/* Where to ask evapid, and how the module is configured. Call it before the first command. */
void rpc_init(const struct link_settings *settings);

#endif
