/* SPDX-License-Identifier: Apache-2.0 */
/*
 * terminal: --console. Standard input goes to the guest's serial line. When it is a terminal, that is in raw mode while
 * the guest runs, the guest's bytes go to it as they are, and Ctrl-A x ends the run (Ctrl-A Ctrl-A sends one Ctrl-A).
 * From a pipe all bytes are the guest's, and its lines are printed as without --console.
 *
 * The guest steers the terminal then, as programs do that run in one: --console is for guests that the user trusts so far.
 */
#ifndef VMM_TERMINAL_H
#define VMM_TERMINAL_H

#include "vmm/diag.h"
#include "vmm/machine.h"

#include <poll.h>
#include <stdatomic.h>
#include <termios.h>

#define TERMINAL_INPUT_BYTES 256

struct terminal {
    bool open, raw;    /* raw: standard input is a terminal */
    atomic_bool begun; /* its mode is ours; read by the vCPU that sends */
    bool ended;        /* the input is */
    bool escape;       /* the last byte was Ctrl-A */
    int room_fd;       /* eventfd: the guest takes input again; -1: none */
    struct termios before;
    size_t nr; /* bytes that the guest has no room for yet */
    char input[TERMINAL_INPUT_BYTES];
};

/* Not open: all others do nothing then. */
void terminal_init(struct terminal *terminal);
/* 0, or -1 with diag. */
must_check int terminal_open(struct terminal *terminal, struct diag *diag);
void terminal_close(struct terminal *terminal);
/* Raw mode, and back; as often as one likes. */
void terminal_begin(struct terminal *terminal);
void terminal_end(struct terminal *terminal);

/* Two descriptors to wait for, -1 where there is nothing to wait for now. */
void terminal_polls(const struct terminal *terminal, struct pollfd polls[2]);
/* After either was ready: gives the guest what there is. True: the user wants the run to end. */
must_check bool terminal_read(struct terminal *terminal, struct machine *machine);
/* Any thread: a byte of the guest; the guest has room. */
void terminal_put(struct terminal *terminal, uint8_t byte);
void terminal_wake(struct terminal *terminal);

#endif
