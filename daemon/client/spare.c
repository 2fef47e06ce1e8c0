/* Listening sockets without a listener. */
#include "client/spare.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <utlist.h>

#include "base/descriptors.h"
#include "base/store.h"
#include "net/address.h"

static void spare_keep(struct spare **all, struct spare about)
{
    struct spare *spare = calloc(1, sizeof(*spare));
    socklen_t size = sizeof(spare->address);
    if (spare != NULL)
        *spare = about;
    if (spare == NULL || getsockname(about.fd, (struct sockaddr *)&spare->address, &size) != 0) {
        free(spare);
        close(about.fd);
        return;
    }
    LL_PREPEND(*all, spare);
}

uint32_t spares_inherit(struct spare **all, struct descriptors *descriptors)
{
    struct descriptor *descriptor = NULL;
    struct descriptor *next = NULL;
    uint32_t last = 0;
    HASH_ITER(hh, descriptors->all, descriptor, next)
    {
        unsigned long long device = 0;
        unsigned long long inode = 0;
        unsigned number = 0;
        if (sscanf(descriptor->name, SPARE_TCP, &number) == 1)
            spare_keep(all,
                       (struct spare){ .fd = descriptors_remove(descriptors, SPARE_TCP, number), .number = number });
        else if (sscanf(descriptor->name, SPARE_UNIX, &device, &inode) == 2)
            spare_keep(all, (struct spare){ .fd = descriptors_remove(descriptors, SPARE_UNIX, device, inode),
                                            .door = { .device = (dev_t)device, .inode = (ino_t)inode } });
        last = number > last ? number : last;
    }
    return last;
}

struct spare *spare_take(struct spare **all, const struct sockaddr_storage *address)
{
    struct spare *spare = NULL;
    LL_FOREACH(*all, spare)
    if (address_equal(&spare->address, address)) {
        LL_DELETE(*all, spare);
        return spare;
    }
    return NULL;
}

void spare_drop(struct spare **all, struct spare *spare)
{
    if (address_is_unix(&spare->address)) {
        door_remove(address_path(&spare->address), spare->door.device, spare->door.inode);
        store_end(spare->fd, SPARE_UNIX, SPARE_UNIX_OF(&spare->door));
    } else {
        store_end(spare->fd, SPARE_TCP, spare->number);
    }
    close(spare->fd);
    LL_DELETE(*all, spare);
    free(spare);
}
