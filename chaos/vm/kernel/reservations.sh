#!/bin/bash
# Guest: two initiators, by two iSCSI interfaces with names of their own, and persistent reservations.
. /lab/lib.sh
: "${SECOND:?}"
a_key=0xa1 b_key=0xb2
dmesg -C
must "the second initiator's interface" iscsiadm -m iface -I second -o new
must "its name" iscsiadm -m iface -I second -o update -n iface.initiatorname -v "$SECOND"
must "its transport" iscsiadm -m iface -I second -o update -n iface.transport_name -v tcp
must "login of the first initiator" attach reserved
A=$D
must "login of the second initiator" attach reserved second
B=$D
names() { cat /sys/class/iscsi_session/session*/initiatorname | sort -u | wc -l; }
check "two sessions of two names" test "$(names)" = 2
check "both see one disk" test "$(cat /sys/block/${A##*/}/device/wwid)" = "$(cat /sys/block/${B##*/}/device/wwid)"

# told ARG...: sg_persist, again if it only met a unit attention (code 6)
told() { sg_persist --no-inquiry "$@"; local r=$?; [ $r = 6 ] || return $r; sg_persist --no-inquiry "$@"; }
out() { local d=$1; shift; told --out "$@" "$d"; }
keys() { told --in --read-keys "$A" >/tmp/keys; cat /tmp/keys; }
has_keys() { keys; local k; for k; do grep -q "^ *$k$" /tmp/keys || return 1; done; [ "$(grep -c '^ *0x' /tmp/keys)" = $# ]; }
held_by() { told --in --read-reservation "$B" | tee /tmp/held; grep -q "Key=$1" /tmp/held && grep -q "$2" /tmp/held; }
nobody() { told --in --read-reservation "$B" | tee /tmp/held; grep -q 'NO reservation held' /tmp/held; }
writes() { dd if=/dev/zero of="$1" bs=4096 count=1 oflag=direct conv=fsync; }
reads() { dd if="$1" of=/dev/null bs=4096 count=1 iflag=direct; }
# conflict COMMAND...: it fails, and by a reservation conflict (EBADE)
conflict() { ! "$@" >/tmp/conflict 2>&1 && cat /tmp/conflict && grep -q 'Invalid exchange' /tmp/conflict; }

check "nobody is registered" has_keys
check "the first registers" out "$A" --register --param-sark=$a_key
check "the second registers" out "$B" --register --param-sark=$b_key
check "both keys are seen" has_keys $a_key $b_key
check "the first reserves, Write Exclusive" out "$A" --reserve --param-rk=$a_key --prout-type=1
check "the second sees by whom" held_by $a_key 'Write Exclusive'
check "the first writes" writes "$A"
check "the second's write meets a reservation conflict" conflict writes "$B"
check "the second reads" reads "$B"
check "the second can't reserve" not out "$B" --reserve --param-rk=$b_key --prout-type=1
check "the second's release releases nothing" test "$(out "$B" --release --param-rk=$b_key --prout-type=1 >/dev/null 2>&1; held_by $a_key 'Write Exclusive' >/dev/null && echo held)" = held
check "the first releases" out "$A" --release --param-rk=$a_key --prout-type=1
check "nobody holds it" nobody
check "the second writes again" writes "$B"

check "the first reserves, Exclusive Access" out "$A" --reserve --param-rk=$a_key --prout-type=3
check "the second's read meets a reservation conflict" conflict reads "$B"
check "the second preempts the first, and aborts" out "$B" --preempt-abort --param-rk=$b_key --param-sark=$a_key --prout-type=5
check "only the second's key is left" has_keys $b_key
check "the second holds it, Write Exclusive for registrants" held_by $b_key 'Write Exclusive, registrants only'
check "the first's write meets a reservation conflict" conflict writes "$A"
check "the second writes" writes "$B"
check "the first registers anew" out "$A" --register-ignore --param-sark=$a_key
check "as a registrant the first writes" writes "$A"
check "the reservation outlives the session of its holder" logout reserved second
check "the first sees it still" sg_persist --no-inquiry --in --read-reservation "$A"
# Its next session has another ISID, and is another nexus for that: it is not registered.
must "the second logs in again" login reserved second
B=$D
check "its new session is not the one that holds it" conflict writes "$B"
check "the first takes it over from the dead session" out "$A" --preempt --param-rk=$a_key --param-sark=$b_key --prout-type=5
check "only the first's key is left" has_keys $a_key
check "the first holds it" held_by $a_key 'Write Exclusive, registrants only'
check "the first clears all" out "$A" --clear --param-rk=$a_key
check "no key is left" has_keys
check "no reservation is left" nobody

# Kept over a power cut of the unit: APTPL.
check "the first registers, to be kept" out "$A" --register --param-aptpl --param-sark=$a_key
check "the first reserves" out "$A" --reserve --param-rk=$a_key --prout-type=1
must "the unit is killed" host kill-unit
must "the unit is started" host start-unit
volume reserved
must "the sessions are back" wait_for 180 in_state "$TARGET" LOGGED_IN
check "after the restart it is still reserved" wait_for 60 held_by $a_key 'Write Exclusive'
check "the second's write meets a reservation conflict after the restart" wait_for 60 conflict writes "$B"
check "the first writes after the restart" wait_for 60 writes "$A"
check "the first gives all up" out "$A" --clear --param-rk=$a_key
check "logout of the second" logout reserved second
check "logout of the first" logout reserved
the_end
