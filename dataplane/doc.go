// Package dataplane is the unit: the storage node that keeps volumes on its media and serves
// them to hosts over iSCSI.
//
// Run wires what is below it: the data folder and identity, media (disk, extent), replicas
// (volume), the block service (scsi, iscsi), the agent that carries out what the stations
// have committed, the answer to probes, and the membership in the gossip. The package itself owns the
// unit's start and end, its incarnation, which media are its own, and the gate, which tells the
// block service who may reach what. It keeps the control path apart from that: a part of it that fails is an
// alarm in the log and is started again, and hosts don't notice.
//
// It must never serve a medium of another unit or cluster, let anybody in whom the agent
// did not show it, tell anybody of a start that is not on disk, or need a station to serve what it served before.
package dataplane
