/* SPDX-License-Identifier: Apache-2.0 */
#include "guest-images/linux/exchange.h"
#include "guest-images/linux/guest.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHUNK_BYTES (64u << 10)
/* Chosen: most pieces are more than a page and less than a chunk, and few begin at a multiple of anything. */
#define MAX_PIECE_BYTES 24000u

static size_t chunk_bytes(const struct exchange *exchange, uint64_t at)
{
    return exchange->nr_bytes - at < CHUNK_BYTES ? (size_t)(exchange->nr_bytes - at) : CHUNK_BYTES;
}

static void make_chunk(const struct exchange *exchange, uint64_t at, uint64_t *words)
{
    fill_random(words, CHUNK_BYTES / sizeof(*words), exchange->seed, at, 1);
}

static int write_all(int fd, const uint8_t *bytes, size_t nr_bytes)
{
    while (nr_bytes > 0) {
        ssize_t n = write(fd, bytes, nr_bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        bytes += n;
        nr_bytes -= (size_t)n;
    }
    return 0;
}

/* The child process. */
static int send_all(const struct exchange *exchange)
{
    uint64_t words[CHUNK_BYTES / sizeof(uint64_t)], random = exchange->seed | 1; /* of zero comes nothing */
    int error = 0;

    for (uint64_t at = 0; error == 0 && at < exchange->nr_bytes; at += CHUNK_BYTES) {
        size_t end = chunk_bytes(exchange, at), piece = 0;
        make_chunk(exchange, at, words);
        for (size_t from = 0; error == 0 && from < end; from += piece) {
            piece = 1 + next_random(&random) % MAX_PIECE_BYTES;
            if (piece > end - from)
                piece = end - from;
            error = write_all(exchange->fd, (const uint8_t *)words + from, piece);
        }
    }
    /* After an error the reader is not to wait for more. */
    if (exchange->has_end)
        shutdown(exchange->fd, error == 0 ? SHUT_WR : SHUT_RDWR);
    return error;
}

/* Up to @nr_bytes; 0 at the end of the stream; -errno. */
static ssize_t read_some(int fd, uint8_t *bytes, size_t nr_bytes)
{
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    int ready;

    while ((ready = poll(&poller, 1, EXCHANGE_SILENCE_MS)) < 0 && errno == EINTR)
        ;
    if (ready <= 0)
        return ready < 0 ? -errno : -ETIMEDOUT;
    ssize_t n = read(fd, bytes, nr_bytes);
    return n < 0 ? -errno : n;
}

static int compare(const struct exchange *exchange, uint64_t at, const uint8_t *got, const uint8_t *expected,
                   size_t nr_bytes, char *why, size_t why_bytes)
{
    size_t first = 0, nr_bad = 0;

    for (size_t i = nr_bytes; i-- > 0;)
        if (got[i] != expected[i]) {
            first = i;
            nr_bad++;
        }
    if (nr_bad == 0)
        return 0;
    snprintf(why, why_bytes, "bad=%zu of %zu bytes, the first at %llu of %llu: %#x, not %#x", nr_bad, nr_bytes,
             (unsigned long long)at + first, (unsigned long long)exchange->nr_bytes, got[first], expected[first]);
    return -1;
}

static int receive_all(const struct exchange *exchange, char *why, size_t why_bytes)
{
    uint64_t expected[CHUNK_BYTES / sizeof(uint64_t)], at = 0;
    uint8_t got[CHUNK_BYTES];
    size_t used = 0;
    ssize_t n = 0;

    while (at < exchange->nr_bytes) {
        size_t end = chunk_bytes(exchange, at);
        n = read_some(exchange->fd, got + used, end - used);
        if (n <= 0)
            break;
        used += (size_t)n;
        if (used < end)
            continue;
        make_chunk(exchange, at, expected);
        if (compare(exchange, at, got, (const uint8_t *)expected, end, why, why_bytes) != 0)
            return -1;
        at += end;
        used = 0;
        if (exchange->meanwhile && !exchange->meanwhile(exchange->ctx)) {
            snprintf(why, why_bytes, "a page in memory is damaged after %llu bytes", (unsigned long long)at);
            return -1;
        }
    }
    if (at == exchange->nr_bytes && exchange->has_end && (n = read_some(exchange->fd, got, 1)) > 0) {
        snprintf(why, why_bytes, "more than %llu bytes came", (unsigned long long)exchange->nr_bytes);
        return -1;
    }
    if (at == exchange->nr_bytes && (n == 0 || !exchange->has_end))
        return 0;
    snprintf(why, why_bytes, "%s after %llu of %llu bytes", n == 0 ? "the end came" : strerror((int)-n),
             (unsigned long long)(at + used), (unsigned long long)exchange->nr_bytes);
    return -1;
}

int exchange_run(const struct exchange *exchange, char *why, size_t why_bytes)
{
    int status = 0;
    pid_t child = fork();

    if (child == 0)
        _exit(-send_all(exchange));
    if (child < 0) {
        snprintf(why, why_bytes, "no child process: %s", strerror(errno));
        return -1;
    }
    int result = receive_all(exchange, why, why_bytes);
    if (result != 0)
        kill(child, SIGKILL);
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) != 0) {
        snprintf(why, why_bytes, "cannot send: %s", strerror(WEXITSTATUS(status)));
        result = -1;
    }
    return result;
}

int64_t exchange_echo(int fd)
{
    uint8_t bytes[CHUNK_BYTES];
    int64_t nr_bytes = 0;
    ssize_t n;

    while ((n = read(fd, bytes, sizeof(bytes))) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        int error = n < 0 ? -errno : write_all(fd, bytes, (size_t)n);
        if (error != 0)
            return error;
        nr_bytes += n;
    }
    shutdown(fd, SHUT_WR);
    return nr_bytes;
}
