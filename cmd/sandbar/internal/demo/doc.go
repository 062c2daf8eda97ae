// Package demo tells Sandbar's story on one machine, with a real cluster of separate
// processes: the pool builds itself, a host asks for storage and uses it directly, the leading
// station is killed while it does, a unit goes away and comes back.
//
// Every line it prints it has seen happen; what does not happen ends it with an error.
package demo
