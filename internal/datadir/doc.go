// Package datadir owns a part's data folder: that one process at a time uses it, and that
// files in it are replaced whole or not at all.
//
// It knows nothing of what the files mean.
package datadir
