/* The command line: options, and the table of commands. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/spelling.h"
#include "evapictl/ask.h"
#include "evapictl/choice.h"
#include "evapictl/evapictl.h"
#include "evapictl/text.h"
#include "evapid/limits.h"

#define WORDS_ANY 1000000
#define INSTANCE_MAX 64

/* Long options without a short form. */
enum {
    OPTION_SORT = 256,
    OPTION_TAG,
    OPTION_ADDRESS,
    OPTION_STATE,
    OPTION_SLOW,
    OPTION_LIMIT,
    OPTION_DIRECTION,
    OPTION_RESET,
    OPTION_IDLE,
    OPTION_YES,
    OPTION_CLIENT,
    OPTION_COUNT,
    OPTION_MATCH,
    OPTION_ALLOW_NONE
};

static const struct option option_table[] = {
    { "socket", required_argument, NULL, 's' },
    { "instance", required_argument, NULL, 'i' },
    { "json", no_argument, NULL, 'j' },
    { "watch", required_argument, NULL, 'w' },
    { "version", no_argument, NULL, 'V' },
    { "help", no_argument, NULL, 'h' },
    { "sort", required_argument, NULL, OPTION_SORT },
    { "tag", required_argument, NULL, OPTION_TAG },
    { "address", required_argument, NULL, OPTION_ADDRESS },
    { "state", required_argument, NULL, OPTION_STATE },
    { "slow", no_argument, NULL, OPTION_SLOW },
    { "idle", required_argument, NULL, OPTION_IDLE },
    { "yes", no_argument, NULL, OPTION_YES },
    { "limit", required_argument, NULL, OPTION_LIMIT },
    { "direction", required_argument, NULL, OPTION_DIRECTION },
    { "client", required_argument, NULL, OPTION_CLIENT },
    { "count", required_argument, NULL, OPTION_COUNT },
    { "match", required_argument, NULL, OPTION_MATCH },
    { "allow-none", no_argument, NULL, OPTION_ALLOW_NONE },
    { "reset", no_argument, NULL, OPTION_RESET },
    { NULL, 0, NULL, 0 },
};

static const char usage[] = "Usage: evapictl [-s SOCKET | -i NAME] [-j] COMMAND [OPTION...] [ARGUMENT...]\n"
                            "Query and control a running evapid.\n"
                            "\n"
                            "  status             everything in one: Kamailio, listeners, clients, and what was\n"
                            "                     delivered, was dropped, and waits\n"
                            "  clients            the clients: --sort KEY, --tag T, --address A, --state S,\n"
                            "                     --slow, --idle SECONDS, --limit N choose among them\n"
                            "  client N           one client\n"
                            "  tags               the tags, the most used first: --limit N\n"
                            "  listeners          the listeners\n"
                            "  kamailio           Kamailio, its workers and its queue\n"
                            "  stats              the totals, and those since the last --reset\n"
                            "  config             what is configured now: each key, and where its value is from\n"
                            "  ready              whether clients can work with this evapid: the exit status is 0,\n"
                            "                     or 1 if Kamailio is not attached, for instance\n"
                            "  top                rates, queues and clients on a live screen; q quits\n"
                            "  tail               events and messages as they pass: --tag T, --client N,\n"
                            "                     --direction in|out, --match TEXT, --count N\n"
                            "\n"
                            "  relay [TEXT...]          give clients an event: all of them,\n"
                            "  multicast TAG [TEXT...]  those with a tag,\n"
                            "  unicast TAG [TEXT...]    one with a tag,\n"
                            "  send N [TEXT...]         client N; without a text, each line of standard\n"
                            "                           input is an event\n"
                            "  tag N TAG          give client N a tag; an empty one removes its tag\n"
                            "  close N            close client N after it has received what is queued\n"
                            "                     instead of N, --tag T, --address A, --state S, --slow and\n"
                            "                     --idle SECONDS choose clients; --yes does it\n"
                            "  forget TAG         keep a tag no more whose clients have gone\n"
                            "  log [LEVEL]        show the log level, or set it until the next reload\n"
                            "  reload             read the configuration again\n"
                            "  check FILE         say whether a configuration is valid; needs no evapid\n"
                            "  names WHAT         names of commands, tags or clients, one a line, for shells\n"
                            "\n"
                            "  -s, --socket FILE  its control socket (default " EVAPID_CONTROL_SOCKET ",\n"
                            "                     or what EVAPICTL_SOCKET says)\n"
                            "  -i, --instance NAME  the instance evapid@NAME\n"
                            "  -j, --json         print JSON\n"
                            "  -w, --watch SECONDS  repeat the command every SECONDS\n"
                            "      --sort KEY     index, address, tag, queued, dropped, delivered, sent,\n"
                            "                     messages or received\n"
                            "      --tag T        only with this tag; if it is empty, without a tag\n"
                            "      --address A    only from this address or network, as 10.0.0.0/8; unix,\n"
                            "                     unix:1000: at Unix sockets, of that user there\n"
                            "      --state S      only admitting, open, finishing, flushing or gone\n"
                            "      --slow         only those that are slow\n"
                            "      --idle SECONDS  only those without any traffic for so long\n"
                            "      --limit N      at most N\n"
                            "      --direction D  only out (events to clients) or in (their messages)\n"
                            "      --client N     only what client N says or gets\n"
                            "      --match TEXT   only what contains this text\n"
                            "      --count N      end after N of them\n"
                            "      --allow-none   it is no failure if no client gets an event\n"
                            "      --reset        set the counts to 0\n"
                            "      --yes          do it to all the clients that were chosen\n"
                            "  -V, --version      print the version\n"
                            "  -h, --help         print this\n"
                            "\n"
                            "Exit status: 0 answered; 1 evapid answered with an error, or the file is bad;\n"
                            "2 wrong command line; 3 no evapid answers; 4 no client got an event.\n";

/* A command, how many words follow it, and its options beside -s, -i and -j: s sort, t tag, a address, S state and slow, i
 * idle, y yes, l limit, d direction, c client, n count, m match, A allow-none, r reset, w watch. */
static const struct command {
    const char *name;
    command_run *run;
    int least, most;
    const char *arguments, *options;
    bool numbered; /* the first word is a client's number; if it may be missing, options choose the clients */
} commands[] = {
    { "status", show_status, 0, 0, "", "w", false },
    { "clients", show_clients, 0, 0, "", "wstaSil", false },
    { "client", show_client, 1, 1, "N", "w", true },
    { "tags", show_tags, 0, 0, "", "wl", false },
    { "listeners", show_listeners, 0, 0, "", "w", false },
    { "kamailio", show_kamailio, 0, 0, "", "w", false },
    { "stats", show_stats, 0, 0, "", "wr", false },
    { "config", show_config, 0, 0, "", "w", false },
    { "ready", show_ready, 0, 0, "", "", false },
    { "top", top_run, 0, 0, "", "w", false },
    { "tail", tail_run, 0, 0, "", "tdcnm", false },
    { "relay", publish_relay, 0, WORDS_ANY, "[TEXT...]", "A", false },
    { "multicast", publish_multicast, 1, WORDS_ANY, "TAG [TEXT...]", "A", false },
    { "unicast", publish_unicast, 1, WORDS_ANY, "TAG [TEXT...]", "A", false },
    { "send", publish_send, 1, WORDS_ANY, "N [TEXT...]", "A", true },
    { "tag", change_tag, 1, 2, "N TAG", "taSiy", true },
    { "close", change_close, 0, 1, "N", "taSiy", true },
    { "forget", change_forget, 1, 1, "TAG", "", false },
    { "log", change_log, 0, 1, "[LEVEL]", "", false },
    { "reload", change_reload, 0, 0, "", "", false },
    { "check", check_run, 1, 1, "FILE", "", false },
    { "names", names_run, 1, 1, "commands|tags|clients", "", false },
};

#define COMMANDS (sizeof(commands) / sizeof(*commands))

int names_run(const struct options *options, char **words, int count)
{
    if (strcmp(words[0], "commands") != 0)
        return show_names(options, words, count);
    for (size_t i = 0; i < COMMANDS; i++)
        puts(commands[i].name);
    return EXIT_FINE;
}

/* ---- an unknown name ---------------------------------------------------------------------------------------------- */

/* Print one line: what is wrong, perhaps what was meant, and where all are listed. */
static int report_unknown(const char *what, const char *name, const char *meant)
{
    fprintf(stderr, "evapictl: %s: ", what);
    print_plain(stderr, name, strlen(name));
    if (meant != NULL)
        fprintf(stderr, "; did you mean %s?\n", meant);
    else
        fputs("; evapictl -h lists all\n", stderr);
    return EXIT_USAGE;
}

static int report_unknown_command(const char *name)
{
    struct spelling guess = spelling_of(name);
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strlen(name) > 1 && strncmp(commands[i].name, name, strlen(name)) == 0)
            return report_unknown("unknown command", name, commands[i].name); /* the first that begins so */
        spelling_try(&guess, commands[i].name);
    }
    return report_unknown("unknown command", name, guess.nearest);
}

/* getopt has found no such option, or more than one that begins so. word: as it stands in the command line. */
static int report_unknown_option(const char *word)
{
    char shown[64];
    char name[64];
    const char *begin = word + strspn(word, "-");
    snprintf(name, sizeof(name), "%.*s", (int)strcspn(begin, "="), begin); /* without a value */
    struct spelling guess = spelling_of(name);
    for (const struct option *option = option_table; option->name != NULL; option++)
        spelling_try(&guess, option->name);
    snprintf(shown, sizeof(shown), "--%s", guess.nearest != NULL ? guess.nearest : "");
    return report_unknown("unknown option", word, guess.nearest != NULL ? shown : NULL);
}

/* ---- options ---------------------------------------------------------------------------------------------------- */

/* The option's letter in struct command; 0: every command has it. */
static char letter_of(int option)
{
    switch (option) {
    case 'w': return 'w';
    case OPTION_SORT: return 's';
    case OPTION_TAG: return 't';
    case OPTION_ADDRESS: return 'a';
    case OPTION_STATE:
    case OPTION_SLOW: return 'S';
    case OPTION_IDLE: return 'i';
    case OPTION_YES: return 'y';
    case OPTION_CLIENT: return 'c';
    case OPTION_COUNT: return 'n';
    case OPTION_MATCH: return 'm';
    case OPTION_ALLOW_NONE: return 'A';
    case OPTION_LIMIT: return 'l';
    case OPTION_DIRECTION: return 'd';
    case OPTION_RESET: return 'r';
    default: return '\0';
    }
}

static bool read_number(const char *text, double least, double most, double *number)
{
    char *end = NULL;
    errno = 0;
    *number = strtod(text, &end);
    return errno == 0 && end != text && *end == '\0' && *number >= least && *number <= most;
}

static int refuse(const char *what, const char *why)
{
    fprintf(stderr, "evapictl: %s: %s\n", what, why);
    return EXIT_USAGE;
}

/* getopt has refused an option. If it knows it (optopt), a value was given to one that takes none. */
static int refuse_option(char **argv)
{
    const char letter[] = { '-', (char)optopt, '\0' };
    for (const struct option *option = option_table; option->name != NULL; option++)
        if (optopt == option->val)
            return refuse(argv[optind - 1], "this option takes no value");
    return report_unknown_option(optopt != 0 ? letter : argv[optind - 1]);
}

/* EXIT_FINE, or what is wrong was printed. */
static int take_whole(const char *text, double least, long *number, const char *why)
{
    double read = 0;
    if (!read_number(text, least, 2147483647, &read) || read != (double)(long)read)
        return refuse(text, why);
    *number = (long)read;
    return EXIT_FINE;
}

/* The same. The control socket of evapid@NAME.service. */
static int take_instance(struct options *options, const char *name)
{
    static char path[EVAPID_PATH_MAX + 1];
    const size_t length = strlen(name);
    const size_t allowed = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:-_.");
    if (length == 0 || length > INSTANCE_MAX || allowed != length)
        return refuse(name, "the name of an instance has up to 64 letters, digits, and :-_.");
    snprintf(path, sizeof(path), EVAPID_INSTANCE_SOCKET, name);
    options->socket = path;
    return EXIT_FINE;
}

/* The same. */
static int take_option(struct options *options, int option, const char *text)
{
    switch (option) {
    case 's': options->socket = text; break;
    case 'i': return take_instance(options, text);
    case 'j': options->json = true; break;
    case 'w':
        if (!read_number(text, 0.1, 86400, &options->watch_s))
            return refuse(text, "--watch takes seconds, 0.1 to 86400");
        break;
    case OPTION_SORT: options->sort = text; break;
    case OPTION_TAG: options->tag = text; break;
    case OPTION_ADDRESS: options->address = text; break;
    case OPTION_STATE: options->state = text; break;
    case OPTION_SLOW: options->slow = true; break;
    case OPTION_LIMIT: return take_whole(text, 0, &options->limit, "--limit takes a number");
    case OPTION_IDLE: return take_whole(text, 0, &options->idle_s, "--idle takes whole seconds");
    case OPTION_CLIENT: return take_whole(text, 1, &options->client, "--client takes a client's number");
    case OPTION_COUNT: return take_whole(text, 1, &options->count, "--count takes a number from 1 on");
    case OPTION_MATCH: options->match = text; break;
    case OPTION_ALLOW_NONE: options->allow_none = true; break;
    case OPTION_YES: options->yes = true; break;
    case OPTION_DIRECTION: options->direction = text; break;
    case OPTION_RESET: options->reset = true; break;
    default: break;
    }
    return EXIT_FINE;
}

/* ---- running ---------------------------------------------------------------------------------------------------- */

/* Does the command have all the options with these letters? */
static bool has_options(const struct command *command, const char *letters)
{
    return strspn(letters, command->options) == strlen(letters);
}

/* Does the command change clients that options choose, in place of one with a number? */
static bool may_choose(const struct command *command)
{
    return strchr(command->options, letter_of(OPTION_YES)) != NULL;
}

static int report_usage(const struct command *command)
{
    fprintf(stderr, "evapictl: usage: evapictl %s%s%s%s\n", command->name, command->arguments[0] != '\0' ? " " : "",
            command->arguments, may_choose(command) ? "; in place of N, --tag T for instance, and --yes" : "");
    return EXIT_USAGE;
}

static int check_words(const struct command *command, const struct options *options, char **words, int count)
{
    double number = 0;
    const bool chosen = may_choose(command) && choice_is_made(options);
    if (count < command->least || count > command->most || (may_choose(command) && !chosen && count < command->most))
        return report_usage(command);
    if (chosen && count == command->most)
        return refuse(words[0], "either a client's number or options that choose clients are needed");
    if (command->numbered && !chosen &&
        (!read_number(words[0], 1, 2147483647, &number) || strspn(words[0], "0123456789") != strlen(words[0])))
        return refuse(words[0], "a client's number was expected: evapictl clients shows them");
    return EXIT_FINE;
}

/* Repeat the command; on a terminal, from the top of the screen. */
static int run_watching(const struct command *command, const struct options *options, char **words, int count)
{
    const struct timespec pause = { .tv_sec = (time_t)options->watch_s,
                                    .tv_nsec = (long)((options->watch_s - (double)(time_t)options->watch_s) * 1e9) };
    const bool terminal = isatty(STDOUT_FILENO) && !options->json;
    for (bool first = true;; first = false) {
        if (terminal)
            fputs("\033[H\033[2J", stdout);
        else if (!first && !options->json)
            putchar('\n');
        const int status = command->run(options, words, count);
        if (fflush(stdout) != 0 || status != EXIT_FINE)
            return status;
        nanosleep(&pause, NULL);
    }
}

int evapictl_run(int argc, char **argv)
{
    const char *usual = getenv("EVAPICTL_SOCKET");
    struct options options = { .socket = usual != NULL && usual[0] != '\0' ? usual : EVAPID_CONTROL_SOCKET,
                               .limit = -1,
                               .idle_s = -1,
                               .client = -1,
                               .count = -1 };
    char letters[64] = "";
    int status = EXIT_FINE;
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, ":s:i:jw:Vh", option_table, NULL)) != -1;) {
        const char letter = letter_of(option);
        if (option == 'V' || option == 'h') {
            fputs(option == 'V' ? "evapictl " EVAPID_VERSION "\n" : usage, stdout);
            return EXIT_FINE;
        }
        if (option == ':')
            return refuse(argv[optind - 1], "a value must follow it");
        if (option == '?')
            return refuse_option(argv);
        if (letter != '\0' && strlen(letters) + 1 < sizeof(letters))
            letters[strlen(letters)] = letter;
        if ((status = take_option(&options, option, optarg)) != EXIT_FINE)
            return status;
    }
    if (optind == argc) {
        fprintf(stderr, "evapictl: a command is missing\n%s", usage);
        return EXIT_USAGE;
    }
    const struct command *command = NULL;
    for (size_t i = 0; i < COMMANDS && command == NULL; i++)
        command = strcmp(commands[i].name, argv[optind]) == 0 ? &commands[i] : NULL;
    char **words = argv + optind + 1;
    const int count = argc - optind - 1;
    if (command == NULL)
        return report_unknown_command(argv[optind]);
    if (!has_options(command, letters))
        return refuse(command->name, "it has no such option: evapictl -h");
    if ((status = check_words(command, &options, words, count)) != EXIT_FINE)
        return status;
    return options.watch_s > 0 && command->run != top_run ? run_watching(command, &options, words, count)
                                                          : command->run(&options, words, count);
}
