// Package secrets makes and opens the envelopes in which the state machine keeps CHAP secrets
// and the CA's key.
//
// It owns what an envelope is bound to. It never logs a secret and never stores one in clear.
package secrets
