package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/sandbar-san/sandbar/san"
)

// Format is what -o chooses.
type Format string

// The formats.
const (
	FormatTable Format = "table"
	FormatJSON  Format = "json" // protojson: all fields, 64-bit numbers as strings
	FormatYAML  Format = "yaml" // the same content
)

// ParseFormat reads what -o was given.
func ParseFormat(s string) (Format, error) {
	switch f := Format(s); f {
	case FormatTable, FormatJSON, FormatYAML:
		return f, nil
	}
	return "", san.Errorf(san.KindInvalid, "output format %q is not one of table, json, yaml", s)
}

// Printer writes answers to one place in one format.
type Printer struct {
	w      io.Writer
	format Format
	colour bool
}

// New makes a Printer. Colour is used only on a terminal whose user has nothing against it.
func New(w io.Writer, format Format) *Printer {
	return &Printer{w: w, format: format, colour: isTerminal(w) && wantsColour(os.Getenv)}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// wantsColour follows no-color.org.
func wantsColour(env func(string) string) bool {
	return env("NO_COLOR") == "" && env("TERM") != "dumb"
}

// Format returns the format in use.
func (p *Printer) Format() Format { return p.format }

// Print shows m whole in JSON or YAML, or else what table draws.
func (p *Printer) Print(m proto.Message, table func(*Page)) error {
	if p.format == FormatTable {
		return p.page(table)
	}
	text, err := messageJSON(m)
	if err != nil {
		return err
	}
	return p.writeJSON(text)
}

// Value shows v, which encoding/json can write, like Print.
func (p *Printer) Value(v any, table func(*Page)) error {
	if p.format == FormatTable {
		return p.page(table)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", p.format, err)
	}
	return p.writeJSON(text)
}

// Event shows one of a stream of messages: a line of JSON, a YAML document, or the line that
// text gives.
func (p *Printer) Event(m proto.Message, text func() string) error {
	if p.format == FormatTable {
		return p.write([]byte(Clean(text()) + "\n"))
	}
	raw, err := messageJSON(m)
	if err != nil {
		return err
	}
	if p.format == FormatYAML {
		return p.writeYAML(raw, "---\n")
	}
	var line bytes.Buffer
	if err := json.Compact(&line, raw); err != nil {
		return fmt.Errorf("write json: %w", err)
	}
	line.WriteByte('\n')
	return p.write(line.Bytes())
}

// messageJSON is m in protojson. Its white space varies on purpose; every caller lays it out anew.
func messageJSON(m proto.Message) ([]byte, error) {
	text, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("write %s as json: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return text, nil
}

func (p *Printer) writeJSON(text []byte) error {
	if p.format == FormatYAML {
		return p.writeYAML(text, "")
	}
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "  "); err != nil {
		return fmt.Errorf("write json: %w", err)
	}
	out.WriteByte('\n')
	return p.write(out.Bytes())
}

func (p *Printer) writeYAML(text []byte, before string) error {
	out, err := yaml.JSONToYAML(text)
	if err != nil {
		return fmt.Errorf("write yaml: %w", err)
	}
	return p.write(append([]byte(before), out...))
}

func (p *Printer) page(draw func(*Page)) error {
	page := &Page{colour: p.colour}
	draw(page)
	return p.write(page.out.Bytes())
}

func (p *Printer) write(b []byte) error {
	if _, err := p.w.Write(b); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}
