// Package cli owns sandbar's command line: nouns and verbs, flags, what they ask of the
// stations, what is printed, and the exit codes.
//
// It holds no state between commands and decides nothing that a station decides: names, sizes and
// rights are judged there. It must never print a secret that was not asked for.
package cli
