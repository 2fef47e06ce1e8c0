/* evapictl: asks a running evapid, and has it do things, through its control socket. */
#include "evapictl.h"
#include "standard.h"

int main(int argc, char **argv)
{
    return standard_open() ? evapictl_run(argc, argv) : 1;
}
