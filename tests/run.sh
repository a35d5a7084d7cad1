#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# run.sh VARIANT|lint|fuzz|lab ...
#
# Builds each variant's test programs and runs them; `lint` runs tests/lint; `fuzz` runs each target of tests/fuzz for a
# while, two at a time; `lab` runs tests/lab/run.sh and here.sh. A line a program, the whole output of one
# that fails, and as the last line "N passed, N failed, N skipped". Fails when anything failed.
#
# Counted: each of Check's checks, each lint, each build, each fuzz target. A program that crashes, runs out of time or prints no line of
# Check's counts as one failure. A line "SKIP: reason" is one skip, never a pass; a program may skip all and say no more.
#
#   EBB_TEST_SECONDS  time limit of one program, default 600
#   FUZZ_SECONDS      how long each fuzz target runs, default 60
#   EBB_NO_KVM=1      tests that need /dev/kvm skip instead of failing
#   JOBS              compiler processes, default 1
#   TESTS             shell pattern of program names, e.g. TESTS='test_zone*'; default all
set -u
cd "$(dirname "$0")/.." || exit 1

limit=${EBB_TEST_SECONDS:-600}
passed=0 failed=0 skipped=0
log=$(mktemp) || exit 1
trap 'jobs -p | xargs -r kill 2>/dev/null; rm -f "$log" "$log".*' EXIT
trap 'exit 130' INT TERM

# Check's own limit of 4 s for a test is short on a busy machine.
export CK_DEFAULT_TIMEOUT=${CK_DEFAULT_TIMEOUT:-60}
export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1

# report NAME PASSED FAILED SKIPPED SECONDS
report() {
    passed=$((passed + $2)) failed=$((failed + $3)) skipped=$((skipped + $4))
    local word=ok
    [ "$4" = 0 ] || word="$4 skipped"
    [ "$3" = 0 ] || word="$3 FAILED"
    printf '%-48s %5d checks %6d s  %s\n' "$1" $(($2 + $3)) "$5" "$word"
    grep '^SKIP:' "$log" | sed 's/^/    /'
    [ "$3" = 0 ] || sed 's/^/    /' "$log"
}

# run_command NAME COMMAND...: one check, passed when the command succeeds and skips nothing.
run_command() {
    local name=$1 start=$SECONDS skips
    shift
    if "$@" >"$log" 2>&1 </dev/null; then
        skips=$(grep -c '^SKIP:' "$log")
        report "$name" $((skips == 0)) 0 "$skips" $((SECONDS - start))
    else
        report "$name" 0 1 0 $((SECONDS - start))
    fi
}

# run_program NAME COMMAND...: counts what Check says, and does not believe it when the exit code says otherwise.
run_program() {
    local name=$1 start=$SECONDS status checks=0 bad=0 lines=0 skips line
    shift
    timeout --kill-after=10 "$limit" "$@" >"$log" 2>&1 </dev/null
    status=$?
    skips=$(grep -c '^SKIP:' "$log")
    while read -r line; do
        [[ $line =~ ^[0-9]+%:\ Checks:\ ([0-9]+),\ Failures:\ ([0-9]+),\ Errors:\ ([0-9]+)$ ]] || continue
        lines=$((lines + 1))
        checks=$((checks + BASH_REMATCH[1]))
        bad=$((bad + BASH_REMATCH[2] + BASH_REMATCH[3]))
    done <"$log"
    if [ $status = 124 ] || [ $status = 137 ]; then
        echo "ended after the time limit of $limit s" >>"$log"
    fi
    if [ $bad = 0 ] && { [ $status != 0 ] || [ $((lines + skips)) = 0 ]; }; then
        echo "exit code $status" >>"$log"
        checks=$((checks + 1)) bad=1
    fi
    local good=$((checks - bad - skips))
    report "$name" $((good < 0 ? 0 : good)) $bad "$skips" $((SECONDS - start))
}

run_variant() {
    local variant=$1 source program targets=tests
    local prefix=() sources=(tests/unit/test_*.c)
    case $variant in
    release) sources+=(tests/vm/vm_*.c) ;;
    tsan)
        # The thread sanitizer wants its own layout of the address space.
        if setarch -R true 2>/dev/null; then prefix=(setarch -R); fi
        sources+=(tests/vm/vm_{memhost,vcpu,machine}.c)
        ;;
    # Not vm_run: a sanitizer's own memory counts in the process's peak.
    asan) sources+=(tests/vm/vm_{memhost,vcpu,machine,guest_numa,cli,hostile}.c) ;;
    *) targets=unit ;;
    esac
    case $variant in release | asan) targets="all tests" ;; esac
    export EBB=build/$variant/ebb
    [ "$variant" != release ] || EBB=build/ebb
    # shellcheck disable=SC2086
    run_command "$variant/build" env -u MAKEFLAGS make -s -k -j"${JOBS:-1}" VARIANT="$variant" $targets
    [ "$variant" != coverage ] || find build/coverage -name '*.gcda' -delete
    for source in "${sources[@]}"; do
        [ -e "$source" ] || continue
        program=$(basename "$source" .c)
        # shellcheck disable=SC2254
        case $program in ${TESTS:-*}) ;; *) continue ;; esac
        # One thread, and minutes under the thread sanitizer; test_mm_threads is the one for threads.
        case $variant/$program in
        tsan/test_mm | tsan/test_mm_give | tsan/test_mm_give_model | tsan/test_access_model | tsan/test_mm_tier_zipf) continue ;;
        esac
        run_program "$variant/$program" "${prefix[@]}" "build/$variant/${source%.c}"
    done
    [ "$variant" != coverage ] || tests/coverage.sh build/coverage
}

# wait_fuzz PID TARGET START: one check, passed when the target found nothing.
wait_fuzz() {
    local bad=0
    wait "$1" || bad=1
    cp "$log.$2" "$log"
    rm -f "$log.$2"
    report "fuzz/$2" $((1 - bad)) $bad 0 $((SECONDS - $3))
}

run_fuzz() {
    local source target pids=() targets=() start=$SECONDS i
    run_command "fuzz/build" env -u MAKEFLAGS make -s -k -j"${JOBS:-1}" VARIANT=fuzz fuzz-programs
    for source in tests/fuzz/fuzz_*.c; do
        target=$(basename "$source" .c)
        # shellcheck disable=SC2254
        case $target in ${TESTS:-*}) ;; *) continue ;; esac
        tests/fuzz/one.sh "$target" >"$log.$target" 2>&1 </dev/null &
        pids+=($!) targets+=("$target")
        [ ${#pids[@]} = 2 ] || continue
        for i in 0 1; do wait_fuzz "${pids[i]}" "${targets[i]}" "$start"; done
        pids=() targets=() start=$SECONDS
    done
    [ ${#pids[@]} = 0 ] || wait_fuzz "${pids[0]}" "${targets[0]}" "$start"
}

run_lints() {
    local lint
    for lint in tests/lint/*.sh; do
        run_command "lint/$(basename "$lint" .sh)" "$lint" .
    done
}

# The lab prints its own lines, as it goes; its last line counts.
run_lab() {
    "$1" 2>&1 | tee "$log" | sed '$d'
    if [[ $(tail -n 1 "$log") =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
        passed=$((passed + BASH_REMATCH[1]))
        failed=$((failed + BASH_REMATCH[2]))
        skipped=$((skipped + BASH_REMATCH[3]))
    else
        tail -n 1 "$log"
        echo "$1 did not come to its end: FAILED"
        failed=$((failed + 1))
    fi
}

for what in "$@"; do
    case $what in
    lint) run_lints ;;
    fuzz) run_fuzz ;;
    lab)
        run_lab tests/lab/run.sh
        run_lab tests/lab/here.sh
        ;;
    *) run_variant "$what" ;;
    esac
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
