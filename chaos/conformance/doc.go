// Command conformance holds a running unit against libiscsi's iscsi-test-cu.
//
// It starts a lab of real processes, gives a volume to a host with the two initiator names
// that the suite uses, runs each of the suite's tests on its own, and closes with
// "N passed, N failed, N skipped". A test that is skipped must stand in the skips file with its reason;
// one that is listed there and is not skipped, crashes, or does not end in time has failed.
//
// It owns the lab that it started and ends it. It must never count a test as passed that has not
// said so itself.
package main
