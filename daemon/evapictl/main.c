/* evapictl: queries and controls a running evapid through its control socket. */
#include "base/standard.h"
#include "evapictl/evapictl.h"

int main(int argc, char **argv)
{
    return standard_open() ? evapictl_run(argc, argv) : 1;
}
