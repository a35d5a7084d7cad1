# SPDX-License-Identifier: Apache-2.0
#
# The Linux guest of the tests: build/linux/guest.cpio, an initramfs with init (guest.h), the modules that Ebb's devices
# want, memtester and numactl with their libraries. The kernel beside it is build/linux/vmlinuz or vmlinux; see fetch.sh.
# build/linux-generic is the same with Debian's kernel for all machines, which has what the one for clouds has not.

LINUX_DIR := guest-images/linux
LINUX_MODULES := virtio_mmio virtio_balloon virtio_blk virtio_mem virtio_net virtio_console virtio-rng \
	vmw_vsock_virtio_transport pvpanic-mmio

LINUX_KERNELS := build/linux build/linux-generic
PACKAGE_linux := linux-image-6.12-cloud-amd64
PACKAGE_linux-generic := linux-image-6.12-amd64

$(addsuffix /version,$(LINUX_KERNELS)): build/%/version: $(LINUX_DIR)/fetch.sh
	@$(LINUX_DIR)/fetch.sh build/$* $(PACKAGE_$*)
	@touch $@

build/linux/init: $(wildcard $(LINUX_DIR)/*.[ch]) | build/.libraries
	@mkdir -p $(@D)
	gcc -std=c11 -D_GNU_SOURCE -O2 -g -static $(WARNINGS) -I. -o $@ $(filter %.c,$^)

$(addsuffix /guest.cpio,$(LINUX_KERNELS)): build/%/guest.cpio: build/%/version build/linux/init $(LINUX_DIR)/modules.sh \
		$(LINUX_DIR)/initramfs.sh
	@rm -rf $(@D)/tree
	@mkdir -p $(@D)/tree/dev
	@strip -o $(@D)/tree/init build/linux/init
	@$(LINUX_DIR)/modules.sh $(@D)/modules $(@D)/tree/modules $(LINUX_MODULES)
	@$(LINUX_DIR)/initramfs.sh $(@D)/tree $@ memtester numactl
