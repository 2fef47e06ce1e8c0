/* Options of a subcommand: --name VALUE, or --name alone for a flag. */
#ifndef LOAD_OPTIONS_H
#define LOAD_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

enum option_kind { OPTION_TEXT, OPTION_NUMBER, OPTION_FLAG };

/* value points to a const char *, a uint64_t or a bool. It contains the default, and the option overwrites it. */
struct option_spec {
    const char *name; /* without the dashes */
    enum option_kind kind;
    void *value;
    bool needed;
    const char *help;
};

/* Read argv[1..] by the specs; the last spec has no name. Returns false if an option is unknown, malformed or missing,
 * after printing the error and the list of options to standard error. */
bool options_read(int argc, char **argv, const struct option_spec *specs);

#endif
