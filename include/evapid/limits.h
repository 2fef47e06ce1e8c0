/* The limits that daemon, module and command line share, in bytes unless the name says otherwise. */
#ifndef EVAPID_LIMITS_H
#define EVAPID_LIMITS_H

/* A client's tag: EVAPI's manual, section 4.8, "a string up to 64 characters". */
#define EVAPID_TAG_MAX 64

/* The text of an address. An IPv6 address with a scope fits (INET6_ADDRSTRLEN is 46, IF_NAMESIZE 16). */
#define EVAPID_ADDRESS_MAX 64

/* The largest limit that can be configured for an event or a message. */
#define EVAPID_MESSAGE_MAX (64UL << 20)

/* The path of a Unix socket: sizeof(sun_path) less its NUL, unix(7). */
#define EVAPID_PATH_MAX 107

/* Evapi worker processes of one Kamailio. */
#define EVAPID_WORKERS_MAX 128

/* The module's ring: Kamailio module parameter queue_size. An event may use up to half of it. */
#define EVAPID_RING_MIN (64UL << 10)
#define EVAPID_RING_DEFAULT (32UL << 20)
#define EVAPID_RING_MAX (1UL << 30)

#define EVAPID_KAMAILIO_SOCKET "/run/evapid/kamailio.sock"
#define EVAPID_CONTROL_SOCKET "/run/evapid/control.sock"
#define EVAPID_INSTANCE_SOCKET "/run/evapid-%s/control.sock" /* of one of several instances, by its name */

/* The address of HTTP when the configuration enables it without naming one. */
#define EVAPID_METRICS_ADDRESS "127.0.0.1:9464"

#endif
