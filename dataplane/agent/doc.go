// Package agent carries out what the stations have committed for this unit: which replicas it
// holds and who may reach them.
//
// It is the one place of a unit where stamps are judged. Of every object it remembers the
// highest stamp that it was told, and refuses lower ones; of the stations as a whole it
// remembers the highest state that one of them has shown it (the floor), and has nothing to
// do with a station that is behind that. It owns the access records: one per volume, on disk
// before it is in force, so that a restarted unit lets in whom it let in before, and
// nobody whose assignment was taken away, with no station there to ask.
//
// What is told and what is done are apart: Apply only takes note, plan works out, without
// side effects, what has to happen to one volume, and workers do it, volumes in parallel,
// the steps of one volume in order. Whatever fails is reported and tried again.
//
// It must never delete data because a state does not mention it, let anybody in by terms
// that are not on disk, or report a release while a command of it may still take effect. It
// knows neither the wire of iSCSI nor where stations are.
package agent
