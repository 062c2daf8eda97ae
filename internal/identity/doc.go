// Package identity owns who is who in a cluster: the cluster's CA, the certificates
// that it signs for stations, units and hosts, the folder in which a part keeps its
// own certificate, the TLS configurations that hold every link between parts to the
// cluster, operator and join tokens, and the envelopes that keep secrets out of the
// replicated log in clear.
//
// # Names in certificates
//
// A part's certificate carries exactly one URI SAN, sandbar://CLUSTER/ROLE/ID. A peer
// is judged by that and by the chain to the cluster's CA, never by a host name: parts
// move between addresses. DNS names and addresses are in stations' certificates only, for
// curl and browsers, which know no other rule; a unit or host that had them could pose as
// a station towards such a client.
//
// The CA's certificate carries sandbar://CLUSTER. Every server sends it behind its own
// certificate, so that a joining part, which knows no more than the fingerprint in its join
// token, can verify the station that it gives the token to.
//
// # Withdrawal
//
// There are no revocation lists. Whoever accepts a connection passes an Allow, which
// looks the peer up in the cluster's tables; a part that was removed is refused there.
//
// # What it must never do
//
// It decides nothing about rights (controlplane/access does), never talks to the network
// by itself, never logs or prints a secret, and never falls back to a weaker
// check: a configuration without an Allow admits nobody.
package identity
