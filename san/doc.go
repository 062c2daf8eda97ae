// Package san is Sandbar's vocabulary: the identifiers, value types, states and
// error kinds that every other package speaks.
//
// It owns names and the rules that a single value must obey on its own (a name's
// letters, a size's alignment). It never does I/O, never looks at a clock, and
// imports nothing but the standard library, so that everything may import it.
package san
