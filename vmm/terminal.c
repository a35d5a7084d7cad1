/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/terminal.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define CTRL_A 1

void terminal_init(struct terminal *terminal)
{
    *terminal = (struct terminal){.room_fd = -1};
}

int terminal_open(struct terminal *terminal, struct diag *diag)
{
    terminal->raw = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &terminal->before) == 0;
    terminal->room_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (terminal->room_fd < 0)
        return diag_host(diag, errno, "eventfd");
    terminal->open = true;
    return 0;
}

void terminal_close(struct terminal *terminal)
{
    terminal_end(terminal);
    if (terminal->room_fd >= 0)
        close(terminal->room_fd);
    terminal_init(terminal);
}

void terminal_begin(struct terminal *terminal)
{
    struct termios raw = terminal->before;

    if (!terminal->raw || terminal->begun)
        return;
    cfmakeraw(&raw);
    raw.c_oflag |= OPOST; /* our own lines stand between the guest's */
    terminal->begun = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

void terminal_end(struct terminal *terminal)
{
    if (!terminal->begun)
        return;
    tcsetattr(STDIN_FILENO, TCSANOW, &terminal->before);
    terminal->begun = false;
}

void terminal_polls(const struct terminal *terminal, struct pollfd polls[2])
{
    bool reads = terminal->open && !terminal->ended && terminal->nr == 0;

    polls[0] = (struct pollfd){.fd = reads ? STDIN_FILENO : -1, .events = POLLIN};
    polls[1] = (struct pollfd){.fd = terminal->open ? terminal->room_fd : -1, .events = POLLIN};
}

/* Takes the escape out of what was typed. True: it says that the run shall end. */
static bool filter(struct terminal *terminal, const char *typed, size_t nr)
{
    for (size_t i = 0; i < nr; i++) {
        if (terminal->escape) {
            terminal->escape = false;
            if (typed[i] == 'x')
                return true;
            if (typed[i] == CTRL_A)
                terminal->input[terminal->nr++] = CTRL_A;
        } else if (typed[i] == CTRL_A) {
            terminal->escape = true;
        } else {
            terminal->input[terminal->nr++] = typed[i];
        }
    }
    return false;
}

static bool take(struct terminal *terminal)
{
    char typed[TERMINAL_INPUT_BYTES];
    struct pollfd ready = {.fd = STDIN_FILENO, .events = POLLIN};

    if (poll(&ready, 1, 0) != 1)
        return false;
    ssize_t nr = read(STDIN_FILENO, typed, sizeof(typed));
    if (nr <= 0) {
        terminal->ended = nr == 0 || (errno != EINTR && errno != EAGAIN);
        return false;
    }
    if (terminal->raw)
        return filter(terminal, typed, (size_t)nr);
    memcpy(terminal->input, typed, (size_t)nr);
    terminal->nr = (size_t)nr;
    return false;
}

bool terminal_read(struct terminal *terminal, struct machine *machine)
{
    uint64_t count;

    (void)!read(terminal->room_fd, &count, sizeof(count)); /* says that there is room, or nothing */
    if (terminal->nr == 0 && !terminal->ended && take(terminal))
        return true;
    if (terminal->nr == 0)
        return false;
    size_t taken = machine_console_input(machine, terminal->input, terminal->nr);
    terminal->nr -= taken;
    memmove(terminal->input, terminal->input + taken, terminal->nr);
    return false;
}

void terminal_put(struct terminal *terminal, uint8_t byte)
{
    if (terminal->begun)
        (void)!write(STDOUT_FILENO, &byte, 1); /* a terminal that is gone hears nothing */
}

void terminal_wake(struct terminal *terminal)
{
    uint64_t one = 1;

    (void)!write(terminal->room_fd, &one, sizeof(one)); /* cannot fail: the counter is far from full */
}
