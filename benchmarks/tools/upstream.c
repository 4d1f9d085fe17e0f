/*
 * A scripted upstream: plays prepared bytes to every client, on 127.0.0.1.
 *
 *   upstream PORT
 *
 *   PUT /path     the body is the script of that path from now on
 *   POST /path    plays it
 *   GET /stats    {"started":..,"finished":..,"aborted":..,"active":..,"gap_us":..}
 *
 * A script is "DELAY_US FIRST_US\n", then steps "LENGTH\n" + so many bytes: the first
 * goes out FIRST_US after the request, each further one DELAY_US after the one before
 * (0: as fast as the reader takes them). What is played is a whole HTTP answer, head
 * and framing included. In it "@T" and 16 zeros become the moment of the write, in
 * hexadecimal nanoseconds of the monotonic clock.
 *
 * A gap is the time from the write of an answer's end to the next request, where no
 * other answer is being played; their quantiles are of those since the last PUT.
 *
 * One thread, one epoll; it knows no protocol.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MARK = 16, STEPS_A_TURN = 8, MAX_PATHS = 64, MAX_GAPS = 1 << 16 };
static const char MARK_TEXT[] = "@T0000000000000000";

typedef struct {
    size_t start, length;
    int marks;
    size_t *mark_at; /* offsets of the digits inside the step */
} Step;

typedef struct {
    char *bytes;
    uint64_t delay_ns, first_ns;
    Step *steps;
    int count;
} Script;

typedef struct {
    int fd, step, heap_at, wants_write;
    Script *script; /* what is being played, NULL when idle */
    uint64_t due;
    char *in;
    size_t in_length, in_room;
    char *out; /* what the socket did not take */
    size_t out_length, out_sent;
} Peer;

static int poller;
static struct { char path[256]; Script *script; } known[MAX_PATHS];
static Peer **heap;
static int heap_count, heap_room;
static Peer *dead[1024];
static int dead_count;
static unsigned long started, finished, aborted;
static long active;
static uint64_t ended_at; /* the last answer; 0: none since the last PUT */
static uint32_t gaps[MAX_GAPS];
static int gap_count;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *grown(void *block, size_t bytes)
{
    block = realloc(block, bytes);
    if (!block)
        abort();
    return block;
}

/* --- who is due next: a binary heap by time ------------------------------------- */

static void heap_set(int at, Peer *peer) { heap[at] = peer; peer->heap_at = at; }

static void heap_sift(int at)
{
    Peer *peer = heap[at];
    for (int up; at && heap[up = (at - 1) / 2]->due > peer->due; at = up)
        heap_set(at, heap[up]);
    for (int down; (down = 2 * at + 1) < heap_count; at = down) {
        if (down + 1 < heap_count && heap[down + 1]->due < heap[down]->due)
            down++;
        if (heap[down]->due >= peer->due)
            break;
        heap_set(at, heap[down]);
    }
    heap_set(at, peer);
}

static void heap_add(Peer *peer, uint64_t due)
{
    if (heap_count == heap_room)
        heap = grown(heap, (size_t)(heap_room = heap_room * 2 + 64) * sizeof *heap);
    peer->due = due;
    heap_set(heap_count++, peer);
    heap_sift(heap_count - 1);
}

static void heap_remove(Peer *peer)
{
    int at = peer->heap_at;
    if (at < 0)
        return;
    peer->heap_at = -1;
    Peer *last = heap[--heap_count];
    if (last != peer) {
        heap_set(at, last);
        heap_sift(at);
    }
}

/* --- one connection -------------------------------------------------------------- */

static void watch(Peer *peer, int wants_write)
{
    struct epoll_event event = {.events = EPOLLIN | (wants_write ? EPOLLOUT : 0u)};
    event.data.ptr = peer;
    epoll_ctl(poller, EPOLL_CTL_MOD, peer->fd, &event);
    peer->wants_write = wants_write;
}

static void leave(Peer *peer)
{
    if (peer->fd < 0)
        return;
    if (peer->script) {
        aborted++;
        active--;
    }
    heap_remove(peer);
    close(peer->fd);
    free(peer->in);
    free(peer->out);
    peer->fd = -1;
    dead[dead_count++] = peer; /* an event of this round may still name it */
}

/* Whether all of it went out; what did not is kept and sent when there is room. */
static int say(Peer *peer, const char *bytes, size_t length)
{
    ssize_t sent = send(peer->fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN) {
        leave(peer);
        return 0;
    }
    if (sent < 0)
        sent = 0;
    if ((size_t)sent == length)
        return 1;
    peer->out_length = length - (size_t)sent;
    peer->out_sent = 0;
    peer->out = grown(peer->out, peer->out_length);
    memcpy(peer->out, bytes + sent, peer->out_length);
    watch(peer, 1);
    return 0;
}

static int play_step(Peer *peer)
{
    static char stamped[1 << 20];
    Script *script = peer->script;
    Step *step = &script->steps[peer->step++];
    const char *bytes = script->bytes + step->start;
    if (step->marks && step->length <= sizeof stamped) {
        char digits[MARK + 1];
        snprintf(digits, sizeof digits, "%016llx", (unsigned long long)now_ns());
        memcpy(stamped, bytes, step->length);
        for (int i = 0; i < step->marks; i++)
            memcpy(stamped + step->mark_at[i], digits, MARK);
        bytes = stamped;
    }
    if (peer->step == script->count) {
        peer->script = NULL;
        finished++;
        active--;
        ended_at = now_ns();
    }
    return say(peer, bytes, step->length);
}

static void play(Peer *peer)
{
    for (int turn = 0; peer->script; turn++) {
        uint64_t delay_ns = peer->script->delay_ns;
        if (!play_step(peer) || !peer->script)
            return; /* full: goes on when there is room */
        if (delay_ns || turn == STEPS_A_TURN) {
            heap_add(peer, delay_ns ? peer->due + delay_ns : now_ns());
            return;
        }
    }
}

/* --- scripts and requests -------------------------------------------------------- */

static void find_marks(const char *bytes, Step *step)
{
    const char *at = bytes, *end = bytes + step->length;
    while ((at = memmem(at, (size_t)(end - at), MARK_TEXT, MARK + 2))) {
        step->mark_at = grown(step->mark_at, (size_t)(step->marks + 1) * sizeof(size_t));
        step->mark_at[step->marks++] = (size_t)(at + 2 - bytes);
        at += MARK + 2;
    }
}

static Script *read_script(const char *text, size_t length)
{
    Script *script = calloc(1, sizeof *script);
    script->bytes = grown(NULL, length + 1);
    memcpy(script->bytes, text, length);
    script->bytes[length] = 0;
    char *at = script->bytes, *end = at + length;
    script->delay_ns = strtoull(at, &at, 10) * 1000;
    script->first_ns = strtoull(at, &at, 10) * 1000;
    for (at++; at < end;) {
        Step step = {0};
        step.length = strtoull(at, &at, 10);
        step.start = (size_t)(++at - script->bytes);
        find_marks(at, &step);
        script->steps = grown(script->steps, (size_t)(script->count + 1) * sizeof step);
        script->steps[script->count++] = step;
        at += step.length;
    }
    return script;
}

static int slot_of(const char *path)
{
    int at = 0;
    while (at < MAX_PATHS - 1 && known[at].path[0] && strcmp(known[at].path, path))
        at++;
    return at;
}

static void say_json(Peer *peer, const char *text)
{
    char answer[512];
    int length = snprintf(answer, sizeof answer,
                          "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                          "Content-Length: %zu\r\n\r\n%s", strlen(text), text);
    say(peer, answer, (size_t)length);
}

static void note_gap(void)
{
    if (ended_at && !active && gap_count < MAX_GAPS)
        gaps[gap_count++] = (uint32_t)((now_ns() - ended_at) / 1000);
}

static int by_size(const void *one, const void *other)
{
    uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;
    return (a > b) - (a < b);
}

static uint32_t gap_us(double quantile)
{
    return gap_count ? gaps[(int)(quantile * (gap_count - 1))] : 0;
}

static void serve(Peer *peer, const char *method, const char *path, const char *body,
                  size_t length)
{
    int at = slot_of(path);
    if (!strcmp(method, "PUT")) {
        snprintf(known[at].path, sizeof known[at].path, "%s", path);
        known[at].script = read_script(body, length); /* the old one may be playing */
        gap_count = 0;
        ended_at = 0;
        say_json(peer, "{}");
    } else if (!strcmp(method, "POST") && known[at].script) {
        peer->script = known[at].script;
        peer->step = 0;
        peer->due = now_ns() + peer->script->first_ns;
        note_gap();
        started++;
        active++;
        if (peer->script->first_ns)
            heap_add(peer, peer->due);
        else
            play(peer);
    } else {
        char text[300];
        qsort(gaps, (size_t)gap_count, sizeof *gaps, by_size);
        snprintf(text, sizeof text,
                 "{\"started\":%lu,\"finished\":%lu,\"aborted\":%lu,\"active\":%ld,"
                 "\"gap_us\":{\"count\":%d,\"p50\":%u,\"p99\":%u}}",
                 started, finished, aborted, active, gap_count, gap_us(0.5),
                 gap_us(0.99));
        say_json(peer, text);
    }
}

/* Serve one whole request, if it is there; whether it was. */
static int take_request(Peer *peer)
{
    char method[16], path[256];
    char *head_end = memmem(peer->in, peer->in_length, "\r\n\r\n", 4);
    if (!head_end || peer->script || peer->out_length)
        return 0;
    size_t head = (size_t)(head_end + 4 - peer->in), length = 0;
    *head_end = 0;
    char *field = strcasestr(peer->in, "\r\ncontent-length:");
    if (field)
        length = strtoull(field + 17, NULL, 10);
    int fields = sscanf(peer->in, "%15s %255s", method, path);
    *head_end = '\r';
    if (peer->in_length < head + length)
        return 0;
    if (fields == 2)
        serve(peer, method, path, peer->in + head, length);
    if (peer->fd < 0)
        return 0;
    peer->in_length -= head + length;
    memmove(peer->in, peer->in + head + length, peer->in_length);
    return 1;
}

static void on_readable(Peer *peer)
{
    if (peer->in_room < peer->in_length + 16384)
        peer->in = grown(peer->in, peer->in_room = peer->in_length * 2 + 16384);
    ssize_t got = recv(peer->fd, peer->in + peer->in_length,
                       peer->in_room - peer->in_length, 0);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN)
            leave(peer);
        return;
    }
    peer->in_length += (size_t)got;
    while (peer->fd >= 0 && take_request(peer))
        ;
}

static void on_writable(Peer *peer)
{
    char *out = peer->out + peer->out_sent;
    size_t left = peer->out_length - peer->out_sent;
    ssize_t sent = send(peer->fd, out, left, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN)
            leave(peer);
        return;
    }
    peer->out_sent += (size_t)sent;
    if ((size_t)sent < left)
        return;
    peer->out_length = peer->out_sent = 0;
    watch(peer, 0);
    if (peer->script)
        heap_add(peer, now_ns());
    else
        while (peer->fd >= 0 && take_request(peer))
            ;
}

static void welcome(int listener)
{
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        Peer *peer = calloc(1, sizeof *peer);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = peer};
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        peer->fd = fd;
        peer->heap_at = -1;
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
}

static int listen_on(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct epoll_event event = {.events = EPOLLIN};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 8192)) {
        perror("upstream: listen");
        exit(1);
    }
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    return fd;
}

int main(int count, char **words)
{
    struct epoll_event events[256];
    signal(SIGPIPE, SIG_IGN);
    poller = epoll_create1(0);
    int listener = listen_on(count > 1 ? atoi(words[1]) : 0);
    for (;;) {
        struct timespec left = {0}, *patience = NULL;
        if (heap_count) {
            uint64_t now = now_ns(), due = heap[0]->due;
            if (due > now) {
                left.tv_sec = (time_t)((due - now) / 1000000000u);
                left.tv_nsec = (long)((due - now) % 1000000000u);
            }
            patience = &left;
        }
        int ready = epoll_pwait2(poller, events, 256, patience, NULL);
        for (int i = 0; i < ready; i++) {
            Peer *peer = events[i].data.ptr;
            if (!peer)
                welcome(listener);
            if (peer && peer->fd >= 0 && events[i].events & ~(unsigned)EPOLLOUT)
                on_readable(peer);
            if (peer && peer->fd >= 0 && peer->wants_write && peer->out_length)
                on_writable(peer);
        }
        uint64_t now = now_ns();
        for (int turn = heap_count; turn > 0 && heap_count && heap[0]->due <= now; turn--) {
            Peer *peer = heap[0];
            heap_remove(peer);
            play(peer);
            if (dead_count > 500)
                break;
        }
        while (dead_count)
            free(dead[--dead_count]);
    }
}
