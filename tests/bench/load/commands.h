/* The subcommands: COMMAND(name, "one line of help"), in order. NAME.c defines NAME_main. It gets the words from its
 * own name on, and returns the program's exit code. */
#ifndef LOAD_COMMANDS_H
#define LOAD_COMMANDS_H

// clang-format off
#define LOAD_COMMANDS(COMMAND) \
    COMMAND(ask, "clients that send messages, and wait for the answers of a route") \
    COMMAND(feed, "events into evapid's ring, in Kamailio's place") \
    COMMAND(floor, "a bare server that sends the same bytes to all its clients") \
    COMMAND(listen, "clients that receive events, and say when the last byte came") \
    COMMAND(publish, "events to Redis or NATS") \
    COMMAND(push, "processes that push events into evapid's ring at once, as SIP workers do") \
    COMMAND(resume, "a client that sends every event back")
// clang-format on

#define LOAD_PROTOTYPE(name, help) int name##_main(int argc, char **argv);
LOAD_COMMANDS(LOAD_PROTOTYPE)

#endif
