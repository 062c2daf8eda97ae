// Command kernel lets the Linux kernel's initiator, in the VM of the folder above, use volumes of a lab.
//
// It builds the VM, starts a lab of real processes, gives volumes to a host with the guest's two initiator
// names, and runs the guest's scripts, each in a fresh guest. What a script checks it says in lines "ok: …" and
// "FAIL: …"; the command closes with "N passed, N failed". Through a folder that both sides see a guest asks
// for what only the machine outside can do: grow a volume, look at a medium, kill a unit.
//
// It owns the lab that it started and ends it. It must never count a script as passed that did not come to
// its end, and does for a guest only what desk.go lists.
package main
