// Package enrol is how a new part trades its join token for a certificate, and what a unit or host knows of its
// place in the cluster from then on.
//
// It owns the exchange with a station that is known only by the CA fingerprint in the
// token, what is kept of the answer, the renewal of the certificate, and the stations' addresses, of which only
// those are kept that a later start can dial. It decides nothing about who may join, and must never need a
// station once the part is enrolled.
package enrol
