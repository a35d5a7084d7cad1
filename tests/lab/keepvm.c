/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps one idle VM with a vCPU. KVM patches kernel code when the first VM is created and when the last one goes; under
 * the software CPU of the lab that can panic. With this VM open there is no first and no last.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

int main(void)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);

    if (vm < 0 || ioctl(vm, KVM_CREATE_VCPU, 0) < 0) {
        perror("keepvm");
        return 1;
    }
    puts("keepvm: ready");
    fflush(stdout);
    for (;;)
        pause();
}
