package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/sandbar-san/sandbar/san"
)

// maxFileBytes bounds a configuration file.
const maxFileBytes = 1 << 20

// Values are a daemon's settings, all checked to be of their key's kind.
type Values struct {
	// File is the file that was read, "" if none.
	File string
	// Unknown are variables with the role's prefix that no key has. They are no error, since others
	// may make them (an orchestrator that names a service after us does), but worth a warning.
	Unknown []string

	keys  Keys
	texts map[string]string
	lists map[string][]string
	nums  map[string]int64
}

// Text returns the value of a Text key, "" if it has none.
func (v *Values) Text(key string) string { return v.texts[key] }

// List returns the value of a List key.
func (v *Values) List(key string) []string { return slices.Clone(v.lists[key]) }

// Number returns the value of a Number key, or a Size key's in bytes; 0 if it has none.
func (v *Values) Number(key string) int64 { return v.nums[key] }

// Missing is the error of a key that must have a value and has none.
func (v *Values) Missing(key string) error {
	return san.Errorf(san.KindInvalid, "%s is not set; give it as --%s, as %s or in %s", key, key, v.keys.Env(key), v.fileName())
}

func (v *Values) fileName() string {
	if v.File != "" {
		return v.File
	}
	return v.keys.StandardFile()
}

// Load finds the values of keys. flags are those of Keys.AddFlags, parsed; file is the file to read. With
// standard set, file is only read if it exists.
func Load(keys Keys, flags *pflag.FlagSet, file string, standard bool) (*Values, error) {
	l := loader{keys: keys, flags: flags, viper: viper.New(), out: &Values{
		keys: keys, texts: map[string]string{}, lists: map[string][]string{}, nums: map[string]int64{},
	}}
	if err := l.readFile(file, standard); err != nil {
		return nil, err
	}
	for _, key := range keys.List {
		if err := l.bind(key); err != nil {
			return nil, err
		}
		if err := l.take(key); err != nil {
			return nil, err
		}
	}
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, keys.EnvPrefix()) && !slices.ContainsFunc(keys.List, func(k Key) bool { return keys.Env(k.Name) == name }) {
			l.out.Unknown = append(l.out.Unknown, name)
		}
	}
	slices.Sort(l.out.Unknown)
	return l.out, nil
}

type loader struct {
	keys  Keys
	flags *pflag.FlagSet
	viper *viper.Viper
	out   *Values
}

func (l *loader) readFile(file string, standard bool) error {
	if file == "" {
		return nil
	}
	text, err := readBounded(file)
	if standard && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return san.Errorf(san.KindInvalid, "configuration file %s: %w", file, cause(err))
	}
	l.viper.SetConfigType("yaml")
	if err := l.viper.ReadConfig(bytes.NewReader(text)); err != nil {
		return san.Errorf(san.KindInvalid, "configuration file %s is not valid YAML: %s", file, strings.TrimPrefix(err.Error(), "While parsing config: "))
	}
	l.out.File = file
	for _, name := range slices.Sorted(slices.Values(l.viper.AllKeys())) {
		if _, ok := l.keys.find(name); ok {
			continue
		}
		if near := l.keys.nearest(name); near != "" {
			return san.Errorf(san.KindInvalid, "unknown key %q in %s; did you mean %q?", name, file, near)
		}
		return san.Errorf(san.KindInvalid, "unknown key %q in %s; 'sandbar %s run --help' lists those that there are", name, file, l.keys.Role)
	}
	return nil
}

// cause leaves out the operation and the path, which the message around it has.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

func readBounded(file string) ([]byte, error) {
	f, err := os.Open(filepath.Clean(file))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err == nil && len(text) > maxFileBytes {
		err = fmt.Errorf("it has more than %d bytes", maxFileBytes)
	}
	return text, err
}

func (l *loader) bind(key Key) error {
	if key.Default != nil {
		l.viper.SetDefault(key.Name, key.Default)
	}
	if err := l.viper.BindEnv(key.Name, l.keys.Env(key.Name)); err != nil {
		return fmt.Errorf("bind %s: %w", key.Name, err)
	}
	if err := l.viper.BindPFlag(key.Name, l.flags.Lookup(key.Name)); err != nil {
		return fmt.Errorf("bind --%s: %w", key.Name, err)
	}
	return nil
}

// take checks key's value and keeps it.
func (l *loader) take(key Key) error {
	raw := l.viper.Get(key.Name)
	if raw == nil {
		return nil
	}
	var ok bool
	switch key.Kind {
	case Text:
		l.out.texts[key.Name], ok = raw.(string)
	case List:
		l.out.lists[key.Name], ok = asList(raw)
	case Number:
		l.out.nums[key.Name], ok = l.asNumber(key, raw)
	case Size:
		var err error
		if l.out.nums[key.Name], ok, err = asSize(raw); err != nil {
			return san.Errorf(san.KindInvalid, "%s (%s): %w", key.Name, l.source(key), err)
		}
	}
	if !ok {
		return san.Errorf(san.KindInvalid, "%s (%s) is %s where %s is wanted%s", key.Name, l.source(key), describe(raw), kindWants[key.Kind], hint(key, raw))
	}
	if s := l.out.texts[key.Name]; len(key.OneOf) > 0 && !slices.Contains(key.OneOf, s) {
		return san.Errorf(san.KindInvalid, "%s (%s) is %q; use one of %s", key.Name, l.source(key), s, strings.Join(key.OneOf, ", "))
	}
	return nil
}

// source says where key's value stands.
func (l *loader) source(key Key) string {
	switch {
	case l.flags.Changed(key.Name):
		return "flag --" + key.Name
	case os.Getenv(l.keys.Env(key.Name)) != "":
		return "variable " + l.keys.Env(key.Name)
	case l.viper.InConfig(key.Name):
		return "in " + l.out.File
	}
	return "default"
}

func asList(raw any) ([]string, bool) {
	switch v := raw.(type) {
	case []string:
		return trim(v), true
	case string: // a variable, or a single entry in the file
		return trim(strings.Split(v, ",")), true
	case []any:
		var list []string
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil, false
			}
			list = append(list, s)
		}
		return trim(list), true
	}
	return nil, false
}

func trim(in []string) []string {
	var out []string
	for _, s := range in {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// asNumber takes a text for a number only where there are nothing but texts.
func (l *loader) asNumber(key Key, raw any) (int64, bool) {
	switch v := raw.(type) {
	case int:
		return int64(v), true
	case string:
		n, err := strconv.Atoi(strings.TrimSpace(v))
		return int64(n), err == nil && !strings.HasPrefix(l.source(key), "in ")
	}
	return 0, false
}

func asSize(raw any) (n int64, ok bool, err error) {
	switch v := raw.(type) {
	case int:
		return int64(v), true, nil
	case string:
		if v == "" {
			return 0, true, nil
		}
		n, err = san.ParseSize(v)
		return n, err == nil, err
	}
	return 0, false, nil
}

func describe(raw any) string {
	switch v := raw.(type) {
	case string:
		return strconv.Quote(v)
	case []any, []string:
		return "a list"
	case map[string]any:
		return "a table"
	case bool, int, int64, uint64, float64:
		return fmt.Sprint(v)
	}
	return fmt.Sprintf("a value of another kind (%v)", raw)
}

// hint helps with what YAML makes of an unquoted word.
func hint(key Key, raw any) string {
	switch raw.(type) {
	case []any:
		if key.Kind == List {
			return "; write each entry in quotes"
		}
	case string, []string, map[string]any:
	default:
		if key.Kind == Text || key.Kind == List {
			return "; write it in quotes"
		}
	}
	return ""
}
