# SPDX-License-Identifier: Apache-2.0
#
# The Linux guest of the tests: build/linux/guest.cpio, an initramfs with init (guest.h), the modules that Ebb's devices
# want, memtester and numactl with their libraries. The kernel beside it is build/linux/vmlinuz or vmlinux; see fetch.sh.

LINUX_DIR := guest-images/linux
LINUX_MODULES := virtio_mmio virtio_balloon virtio_blk virtio_mem virtio_net virtio_console virtio-rng \
	vmw_vsock_virtio_transport pvpanic-mmio

build/linux/version: $(LINUX_DIR)/fetch.sh
	@$(LINUX_DIR)/fetch.sh build/linux
	@touch $@

build/linux/init: $(wildcard $(LINUX_DIR)/*.[ch]) | build/.libraries
	@mkdir -p $(@D)
	gcc -std=c11 -D_GNU_SOURCE -O2 -g -static $(WARNINGS) -I. -o $@ $(filter %.c,$^)

build/linux/guest.cpio: build/linux/version build/linux/init $(LINUX_DIR)/modules.sh $(LINUX_DIR)/initramfs.sh
	@rm -rf build/linux/root
	@mkdir -p build/linux/root/dev
	@strip -o build/linux/root/init build/linux/init
	@$(LINUX_DIR)/modules.sh build/linux/modules build/linux/root/modules $(LINUX_MODULES)
	@$(LINUX_DIR)/initramfs.sh build/linux/root $@ memtester numactl
