// Package agentlink is the agents' side of their stream to the stations, for units and hosts
// alike.
//
// It owns the choice of station, the redialling, the heartbeats, the putting together of a full
// state that comes in parts, and the order of what is sent. At any time there is one stream to one
// station. What was reported on a stream that broke may be lost: every stream begins
// with a full desired state, and the agent reports all that it has done after each of those.
//
// It never judges a desired state, keeps nothing on disk, and decides nothing about storage.
package agentlink
