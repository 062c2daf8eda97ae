// Package gossip tells stations and units which of them are there. It is the only importer of serf.
//
// It owns membership hints: who joined, who left, who stopped answering. A hint leads to a probe or to a
// proposal and is never authority: it may be late, wrong on one side of a cut, or made up by anybody who has the
// gossip key. What is true of a unit stands in the replicated tables.
//
// It must never let another cluster's members in (gossip key, the cluster's id as packet label, and the id in
// every member's tags all have to agree), never let a name conflict remove a node, never block serf's event
// channel on a slow reader, and never be used by hosts, which get no gossip key.
//
// A member's name is "role:id", which keeps a unit and a station that bear the same id apart.
package gossip
