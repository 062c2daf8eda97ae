// Package lab runs a whole cluster as separate processes on one machine, for the demo, for
// drills and for tests: stations, units and hosts on loopback, in one folder.
//
// It owns the processes and the folder, and writes lab.json, by which others find them. It uses
// the program itself, as users do, and reaches into nothing.
package lab
