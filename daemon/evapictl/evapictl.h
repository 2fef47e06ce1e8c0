/* evapictl: what its commands share. */
#ifndef EVAPICTL_H
#define EVAPICTL_H

#include <stdbool.h>
#include <stddef.h>

enum {
    EXIT_FINE = 0,
    EXIT_ANSWERED_ERROR = 1, /* evapid answered with an error, or the file is bad (check) */
    EXIT_USAGE = 2,          /* the command line is wrong */
    EXIT_UNREACHABLE = 3,    /* no evapid answers */
    EXIT_NOBODY = 4          /* no client was there to get an event */
};

/* From the command line. NULL, 0, false: not given. */
struct options {
    const char *socket;
    bool json;
    double watch_s;
    const char *sort, *tag, *address, *state, *direction;
    bool slow, reset, yes, allow_none;
    long limit, idle_s, client, count; /* -1: not given */
    const char *match;
};

/* Each asks evapid and prints the answer. count: the words after the command. Returns the exit status, after printing
 * what is wrong. */
typedef int command_run(const struct options *options, char **words, int count);

command_run show_status, show_clients, show_client, show_tags, show_listeners, show_kamailio, show_stats;
command_run show_config, show_ready;
command_run change_tag, change_close, change_forget, change_log, change_reload;
command_run publish_relay, publish_multicast, publish_unicast, publish_send;
command_run tail_run, top_run, check_run;

/* Print one name a line for the shell's completion: of commands, or of existing tags and clients (show_names). */
command_run names_run, show_names;

/* Read the command line and run the command. */
int evapictl_run(int argc, char **argv);

#endif
