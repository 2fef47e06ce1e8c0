/* evapictl: asks a running evapid through its control socket.
 *
 * Exit status: 0 answered; 1 evapid answered with an error; 2 the command line is wrong; 3 no evapid answers. */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "evapid/limits.h"

#define COLUMNS_MAX 16
#define CELL_MAX 80
#define TIMEOUT_S 10

enum { EXIT_FINE = 0, EXIT_ANSWERED_ERROR = 1, EXIT_USAGE = 2, EXIT_UNREACHABLE = 3 };

static const char usage[] = "Usage: evapictl [-s SOCKET] [-j] status\n"
                            "Ask a running evapid.\n"
                            "\n"
                            "  status             what is attached, connected, queued, delivered and dropped\n"
                            "\n"
                            "  -s, --socket FILE  its control socket (default " EVAPID_CONTROL_SOCKET ")\n"
                            "  -j, --json         print the answer as JSON\n"
                            "  -V, --version      print the version\n"
                            "  -h, --help         print this\n"
                            "\n"
                            "Exit status: 0 answered; 1 evapid answered with an error; 2 wrong command line;\n"
                            "3 no evapid answers.\n";

/* ---- asking ----------------------------------------------------------------------------------------------------- */

static int fail(int status, const char *path, const char *why)
{
    fprintf(stderr, "evapictl: %s: %s\n", path, why);
    return status;
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    const struct timeval limit = { .tv_sec = TIMEOUT_S };
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    const int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static const char *unreachable_reason(int error)
{
    switch (error) {
    case ENOENT: return "evapid is not running (there is no such socket)";
    case ECONNREFUSED: return "evapid is not running (nobody listens on its socket)";
    case EACCES: return "permission denied: ask as root or as a member of the socket's group";
    case EAGAIN: return "evapid does not answer";
    case EBADMSG: return "what answers there is not evapid, or was cut off";
    default: return strerror(error);
    }
}

/* The answer on a line: an object that says what is wrong, or which evapid it is. NULL: it is none. */
static json_t *read_answer(const char *line, size_t length)
{
    json_t *answer = json_loadb(line, length, JSON_ALLOW_NUL, NULL);
    if (json_is_string(json_object_get(answer, "error")) || json_is_string(json_object_get(answer, "version")))
        return answer;
    json_decref(answer);
    return NULL;
}

/* Send the request line and read the answer's; NULL when there is none, with errno (EBADMSG: it makes no sense). */
static json_t *ask(int fd, const char *request)
{
    json_t *answer = NULL;
    ssize_t length = 0;
    if (send(fd, request, strlen(request), MSG_NOSIGNAL) != (ssize_t)strlen(request))
        return NULL;
    FILE *stream = fdopen(dup(fd), "r");
    char *line = NULL;
    size_t room = 0;
    errno = 0;
    if (stream != NULL && (length = getline(&line, &room, stream)) > 0)
        answer = read_answer(line, (size_t)length);
    const int error = length > 0 ? EBADMSG : errno != 0 ? errno : ECONNRESET;
    free(line);
    if (stream != NULL)
        fclose(stream);
    errno = error;
    return answer;
}

/* ---- showing ---------------------------------------------------------------------------------------------------- */

/* Bytes of the control character that text begins with, 0: it begins with none. U+0080 to U+009F take two. */
static size_t control_character(const char *text, size_t length)
{
    const unsigned char c = (unsigned char)text[0];
    const unsigned char next = length > 1 ? (unsigned char)text[1] : 0;
    if (c == 0xc2 && next >= 0x80 && next < 0xa0)
        return 2;
    return c < 0x20 || c == 0x7f;
}

static bool has_control_character(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (control_character(text + i, length - i) > 0)
            return true;
    return false;
}

/* The text with control characters as \xNN; NULL when it has none, or there is no memory. A tag is any bytes that the
 * script makes of what a client said: it must not forge lines nor drive a terminal. */
static json_t *printable(const json_t *text)
{
    const char *bytes = json_string_value(text);
    const size_t length = json_string_length(text);
    size_t n = 0;
    if (!has_control_character(bytes, length))
        return NULL;
    char *shown = malloc(length * 4 + 1);
    for (size_t i = 0; i < length && shown != NULL; i++) {
        size_t control = control_character(bytes + i, length - i);
        if (control == 0)
            shown[n++] = bytes[i];
        for (; control > 0; control--, i += control > 0)
            n += (size_t)snprintf(shown + n, 5, "\\x%02x", (unsigned char)bytes[i]);
    }
    json_t *made = shown != NULL ? json_stringn(shown, n) : NULL;
    free(shown);
    return made;
}

/* Make every text in value printable; a key that is not is none of evapid's, and goes. */
static void make_printable(json_t *value)
{
    const char *key = NULL;
    void *next = NULL;
    json_t *inner = NULL;
    json_t *shown = NULL;
    size_t i = 0;
    json_object_foreach_safe(value, next, key, inner)
    {
        make_printable(inner);
        if (has_control_character(key, strlen(key)))
            json_object_del(value, key);
        else if (json_is_string(inner) && (shown = printable(inner)) != NULL)
            json_object_set_new(value, key, shown);
    }
    json_array_foreach(value, i, inner) make_printable(inner);
}

static json_int_t number_at(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static const char *text_at(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "-";
}

/* "0", "812", "3.4K", "12M": at most four digits. */
static const char *show_size(json_int_t bytes, char out[CELL_MAX])
{
    static const char units[] = " KMGTPE";
    double value = (double)bytes;
    int unit = 0;
    for (; value >= 1024 && units[unit + 1] != '\0'; unit++)
        value /= 1024;
    if (unit == 0)
        snprintf(out, CELL_MAX, "%lld", (long long)bytes);
    else
        snprintf(out, CELL_MAX, value < 10 ? "%.1f%c" : "%.0f%c", value, units[unit]);
    return out;
}

/* "12 s", "5 min", "3 h 20 min", "4 d 2 h". */
static const char *show_span(json_int_t seconds, char out[CELL_MAX])
{
    if (seconds < 60)
        snprintf(out, CELL_MAX, "%lld s", (long long)seconds);
    else if (seconds < 3600)
        snprintf(out, CELL_MAX, "%lld min", (long long)seconds / 60);
    else if (seconds < 86400)
        snprintf(out, CELL_MAX, "%lld h %lld min", (long long)seconds / 3600, (long long)seconds / 60 % 60);
    else
        snprintf(out, CELL_MAX, "%lld d %lld h", (long long)seconds / 86400, (long long)seconds / 3600 % 24);
    return out;
}

/* How long ago a time of evapid's was. */
static const char *show_since(const char *since, char out[CELL_MAX])
{
    struct tm utc = { 0 };
    if (strptime(since, "%Y-%m-%dT%H:%M:%S", &utc) == NULL)
        return "-";
    const time_t ago = time(NULL) - timegm(&utc);
    return show_span(ago > 0 ? ago : 0, out);
}

/* A table: rows of cells, printed with every column as wide as its widest cell. A title that begins with '>' is printed
 * without it, and its column is set to the right. */
struct table {
    const char *const *titles;
    size_t columns, rows;
    char (*cells)[COLUMNS_MAX][CELL_MAX];
};

static void table_open(struct table *table, const char *const *titles, size_t columns, size_t rows)
{
    *table = (struct table){ .titles = titles, .columns = columns, .cells = calloc(rows + 1, sizeof(*table->cells)) };
    if (table->cells == NULL)
        exit(fail(EXIT_ANSWERED_ERROR, "table", "no memory"));
}

static int table_width(const struct table *table, size_t column, const char *title)
{
    size_t width = strlen(title);
    for (size_t i = 0; i < table->rows; i++) {
        const size_t length = strlen(table->cells[i][column]);
        width = length > width ? length : width;
    }
    return (int)width;
}

static void table_print_row(const struct table *table, const int *widths, const char (*row)[CELL_MAX])
{
    for (size_t i = 0; i < table->columns; i++) {
        const bool right = table->titles[i][0] == '>';
        const char *cell = row != NULL ? row[i] : table->titles[i] + (right ? 1 : 0);
        const bool last = i + 1 == table->columns;
        fputs("  ", stdout);
        printf("%*s", right ? widths[i] : (last ? 0 : -widths[i]), cell);
    }
    putchar('\n');
}

static void table_print(struct table *table)
{
    int widths[COLUMNS_MAX];
    for (size_t i = 0; i < table->columns; i++)
        widths[i] = table_width(table, i, table->titles[i] + (table->titles[i][0] == '>' ? 1 : 0));
    table_print_row(table, widths, NULL);
    for (size_t i = 0; i < table->rows; i++)
        table_print_row(table, widths, (const char(*)[CELL_MAX])table->cells[i]);
    free(table->cells);
}

/* Take off the end of a cell that was too long, so that it does not end within a character. */
static void end_whole(char cell[CELL_MAX])
{
    size_t n = strlen(cell);
    while (n > 0 && ((unsigned char)cell[n - 1] & 0xc0) == 0x80)
        n--;
    if (n > 0 && (unsigned char)cell[n - 1] >= 0xc0)
        n--;
    cell[n] = '\0';
}

__attribute__((format(printf, 3, 4))) static void table_set(struct table *table, size_t column, const char *format, ...)
{
    char *cell = table->cells[table->rows][column];
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(cell, CELL_MAX, format, args);
    va_end(args);
    if (length >= CELL_MAX)
        end_whole(cell);
}

/* "slow 12, closed 3", or "-". */
static const char *show_dropped(const json_t *dropped, char out[CELL_MAX])
{
    const char *reason = NULL;
    json_t *count = NULL;
    size_t n = 0;
    snprintf(out, CELL_MAX, "-");
    json_object_foreach((json_t *)(uintptr_t)dropped, reason, count)
    {
        if (json_integer_value(count) > 0 && n < CELL_MAX)
            n += (size_t)snprintf(out + n, CELL_MAX - n, "%s%s %lld", n > 0 ? ", " : "", reason,
                                  (long long)json_integer_value(count));
    }
    if (n >= CELL_MAX)
        end_whole(out);
    return out;
}

static void show_ring(const json_t *ring)
{
    char used[CELL_MAX];
    char capacity[CELL_MAX];
    char high[CELL_MAX];
    if (!json_is_object(ring))
        return;
    printf("queue      %s of %s used, high water %s, refused: full %lld, too large %lld%s\n",
           show_size(number_at(ring, "used"), used), show_size(number_at(ring, "capacity"), capacity),
           show_size(number_at(ring, "high_water"), high), (long long)number_at(ring, "refused_full"),
           (long long)number_at(ring, "refused_large"),
           json_is_true(json_object_get(ring, "held")) ? "; HELD until the clients are there" : "");
    if (number_at(ring, "stale") > 0)
        printf("           %lld records were meant for an evapid before this one\n",
               (long long)number_at(ring, "stale"));
}

static void show_workers(const json_t *workers)
{
    static const char *const titles[] = { ">worker", ">pid", ">clients", ">in flight", ">waiting" };
    static const char *const keys[] = { "index", "pid", "clients", "in_flight", "waiting" };
    struct table table;
    size_t i = 0;
    json_t *worker = NULL;
    table_open(&table, titles, 5, json_array_size(workers));
    json_array_foreach(workers, i, worker)
    {
        for (size_t k = 0; k < 5; k++)
            table_set(&table, k, "%lld", (long long)number_at(worker, keys[k]));
        table.rows++;
    }
    table_print(&table);
}

static void show_kamailio(const json_t *kamailio)
{
    char span[CELL_MAX];
    const json_t *workers = json_object_get(kamailio, "workers");
    if (strcmp(text_at(kamailio, "state"), "attached") != 0) {
        printf("kamailio   NOT attached\n");
    } else {
        printf("kamailio   attached for %s (since %s), pid %lld, version %s, module %s\n",
               show_since(text_at(kamailio, "since"), span), text_at(kamailio, "since"),
               (long long)number_at(kamailio, "pid"), text_at(kamailio, "version"), text_at(kamailio, "module"));
    }
    show_ring(json_object_get(kamailio, "ring"));
    if (json_array_size(workers) > 0)
        show_workers(workers);
}

static void show_listeners(const json_t *listeners)
{
    static const char *const titles[] = { "listener", "framing", "from",      "state",
                                          ">clients", ">max",    ">accepted", ">refused" };
    struct table table;
    size_t i = 0;
    json_t *listener = NULL;
    printf("\nlisteners  %zu\n", json_array_size(listeners));
    if (json_array_size(listeners) == 0)
        return;
    table_open(&table, titles, 8, json_array_size(listeners));
    json_array_foreach(listeners, i, listener)
    {
        table_set(&table, 0, "%s", text_at(listener, "address"));
        table_set(&table, 1, "%s", text_at(listener, "framing"));
        table_set(&table, 2, "%s", text_at(listener, "source"));
        table_set(&table, 3, "%s", text_at(listener, "state"));
        table_set(&table, 4, "%lld", (long long)number_at(listener, "clients"));
        table_set(&table, 5, "%lld", (long long)number_at(listener, "max_clients"));
        table_set(&table, 6, "%lld", (long long)number_at(listener, "accepted"));
        table_set(&table, 7, "%lld", (long long)number_at(listener, "refused"));
        table.rows++;
    }
    table_print(&table);
}

static void show_client(struct table *table, const json_t *client)
{
    char text[CELL_MAX];
    const json_t *in = json_object_get(client, "in");
    const json_t *out = json_object_get(client, "out");
    table_set(table, 0, "%lld", (long long)number_at(client, "index"));
    table_set(table, 1, "%s", text_at(client, "address"));
    table_set(table, 2, "%s", text_at(client, "tag"));
    table_set(table, 3, "%s%s", text_at(client, "state"),
              json_is_true(json_object_get(client, "slow")) ? ", SLOW" : "");
    table_set(table, 4, "%s", show_since(text_at(client, "since"), text));
    table_set(table, 5, "%lld", (long long)number_at(in, "frames"));
    table_set(table, 6, "%s", show_size(number_at(in, "bytes"), text));
    table_set(table, 7, "%lld", (long long)number_at(out, "delivered"));
    table_set(table, 8, "%s", show_size(number_at(out, "bytes"), text));
    table_set(table, 9, "%lld", (long long)number_at(out, "queued_frames"));
    table_set(table, 10, "%s", show_size(number_at(out, "queued_bytes"), text));
    table_set(table, 11, "%s", show_dropped(json_object_get(client, "dropped"), text));
    table->rows++;
}

static void show_clients(const json_t *clients)
{
    static const char *const titles[] = { ">client", "address", "tag",    "state",   ">for",   ">in",
                                          ">bytes",  ">out",    ">bytes", ">queued", ">bytes", "dropped" };
    struct table table;
    size_t i = 0;
    json_t *client = NULL;
    printf("\nclients    %zu\n", json_array_size(clients));
    if (json_array_size(clients) == 0)
        return;
    table_open(&table, titles, 12, json_array_size(clients));
    json_array_foreach(clients, i, client) show_client(&table, client);
    table_print(&table);
}

static void show_totals(const json_t *totals)
{
    char size[CELL_MAX];
    char dropped[CELL_MAX];
    const json_t *clients = json_object_get(totals, "clients");
    const json_t *events = json_object_get(totals, "events");
    const json_t *out = json_object_get(totals, "out");
    const json_t *in = json_object_get(totals, "in");
    printf("\ntotals\n");
    printf("  clients  accepted %lld, closed %lld, refused %lld\n", (long long)number_at(clients, "accepted"),
           (long long)number_at(clients, "closed"), (long long)number_at(clients, "refused"));
    printf("  events   relay %lld, multicast %lld, unicast %lld, of these with no receiver %lld\n",
           (long long)number_at(events, "relay"), (long long)number_at(events, "multicast"),
           (long long)number_at(events, "unicast"), (long long)number_at(events, "no_receiver"));
    printf("  out      relayed %lld, delivered %lld (%s), dropped %s\n", (long long)number_at(out, "relayed"),
           (long long)number_at(out, "delivered"), show_size(number_at(out, "bytes"), size),
           show_dropped(json_object_get(out, "dropped"), dropped));
    printf("  in       messages %lld (%s), dropped %s\n", (long long)number_at(in, "frames"),
           show_size(number_at(in, "bytes"), size), show_dropped(json_object_get(in, "dropped"), dropped));
}

static void show_status(const json_t *status)
{
    char span[CELL_MAX];
    printf("evapid     %s, pid %lld, up %s\n", text_at(status, "version"), (long long)number_at(status, "pid"),
           show_span(number_at(status, "uptime_s"), span));
    show_kamailio(json_object_get(status, "kamailio"));
    show_listeners(json_object_get(status, "listeners"));
    show_clients(json_object_get(status, "clients"));
    show_totals(json_object_get(status, "totals"));
}

/* ---- commands --------------------------------------------------------------------------------------------------- */

static int ask_status(const char *path, bool as_json)
{
    if (strlen(path) > EVAPID_PATH_MAX)
        return fail(EXIT_USAGE, path, "the path is too long for a socket");
    const int fd = connect_to(path);
    if (fd < 0)
        return fail(EXIT_UNREACHABLE, path, unreachable_reason(errno));
    json_t *answer = ask(fd, "{\"command\":\"status\"}\n");
    close(fd);
    if (answer == NULL)
        return fail(EXIT_UNREACHABLE, path, unreachable_reason(errno));
    if (!as_json || json_object_get(answer, "error") != NULL)
        make_printable(answer);
    const char *error = json_string_value(json_object_get(answer, "error"));
    int status = EXIT_FINE;
    if (error != NULL)
        status = fail(EXIT_ANSWERED_ERROR, error, text_at(answer, "detail"));
    else if (as_json)
        status =
            json_dumpf(answer, stdout, JSON_INDENT(2)) == 0 && putchar('\n') != EOF ? EXIT_FINE : EXIT_ANSWERED_ERROR;
    else
        show_status(answer);
    json_decref(answer);
    return status;
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "socket", required_argument, NULL, 's' },
                                             { "json", no_argument, NULL, 'j' },
                                             { "version", no_argument, NULL, 'V' },
                                             { "help", no_argument, NULL, 'h' },
                                             { NULL, 0, NULL, 0 } };
    const char *path = EVAPID_CONTROL_SOCKET;
    bool as_json = false;
    for (int option; (option = getopt_long(argc, argv, "s:jVh", options, NULL)) != -1;) {
        switch (option) {
        case 's': path = optarg; break;
        case 'j': as_json = true; break;
        case 'V': puts("evapictl " EVAPID_VERSION); return EXIT_FINE;
        case 'h': fputs(usage, stdout); return EXIT_FINE;
        default: fputs(usage, stderr); return EXIT_USAGE;
        }
    }
    if (optind + 1 != argc || strcmp(argv[optind], "status") != 0) {
        fprintf(stderr, "evapictl: %s\n%s", optind == argc ? "a command is missing" : "unknown command", usage);
        return EXIT_USAGE;
    }
    return ask_status(path, as_json);
}
