package output

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// Page is what one command shows a person.
type Page struct {
	out    bytes.Buffer
	colour bool
}

// State is a cell that says how something fares; it is coloured by what it says.
type State string

// Line adds a line of text.
func (p *Page) Line(format string, args ...any) {
	p.out.WriteString(Clean(fmt.Sprintf(format, args...)))
	p.out.WriteByte('\n')
}

// Fields adds names and values, a line each: name, value, name, value …
func (p *Page) Fields(pairs ...any) {
	width := 0
	for i := 0; i < len(pairs); i += 2 {
		width = max(width, len(p.cell(pairs[i])))
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		name := p.cell(pairs[i]) + ":"
		p.out.WriteString(strings.TrimRight(fmt.Sprintf("%-*s  %s", width+1, name, p.cell(pairs[i+1])), " "))
		p.out.WriteByte('\n')
	}
}

// Table adds a table; with a title, after an empty line.
func (p *Page) Table(title string, header []string, rows [][]any) {
	if title != "" {
		p.out.WriteString("\n" + Clean(title) + "\n")
	}
	w := table.NewWriter()
	w.SetStyle(p.style())
	head := make(table.Row, len(header))
	for i, h := range header {
		head[i] = h
	}
	w.AppendHeader(head)
	for _, r := range rows {
		row := make(table.Row, len(r))
		for i, c := range r {
			row[i] = p.cell(c)
		}
		w.AppendRow(row)
	}
	for _, line := range strings.Split(w.Render(), "\n") {
		p.out.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

// style is plain columns, so that lines can be cut by simple tools.
func (p *Page) style() table.Style {
	s := table.StyleDefault
	s.Box.PaddingLeft, s.Box.PaddingRight = "", "  "
	s.Options = table.OptionsNoBordersAndSeparators
	s.Format.Header = text.FormatUpper
	if p.colour {
		s.Color.Header = text.Colors{text.Bold}
	}
	return s
}

// cell renders a value; an empty one as a dash, so that columns can be counted.
func (p *Page) cell(v any) string {
	s := Clean(fmt.Sprint(v))
	if s == "" {
		return "-"
	}
	if _, ok := v.(State); ok && p.colour {
		return colourOf(s).Sprint(s)
	}
	return s
}

func colourOf(state string) text.Colors {
	switch state {
	case "Online", "Ready", "Assigned", "InSync", "alive", "Voter":
		return text.Colors{text.FgGreen}
	case "Unreachable", "Unavailable", "Offline", "Missing", "failed":
		return text.Colors{text.FgRed}
	}
	return text.Colors{text.FgYellow}
}

// Clean makes s one line without control characters: names, paths and errors come from
// other machines.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r == unicode.ReplacementChar || !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, s)
}
