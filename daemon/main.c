/* evapid: command line, start, the loop's clock and signals, stop.
 *
 *     evapid [-t] -c FILE
 *
 * Exit status: 0 stopped by a signal, or the configuration is good (-t); 1 the configuration is bad, or it could not
 * start; 2 the command line is wrong. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <utlist.h>
#include <uv.h>

#include "bus.h"
#include "config.h"
#include "control.h"
#include "kamailio.h"
#include "listener.h"
#include "log.h"
#include "status.h"

#define SUBJECT "evapid"
#define TICK_MS 1000U
#define STOP_CHECK_MS 20U
#define DESCRIPTORS_LEAST 16U /* with fewer there is not even a loop: libuv aborts for want of its first pipe */
#define DESCRIPTORS_KEPT 512U /* for workers, control connections, listeners and the loop itself */

enum { EXIT_FINE = 0, EXIT_BROKEN = 1, EXIT_USAGE = 2 };

struct evapid {
    uv_loop_t loop;
    struct config config;
    struct bus bus;
    struct listeners listeners;
    struct kamailio kamailio;
    struct control control;
    struct status_subject subject;
    uv_signal_t terminate, interrupt, hang_up;
    uv_prepare_t turn_end;
    uv_timer_t tick, watchdog, stopping;
    uint64_t stop_deadline_ms;
};

static struct evapid evapid; /* one for the process, zero at the start */

static const char usage[] = "Usage: evapid [-t] -c FILE\n"
                            "The event bus between Kamailio and the programs that take part in its routing.\n"
                            "\n"
                            "  -c, --config FILE  read the configuration from FILE and run in the foreground\n"
                            "  -t, --test         only check the configuration\n"
                            "  -V, --version      print the version\n"
                            "  -h, --help         print this\n"
                            "\n"
                            "Exit status: 0 stopped by SIGTERM or SIGINT, or the configuration is good;\n"
                            "1 the configuration is bad, or evapid could not start; 2 wrong command line.\n";

/* ---- stop ------------------------------------------------------------------------------------------------------- */

static void evapid_finish(struct evapid *e)
{
    uv_close((uv_handle_t *)&e->stopping, NULL);
    uv_close((uv_handle_t *)&e->turn_end, NULL);
    uv_close((uv_handle_t *)&e->tick, NULL);
    uv_close((uv_handle_t *)&e->watchdog, NULL);
    uv_close((uv_handle_t *)&e->terminate, NULL);
    uv_close((uv_handle_t *)&e->interrupt, NULL);
    uv_close((uv_handle_t *)&e->hang_up, NULL);
    bus_close(&e->bus);
    kamailio_close(&e->kamailio);
    control_close(&e->control);
}

static void evapid_on_stopping(uv_timer_t *timer)
{
    struct evapid *e = timer->data;
    const bool flushed = bus_is_flushed(&e->bus);
    const bool idle = kamailio_is_idle(&e->kamailio);
    if (!(flushed && idle) && uv_now(&e->loop) < e->stop_deadline_ms)
        return;
    const uint64_t dropped = e->bus.totals.relayed - e->bus.totals.delivered;
    if (!flushed || !idle)
        log_line(LEVEL_WARNING, SUBJECT, "not done in %u ms (shutdown_grace_ms): %s", e->config.shutdown_grace_ms,
                 flushed ? "event routes still run" : "clients have not read all");
    evapid_finish(e);
    log_line(LEVEL_NOTICE, SUBJECT, "stopped: of %llu events relayed to clients %llu were not delivered",
             (unsigned long long)e->bus.totals.relayed, (unsigned long long)dropped);
}

/* Accept nobody any more, begin nothing, and give what is under way its time to end. A second signal ends at once. */
static void evapid_on_signal(uv_signal_t *handle, int number)
{
    struct evapid *e = handle->data;
    if (e->stop_deadline_ms != 0) {
        e->stop_deadline_ms = 1;
        return;
    }
    log_line(LEVEL_NOTICE, SUBJECT, "stopping: %s", number == SIGTERM ? "SIGTERM" : "SIGINT");
    sd_notify(0, "STOPPING=1");
    listeners_stop(&e->listeners);
    kamailio_stop(&e->kamailio);
    e->stop_deadline_ms = uv_now(&e->loop) + e->config.shutdown_grace_ms;
    uv_timer_start(&e->stopping, evapid_on_stopping, 0, STOP_CHECK_MS);
}

/* Other daemons read their configuration again on this signal. It must not end the bus of who expects that. */
static void evapid_on_hang_up(uv_signal_t *handle, int number)
{
    (void)handle;
    (void)number;
    log_line(LEVEL_WARNING, SUBJECT, "SIGHUP has no effect: the configuration is read at the start only");
}

/* ---- run -------------------------------------------------------------------------------------------------------- */

static void evapid_on_turn_end(uv_prepare_t *prepare)
{
    struct evapid *e = prepare->data;
    kamailio_flush(&e->kamailio); /* first: routes run while clients are served */
    bus_flush(&e->bus);
}

static void evapid_on_tick(uv_timer_t *timer)
{
    struct evapid *e = timer->data;
    listeners_tick(&e->listeners);
    bus_tick(&e->bus);
    kamailio_tick(&e->kamailio);
    control_tick(&e->control);
    log_tick(false);
}

static void evapid_on_watchdog(uv_timer_t *timer)
{
    (void)timer;
    sd_notify(0, "WATCHDOG=1");
}

/* ---- start ------------------------------------------------------------------------------------------------------ */

static bool fail(const char *subject, const char *why)
{
    log_line(LEVEL_ERROR, subject, "%s", why);
    return false;
}

/* Every client is a descriptor: take as many as we may have, and say so when that is fewer than may connect. False: there
 * are too few to begin at all. */
static bool raise_descriptor_limit(const struct config *config)
{
    struct rlimit limit;
    uint64_t clients = 0;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return true;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < DESCRIPTORS_LEAST) {
        log_line(LEVEL_ERROR, SUBJECT, "only %llu descriptors may be open: at least %u are needed",
                 (unsigned long long)limit.rlim_cur, DESCRIPTORS_LEAST);
        return false;
    }
    for (size_t i = 0; i < config->listener_count; i++)
        clients += config->listeners[i].max_clients;
    if (clients + DESCRIPTORS_KEPT > limit.rlim_cur)
        log_line(LEVEL_WARNING, SUBJECT,
                 "%llu clients may connect (max_clients), but only %llu descriptors may be open",
                 (unsigned long long)clients, (unsigned long long)limit.rlim_cur);
    return true;
}

static bool evapid_listen(struct evapid *e)
{
    e->listeners.bus = &e->bus;
    for (size_t i = 0; i < e->config.listener_count; i++) {
        const struct config_listener *from = &e->config.listeners[i];
        struct listener *listener =
            listener_add(&e->listeners, &from->address, &from->limits, from->max_clients, LISTENER_CONFIG);
        const char *why = listener != NULL ? listener_start(listener) : "no memory";
        if (why != NULL)
            return fail(listener != NULL ? listener->subject : SUBJECT, why);
    }
    return true;
}

static void evapid_start_clocks(struct evapid *e)
{
    uint64_t watchdog_us = 0;
    uv_prepare_init(&e->loop, &e->turn_end);
    uv_timer_init(&e->loop, &e->tick);
    uv_timer_init(&e->loop, &e->watchdog);
    uv_timer_init(&e->loop, &e->stopping);
    uv_signal_init(&e->loop, &e->terminate);
    uv_signal_init(&e->loop, &e->interrupt);
    uv_signal_init(&e->loop, &e->hang_up);
    e->turn_end.data = e->tick.data = e->stopping.data = e->terminate.data = e->interrupt.data = e;
    uv_prepare_start(&e->turn_end, evapid_on_turn_end);
    uv_timer_start(&e->tick, evapid_on_tick, TICK_MS, TICK_MS);
    uv_signal_start(&e->terminate, evapid_on_signal, SIGTERM);
    uv_signal_start(&e->interrupt, evapid_on_signal, SIGINT);
    uv_signal_start(&e->hang_up, evapid_on_hang_up, SIGHUP);
    if (sd_watchdog_enabled(0, &watchdog_us) > 0)
        uv_timer_start(&e->watchdog, evapid_on_watchdog, watchdog_us / 2000, watchdog_us / 2000);
}

static bool evapid_start(struct evapid *e)
{
    e->control.door.fd = e->kamailio.door.fd = -1;
    if (!raise_descriptor_limit(&e->config))
        return false;
    const int error = uv_loop_init(&e->loop);
    if (error != 0)
        return fail("event loop", uv_strerror(error));
    bus_open(&e->bus, &e->loop);
    e->bus.upstream = kamailio_upstream(&e->kamailio);
    e->subject = (struct status_subject){
        .bus = &e->bus, .kamailio = &e->kamailio, .listeners = &e->listeners, .started_ms = uv_now(&e->loop)
    };
    const char *why = control_open(&e->control, &e->loop, e->config.control_socket, &e->subject);
    if (why != NULL)
        return fail(e->config.control_socket, why);
    why = kamailio_open(&e->kamailio, &e->loop, &e->config, &e->bus, &e->listeners);
    if (why != NULL)
        return fail(e->config.kamailio_socket, why);
    return evapid_listen(e);
}

static int evapid_run(struct evapid *e)
{
    if (!evapid_start(e)) {
        door_close(&e->control.door);
        door_close(&e->kamailio.door);
        return EXIT_BROKEN;
    }
    evapid_start_clocks(e);
    log_line(LEVEL_NOTICE, SUBJECT, "version " EVAPID_VERSION " ready: workers attach at %s, control at %s",
             e->config.kamailio_socket, e->config.control_socket);
    sd_notifyf(0, "READY=1\nSTATUS=workers attach at %s", e->config.kamailio_socket);
    uv_run(&e->loop, UV_RUN_DEFAULT);
    uv_loop_close(&e->loop);
    log_tick(true);
    return EXIT_FINE;
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "config", required_argument, NULL, 'c' },
                                             { "test", no_argument, NULL, 't' },
                                             { "version", no_argument, NULL, 'V' },
                                             { "help", no_argument, NULL, 'h' },
                                             { NULL, 0, NULL, 0 } };
    const char *path = NULL;
    bool test = false;
    char error[CONFIG_ERROR];
    for (int option; (option = getopt_long(argc, argv, "c:tVh", options, NULL)) != -1;) {
        switch (option) {
        case 'c': path = optarg; break;
        case 't': test = true; break;
        case 'V': puts("evapid " EVAPID_VERSION); return EXIT_FINE;
        case 'h': fputs(usage, stdout); return EXIT_FINE;
        default: fputs(usage, stderr); return EXIT_USAGE;
        }
    }
    if (path == NULL || optind < argc) {
        fprintf(stderr, "evapid: %s\n%s", path == NULL ? "-c FILE is missing" : "too many arguments", usage);
        return EXIT_USAGE;
    }
    signal(SIGPIPE, SIG_IGN);
    log_open(LEVEL_INFO);
    if (!config_read(&evapid.config, path, error)) {
        log_bare(LEVEL_ERROR, error);
        return EXIT_BROKEN;
    }
    if (test) {
        printf("%s: good\n", path);
        config_free(&evapid.config);
        return EXIT_FINE;
    }
    log_open(evapid.config.log_level);
    const int status = evapid_run(&evapid);
    config_free(&evapid.config);
    return status;
}
