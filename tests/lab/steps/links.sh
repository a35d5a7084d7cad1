# SPDX-License-Identifier: Apache-2.0
# limit: 300
#
# A Linux guest talks to the host in each way there is: network, sockets in both directions, a console port. Each time
# bytes go there and back, and every one is compared. The guest has twice the memory of its budget, and reads what it has
# filled meanwhile. Before a link is used again all that can leave is pushed out, queues and buffers with it.
. "${LAB:-/lab}/steps/lib.sh"

tap=ebb$$
vsock=$work/vsock
if ! busybox tunctl -t $tap >/dev/null || ! busybox ifconfig $tap 10.213.7.1 netmask 255.255.255.252 up; then
    [ -z "${EBB_HERE-}" ] || skip "this host lets us have no tap device"
    fail "no tap device"
fi
trap 'busybox tunctl -d $tap >/dev/null; clean_up' EXIT

# -ll -e: for each connection a cat, which sends back what it gets.
busybox nc -ll -p 4321 -e cat &
helpers="$helpers $!"
peer serve ${vsock}_1234 >$work/serve.log 2>&1 &
helpers="$helpers $!"
wait_line '^peer: ready' 10 $work/serve.log

net=net,10.213.7.2/30,10.213.7.1,4321
start_linux "boot;fill,150;$net,4096;vsock,1234,4096;vsock-listen,52;port,agent,1024;$net,256;vsock,1234,256;verify" \
    --memory 256M --budget 128M --zram 64M --swap $work/swap,size=512M --json $work/out.json \
    --net tap=$tap --vsock cid=3,path=$vsock --console-port name=agent,path=$work/agent

wait_line 'EBB: listening at 52' 120
ask reclaim 256M
peer call $vsock 52 4096 || fail "the bytes from the host did not come back"
wait_line 'EBB: port agent is open' 60
ask reclaim 256M
at_most "bytes of the guest that are still resident" "$(show free resident_bytes)" $((16 << 20))
peer answer $work/agent >$work/answer.log 2>&1 &
helpers="$helpers $!"
wait_line 'EBB: port ok' 60
ask show devices --json
! grep -qE '"(malformed|rx_dropped|tx_dropped|discarded_bytes)": *[1-9]' $work/answer || fail "a device counts what must not be"
done_linux 100
cat $work/serve.log
same "bytes that the guest got from the host's call" "$(sed -n 's/^EBB: vsock-listen ok bytes=//p' $work/ebb.log)" 4194304
same "exchanges" "$(grep -cE 'EBB: (net|vsock|port) ok' $work/ebb.log)" 5
echo "swapped out $(json $work/out.json pswpout) pages, in $(json $work/out.json pswpin)"
at_least "pages swapped in" "$(json $work/out.json pswpin)" 1000
