/* top: rates, queues and the most important clients, on a screen that is kept up to date. */
#include <errno.h>
#include <locale.h>
#include <ncurses.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

#include "evapictl/ask.h"
#include "evapictl/screen.h"
#include "evapictl/text.h"

#define PATIENCE_S 2    /* for an answer: keys may wait as long */
#define CLIENTS_MAX 500 /* more than the lines of any screen */
#define INTERVAL_LEAST 0.1
#define INTERVAL_MOST 60.0

/* The answers at one time. NULL: no answer. */
struct sample {
    double at_s;
    json_t *stats, *kamailio, *clients;
    json_int_t slow;
};

struct top {
    const struct options *options;
    struct line_to line;
    struct sample now, before;
    double interval_s, next_s;
    size_t order;
    bool paused;
    char why[256]; /* why the last attempt got no answer; empty: it got one */
};

static const char *const orders[] = { "queued",   "dropped", "delivered", "sent", "messages",
                                      "received", "index",   "address",   "tag" };

#define ORDERS (sizeof(orders) / sizeof(*orders))

static volatile sig_atomic_t ended;

static void on_end(int number)
{
    (void)number;
    ended = 1;
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- asking ----------------------------------------------------------------------------------------------------- */

static void sample_clear(struct sample *sample)
{
    json_decref(sample->stats);
    json_decref(sample->kamailio);
    json_decref(sample->clients);
    *sample = (struct sample){ .at_s = 0 };
}

static json_t *top_ask(struct top *top, json_t *request, const char *key)
{
    int status = EXIT_FINE;
    if (top->line.fd < 0 && (status = line_open(&top->line, top->options->socket)) == EXIT_FINE)
        line_set_patience(&top->line, PATIENCE_S);
    if (status != EXIT_FINE) {
        json_decref(request);
        return NULL;
    }
    json_t *answer = line_ask(&top->line, request, key, &status);
    if (answer == NULL)
        line_close(&top->line);
    else
        make_printable(answer);
    return answer;
}

/* Take a new sample. If evapid does not answer, keep the last one and try again later. */
static void top_sample(struct top *top)
{
    struct sample sample = { .at_s = now_s() };
    json_t *slow = NULL;
    top->why[0] = '\0';
    sample.stats = top_ask(top, json_pack("{s:s}", "command", "stats"), "totals");
    if (sample.stats != NULL)
        sample.kamailio = top_ask(top, json_pack("{s:s}", "command", "kamailio"), "kamailio");
    if (sample.kamailio != NULL)
        sample.clients = top_ask(top,
                                 json_pack("{s:s, s:s, s:i}", "command", "clients", "sort", orders[top->order], "limit",
                                           LINES < CLIENTS_MAX ? LINES : CLIENTS_MAX),
                                 "clients");
    if (sample.clients != NULL)
        slow = top_ask(top, json_pack("{s:s, s:b, s:i}", "command", "clients", "slow", true, "limit", 0), "clients");
    sample.slow = number_at(slow, "matching");
    json_decref(slow);
    if (slow == NULL) {
        sample_clear(&sample);
        return;
    }
    sample_clear(&top->before);
    top->before = top->now;
    top->now = sample;
}

/* ---- rates ------------------------------------------------------------------------------------------------------ */

/* Growth per second between the two samples; -1 while there is only one, or after evapid has started anew. */
static double rate_of(const struct top *top, const json_t *now, const json_t *before, const char *key)
{
    const double seconds = top->now.at_s - top->before.at_s;
    const json_int_t grown = number_at(now, key) - number_at(before, key);
    return before == NULL || seconds <= 0 || grown < 0 ? -1 : (double)grown / seconds;
}

/* "12.5k": per second; "-": unknown. */
static const char *show_rate(const struct top *top, const json_t *now, const json_t *before, const char *key,
                             char out[SHORT_TEXT])
{
    const double rate = rate_of(top, now, before, key);
    if (rate < 0)
        return "-";
    if (rate >= 99999.5)
        snprintf(out, SHORT_TEXT, rate < 999999.5 ? "%.0fk" : "%.1fM", rate < 999999.5 ? rate / 1e3 : rate / 1e6);
    else
        snprintf(out, SHORT_TEXT, rate > 0 && rate < 9.95 ? "%.1f" : "%.0f", rate);
    return out;
}

/* Bytes per second. */
static const char *show_flow(const struct top *top, const json_t *now, const json_t *before, const char *key,
                             char out[SHORT_TEXT])
{
    const double rate = rate_of(top, now, before, key);
    return rate < 0 ? "-" : show_size((json_int_t)rate, out);
}

/* The same client in the sample before; NULL: it was not in it. */
static const json_t *client_before(const struct top *top, const json_t *client)
{
    size_t i = 0;
    json_t *other = NULL;
    json_array_foreach(json_object_get(top->before.clients, "clients"), i, other)
    {
        if (number_at(other, "index") == number_at(client, "index"))
            return other;
    }
    return NULL;
}

static json_int_t sum_of(const json_t *counts)
{
    json_int_t sum = 0;
    const char *key = NULL;
    json_t *count = NULL;
    json_object_foreach((json_t *)(uintptr_t)counts, key, count) sum += json_integer_value(count);
    return sum;
}

/* ---- drawing ---------------------------------------------------------------------------------------------------- */

static void draw_title(const struct top *top)
{
    char span[SHORT_TEXT];
    const json_t *kamailio = json_object_get(top->now.kamailio, "kamailio");
    const bool attached = strcmp(text_at(kamailio, "state"), "attached") == 0;
    attron(A_BOLD);
    screen_line(0, "evapid %s, up %s; kamailio %s (%zu workers); every %.1f s%s", text_at(top->now.stats, "version"),
                show_span(number_at(top->now.stats, "uptime_s"), span), attached ? "attached" : "NOT ATTACHED",
                json_array_size(json_object_get(kamailio, "workers")), top->interval_s, top->paused ? ", PAUSED" : "");
    attroff(A_BOLD);
}

/* A group of the totals in a sample. */
static const json_t *group(const struct sample *sample, const char *name)
{
    return json_object_get(json_object_get(sample->stats, "totals"), name);
}

static void draw_totals(const struct top *top)
{
    char a[SHORT_TEXT];
    char b[SHORT_TEXT];
    char c[SHORT_TEXT];
    char d[SHORT_TEXT];
    char e[SHORT_TEXT];
    const json_t *now = group(&top->now, "clients");
    const json_t *before = group(&top->before, "clients");
    screen_line(1, "clients  %lld, %lld slow; accepted %s/s, closed %s/s, refused %s/s",
                (long long)number_at(top->now.clients, "total"), (long long)top->now.slow,
                show_rate(top, now, before, "accepted", a), show_rate(top, now, before, "closed", b),
                show_rate(top, now, before, "refused", c));
    now = group(&top->now, "events");
    before = group(&top->before, "events");
    screen_line(2, "events   relay %s/s, multicast %s/s, unicast %s/s, send %s/s; no receiver %s/s",
                show_rate(top, now, before, "relay", a), show_rate(top, now, before, "multicast", b),
                show_rate(top, now, before, "unicast", c), show_rate(top, now, before, "send", d),
                show_rate(top, now, before, "no_receiver", e));
    now = group(&top->now, "out");
    before = group(&top->before, "out");
    screen_line(3, "out      delivered %s/s, %s bytes/s; dropped %lld in all",
                show_rate(top, now, before, "delivered", a), show_flow(top, now, before, "bytes", b),
                (long long)sum_of(json_object_get(now, "dropped")));
    screen_line(4, "queued   %lld events, %s bytes, in %s of memory", (long long)number_at(now, "queued_frames"),
                show_size(number_at(now, "queued_bytes"), a), show_size(number_at(now, "queued_memory"), b));
    now = group(&top->now, "in");
    before = group(&top->before, "in");
    screen_line(5, "in       messages %s/s, %s bytes/s; waiting %lld; dropped %lld in all",
                show_rate(top, now, before, "frames", a), show_flow(top, now, before, "bytes", b),
                (long long)number_at(now, "waiting"), (long long)sum_of(json_object_get(now, "dropped")));
}

static void draw_ring(const struct top *top)
{
    char used[SHORT_TEXT];
    char capacity[SHORT_TEXT];
    char high[SHORT_TEXT];
    const json_t *ring = json_object_get(json_object_get(top->now.kamailio, "kamailio"), "ring");
    if (!json_is_object(ring)) {
        screen_line(6, "queue    none: no Kamailio has attached");
        return;
    }
    screen_line(6, "queue    %s of %s bytes, high water %s; refused %lld%s", show_size(number_at(ring, "used"), used),
                show_size(number_at(ring, "capacity"), capacity), show_size(number_at(ring, "high_water"), high),
                (long long)(number_at(ring, "refused_full") + number_at(ring, "refused_large")),
                is_true_at(ring, "stuck")  ? "; STUCK"
                : is_true_at(ring, "held") ? "; HELD"
                                           : "");
}

#define FIRST_ROW 9 /* of the clients */

/* The columns: the tag gets the remaining width. */
static const struct screen_column columns[] = {
    { "client", 6, true }, { "address", 21, false }, { "tag", 0, false }, { "state", 9, false },  { "queued", 6, true },
    { "bytes", 5, true },  { "out/s", 6, true },     { "in/s", 5, true }, { "dropped", 7, true },
};

#define COLUMNS (sizeof(columns) / sizeof(*columns))

static void draw_client(const struct top *top, int y, const json_t *client)
{
    char figures[6][SHORT_TEXT];
    const json_t *before = client_before(top, client);
    const json_t *out = json_object_get(client, "out");
    const json_t *in = json_object_get(client, "in");
    const bool slow = is_true_at(client, "slow");
    snprintf(figures[0], SHORT_TEXT, "%lld", (long long)number_at(client, "index"));
    snprintf(figures[1], SHORT_TEXT, "%lld", (long long)number_at(out, "queued_frames"));
    snprintf(figures[2], SHORT_TEXT, "%lld", (long long)sum_of(json_object_get(client, "dropped")));
    const char *const cells[COLUMNS] = { figures[0],
                                         text_at(client, "address"),
                                         text_at(client, "tag"),
                                         slow ? "SLOW" : text_at(client, "state"),
                                         figures[1],
                                         show_size(number_at(out, "queued_bytes"), figures[3]),
                                         show_rate(top, out, json_object_get(before, "out"), "delivered", figures[4]),
                                         show_rate(top, in, json_object_get(before, "in"), "frames", figures[5]),
                                         figures[2] };
    if (slow)
        attron(A_BOLD);
    screen_row(y, columns, COLUMNS, cells);
    attroff(A_BOLD);
}

static void draw_clients(const struct top *top)
{
    const char *titles[COLUMNS];
    size_t i = 0;
    json_t *client = NULL;
    for (size_t k = 0; k < COLUMNS; k++)
        titles[k] = columns[k].title;
    attron(A_REVERSE);
    screen_row(FIRST_ROW - 1, columns, COLUMNS, titles);
    attroff(A_REVERSE);
    json_array_foreach(json_object_get(top->now.clients, "clients"), i, client)
    {
        if (FIRST_ROW + (int)i >= LINES - 1)
            break;
        draw_client(top, FIRST_ROW + (int)i, client);
    }
}

static void draw(const struct top *top)
{
    erase();
    if (top->now.stats != NULL) {
        draw_title(top);
        draw_totals(top);
        draw_ring(top);
        draw_clients(top);
    }
    if (top->why[0] != '\0')
        screen_line(7, "NO ANSWER: %s", top->why);
    screen_line(LINES - 1, "q quit   s/S sort: %s   p pause   +/- interval", orders[top->order]);
    refresh();
}

/* ---- keys ------------------------------------------------------------------------------------------------------- */

static void change_interval(struct top *top, double factor)
{
    const double interval = top->interval_s * factor;
    if (interval >= INTERVAL_LEAST && interval <= INTERVAL_MOST)
        top->interval_s = interval;
}

/* Handle a key. KEY_RESIZE, a new size of the screen, needs a new sample too. */
static void take_key(struct top *top, int key)
{
    switch (key) {
    case 'q':
    case 'Q': ended = 1; return;
    case 'p':
    case ' ': top->paused = !top->paused; return;
    case 's': top->order = (top->order + 1) % ORDERS; break;
    case 'S': top->order = (top->order + ORDERS - 1) % ORDERS; break;
    case '+': change_interval(top, 0.5); break;
    case '-': change_interval(top, 2); break;
    default: break;
    }
    top->next_s = 0;
}

/* Wait for keys until the next sample is due. */
static void wait_for_keys(struct top *top)
{
    struct pollfd keyboard = { .fd = STDIN_FILENO, .events = POLLIN };
    const double left_s = top->paused ? 3600 : top->next_s - now_s();
    const int ready = left_s > 0 ? poll(&keyboard, 1, (int)(left_s * 1000) + 1) : 0;
    if (ready > 0 && (keyboard.revents & POLLIN) == 0)
        ended = 1; /* the terminal is gone */
    for (int key; !ended && (key = getch()) != ERR;)
        take_key(top, key);
}

static void run(struct top *top)
{
    while (!ended) {
        if (!top->paused && now_s() >= top->next_s) {
            top_sample(top);
            top->next_s = now_s() + top->interval_s;
        }
        draw(top);
        wait_for_keys(top);
    }
}

static void end_on_signals(void)
{
    static const int numbers[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
    const struct sigaction action = { .sa_handler = on_end };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
        sigaction(numbers[i], &action, NULL);
}

int top_run(const struct options *options, char **words, int count)
{
    struct top top = { .options = options,
                       .line = { .path = options->socket, .fd = -1 },
                       .interval_s = options->watch_s > 0 ? options->watch_s : 1 };
    (void)words;
    (void)count;
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
        return fail(EXIT_USAGE, "top", "it needs a terminal: evapictl status --watch 1 does not");
    int status = line_open(&top.line, options->socket); /* while errors can still be printed */
    if (status != EXIT_FINE)
        return status;
    line_set_patience(&top.line, PATIENCE_S);
    setlocale(LC_ALL, "");
    if (!screen_open())
        return fail(EXIT_USAGE, "top", "ncurses does not know this terminal: set TERM");
    end_on_signals();
    fail_into(top.why, sizeof(top.why));
    run(&top);
    fail_into(NULL, 0);
    screen_close();
    sample_clear(&top.now);
    sample_clear(&top.before);
    line_close(&top.line);
    return EXIT_FINE;
}
