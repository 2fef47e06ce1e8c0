/* load: the programs of the benchmark that must be fast, in one. Each subcommand has a file of its own, and prints its
 * result as one line of JSON. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "socket.h"

struct command {
    const char *name;
    int (*main)(int argc, char **argv);
    const char *help;
};

#define COMMAND_ENTRY(name, help) { #name, name##_main, help },
static const struct command commands[] = { LOAD_COMMANDS(COMMAND_ENTRY) };

enum { COMMANDS = sizeof(commands) / sizeof(*commands) };

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    socket_raise_limit();
    for (int i = 0; argc > 1 && i < COMMANDS; i++)
        if (strcmp(commands[i].name, argv[1]) == 0)
            return commands[i].main(argc - 1, argv + 1);
    fputs("Usage: load COMMAND [--OPTION [VALUE]]...\n\n", stderr);
    for (int i = 0; i < COMMANDS; i++)
        fprintf(stderr, "  %-10s %s\n", commands[i].name, commands[i].help);
    return 2;
}
