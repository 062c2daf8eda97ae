// Package access says who may do what at a station: principals, actions and the
// fixed matrix between them, and when a token still counts.
//
// It is pure: the caller has authenticated the principal (by certificate or token), has
// looked up the object in the tables, and gives the time. It reads nothing, remembers
// nothing and writes no audit. It denies by default: what the matrix does not name
// is refused, and so is a principal that it does not know.
//
// # Lists and watches
//
// A list or watch is authorized row by row: the handler asks Authorize for ActionRead
// with each row's object and leaves out what is refused. A provisioner so sees its host's
// volumes and nothing of the others.
//
// # Credentials
//
// CHAP secrets are for admins and for whoever acts for the host that they are
// of; an operator assigns volumes without ever seeing them.
package access
