// Package lab drives a whole cluster of real processes from outside, with nothing but what
// users have: the built program, its command line, lab.json and signals.
//
// It owns the processes that it started and the lab's folder, and leaves neither behind: not when a
// test fails, nor when the test's own process is killed. It must never reach into the program's
// packages: what it can't do by the command line, a user can't do either.
package lab
