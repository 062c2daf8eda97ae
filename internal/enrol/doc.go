// Package enrol is how a new part trades its join token for a certificate.
//
// It owns the exchange with a station that is known only by the CA fingerprint in the
// token, and what is kept of the answer. It decides nothing about who may join.
package enrol
