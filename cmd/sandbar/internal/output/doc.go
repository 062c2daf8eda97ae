// Package output owns how answers are shown: as tables for people, as JSON and YAML for
// programs.
//
// It knows shapes and not meanings: what a column holds is its caller's choice. It must never
// let what a station sent reach a terminal as control characters.
package output
