/* Standard input, output and error. */
#include "base/standard.h"

#include <fcntl.h>
#include <unistd.h>

bool standard_open(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd) /* open returns the lowest free number */
            return false;
    return true;
}
