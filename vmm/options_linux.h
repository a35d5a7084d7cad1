/* SPDX-License-Identifier: Apache-2.0 */
/* Options of `ebb run` that make a Linux guest: what joins them. */
#ifndef VMM_OPTIONS_LINUX_H
#define VMM_OPTIONS_LINUX_H

#include "vmm/diag.h"
#include "vmm/linux_config.h"

/* What --cmdline replaces, and what stays before it unless it names a console of its own. */
#define OPTIONS_CONSOLE "console=ttyS0"
#define OPTIONS_CMDLINE "reboot=k panic=-1 random.trust_cpu=on 8250.nr_uarts=1 pci=off"

/* The guest's command line becomes @text, behind the console. 0, or -1 with @diag (EXIT_USAGE): it is too long. */
int options_set_cmdline(const char *text, struct linux_config *linux, struct diag *diag);

/* @nr_vms VMs can have this each: what they would write to must differ by %d. */
int options_check_linux(const struct linux_config *linux, unsigned nr_vms, struct diag *diag);
/* Of VM @index: %d in names of files, sockets and taps becomes its number. -1: too long then. */
int options_linux_of(const struct linux_config *linux, unsigned index, struct linux_config *out, struct diag *diag);

#endif
