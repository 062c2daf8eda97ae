#!/bin/bash
# Guest: discovery, CHAP, ext4 with fio's crc32c verify (kernel-login.sh), on a unit's volume.
. /lab/lib.sh
volume login || fail "no volume"
EXPECT_TARGETS=$(wc -l </lab/share/volumes) RUNTIME=${RUNTIME:-10}
. ./kernel-login.sh
