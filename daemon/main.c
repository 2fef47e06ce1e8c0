/* evapid: command line, start, the loop's clock and signals, stop.
 *
 *     evapid [-t | -r] -c FILE
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
#include <uv.h>

#include "base/log.h"
#include "base/notify.h"
#include "base/standard.h"
#include "base/store.h"
#include "base/watch.h"
#include "bus/flush.h"
#include "config/identity.h"
#include "control/replace.h"
#include "kamailio/figures.h"
#include "kamailio/gate.h"
#include "kamailio/seat.h"
#include "kamailio/succession.h"
#include "lifecycle/handover.h"
#include "lifecycle/reload.h"
#include "views/answer.h"

#define SUBJECT "evapid"
#define TICK_MS 1000U
#define STOP_CHECK_MS 20U
/* How soon evapid offers more to a slow reader of its log or notices; one that reads nothing is tried once a second. */
#define AGAIN_MS 10U
#define DESCRIPTORS_LEAST 16U /* with fewer there is not even a loop: libuv aborts for want of its first pipe */
#define DESCRIPTORS_KEPT 512U /* for workers, control connections, listeners and the loop itself */

enum { EXIT_FINE = 0, EXIT_BROKEN = 1, EXIT_USAGE = 2 };

struct evapid {
    struct household home;
    const char *config_path;
    uv_signal_t terminate, interrupt, hang_up;
    uv_prepare_t turn_end;
    uv_idle_t more;
    uv_timer_t tick, watchdog, stopping, again;
    uint64_t stop_deadline_ms;
};

static struct evapid evapid; /* one for the process, zero at the start */

static const char usage[] = "Usage: evapid [-t | -r] -c FILE\n"
                            "The event bus between Kamailio and the programs that take part in its routing.\n"
                            "\n"
                            "  -c, --config FILE  read the configuration from FILE and run in the foreground\n"
                            "  -t, --test         only check the configuration\n"
                            "  -r, --replace      take over from the evapid that runs, with its clients and its\n"
                            "                     Kamailio; FILE names its control socket\n"
                            "  -V, --version      print the version\n"
                            "  -h, --help         print this\n"
                            "\n"
                            "Exit status: 0 stopped by SIGTERM or SIGINT, or the configuration is good;\n"
                            "1 the configuration is bad, or evapid could not start; 2 wrong command line.\n";

/* Say so when fewer clients can connect than may. */
static void warn_of_few_descriptors(const struct config *config)
{
    struct rlimit limit;
    uint64_t clients = 0;
    for (size_t i = 0; i < config->listener_count; i++)
        clients += config->listeners[i].max_clients;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && clients + DESCRIPTORS_KEPT > limit.rlim_cur)
        log_line(LEVEL_WARNING, SUBJECT,
                 "%llu clients may connect (max_clients), but only %llu descriptors may be open",
                 (unsigned long long)clients, (unsigned long long)limit.rlim_cur);
}

/* ---- stop ------------------------------------------------------------------------------------------------------- */

static void evapid_finish(struct evapid *e)
{
    uv_close((uv_handle_t *)&e->stopping, NULL);
    uv_close((uv_handle_t *)&e->turn_end, NULL);
    uv_close((uv_handle_t *)&e->more, NULL);
    uv_close((uv_handle_t *)&e->tick, NULL);
    uv_close((uv_handle_t *)&e->watchdog, NULL);
    uv_close((uv_handle_t *)&e->again, NULL);
    uv_close((uv_handle_t *)&e->terminate, NULL);
    uv_close((uv_handle_t *)&e->interrupt, NULL);
    uv_close((uv_handle_t *)&e->hang_up, NULL);
    bus_close(&e->home.bus);
    figures_publish(&e->home.kamailio); /* what is read until there is an evapid again */
    kamailio_close(&e->home.kamailio);
    control_close(&e->home.control);
    http_close(e->home.http);
    store_forget_all(); /* or else who comes next would take it for that of one that was killed */
}

static void evapid_on_stopping(uv_timer_t *timer)
{
    struct evapid *e = timer->data;
    const bool flushed = flush_is_done(&e->home.bus);
    const bool idle = kamailio_is_idle(&e->home.kamailio);
    if (!(flushed && idle) && uv_now(&e->home.loop) < e->stop_deadline_ms)
        return;
    const uint64_t dropped = e->home.bus.totals.relayed - e->home.bus.totals.delivered;
    if (!flushed || !idle)
        log_line(LEVEL_WARNING, SUBJECT, "not done in %u ms (shutdown_grace_ms): %s", e->home.config.shutdown_grace_ms,
                 flushed ? "event routes still run" : "clients have not read all");
    evapid_finish(e);
    log_line(LEVEL_NOTICE, SUBJECT, "stopped: of %llu events relayed to clients %llu were not delivered",
             (unsigned long long)e->home.bus.totals.relayed, (unsigned long long)dropped);
}

/* ---- hand-over -------------------------------------------------------------------------------------------------- */

/* The end of this process, but not of what it was: nothing is closed, for it goes on elsewhere. */
static _Noreturn void evapid_leave(void)
{
    log_tick(true);
    exit(EXIT_FINE);
}

/* Nothing is on its way within a turn any more. */
static void evapid_stand_still(struct evapid *e)
{
    http_settle(e->home.http); /* first: an answer may have something read from the ring */
    kamailio_flush(&e->home.kamailio);
    seat_finish_placing(&e->home.kamailio); /* these two after all that could begin them anew */
    flush_settle_leaving(&e->home.bus);
    flush_turn(&e->home.bus);
    figures_publish(&e->home.kamailio);
}

/* The service manager ends us, perhaps to start us again: leave everything with it. Returns when it can't be. */
static void evapid_leave_in_store(struct evapid *e)
{
    struct holdings holdings = { 0 };
    evapid_stand_still(e);
    if (!handover_save(&e->home, &holdings)) {
        log_line(LEVEL_ERROR, SUBJECT, "no memory to hand over: clients are disconnected");
        return;
    }
    for (const struct holding *holding = holdings.all; holding != NULL; holding = holding->hh.next)
        if (!handover_is_stored(holding->name))
            store_keep(holding->fd, "%s", holding->name);
    const unsigned unkept = store_clients_waiting();
    if (unkept > 0)
        log_line(LEVEL_WARNING, SUBJECT,
                 "%u clients are disconnected: the service manager has no place for them (FDSTORE)", unkept);
    /* If nobody comes for it, that is what is lost: it is said by the only one that knows. */
    const struct tally *totals = &e->home.bus.totals;
    log_line(
        LEVEL_NOTICE, SUBJECT,
        "stopping: SIGTERM; %u clients are left to the service manager, and %llu events and %llu messages that are on "
        "their way",
        HASH_COUNT(e->home.bus.roster.clients) - unkept,
        (unsigned long long)(totals->relayed - totals->delivered - tally_dropped(totals)),
        (unsigned long long)tally_messages_waiting(totals));
    notify_state("STOPPING=1");
    store_settle();
    evapid_leave();
}

/* Somebody on fd wants to take over. Returns why he does not. */
static const char *evapid_on_replace(void *owner, int fd)
{
    struct evapid *e = owner;
    struct holdings holdings = { 0 };
    const char *why = e->stop_deadline_ms != 0 ? "evapid is stopping"
                      : store_is_managed()     ? "it is run by a service manager: restart the service instead"
                                               : replace_permit(fd);
    if (why != NULL) {
        log_line(LEVEL_WARNING, SUBJECT, "not replaced: %s", why);
        return why;
    }
    evapid_stand_still(e);
    if (!handover_save(&e->home, &holdings))
        return "there is no memory for a hand-over";
    why = replace_give(fd, &holdings, &e->home.ledger.header->offer);
    if (why == NULL) {
        log_line(LEVEL_NOTICE, SUBJECT, "replaced: %u clients are the successor's",
                 HASH_COUNT(e->home.bus.roster.clients));
        evapid_leave();
    }
    handover_cancel(&e->home, &holdings);
    log_line(LEVEL_WARNING, SUBJECT, "not replaced: %s; going on", why);
    return why;
}

/* Accept nobody any more, begin nothing, and give what is under way its time to end. A second signal ends at once. */
static void evapid_on_signal(uv_signal_t *handle, int number)
{
    struct evapid *e = handle->data;
    if (e->stop_deadline_ms != 0) {
        e->stop_deadline_ms = 1;
        return;
    }
    if (number == SIGTERM && store_is_there())
        evapid_leave_in_store(e);
    log_line(LEVEL_NOTICE, SUBJECT, "stopping: %s", number == SIGTERM ? "SIGTERM" : "SIGINT");
    notify_state("STOPPING=1");
    listeners_stop(&e->home.listeners);
    kamailio_stop(&e->home.kamailio);
    e->stop_deadline_ms = uv_now(&e->home.loop) + e->home.config.shutdown_grace_ms;
    uv_timer_start(&e->stopping, evapid_on_stopping, 0, STOP_CHECK_MS);
}

/* ---- reload ----------------------------------------------------------------------------------------------------- */

/* The service manager is told when it begins (sd_notify(3), RELOADING=1), and that it has ended, whatever came of it. */
static void evapid_say_reloading(void)
{
    notify_state("RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)histogram_clock_ns() / 1000);
}

static const char *evapid_on_reload(void *owner, struct reload_outcome *outcome)
{
    struct evapid *e = owner;
    if (e->stop_deadline_ms != 0)
        return "evapid is stopping";
    evapid_say_reloading();
    const char *why = reload_config(&e->home, e->config_path, outcome);
    if (why != NULL) {
        log_line(LEVEL_ERROR, SUBJECT, "not reloaded, nothing has changed: %s", why);
        notify_state("READY=1\nSTATUS=not reloaded: the log says why");
        return why;
    }
    warn_of_few_descriptors(&e->home.config);
    listeners_expect(&e->home.listeners);
    log_line(LEVEL_NOTICE, SUBJECT, "reloaded: %u listeners are new, %u have gone, %u clients may not stay",
             outcome->added, outcome->removed, outcome->revoked);
    notify_state("READY=1\nSTATUS=workers attach at %s", e->home.config.kamailio_socket);
    return NULL;
}

static void evapid_on_hang_up(uv_signal_t *handle, int number)
{
    struct reload_outcome outcome;
    (void)number;
    evapid_on_reload(handle->data, &outcome);
}

/* ---- run -------------------------------------------------------------------------------------------------------- */

static void evapid_on_again(uv_timer_t *timer)
{
    (void)timer; /* the turn's end does it */
}

/* There is more to do: the loop does not sleep. */
static void evapid_on_more(uv_idle_t *more)
{
    (void)more;
}

static void evapid_on_turn_end(uv_prepare_t *prepare)
{
    struct evapid *e = prepare->data;
    flush_attend(&e->home.bus);
    control_serve(&e->home.control);   /* what it changes goes out with the rest */
    kamailio_flush(&e->home.kamailio); /* before the clients: routes run while they are served */
    flush_turn(&e->home.bus);
    control_flush(&e->home.control);
    figures_publish(&e->home.kamailio);
    const bool lines_wait = log_flush();
    const bool notices_wait = notify_flush();
    if (lines_wait || notices_wait)
        uv_timer_start(&e->again, evapid_on_again, AGAIN_MS, 0);
    if (control_is_busy(&e->home.control) || gate_is_waited_at(&e->home.kamailio) || flush_is_behind(&e->home.bus) ||
        e->home.kamailio.seats.placing)
        uv_idle_start(&e->more, evapid_on_more);
    else
        uv_idle_stop(&e->more);
    turn_end(&e->home.turn);
}

static void evapid_on_tick(uv_timer_t *timer)
{
    struct evapid *e = timer->data;
    listeners_tick(&e->home.listeners);
    bus_tick(&e->home.bus);
    kamailio_tick(&e->home.kamailio);
    control_tick(&e->home.control);
    http_tick(e->home.http);
    log_tick(false);
}

static void evapid_on_watchdog(uv_timer_t *timer)
{
    (void)timer;
    notify_alive();
}

/* ---- start ------------------------------------------------------------------------------------------------------ */

/* Every client is a descriptor: take as many as we may have. Returns NULL, or that there are too few to begin at all. */
static const char *raise_descriptor_limit(void)
{
    static char why[128];
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return NULL;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < DESCRIPTORS_LEAST) {
        snprintf(why, sizeof(why), "only %llu descriptors may be open: at least %u are needed",
                 (unsigned long long)limit.rlim_cur, DESCRIPTORS_LEAST);
        return why;
    }
    return NULL;
}

/* What is asked for before the loop can do it comes later: a SIGTERM is to end the bus in order, and a SIGHUP not at all. */
static void hold_signals(bool hold)
{
    sigset_t held;
    sigemptyset(&held);
    sigaddset(&held, SIGTERM);
    sigaddset(&held, SIGINT);
    sigaddset(&held, SIGHUP);
    sigprocmask(hold ? SIG_BLOCK : SIG_UNBLOCK, &held, NULL);
}

static void evapid_start_clocks(struct evapid *e)
{
    uint64_t watchdog_us = 0;
    uv_prepare_init(&e->home.loop, &e->turn_end);
    uv_idle_init(&e->home.loop, &e->more);
    uv_timer_init(&e->home.loop, &e->tick);
    uv_timer_init(&e->home.loop, &e->watchdog);
    uv_timer_init(&e->home.loop, &e->stopping);
    uv_timer_init(&e->home.loop, &e->again);
    uv_signal_init(&e->home.loop, &e->terminate);
    uv_signal_init(&e->home.loop, &e->interrupt);
    uv_signal_init(&e->home.loop, &e->hang_up);
    e->turn_end.data = e->tick.data = e->stopping.data = e->terminate.data = e->interrupt.data = e->hang_up.data = e;
    uv_prepare_start(&e->turn_end, evapid_on_turn_end);
    uv_timer_start(&e->tick, evapid_on_tick, TICK_MS, TICK_MS);
    uv_signal_start(&e->terminate, evapid_on_signal, SIGTERM);
    uv_signal_start(&e->interrupt, evapid_on_signal, SIGINT);
    uv_signal_start(&e->hang_up, evapid_on_hang_up, SIGHUP);
    hold_signals(false);
    if (sd_watchdog_enabled(0, &watchdog_us) > 0)
        uv_timer_start(&e->watchdog, evapid_on_watchdog, watchdog_us / 2000, watchdog_us / 2000);
}

/* Come by the descriptors of an evapid before us, and open with them. *predecessor: the connection to the one that runs, which
 * waits until we run. Returns NULL, or what is wrong, and with what. */
static const char *evapid_open(struct evapid *e, bool replace, int *predecessor, const char **subject)
{
    struct holdings holdings = { 0 };
    *subject = SUBJECT;
    door_init(&e->home.control.door);
    door_init(&e->home.kamailio.door);
    store_open(&holdings);
    const char *why = raise_descriptor_limit();
    if (why != NULL)
        return why;
    warn_of_few_descriptors(&e->home.config);
    const int error = uv_loop_init(&e->home.loop);
    if (error != 0)
        return uv_strerror(error);
    e->home.control.replace = evapid_on_replace;
    e->home.control.reload = evapid_on_reload;
    e->home.control.owner = e;
    *subject = e->home.config.control_socket;
    why = replace ? replace_ask(*subject, &holdings, predecessor) : NULL;
    if (why == NULL)
        why = handover_open(&e->home, &holdings, replace, subject);
    holdings_clear(&holdings, false);
    return why == NULL && replace ? replace_begin(*predecessor) : why;
}

/* From here on all is ours. Returns NULL, or that the evapid before us goes on. */
static const char *evapid_begin(struct evapid *e, int predecessor)
{
    const char *why = NULL;
    evapid_start_clocks(e);
    if (predecessor >= 0)
        why = replace_claim(predecessor, e->home.ledger.offer);
    if (why != NULL)
        return why;
    ledger_own(&e->home.ledger);
    door_settle(&e->home.kamailio.door);
    door_settle(&e->home.control.door);
    reload_clients(&e->home);
    succession_settle(&e->home.kamailio);
    identity_stop_asking();
    listeners_expect(&e->home.listeners);
    log_line(LEVEL_NOTICE, SUBJECT, "version " EVAPID_VERSION " ready: workers attach at %s, control at %s",
             e->home.config.kamailio_socket, e->home.config.control_socket);
    notify_state("READY=1\nSTATUS=workers attach at %s", e->home.config.kamailio_socket);
    return NULL;
}

/* Nothing but what we have made ourselves may be closed when it fails: the rest may still be another's. */
static int evapid_run(struct evapid *e, bool replace)
{
    const char *subject = NULL;
    int predecessor = -1;
    const char *why = evapid_open(e, replace, &predecessor, &subject);
    if (why == NULL)
        why = evapid_begin(e, predecessor);
    if (why != NULL) {
        log_line(LEVEL_ERROR, subject, "%s", why);
        if (!e->home.control.door.inherited)
            door_close(&e->home.control.door);
        if (!e->home.kamailio.door.inherited)
            door_close(&e->home.kamailio.door);
        store_settle();
        notify_close();
        return EXIT_BROKEN;
    }
    turn_begin(&e->home.turn);
    uv_run(&e->home.loop, UV_RUN_DEFAULT);
    uv_loop_close(&e->home.loop);
    ledger_close(&e->home.ledger);
    store_settle(); /* it is to have let go of all before another evapid is started */
    notify_close();
    log_tick(true);
    return EXIT_FINE;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "config", required_argument, NULL, 'c' }, { "test", no_argument, NULL, 't' },
        { "replace", no_argument, NULL, 'r' },      { "version", no_argument, NULL, 'V' },
        { "help", no_argument, NULL, 'h' },         { NULL, 0, NULL, 0 }
    };
    const char *path = NULL;
    bool test = false;
    bool replace = false;
    char error[CONFIG_ERROR];
    if (!standard_open())
        return EXIT_BROKEN; /* there is nobody to tell it to */
    hold_signals(true);
    for (int option; (option = getopt_long(argc, argv, "c:trVh", options, NULL)) != -1;) {
        switch (option) {
        case 'c': path = optarg; break;
        case 't': test = true; break;
        case 'r': replace = true; break;
        case 'V': puts("evapid " EVAPID_VERSION); return EXIT_FINE;
        case 'h': fputs(usage, stdout); return EXIT_FINE;
        default: fputs(usage, stderr); return EXIT_USAGE;
        }
    }
    if (path == NULL || optind < argc) {
        fprintf(stderr, "evapid: %s\n%s", path == NULL ? "-c FILE is missing" : "too many arguments", usage);
        return EXIT_USAGE;
    }
    if (test)
        hold_signals(false);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a log that may not grow any more is as one on a full disk */
    evapid.config_path = path;
    watch_prepare();
    log_open(LEVEL_INFO);
    if (!config_read(&evapid.home.config, path, error)) {
        log_bare(LEVEL_ERROR, error);
        return EXIT_BROKEN;
    }
    if (test) {
        printf("%s: good\n", path);
        config_free(&evapid.home.config);
        return EXIT_FINE;
    }
    log_open(evapid.home.config.log_level);
    const int status = evapid_run(&evapid, replace);
    config_free(&evapid.home.config);
    return status;
}
