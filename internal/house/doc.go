// Package house holds the rules of the source tree itself as tests: which
// package may import which, what every file must have and must not contain.
// docs/architecture.md tells the rules in words; a rule is changed there and
// here in one commit.
//
// It owns no product code: nothing imports it, and it must stay that way. It
// reads sources with go/parser alone, so that it needs neither a build of the
// tree nor a tool that has to be installed first.
package house
