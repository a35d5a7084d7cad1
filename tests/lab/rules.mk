# SPDX-License-Identifier: Apache-2.0
#
# The lab machine: build/lab/lab.cpio, its initramfs, and build/lab/disk, what its scratch disk holds at the start.

LAB_DIR := tests/lab
LAB_MODULES := irqbypass kvm kvm_amd lz4 lz4_compress zsmalloc zram virtio_blk tun
# What the benchmark's QEMU reads when it starts a microvm.
LAB_QEMU_FILES := $(addprefix /usr/share/qemu/,bios-microvm.bin linuxboot_dma.bin pvh.bin)
LAB_PROGRAMS := build/ebb $(patsubst tests/vm/%.c,build/release/tests/vm/%,$(VM_SRC)) \
	$(addprefix build/release/tests/unit/,test_hostmem_node test_memhost_numa)

# What ebb loads when somebody calls it, when it draws, and when a guest stops; the last may be missing here.
LAB_LIBRARIES = $(foreach name,libmicrohttpd.so.12 libcairo.so.2,$(shell gcc -print-file-name=$(name))) \
	$(filter /%,$(shell gcc -print-file-name=libcapstone.so.4))

build/lab/keeper: $(LAB_DIR)/keeper.c | build/.libraries
	@mkdir -p $(@D)
	gcc -std=c11 -D_GNU_SOURCE -O2 -static $(WARNINGS) -o $@ $<

build/lab/corepages: $(LAB_DIR)/corepages.c $(LINUX_DIR)/sum.c $(LINUX_DIR)/guest.h | build/.libraries
	@mkdir -p $(@D)
	gcc -std=c11 -D_GNU_SOURCE -O2 -static $(WARNINGS) -I. -o $@ $(filter %.c,$^)

build/lab/peer: $(LAB_DIR)/peer.c $(addprefix $(LINUX_DIR)/,exchange.c exchange.h sum.c guest.h) | build/.libraries
	@mkdir -p $(@D)
	gcc -std=c11 -D_GNU_SOURCE -O2 -static $(WARNINGS) -I. -o $@ $(filter %.c,$^)

build/lab/beside: $(wildcard $(LAB_DIR)/bench/*.[ch]) | build/.libraries
	@mkdir -p $(@D)
	gcc -std=c11 -D_GNU_SOURCE -O2 -static $(WARNINGS) -I. -o $@ $(filter %.c,$^)

# For the benchmark only: the disk with Debian's QEMU on it, its libraries and its firmware.
build/lab/bench-disk.stamp: build/lab/lab.cpio build/lab/beside $(LAB_DIR)/rules.mk
	@rm -rf build/lab/bench-disk
	@cp -rl build/lab/disk build/lab/bench-disk
	@mkdir -p $(addprefix build/lab/bench-disk/qemu/,bin lib share)
	@cp build/lab/beside $$(command -v qemu-system-x86_64-microvm) build/lab/bench-disk/qemu/bin/
	@ldd $$(command -v qemu-system-x86_64-microvm) | sed -n 's/^[^/]*=> \(\/[^ ]*\) (0x.*/\1/p' | \
		xargs -I '{}' cp -L '{}' build/lab/bench-disk/qemu/lib/
	@cp -L $(LAB_QEMU_FILES) build/lab/bench-disk/qemu/share/
	@touch $@

build/lab/lab.cpio: $(addsuffix /version,$(LINUX_KERNELS)) $(addsuffix /guest.cpio,$(LINUX_KERNELS)) build/lab/keeper build/lab/corepages build/lab/peer $(LAB_PROGRAMS) \
		$(wildcard $(LAB_DIR)/*.sh $(LAB_DIR)/steps/*.sh $(LAB_DIR)/bench/*.sh) $(LINUX_DIR)/modules.sh $(LINUX_DIR)/initramfs.sh
	@rm -rf build/lab/root build/lab/disk
	@mkdir -p build/lab/root/dev build/lab/root/lab build/lab/disk/guest build/lab/disk/guest-generic
	@cp build/linux/vmlinuz build/linux/vmlinux build/linux/guest.cpio build/lab/disk/guest/
	@cp build/linux-generic/vmlinux build/linux-generic/guest.cpio build/lab/disk/guest-generic/
	@cp -r $(LAB_DIR)/steps $(LAB_DIR)/bench build/lab/root/lab/
	@cp $(LAB_DIR)/init.sh build/lab/root/init
	@$(LINUX_DIR)/modules.sh build/linux/modules build/lab/root/modules $(LAB_MODULES)
	@$(LINUX_DIR)/initramfs.sh build/lab/root $@ busybox build/lab/keeper build/lab/corepages build/lab/peer $(LAB_PROGRAMS) $(LAB_LIBRARIES)
