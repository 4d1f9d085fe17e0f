/*
 * A load generator that reads every stream to its end and checks that it is whole.
 *
 *   load PORT REQUEST_FILE [--clients N] [--seconds S] [--total N] [--events N]
 *        [--delta TEXT] [--end TEXT] [--ramp-ms MS] [--skip-ms MS]
 *        [--leave-after EVENTS] [--stall-ms MS]
 *
 * REQUEST_FILE holds one HTTP request, sent again and again by each client on its own
 * kept connection. With --events the answer is a stream: in its data lines that hold
 * --delta there are marks "@T" + 16 hexadecimal digits (when the upstream wrote it) +
 * "@" + 6 decimal digits (its index). Whole: each index once and in order, all of them,
 * then a line that holds --end, then the end of the framing. Without --events any 200
 * answer is good.
 *
 *   --ramp-ms      the first requests are spread over so long
 *   --skip-ms      no times of events are taken before
 *   --leave-after  hang up after so many events
 *   --stall-ms     read nothing for so long
 *
 * Prints one JSON object; times are microseconds. "first_us": of the first event, as
 * "event_us" (upstream's write to our read); "answer_us": request to its whole answer.
 * Streams that the time limit cut are neither good nor bad.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MARK = 16, INDEX = 6 };
enum { SIZE, DATA, AFTER_DATA, TRAILER }; /* inside a chunked body */

typedef struct {
    uint32_t *us;
    size_t count, room;
} Times;

typedef struct {
    int fd, busy, in_head, status, chunked, part, ended, wrong;
    size_t sent, head_length, left, line_length;
    long events;
    uint64_t began;
    char head[16384], size_line[64], *line;
    size_t line_room, size_length;
} Client;

static int poller, port;
static char *request;
static size_t request_length;
static long clients = 1, seconds = 5, total = 1L << 40, expected, ramp_ms, skip_ms;
static long leave_after, stall_ms;
static const char *delta_text = "@T", *end_text = "";
static long begun, done, good, bad, left_early, all_events;
static Times first_us, event_us, answer_us;
static uint64_t start_ns, now;
static char trouble[200];

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t after_start(long ms) { return start_ns + (uint64_t)ms * 1000000u; }

static void note_time(Times *times, uint64_t since)
{
    if (times == &event_us && now < after_start(skip_ms))
        return;
    if (times->count == times->room) {
        times->room = times->room * 2 + 4096;
        times->us = realloc(times->us, times->room * sizeof *times->us);
    }
    times->us[times->count++] = now > since ? (uint32_t)((now - since) / 1000) : 0;
}

/* --- one client's life -------------------------------------------------------------- */

static void begin(Client *client);

static void watch(Client *client, uint32_t wanted, int operation)
{
    struct epoll_event event = {.events = wanted, .data.ptr = client};
    epoll_ctl(poller, operation, client->fd, &event);
}

static void hang_up(Client *client)
{
    if (client->fd >= 0)
        close(client->fd);
    client->fd = -1;
}

static void complain(const char *what, Client *client)
{
    if (!trouble[0])
        snprintf(trouble, sizeof trouble, "%s: status %d, %ld of %ld events", what,
                 client->status, client->events, expected);
}

static void finish(Client *client, const char *problem)
{
    int whole = client->status == 200 && !client->wrong &&
                (!expected || (client->events == expected && client->ended));
    done++;
    if (leave_after && client->events >= leave_after) {
        left_early++;
        hang_up(client);
    } else if (problem || !whole) {
        bad++;
        complain(problem ? problem : "not whole", client);
        hang_up(client);
    } else {
        good++;
        note_time(&answer_us, client->began);
    }
    client->busy = 0;
    begin(client);
}

static void connect_client(Client *client)
{
    int one = 1;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    connect(client->fd, (struct sockaddr *)&to, sizeof to);
    watch(client, EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD);
}

static void begin(Client *client)
{
    if (begun >= total)
        return;
    begun++;
    client->busy = client->in_head = 1;
    client->status = client->chunked = client->ended = client->wrong = 0;
    client->sent = client->head_length = client->left = client->line_length = 0;
    client->size_length = 0;
    client->part = SIZE;
    client->events = 0;
    client->began = now_ns();
    if (client->fd < 0)
        connect_client(client);
    else
        watch(client, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
}

static void on_writable(Client *client)
{
    ssize_t sent = send(client->fd, request + client->sent,
                        request_length - client->sent, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        finish(client, "cannot send");
        return;
    }
    client->sent += sent > 0 ? (size_t)sent : 0;
    if (client->sent == request_length) {
        int stalled = stall_ms && now < after_start(stall_ms);
        watch(client, stalled ? 0 : EPOLLIN, EPOLL_CTL_MOD);
    }
}

/* --- what comes ------------------------------------------------------------------- */

static uint64_t hexadecimal(const char *digits)
{
    uint64_t value = 0;
    for (int i = 0; i < MARK; i++)
        value = value << 4 | (uint64_t)((digits[i] & 15) + (digits[i] > '9' ? 9 : 0));
    return value;
}

static void take_mark(Client *client, const char *mark)
{
    uint64_t written = hexadecimal(mark + 2);
    long index = 0;
    for (int i = 0; i < INDEX; i++)
        index = index * 10 + mark[3 + MARK + i] - '0';
    if (index != client->events)
        client->wrong = 1;
    if (!client->events)
        note_time(&first_us, written);
    note_time(&event_us, written);
    client->events++;
    all_events++;
}

static void take_line(Client *client, const char *line, size_t length)
{
    const size_t mark_length = 3 + MARK + INDEX;
    if (length < 5 || memcmp(line, "data:", 5))
        return;
    const char *mark = memmem(line, length, "@T", 2);
    if (mark && (size_t)(line + length - mark) >= mark_length &&
        memmem(line, length, delta_text, strlen(delta_text)))
        take_mark(client, mark);
    else if (memmem(line, length, end_text, strlen(end_text)))
        client->ended = 1;
}

static void keep_line(Client *client, const char *bytes, size_t length)
{
    if (client->line_length + length > client->line_room) {
        client->line_room = (client->line_length + length) * 2;
        client->line = realloc(client->line, client->line_room);
    }
    memcpy(client->line + client->line_length, bytes, length);
    client->line_length += length;
}

static void take_body(Client *client, const char *bytes, size_t length)
{
    while (expected && length) {
        const char *end = memchr(bytes, '\n', length);
        size_t part = end ? (size_t)(end - bytes) : length;
        if (client->line_length || !end)
            keep_line(client, bytes, part);
        if (!end)
            return;
        if (client->line_length)
            take_line(client, client->line, client->line_length);
        else
            take_line(client, bytes, part);
        client->line_length = 0;
        bytes += part + 1;
        length -= part + 1;
    }
}

/* Whether the framing line is whole; it is in size_line then. */
static int framing_line(Client *client, const char **bytes, size_t *length)
{
    while (*length) {
        char c = *(*bytes)++;
        --*length;
        if (c == '\n') {
            client->size_line[client->size_length] = 0;
            client->size_length = 0;
            return 1;
        }
        if (c != '\r' && client->size_length < sizeof client->size_line - 1)
            client->size_line[client->size_length++] = c;
    }
    return 0;
}

/* Take a part of the body; whether the answer is at its end. */
static int take_framed(Client *client, const char *bytes, size_t length)
{
    while (length) {
        if (client->part == DATA) {
            size_t part = length < client->left ? length : client->left;
            take_body(client, bytes, part);
            bytes += part;
            length -= part;
            client->left -= part;
            if (client->left)
                continue;
            if (!client->chunked)
                return 1;
            client->part = AFTER_DATA;
        } else if (framing_line(client, &bytes, &length)) {
            if (client->part == AFTER_DATA)
                client->part = SIZE;
            else if (client->part == TRAILER && !client->size_line[0])
                return 1;
            else if (client->part == SIZE) {
                client->left = strtoull(client->size_line, NULL, 16);
                client->part = client->left ? DATA : TRAILER;
            }
        }
    }
    return 0;
}

/* Take bytes of the head; how many of them belong to it. */
static size_t take_head(Client *client, const char *bytes, size_t length)
{
    size_t before = client->head_length, room = sizeof client->head - 1 - before;
    size_t part = length < room ? length : room;
    memcpy(client->head + before, bytes, part);
    client->head_length += part;
    client->head[client->head_length] = 0;
    char *end = strstr(client->head, "\r\n\r\n");
    if (!end)
        return part;
    end[2] = 0;
    client->in_head = 0;
    client->status = atoi(client->head + 9);
    client->chunked = strcasestr(client->head, "\r\ntransfer-encoding: chunked") != NULL;
    char *field = strcasestr(client->head, "\r\ncontent-length:");
    client->left = field ? strtoull(field + 17, NULL, 10) : 0;
    client->part = client->chunked ? SIZE : DATA;
    return (size_t)(end + 4 - client->head) - before;
}

static void on_readable(Client *client)
{
    static char bytes[1 << 18];
    ssize_t got = recv(client->fd, bytes, sizeof bytes, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (!client->busy) { /* a kept connection was closed */
        hang_up(client);
        return;
    }
    if (got <= 0) {
        finish(client, got ? "connection broken" : "connection closed");
        return;
    }
    const char *at = bytes;
    size_t length = (size_t)got;
    now = now_ns();
    if (client->in_head) {
        size_t part = take_head(client, at, length);
        at += part;
        length -= part;
    }
    if (client->in_head)
        return;
    int whole = take_framed(client, at, length);
    if (whole || (leave_after && client->events >= leave_after))
        finish(client, NULL);
}

/* --- the run ------------------------------------------------------------------------ */

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void print_times(const char *name, Times *times)
{
    size_t count = times->count;
    if (count)
        qsort(times->us, count, sizeof *times->us, by_size);
    printf("\"%s\":{\"count\":%zu,\"p50\":%u,\"p99\":%u},", name, count,
           count ? times->us[count / 2] : 0, count ? times->us[count * 99 / 100] : 0);
}

static void read_request(const char *path)
{
    struct stat facts;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &facts)) {
        perror(path);
        exit(1);
    }
    request = malloc((size_t)facts.st_size);
    request_length = (size_t)read(fd, request, (size_t)facts.st_size);
    close(fd);
}

static void read_options(int count, char **words)
{
    struct { const char *name; long *number; const char **text; } options[] = {
        {"--clients", &clients, NULL}, {"--seconds", &seconds, NULL},
        {"--total", &total, NULL}, {"--events", &expected, NULL},
        {"--ramp-ms", &ramp_ms, NULL}, {"--skip-ms", &skip_ms, NULL},
        {"--leave-after", &leave_after, NULL}, {"--stall-ms", &stall_ms, NULL},
        {"--delta", NULL, &delta_text}, {"--end", NULL, &end_text},
    };
    for (int word = 3; word + 1 < count; word += 2)
        for (size_t i = 0; i < sizeof options / sizeof *options; i++)
            if (!strcmp(words[word], options[i].name)) {
                if (options[i].number)
                    *options[i].number = atol(words[word + 1]);
                else
                    *options[i].text = words[word + 1];
            }
}

static void run(Client *all)
{
    struct epoll_event events[256];
    uint64_t end = start_ns + (uint64_t)seconds * 1000000000u;
    long woken = 0;
    int stalled = stall_ms > 0;
    while (done < total && (now = now_ns()) < end) {
        long due = ramp_ms ? (long)((now - start_ns) / 1000 * (uint64_t)clients /
                                    ((uint64_t)ramp_ms * 1000)) + 1 : woken + 100;
        for (; woken < clients && woken < due; woken++)
            begin(&all[woken]);
        if (stalled && now > after_start(stall_ms)) {
            stalled = 0;
            for (long i = 0; i < woken; i++)
                if (all[i].fd >= 0)
                    watch(&all[i], EPOLLIN, EPOLL_CTL_MOD);
        }
        int ready = epoll_wait(poller, events, 256, woken < clients ? 1 : 20);
        now = now_ns();
        for (int i = 0; i < ready; i++) {
            Client *client = events[i].data.ptr;
            if (client->fd >= 0 && events[i].events & EPOLLOUT && client->busy)
                on_writable(client);
            if (client->fd >= 0 && events[i].events & ~(unsigned)EPOLLOUT)
                on_readable(client);
        }
    }
}

int main(int count, char **words)
{
    signal(SIGPIPE, SIG_IGN);
    if (count < 3)
        return 2;
    port = atoi(words[1]);
    read_request(words[2]);
    read_options(count, words);
    poller = epoll_create1(0);
    Client *all = calloc((size_t)clients, sizeof *all);
    for (long i = 0; i < clients; i++)
        all[i].fd = -1;
    start_ns = now_ns();
    run(all);
    double elapsed_s = (double)(now_ns() - start_ns) / 1e9;
    printf("{\"good\":%ld,\"bad\":%ld,\"left\":%ld,\"cut\":%ld,\"events\":%ld,", good, bad,
           left_early, begun - done, all_events);
    print_times("first_us", &first_us);
    print_times("event_us", &event_us);
    print_times("answer_us", &answer_us);
    printf("\"elapsed_s\":%.4f,\"trouble\":\"%s\"}\n", elapsed_s, trouble);
    return 0;
}
