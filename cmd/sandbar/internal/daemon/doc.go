// Package daemon owns what the daemons can be told and turns it into the configurations of
// stations, units and hosts.
//
// It starts nothing and keeps nothing. What a setting means is for the daemon to judge; only what
// the settings say together about files and joining is checked here.
package daemon
