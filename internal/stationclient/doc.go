// Package stationclient is how units, hosts, the CLI and stations themselves talk to
// stations: over any of several endpoints, with TLS bound to the cluster's CA, with retries
// that are safe because every mutation carries a request id.
//
// It owns connections and the choice of endpoint. It never interprets what it carries
// and keeps no state of the cluster.
package stationclient
