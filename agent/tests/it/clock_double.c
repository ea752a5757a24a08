/* The double of a wall clock that steps: CLOCK_REALTIME is CLOCK_STEP seconds off once the file
 * CLOCK_STEP_FILE exists. Every other clock is the kernel's. Loaded by LD_PRELOAD. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
    long failed = syscall(SYS_clock_gettime, clock, now);
    if (failed == 0 && clock == CLOCK_REALTIME && access(getenv("CLOCK_STEP_FILE"), F_OK) == 0)
        now->tv_sec += atol(getenv("CLOCK_STEP"));
    return (int)failed;
}
