package output

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/san"
)

func TestParseFormat(t *testing.T) {
	for _, s := range []string{"table", "json", "yaml"} {
		if f, err := ParseFormat(s); err != nil || string(f) != s {
			t.Errorf("%s: %v, %v", s, f, err)
		}
	}
	if _, err := ParseFormat("xml"); san.KindOf(err) != san.KindInvalid {
		t.Errorf("xml: %v", err)
	}
}

func TestJSONHasAllFieldsAndSixtyFourBitsAsStrings(t *testing.T) {
	vol := &pb.Volume{Name: "v", SizeBytes: 1 << 40, BlockSizeBytes: 512}
	for _, format := range []Format{FormatJSON, FormatYAML} {
		var out bytes.Buffer
		if err := New(&out, format).Print(vol, nil); err != nil {
			t.Fatal(err)
		}
		text := out.Bytes()
		if format == FormatYAML {
			var err error
			if text, err = yaml.YAMLToJSON(text); err != nil {
				t.Fatal(err)
			}
		}
		var got map[string]any
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if got["sizeBytes"] != "1099511627776" || got["blockSizeBytes"] != 512.0 || got["ownerHostId"] != "" {
			t.Errorf("%s: %v", format, got)
		}
		if copies, ok := got["copies"].([]any); !ok || len(copies) != 0 {
			t.Errorf("%s: an empty list is %v", format, got["copies"])
		}
	}
}

func TestJSONIsLaidOutTheSameEachTime(t *testing.T) {
	var out bytes.Buffer
	if err := New(&out, FormatJSON).Print(&pb.Slice{MediumId: "m", Extents: 2}, nil); err != nil {
		t.Fatal(err)
	}
	if want := "{\n  \"mediumId\": \"m\",\n  \"extents\": 2\n}\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestEventsAreOneDocumentEach(t *testing.T) {
	for format, want := range map[Format]string{
		FormatJSON: "{\"mediumId\":\"m\",\"extents\":2}\n{\"mediumId\":\"m\",\"extents\":2}\n",
		FormatYAML: "---\nextents: 2\nmediumId: m\n---\nextents: 2\nmediumId: m\n", FormatTable: "a b\na b\n",
	} {
		var out bytes.Buffer
		p := New(&out, format)
		for range 2 {
			if err := p.Event(&pb.Slice{MediumId: "m", Extents: 2}, func() string { return "a\nb" }); err != nil {
				t.Fatal(err)
			}
		}
		if out.String() != want {
			t.Errorf("%s: got %q, want %q", format, out.String(), want)
		}
	}
}

func TestPageIsPlainColumns(t *testing.T) {
	var out bytes.Buffer
	err := New(&out, FormatTable).Print(nil, func(p *Page) {
		p.Fields("Name", "v1", "State", State("Ready"), "Owner", "")
		p.Table("Copies", []string{"Unit", "Error"}, [][]any{{"u1", ""}, {"unit-22", "disk\x1b[31m full\n"}})
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "Name:   v1\nState:  Ready\nOwner:  -\n\nCopies\nUNIT     ERROR\nu1       -\nunit-22  disk?[31m full\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestColourIsForTerminalsThatWantIt(t *testing.T) {
	for _, c := range []struct {
		name string
		env  map[string]string
		want bool
	}{
		{"plain", nil, true},
		{"NO_COLOR", map[string]string{"NO_COLOR": "1"}, false},
		{"dumb", map[string]string{"TERM": "dumb"}, false},
	} {
		if got := wantsColour(func(k string) string { return c.env[k] }); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	f, err := os.Create(t.TempDir() + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if New(f, FormatTable).colour || New(&bytes.Buffer{}, FormatTable).colour {
		t.Error("a file is no terminal")
	}
}

func TestNothingSentReachesATerminalAsControl(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := string(rapid.SliceOf(rapid.Byte()).Draw(t, "s"))
		for _, r := range Clean(s) {
			if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\u202e' {
				t.Fatalf("%q became %q", s, Clean(s))
			}
		}
		if strings.ContainsRune(Clean("a\u202eb"), '\u202e') {
			t.Fatal("text that turns around")
		}
	})
}
