/* evapictl: asks a running evapid, and has it do things, through its control socket. */
#include "evapictl.h"

int main(int argc, char **argv)
{
    return evapictl_run(argc, argv);
}
