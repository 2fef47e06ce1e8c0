/* Asks the kernel about ourselves. */
#include "views/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static double seconds_of(const struct timespec *time)
{
    return (double)time->tv_sec + (double)time->tv_nsec / 1e9;
}

/* Read the start of a file of /proc as text, with a NUL after it; empty if it cannot be read. */
static void read_text(const char *path, char *text, size_t room)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t n = fd >= 0 ? read(fd, text, room - 1) : -1;
    text[n > 0 ? n : 0] = '\0';
    if (fd >= 0)
        close(fd);
}

/* Convert the numbers of /proc/self/statm to bytes. */
static void look_at_memory(struct process *process)
{
    char text[128];
    char *end = NULL;
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    read_text("/proc/self/statm", text, sizeof(text));
    process->virtual_bytes = strtoull(text, &end, 10) * page;
    process->resident_bytes = strtoull(end, NULL, 10) * page;
}

/* Before Linux 6.2 the folder does not give their number: count them. */
static uint64_t count_descriptors(void)
{
    struct stat folder;
    uint64_t count = 0;
    if (stat("/proc/self/fd", &folder) == 0 && folder.st_size > 0)
        return (uint64_t)folder.st_size;
    DIR *list = opendir("/proc/self/fd");
    if (list == NULL)
        return 0;
    for (const struct dirent *entry = NULL; (entry = readdir(list)) != NULL;) /* NOLINT(concurrency-mt-unsafe) */
        count += entry->d_name[0] != '.';
    closedir(list);
    return count - 1; /* without the folder's own */
}

/* The start by the wall clock, from the kernel's time since boot. */
static double look_at_start(void)
{
    char text[1024];
    struct timespec wall;
    struct timespec boot;
    read_text("/proc/self/stat", text, sizeof(text));
    const char *at = strrchr(text, ')'); /* the name, field 2, may contain anything */
    for (int field = 3; at != NULL && field <= 22; field++)
        at = strchr(at + 1, ' ');
    if (at == NULL)
        return 0;
    clock_gettime(CLOCK_REALTIME, &wall);
    clock_gettime(CLOCK_BOOTTIME, &boot);
    return seconds_of(&wall) - seconds_of(&boot) + (double)strtoull(at, NULL, 10) / (double)sysconf(_SC_CLK_TCK);
}

struct process process_look(void)
{
    /* Only once: the wall clock may be set, and our start does not change by that. */
    static double started_s;
    struct process process = { .descriptors = count_descriptors() };
    struct timespec cpu;
    struct rlimit limit;
    if (started_s == 0)
        started_s = look_at_start();
    process.started_s = started_s;
    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu) == 0) /* the unit does not allow getrusage */
        process.cpu_s = seconds_of(&cpu);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        process.descriptors_limit = limit.rlim_cur;
    look_at_memory(&process);
    return process;
}
