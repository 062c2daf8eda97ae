package config

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Kind is what a key's value looks like.
type Kind uint8

// The kinds of values.
const (
	// Text is one string.
	Text Kind = iota
	// List is a list of strings; in the environment and in flags separated by commas.
	List
	// Number is a whole number.
	Number
	// Size is a number of bytes, as a whole number or like 10GiB.
	Size
)

var kindWants = [...]string{"a text", "a list of texts", "a whole number", "a size like 10GiB"}

// Key is one setting of a daemon.
type Key struct {
	Name string // as in the file; the flag is --Name
	Kind Kind
	// Default is the value when nobody gives one: a string, []string or int; nil for none.
	Default any
	// OneOf are the values allowed; empty for any.
	OneOf []string
	Help  string
}

// Keys is all that a daemon can be told.
type Keys struct {
	Role string // station, unit or host
	List []Key
}

// StandardFile is the file that is read when none is named and this one exists.
func (k Keys) StandardFile() string { return "/etc/sandbar/" + k.Role + ".yaml" }

// EnvPrefix begins the name of every variable of the role.
func (k Keys) EnvPrefix() string { return "SANDBAR_" + strings.ToUpper(k.Role) + "_" }

// Env is the name of key's variable.
func (k Keys) Env(key string) string {
	return k.EnvPrefix() + strings.ToUpper(strings.ReplaceAll(key, "-", "_"))
}

// AddFlags declares a flag for each key.
func (k Keys) AddFlags(fs *pflag.FlagSet) {
	for _, key := range k.List {
		help := key.Help
		if len(key.OneOf) > 0 {
			help += " (" + strings.Join(key.OneOf, ", ") + ")"
		}
		// Defaults belong to viper, below the file; the flag shows them only.
		switch d := key.Default.(type) {
		case []string:
			fs.StringSlice(key.Name, d, help)
		case string:
			fs.String(key.Name, d, help)
		case int:
			fs.Int(key.Name, d, help)
		default:
			if key.Kind == List {
				fs.StringSlice(key.Name, nil, help)
				continue
			}
			fs.String(key.Name, "", help)
		}
	}
}

func (k Keys) find(name string) (Key, bool) {
	i := slices.IndexFunc(k.List, func(key Key) bool { return key.Name == name })
	if i < 0 {
		return Key{}, false
	}
	return k.List[i], true
}

// nearest returns the known key that name was most likely meant to be, "" if none is like it.
func (k Keys) nearest(name string) string {
	// Words may come in another style, and a forgotten part leaves the rest as it is.
	norm := strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name))
	best, bestDistance := "", 1+len(norm)/2
	for _, key := range k.List {
		if d := distance(norm, key.Name); d < bestDistance {
			best, bestDistance = key.Name, d
		}
	}
	return best
}

// distance is how many letters must be added, taken away, changed or swapped with their neighbour to
// make a from b.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
