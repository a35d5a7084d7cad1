# SPDX-License-Identifier: Apache-2.0
#
# Ebb. `make help` lists the targets. Everything that is made stands in build/:
#
#   build/ebb                      the program
#   build/<variant>/               objects, libmm.a, libvmm.a and test programs of one variant
#   build/bench/                   benchmarks
#
# Variants: release (gcc), clang, asan (address and undefined), tsan, coverage, fuzz (clang: libFuzzer, address and
# undefined). Name one with VARIANT=.

VARIANT ?= release
BUILD := build/$(VARIANT)
JOBS ?= $(shell nproc 2>/dev/null || echo 1)

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:

# --- compiler and flags -------------------------------------------------------------------------

CC := gcc
OPT_release := -O2
OPT_clang := -O2
OPT_asan := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -DEBB_DEBUG_LOCKS
OPT_tsan := -O1 -fsanitize=thread -fno-omit-frame-pointer -DEBB_DEBUG_LOCKS
OPT_coverage := -O0 --coverage -fprofile-update=atomic
FUZZ_SANITIZERS := address,undefined
OPT_fuzz := -O1 -fsanitize=fuzzer-no-link,$(FUZZ_SANITIZERS) -fno-sanitize-recover=all -fno-omit-frame-pointer \
	-DEBB_DEBUG_LOCKS
ifneq ($(filter clang fuzz,$(VARIANT)),)
CC := clang
endif
ifeq ($(OPT_$(VARIANT)),)
$(error no variant "$(VARIANT)": release clang asan tsan coverage fuzz)
endif

WARNINGS := -Wall -Wextra -Wundef -Wshadow -Wconversion -Wmissing-prototypes -Wvla -Werror
EBB_CFLAGS := -std=c11 -D_GNU_SOURCE -g -pthread $(WARNINGS) $(OPT_$(VARIANT)) -I.
EBB_LIBS := -llz4 -lzstd -lxxhash -luring -ljansson -lnuma -lm
# Optional: instructions as text when a guest stops (vmm/boot/disasm.c, which loads it then).
ifneq ($(wildcard /usr/include/capstone/capstone.h),)
EBB_CFLAGS += -DEBB_CAPSTONE
endif
CHECK_LIBS := -lcheck -lsubunit -lrt -lm
# tests/fake/fail_*.c stand between the code under test and the heap, io_uring, write() and close().
WRAP := -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=aligned_alloc,--wrap=posix_memalign
WRAP += -Wl,--wrap=io_uring_submit_and_wait,--wrap=write,--wrap=close

compile = $(CC) $(EBB_CFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<
link = $(CC) $(EBB_CFLAGS) $(CFLAGS) $(LDFLAGS) -Wl,--as-needed -o $@

# --- what there is to build -----------------------------------------------------------------------

MM_SRC := $(sort $(wildcard mm/*.c mm/*/*.c))
VMM_SRC := $(sort $(filter-out vmm/main.c,$(wildcard vmm/*.c vmm/*/*.c devices/*.c devices/*/*.c)))
FAKE_SRC := $(sort $(wildcard tests/fake/*.c))
UNIT_SRC := $(sort $(wildcard tests/unit/test_*.c))
VM_SRC := $(sort $(wildcard tests/vm/vm_*.c))
FUZZ_SRC := $(sort $(wildcard tests/fuzz/fuzz_*.c))
BENCH_SRC := $(sort $(wildcard tests/bench/*.c))
C_FILES := $(sort $(shell find mm vmm devices tools tests guest-images -name '*.[ch]' 2>/dev/null))

objects = $(patsubst %.c,$(BUILD)/%.o,$(1))
programs = $(patsubst %.c,$(BUILD)/%,$(1))
LIBMM := $(BUILD)/libmm.a
LIBVMM := $(BUILD)/libvmm.a
# The archives name each other's symbols in one direction only: vmm calls mm.
LIBS := $(LIBVMM) $(LIBMM)

EBB := $(if $(filter release,$(VARIANT)),build/ebb,$(BUILD)/ebb)
UNIT := $(call programs,$(UNIT_SRC))
VM := $(call programs,$(VM_SRC))
FUZZ := $(call programs,$(FUZZ_SRC))
BENCH := $(patsubst tests/bench/%.c,build/bench/%,$(BENCH_SRC))

# The embedded guest: makes $(GUEST_OBJ), an object that holds the guest's image.
GUEST_OBJ := $(if $(wildcard guest-images/ebbguest/rules.mk),$(BUILD)/guest/ebbguest.o)
-include guest-images/ebbguest/rules.mk
# The Linux guest of the tests: build/linux/guest.cpio.
-include guest-images/linux/rules.mk
# The machine in which tests meet nested paging: build/lab/lab.cpio.
-include tests/lab/rules.mk

# --- rules -----------------------------------------------------------------------------------------

.PHONY: all unit vm tests fuzz-programs bench-programs run test bench lint format coverage asan tsan fuzz fuzz-corpus \
	lab lab-shell bench-guest deps clean help

all: $(LIBS) $(if $(wildcard vmm/main.c),$(EBB)) ## build build/ebb; needs no root
unit: $(UNIT)
vm: $(VM)
tests: unit vm
fuzz-programs: $(FUZZ) # with VARIANT=fuzz
bench-programs: $(BENCH)

$(BUILD)/%.o: %.c | build/.libraries
	@mkdir -p $(@D)
	$(compile)

$(LIBMM): $(call objects,$(MM_SRC))
$(LIBVMM): $(call objects,$(VMM_SRC)) $(GUEST_OBJ)
$(LIBS):
	@mkdir -p $(@D)
	@rm -f $@
	$(AR) rcs $@ $^

$(EBB): $(BUILD)/vmm/main.o $(LIBS)
	$(link) $^ $(EBB_LIBS)

$(UNIT) $(VM): $(BUILD)/%: $(BUILD)/%.o $(call objects,$(FAKE_SRC)) $(LIBS)
	$(link) $(WRAP) $^ $(EBB_LIBS) $(CHECK_LIBS)

# Looks into the pictures that Ebb draws with a library that it loads for that.
$(BUILD)/tests/unit/test_heatmap: EBB_LIBS += -lcairo

# One folder's input language for all targets: tests/fuzz/fuzz.h.
$(FUZZ): $(BUILD)/%: $(BUILD)/%.o $(BUILD)/tests/fuzz/fuzz.o $(LIBS)
	$(link) -fsanitize=fuzzer,$(FUZZ_SANITIZERS) $^ $(EBB_LIBS)
# These drive the memory manager, too: tests/fuzz/fuzz_mm.h.
$(addprefix $(BUILD)/tests/fuzz/fuzz_,balloon mem): $(BUILD)/tests/fake/fake_host.o

$(BENCH): build/bench/%: $(BUILD)/tests/bench/%.o $(LIBS)
	@mkdir -p $(@D)
	$(link) $^ $(EBB_LIBS)

# Says which packages are missing, once, before the first compilation.
build/.libraries: tools/install-deps.sh
	@mkdir -p $(@D)
	@tools/install-deps.sh --check build
	@touch $@

.SECONDARY:
-include $(patsubst %.o,%.d,$(call objects,$(MM_SRC) $(VMM_SRC) vmm/main.c $(FAKE_SRC) $(UNIT_SRC) $(VM_SRC) $(BENCH_SRC) $(FUZZ_SRC) \
	tests/fuzz/fuzz.c))

# --- what a person types -----------------------------------------------------------------------------

DEMO := --memory 256M --budget 64M --zram 32M --swap ebb.swap,size=512M \
	--workload "fill:200M,pattern=mixed;zipf:200M,ops=200000,write=30;verify"

run: ## install what is missing (root), build, launch the demonstration VM
	@tools/install-deps.sh build
	@$(MAKE) --no-print-directory -s -j$(JOBS) all
	build/ebb run $(DEMO)

deps: ## install the packages that building needs (root)
	@tools/install-deps.sh build

test: ## install what the tests need (root), build with gcc and clang, run every test
	@tools/install-deps.sh test
	@JOBS=$(JOBS) tests/run.sh lint release clang asan tsan coverage fuzz lab

asan: ## tests under the address and undefined behaviour sanitizers
	@JOBS=$(JOBS) tests/run.sh asan

tsan: ## tests under the thread sanitizer
	@JOBS=$(JOBS) tests/run.sh tsan

fuzz: ## fuzz the devices: each target for FUZZ_SECONDS (60), two at a time, from the kept corpus on
	@JOBS=$(JOBS) tests/run.sh fuzz

fuzz-corpus: ## merge what fuzzing found into tests/fuzz/corpus, smallest inputs first
	@$(MAKE) --no-print-directory -s VARIANT=fuzz fuzz-programs
	@tests/fuzz/merge.sh

lab: ## install what it needs (root), test in a machine of software with nested paging; STEPS=... for some
	@tools/install-deps.sh test
	@JOBS=$(JOBS) tests/lab/run.sh $(STEPS)

bench-guest: ## Ebb beside QEMU with Linux guests, in the lab and where this host's KVM boots Linux; a quarter of an hour
	@tools/install-deps.sh test
	@JOBS=$(JOBS) tests/lab/run.sh --bench
	@JOBS=$(JOBS) tests/lab/here.sh --bench

lab-shell: ## a shell in that machine; STEPS=... in that of this step
	@tools/install-deps.sh test
	@JOBS=$(JOBS) tests/lab/run.sh --shell $(STEPS)

coverage: ## lines of mm/ that the unit tests run, by file
	@JOBS=$(JOBS) tests/run.sh coverage

lint: ## layers, formatting, forbidden words, globals
	@tests/run.sh lint

format: ## rewrite the sources with clang-format
	clang-format-14 -i $(C_FILES)

bench: all bench-programs ## compare with the kernel's own swap (root); takes minutes
	@tests/bench/run.sh

clean: ## remove build/
	rm -rf build

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12
