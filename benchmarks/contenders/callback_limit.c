/* The limit: libvirt's own event loop in C, one thread, and a callback that notes the time.
 *
 *     callback_limit URI COUNT
 *
 * Prints "ready" when registered; after COUNT events, each one's UUID, monotonic time in
 * nanoseconds and +1, -1 or 0 (started, stopped, else); then ends. Memory: COUNT marks.
 */
#include <libvirt/libvirt.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct mark {
    char uuid[VIR_UUID_STRING_BUFLEN];
    long long at;
    int sign;
};

static struct mark *marks;
static long count, seen;

static int callback(virConnectPtr connection, virDomainPtr domain, int event, int detail,
                    void *opaque)
{
    struct timespec now;
    struct mark *mark = &marks[seen];

    (void)connection, (void)detail, (void)opaque;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (seen >= count || virDomainGetUUIDString(domain, mark->uuid) < 0)
        return 0;
    mark->at = now.tv_sec * 1000000000LL + now.tv_nsec;
    mark->sign = (event == VIR_DOMAIN_EVENT_STARTED) - (event == VIR_DOMAIN_EVENT_STOPPED);
    seen++;
    return 0;
}

int main(int argc, char **argv)
{
    virConnectPtr connection;

    if (argc != 3 || (count = atol(argv[2])) <= 0)
        return 2;
    marks = calloc(count, sizeof(*marks));
    if (!marks || virEventRegisterDefaultImpl() < 0)
        return 1;
    connection = virConnectOpenReadOnly(argv[1]);
    if (!connection || virConnectSetKeepAlive(connection, 5, 3) < 0)
        return 1;
    if (virConnectDomainEventRegisterAny(connection, NULL, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                                         VIR_DOMAIN_EVENT_CALLBACK(callback), NULL, NULL) < 0)
        return 1;
    puts("ready");
    fflush(stdout);
    while (seen < count)
        if (virEventRunDefaultImpl() < 0)
            return 1;
    for (long i = 0; i < count; i++)
        printf("%s %lld %d\n", marks[i].uuid, marks[i].at, marks[i].sign);
    return 0;
}
