/* evapid: command line, start, the loop's clock and signals, stop.
 *
 *     evapid [-t | -r] -c FILE
 *
 * Exit status: 0 stopped by a signal, or the configuration is good (-t); 1 the configuration is bad, or evapid could
 * not start; 2 the command line is wrong. */
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
#include "kamailio/publish.h"
#include "kamailio/seat.h"
#include "kamailio/succession.h"
#include "lifecycle/handover.h"
#include "lifecycle/legacy.h"
#include "lifecycle/reload.h"
#include "lifecycle/start.h"
#include "views/answer.h"

#define SUBJECT "evapid"
#define TICK_MS 1000U
#define STOP_CHECK_MS 20U
/* How soon evapid offers more to a slow reader of its log or notices; one that reads nothing is tried once a second. */
#define AGAIN_MS 10U
#define DESCRIPTORS_LEAST 16U /* with fewer not even a loop can start: libuv aborts without its first pipe */
#define DESCRIPTORS_KEPT 512U /* for workers, control connections, listeners and the loop itself */

enum { EXIT_FINE = 0, EXIT_BROKEN = 1, EXIT_USAGE = 2 };

struct process {
    struct evapid evapid;
    const char *config_path;
    uv_signal_t terminate, interrupt, hang_up;
    uv_prepare_t turn_end;
    uv_idle_t more;
    uv_timer_t tick, watchdog, stopping, again;
    uint64_t stop_deadline_ms;
};

static struct process process; /* zero at the start */

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

/* Warn if descriptors limit the number of clients below max_clients. */
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

static void process_finish(struct process *p)
{
    uv_close((uv_handle_t *)&p->stopping, NULL);
    uv_close((uv_handle_t *)&p->turn_end, NULL);
    uv_close((uv_handle_t *)&p->more, NULL);
    uv_close((uv_handle_t *)&p->tick, NULL);
    uv_close((uv_handle_t *)&p->watchdog, NULL);
    uv_close((uv_handle_t *)&p->again, NULL);
    uv_close((uv_handle_t *)&p->terminate, NULL);
    uv_close((uv_handle_t *)&p->interrupt, NULL);
    uv_close((uv_handle_t *)&p->hang_up, NULL);
    bus_close(&p->evapid.bus);
    figures_publish(&p->evapid.kamailio); /* read until an evapid runs again */
    kamailio_close(&p->evapid.kamailio);
    control_close(&p->evapid.control);
    http_close(p->evapid.http);
    store_forget_all(); /* otherwise the next evapid would take it for the legacy of a killed one */
}

static void process_on_stopping(uv_timer_t *timer)
{
    struct process *p = timer->data;
    const bool flushed = flush_is_done(&p->evapid.bus);
    const bool idle = kamailio_is_idle(&p->evapid.kamailio);
    if (!(flushed && idle) && uv_now(&p->evapid.loop) < p->stop_deadline_ms)
        return;
    const uint64_t dropped = p->evapid.bus.totals.relayed - p->evapid.bus.totals.delivered;
    if (!flushed || !idle)
        log_line(LEVEL_WARNING, SUBJECT, "not done in %u ms (shutdown_grace_ms): %s",
                 p->evapid.config.shutdown_grace_ms, flushed ? "event routes still run" : "clients have not read all");
    process_finish(p);
    log_line(LEVEL_NOTICE, SUBJECT, "stopped: of %llu events relayed to clients %llu were not delivered",
             (unsigned long long)p->evapid.bus.totals.relayed, (unsigned long long)dropped);
}

/* ---- hand-over -------------------------------------------------------------------------------------------------- */

/* End this process, but close nothing: the successor continues with it. */
static _Noreturn void process_leave(void)
{
    log_tick(true);
    exit(EXIT_FINE);
}

/* Complete everything that a turn has begun. */
static void process_stand_still(struct process *p)
{
    http_drain(p->evapid.http); /* first, because an answer may read from the ring */
    kamailio_flush(&p->evapid.kamailio);
    seat_finish_placing(&p->evapid.kamailio); /* these two come after everything that could start them again */
    flush_close_leaving(&p->evapid.bus);
    flush_turn(&p->evapid.bus);
    figures_publish(&p->evapid.kamailio);
}

/* The service manager ends us, perhaps to start us again: leave everything in its store. Returns if that is not
 * possible. */
static void process_leave_in_store(struct process *p)
{
    struct descriptors descriptors = { 0 };
    process_stand_still(p);
    if (!handover_save(&p->evapid, &descriptors)) {
        log_line(LEVEL_ERROR, SUBJECT, "no memory to hand over: clients are disconnected");
        return;
    }
    for (const struct descriptor *descriptor = descriptors.all; descriptor != NULL; descriptor = descriptor->hh.next)
        if (!legacy_is_stored(descriptor->name))
            store_keep(descriptor->fd, "%s", descriptor->name);
    const unsigned unkept = store_clients_waiting();
    if (unkept > 0)
        log_line(LEVEL_WARNING, SUBJECT,
                 "%u clients are disconnected: the service manager has no place for them (FDSTORE)", unkept);
    /* If no successor comes, this is lost; only we know it, so log it. */
    const struct tally *totals = &p->evapid.bus.totals;
    log_line(
        LEVEL_NOTICE, SUBJECT,
        "stopping: SIGTERM; %u clients are left to the service manager, and %llu events and %llu messages that are on "
        "their way",
        HASH_COUNT(p->evapid.bus.roster.clients) - unkept,
        (unsigned long long)(totals->relayed - totals->delivered - tally_dropped(totals)),
        (unsigned long long)tally_messages_waiting(totals));
    notify_state("STOPPING=1");
    store_drain();
    process_leave();
}

/* The process on fd wants to take over. Returns why it may not. */
static const char *process_on_replace(void *owner, int fd)
{
    struct process *p = owner;
    struct descriptors descriptors = { 0 };
    const char *why = p->stop_deadline_ms != 0 ? "evapid is stopping"
                      : store_is_managed()     ? "it is run by a service manager: restart the service instead"
                                               : replace_permit(fd);
    if (why != NULL) {
        log_line(LEVEL_WARNING, SUBJECT, "not replaced: %s", why);
        return why;
    }
    process_stand_still(p);
    if (!handover_save(&p->evapid, &descriptors))
        return "there is no memory for a hand-over";
    why = replace_give(fd, &descriptors, &p->evapid.ledger.header->offer);
    if (why == NULL) {
        log_line(LEVEL_NOTICE, SUBJECT, "replaced: %u clients are the successor's",
                 HASH_COUNT(p->evapid.bus.roster.clients));
        process_leave();
    }
    handover_cancel(&p->evapid, &descriptors);
    log_line(LEVEL_WARNING, SUBJECT, "not replaced: %s; going on", why);
    return why;
}

/* Accept nobody, start nothing, and give running work its time to end. A second signal ends evapid immediately. */
static void process_on_signal(uv_signal_t *handle, int number)
{
    struct process *p = handle->data;
    if (p->stop_deadline_ms != 0) {
        p->stop_deadline_ms = 1;
        return;
    }
    if (number == SIGTERM && store_is_there())
        process_leave_in_store(p);
    log_line(LEVEL_NOTICE, SUBJECT, "stopping: %s", number == SIGTERM ? "SIGTERM" : "SIGINT");
    notify_state("STOPPING=1");
    listeners_stop(&p->evapid.listeners);
    kamailio_stop(&p->evapid.kamailio);
    p->stop_deadline_ms = uv_now(&p->evapid.loop) + p->evapid.config.shutdown_grace_ms;
    uv_timer_start(&p->stopping, process_on_stopping, 0, STOP_CHECK_MS);
}

/* ---- reload ----------------------------------------------------------------------------------------------------- */

/* Tell the service manager that a reload begins (sd_notify(3), RELOADING=1). READY=1 ends it, whatever the outcome. */
static void process_say_reloading(void)
{
    notify_state("RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)histogram_clock_ns() / 1000);
}

static const char *process_on_reload(void *owner, struct reload_outcome *outcome)
{
    struct process *p = owner;
    if (p->stop_deadline_ms != 0)
        return "evapid is stopping";
    process_say_reloading();
    const char *why = reload_config(&p->evapid, p->config_path, outcome);
    if (why != NULL) {
        log_line(LEVEL_ERROR, SUBJECT, "not reloaded, nothing has changed: %s", why);
        notify_state("READY=1\nSTATUS=not reloaded: the log says why");
        return why;
    }
    warn_of_few_descriptors(&p->evapid.config);
    listeners_expect(&p->evapid.listeners);
    log_line(LEVEL_NOTICE, SUBJECT, "reloaded: %u listeners are new, %u have gone, %u clients may not stay",
             outcome->added, outcome->removed, outcome->revoked);
    notify_state("READY=1\nSTATUS=workers attach at %s", p->evapid.config.kamailio_socket);
    return NULL;
}

static void process_on_hang_up(uv_signal_t *handle, int number)
{
    struct reload_outcome outcome = { .changed = NULL };
    (void)number;
    process_on_reload(handle->data, &outcome);
    json_decref(outcome.changed);
}

/* ---- run -------------------------------------------------------------------------------------------------------- */

static void process_on_again(uv_timer_t *timer)
{
    (void)timer; /* the turn's end does the work */
}

/* There is more to do: keeps the loop from sleeping. */
static void process_on_more(uv_idle_t *more)
{
    (void)more;
}

static void process_on_turn_end(uv_prepare_t *prepare)
{
    struct process *p = prepare->data;
    flush_attend(&p->evapid.bus);
    control_serve(&p->evapid.control);   /* its changes go out with the rest */
    kamailio_flush(&p->evapid.kamailio); /* before the clients: routes run while clients are served */
    flush_turn(&p->evapid.bus);
    control_flush(&p->evapid.control);
    figures_publish(&p->evapid.kamailio);
    publish_waiting(&p->evapid.kamailio);
    const bool lines_wait = log_flush();
    const bool notices_wait = notify_flush();
    if (lines_wait || notices_wait)
        uv_timer_start(&p->again, process_on_again, AGAIN_MS, 0);
    if (control_is_busy(&p->evapid.control) || gate_is_waited_at(&p->evapid.kamailio) ||
        flush_is_behind(&p->evapid.bus) || p->evapid.kamailio.seats.placing)
        uv_idle_start(&p->more, process_on_more);
    else
        uv_idle_stop(&p->more);
    turn_end(&p->evapid.turn);
}

static void process_on_tick(uv_timer_t *timer)
{
    struct process *p = timer->data;
    listeners_tick(&p->evapid.listeners);
    bus_tick(&p->evapid.bus);
    kamailio_tick(&p->evapid.kamailio);
    control_tick(&p->evapid.control);
    http_tick(p->evapid.http);
    log_tick(false);
}

static void process_on_watchdog(uv_timer_t *timer)
{
    (void)timer;
    notify_alive();
}

/* ---- start ------------------------------------------------------------------------------------------------------ */

/* Every client needs a descriptor: raise the limit as far as allowed. Returns NULL, or that it is too low to start at
 * all. */
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

/* Hold signals until the loop can handle them: SIGTERM must end the bus gracefully, and SIGHUP must not end it at
 * all. */
static void hold_signals(bool hold)
{
    sigset_t held;
    sigemptyset(&held);
    sigaddset(&held, SIGTERM);
    sigaddset(&held, SIGINT);
    sigaddset(&held, SIGHUP);
    sigprocmask(hold ? SIG_BLOCK : SIG_UNBLOCK, &held, NULL);
}

static void process_start_clocks(struct process *p)
{
    uint64_t watchdog_us = 0;
    uv_prepare_init(&p->evapid.loop, &p->turn_end);
    uv_idle_init(&p->evapid.loop, &p->more);
    uv_timer_init(&p->evapid.loop, &p->tick);
    uv_timer_init(&p->evapid.loop, &p->watchdog);
    uv_timer_init(&p->evapid.loop, &p->stopping);
    uv_timer_init(&p->evapid.loop, &p->again);
    uv_signal_init(&p->evapid.loop, &p->terminate);
    uv_signal_init(&p->evapid.loop, &p->interrupt);
    uv_signal_init(&p->evapid.loop, &p->hang_up);
    p->turn_end.data = p->tick.data = p->stopping.data = p->terminate.data = p->interrupt.data = p->hang_up.data = p;
    uv_prepare_start(&p->turn_end, process_on_turn_end);
    uv_timer_start(&p->tick, process_on_tick, TICK_MS, TICK_MS);
    uv_signal_start(&p->terminate, process_on_signal, SIGTERM);
    uv_signal_start(&p->interrupt, process_on_signal, SIGINT);
    uv_signal_start(&p->hang_up, process_on_hang_up, SIGHUP);
    hold_signals(false);
    if (sd_watchdog_enabled(0, &watchdog_us) > 0)
        uv_timer_start(&p->watchdog, process_on_watchdog, watchdog_us / 2000, watchdog_us / 2000);
}

/* Get the descriptors of an evapid before us, and open with them. *predecessor: the connection to the running evapid,
 * which waits until we run. Returns NULL, or what is wrong, with its subject in *subject. */
static const char *process_open(struct process *p, bool replace, int *predecessor, const char **subject)
{
    struct descriptors descriptors = { 0 };
    *subject = SUBJECT;
    door_init(&p->evapid.control.door);
    door_init(&p->evapid.kamailio.door);
    store_open(&descriptors);
    const char *why = raise_descriptor_limit();
    if (why != NULL)
        return why;
    warn_of_few_descriptors(&p->evapid.config);
    const int error = uv_loop_init(&p->evapid.loop);
    if (error != 0)
        return uv_strerror(error);
    p->evapid.control.replace = process_on_replace;
    p->evapid.control.reload = process_on_reload;
    p->evapid.control.owner = p;
    *subject = p->evapid.config.control_socket;
    why = replace ? replace_ask(*subject, &descriptors, predecessor) : NULL;
    if (why == NULL)
        why = evapid_start(&p->evapid, &descriptors, replace, subject);
    descriptors_clear(&descriptors, false);
    return why == NULL && replace ? replace_begin(*predecessor) : why;
}

/* From here on everything is ours. Returns NULL, or why the evapid before us continues. */
static const char *process_begin(struct process *p, int predecessor)
{
    const char *why = NULL;
    process_start_clocks(p);
    if (predecessor >= 0)
        why = replace_claim(predecessor, p->evapid.ledger.offer);
    if (why != NULL)
        return why;
    ledger_own(&p->evapid.ledger);
    door_adopt(&p->evapid.kamailio.door);
    door_adopt(&p->evapid.control.door);
    listeners_adopt(&p->evapid.listeners);
    reload_clients(&p->evapid);
    succession_adopt(&p->evapid.kamailio);
    identity_stop_asking();
    listeners_expect(&p->evapid.listeners);
    log_line(LEVEL_NOTICE, SUBJECT, "version " EVAPID_VERSION " ready: workers attach at %s, control at %s",
             p->evapid.config.kamailio_socket, p->evapid.config.control_socket);
    notify_state("READY=1\nSTATUS=workers attach at %s", p->evapid.config.kamailio_socket);
    return NULL;
}

/* After a failure, close only what we have made ourselves: the rest may still be another evapid's. */
static int process_run(struct process *p, bool replace)
{
    const char *subject = NULL;
    int predecessor = -1;
    const char *why = process_open(p, replace, &predecessor, &subject);
    if (why == NULL)
        why = process_begin(p, predecessor);
    if (why != NULL) {
        log_line(LEVEL_ERROR, subject, "%s", why);
        if (!p->evapid.control.door.inherited)
            door_close(&p->evapid.control.door);
        if (!p->evapid.kamailio.door.inherited)
            door_close(&p->evapid.kamailio.door);
        listeners_withdraw(&p->evapid.listeners);
        store_drain();
        notify_close();
        return EXIT_BROKEN;
    }
    turn_begin(&p->evapid.turn);
    uv_run(&p->evapid.loop, UV_RUN_DEFAULT);
    uv_loop_close(&p->evapid.loop);
    ledger_close(&p->evapid.ledger);
    store_drain(); /* it must have released everything before another evapid is started */
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
        return EXIT_BROKEN; /* there is nowhere to report it */
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
    signal(SIGXFSZ, SIG_IGN); /* a log that has reached the file size limit is treated like a full disk */
    process.config_path = path;
    watch_prepare();
    log_open(LEVEL_INFO);
    if (!config_read(&process.evapid.config, path, error)) {
        log_bare(LEVEL_ERROR, error);
        return EXIT_BROKEN;
    }
    if (test) {
        printf("%s: good\n", path);
        config_free(&process.evapid.config);
        return EXIT_FINE;
    }
    log_open(process.evapid.config.log_level);
    const int status = process_run(&process, replace);
    config_free(&process.evapid.config);
    return status;
}
