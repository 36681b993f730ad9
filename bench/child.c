/* A tiny program for others to supervise: NAME FIFO [READY_FILE]

   Writes "NAME PID NANOSECONDS" (of CLOCK_MONOTONIC) into FIFO as its first act, makes READY_FILE,
   and sleeps until a signal ends it. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct timespec now;
    char line[256];
    const char *slash = strrchr(argv[0], '/');
    int fd, length;

    clock_gettime(CLOCK_MONOTONIC, &now);
    if (argc < 2 || (fd = open(argv[1], O_WRONLY)) < 0)
        return 1;
    length = snprintf(line, sizeof line, "%s %ld %lld\n", slash ? slash + 1 : argv[0],
                      (long)getpid(), now.tv_sec * 1000000000LL + now.tv_nsec);
    if (write(fd, line, (size_t)length) != length)
        return 1;
    close(fd);
    if (argc > 2 && (fd = open(argv[2], O_WRONLY | O_CREAT, 0600)) >= 0)
        close(fd);
    for (;;)
        pause();
}
