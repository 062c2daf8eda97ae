// Package agents serves the streams that unit and host agents hold to a station.
//
// A Hub, on every station, owns the streams: it sends each agent its desired state out of the station's
// own replica of the tables, by watch, and passes what the agent reports on to the leader. Heartbeats stay in
// its memory. An Intake, on the leader, turns reports into commands, many to one log entry.
//
// An Asker puts questions to units, on whichever station's stream, for what is in their memory alone.
//
// Nothing is ordered here that is not committed, and nothing is judged: the state machine
// decides what a report changes.
package agents
