package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"pgregory.net/rapid"

	"github.com/sandbar-san/sandbar/san"
)

var testKeys = Keys{Role: "station", List: []Key{
	{Name: "id"},
	{Name: "data", Default: "/var/lib/x"},
	{Name: "api-listen", Default: "0.0.0.0:7420"},
	{Name: "join", Kind: List},
	{Name: "bootstrap-expect", Kind: Number, Default: 3},
	{Name: "medium-size", Kind: Size},
	{Name: "log-level", Default: "info", OneOf: []string{"debug", "info"}},
}}

// load loads the keys from a file's text (none if empty) and flags.
func load(t *testing.T, text string, args ...string) (*Values, error) {
	t.Helper()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	testKeys.AddFlags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	file := ""
	if text != "" {
		file = filepath.Join(t.TempDir(), "s.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Load(testKeys, fs, file, false)
}

func TestEachSourceOverridesTheOneBefore(t *testing.T) {
	const file = "data: /file\nbootstrap-expect: 5\njoin: [a:1, b:2]\nmedium-size: 10GiB\n"
	env := map[string]string{
		"SANDBAR_STATION_DATA": "/env", "SANDBAR_STATION_BOOTSTRAP_EXPECT": "1",
		"SANDBAR_STATION_JOIN": "c:3, d:4,", "SANDBAR_STATION_MEDIUM_SIZE": "4096",
	}
	flags := []string{"--data=/flag", "--bootstrap-expect=7", "--join=e:5", "--join=f:6,g:7", "--medium-size=1MiB"}
	for _, c := range []struct {
		name       string
		file       string
		env        map[string]string
		flags      []string
		data       string
		join       []string
		expect, mb int64
	}{
		{"nothing", "", nil, nil, "/var/lib/x", nil, 3, 0},
		{"file", file, nil, nil, "/file", []string{"a:1", "b:2"}, 5, 10 << 30},
		{"environment over file", file, env, nil, "/env", []string{"c:3", "d:4"}, 1, 4096},
		{"flags over both", file, env, flags, "/flag", []string{"e:5", "f:6", "g:7"}, 7, 1 << 20},
		{"flags over file", file, nil, flags, "/flag", []string{"e:5", "f:6", "g:7"}, 7, 1 << 20},
		{"an empty variable is none", file, map[string]string{"SANDBAR_STATION_DATA": ""}, nil, "/file", []string{"a:1", "b:2"}, 5, 10 << 30},
		{"an empty key is none", "data:\njoin:\n", nil, nil, "/var/lib/x", nil, 3, 0},
		{"one text is a list", "join: a:1\n", nil, nil, "/var/lib/x", []string{"a:1"}, 3, 0},
		{"a size as a number", "medium-size: 1048576\n", nil, nil, "/var/lib/x", nil, 3, 1 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			v, err := load(t, c.file, c.flags...)
			if err != nil {
				t.Fatal(err)
			}
			if v.Text("data") != c.data || !slices.Equal(v.List("join"), c.join) || v.Number("bootstrap-expect") != c.expect || v.Number("medium-size") != c.mb {
				t.Errorf("got data %q, join %q, bootstrap-expect %d, medium-size %d", v.Text("data"), v.List("join"), v.Number("bootstrap-expect"), v.Number("medium-size"))
			}
			if v.Text("id") != "" || v.Text("api-listen") != "0.0.0.0:7420" {
				t.Errorf("what nobody gave is %q and %q", v.Text("id"), v.Text("api-listen"))
			}
		})
	}
}

func TestWhatIsWrongIsNamed(t *testing.T) {
	for _, c := range []struct {
		name  string
		file  string
		env   [2]string
		flags []string
		says  []string
	}{
		{name: "typo", file: "dta: /x\n", says: []string{`unknown key "dta"`, "s.yaml", `did you mean "data"`}},
		{name: "swapped letters", file: "api-litsen: x\n", says: []string{`did you mean "api-listen"`}},
		{name: "underscores", file: "bootstrap_expect: 3\n", says: []string{`unknown key "bootstrap_expect"`, `did you mean "bootstrap-expect"`}},
		{name: "nested", file: "log:\n  level: info\n", says: []string{`unknown key "log.level"`, `did you mean "log-level"`}},
		{name: "like nothing", file: "zzzzzzzzzz: 1\n", says: []string{`unknown key "zzzzzzzzzz"`, "station run --help"}},
		{name: "number for a text", file: "id: 7\n", says: []string{"id (in ", "is 7 where a text is wanted", "in quotes"}},
		{name: "list for a text", file: "id: [a]\n", says: []string{"id (in ", "is a list where a text"}},
		{name: "text for a number", file: "bootstrap-expect: three\n", says: []string{"bootstrap-expect (in ", `is "three" where a whole number`}},
		{name: "quoted number", file: "bootstrap-expect: \"3\"\n", says: []string{"bootstrap-expect", "whole number"}},
		{name: "fraction for a number", file: "bootstrap-expect: 1.5\n", says: []string{"is 1.5 where a whole number"}},
		{name: "numbers in a list", file: "join: [1, 2]\n", says: []string{"join (in ", "list of texts", "in quotes"}},
		{name: "bool for a list", file: "join: true\n", says: []string{"join (in ", "is true where a list", "in quotes"}},
		{name: "bad size", file: "medium-size: 1.5GiB\n", says: []string{"medium-size (in ", "whole number with a unit"}},
		{name: "not one of", file: "log-level: loud\n", says: []string{"log-level (in ", `"loud"`, "debug, info"}},
		{name: "variable", env: [2]string{"SANDBAR_STATION_BOOTSTRAP_EXPECT", "x"}, says: []string{"variable SANDBAR_STATION_BOOTSTRAP_EXPECT", `"x"`}},
		{name: "flag", flags: []string{"--log-level=x"}, says: []string{"flag --log-level", `"x"`}},
		{name: "no YAML", file: "id: [\n", says: []string{"s.yaml", "not valid YAML"}},
		{name: "twice", file: "id: a\nid: b\n", says: []string{"s.yaml", "not valid YAML", "id"}},
		{name: "not a table", file: "- a\n", says: []string{"s.yaml", "not valid YAML"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.env[0] != "" {
				t.Setenv(c.env[0], c.env[1])
			}
			_, err := load(t, c.file, c.flags...)
			if err == nil {
				t.Fatal("no error")
			}
			if san.KindOf(err) != san.KindInvalid {
				t.Errorf("kind is %v", san.KindOf(err))
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("error %q does not say %q", err, s)
				}
			}
		})
	}
}

func TestFileMustBeThereUnlessStandard(t *testing.T) {
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	testKeys.AddFlags(fs)
	missing := filepath.Join(t.TempDir(), "none.yaml")
	if _, err := Load(testKeys, fs, missing, false); san.KindOf(err) != san.KindInvalid || !strings.Contains(err.Error(), missing) {
		t.Errorf("a named file that is missing: %v", err)
	}
	v, err := Load(testKeys, fs, missing, true)
	if err != nil || v.File != "" {
		t.Errorf("the standard file that is missing: %v, %v", v, err)
	}
	big := filepath.Join(t.TempDir(), "big.yaml")
	if err := os.WriteFile(big, []byte("#"+strings.Repeat("x", maxFileBytes)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(testKeys, fs, big, true); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a file over the bound: %v", err)
	}
}

func TestUnknownVariablesAreNoted(t *testing.T) {
	t.Setenv("SANDBAR_STATION_SERVICE_HOST", "10.0.0.1")
	t.Setenv("SANDBAR_STATION_ID", "s1")
	v, err := load(t, "")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"SANDBAR_STATION_SERVICE_HOST"}; !slices.Equal(v.Unknown, want) || v.Text("id") != "s1" {
		t.Errorf("unknown are %v, want %v", v.Unknown, want)
	}
}

func TestMissingNamesEveryWay(t *testing.T) {
	v, err := load(t, "data: /x\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"--id", "SANDBAR_STATION_ID", v.File} {
		if !strings.Contains(v.Missing("id").Error(), s) {
			t.Errorf("%q does not say %q", v.Missing("id"), s)
		}
	}
}

func TestDistanceIsAMetricOfEdits(t *testing.T) {
	word := rapid.StringMatching(`[a-d-]{0,8}`)
	rapid.Check(t, func(t *rapid.T) {
		a, b := word.Draw(t, "a"), word.Draw(t, "b")
		d := distance(a, b)
		if d != distance(b, a) {
			t.Fatal("not symmetric")
		}
		if (d == 0) != (a == b) {
			t.Fatalf("distance %d", d)
		}
		if d < max(len(a), len(b))-min(len(a), len(b)) || d > max(len(a), len(b)) {
			t.Fatalf("distance %d is out of bounds", d)
		}
		if len(a) > 0 && distance(a, a[1:]) != 1 {
			t.Fatal("a lost letter is one edit")
		}
	})
}
