// Package config owns how a daemon's settings are found: defaults, a YAML file, the
// environment and flags, each overriding the one before, and what is wrong with them.
//
// It knows keys and their kinds, not what they mean to a station, unit or host. It must never
// guess: a key that it does not know and a value of the wrong kind are errors that
// say where they stand.
package config
