package fsmtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Transcripts runs every testdata/*.txt of the calling package as a test of its own, each in a new environment;
// with rewrite it writes down what happened instead of comparing.
//
// A transcript is blocks divided by empty lines: lines to run, a line "----", what they answered. Lines that
// begin with # are for the reader.
func Transcripts(t *testing.T, rewrite bool) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts in testdata (%v)", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			before, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			after := New().Transcript(string(before))
			if after == string(before) {
				return
			}
			if !rewrite {
				t.Fatalf("%s differs (-rewrite writes it down); got:\n%s", f, after)
			}
			if err := os.WriteFile(f, []byte(after), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Transcript runs a transcript's lines and returns it with the answers that they give now.
func (e *Env) Transcript(text string) string {
	var blocks []string
	for _, block := range strings.Split(strings.TrimSpace(text), "\n\n") {
		blocks = append(blocks, e.block(strings.Split(strings.Trim(block, "\n"), "\n")))
	}
	return strings.Join(blocks, "\n\n") + "\n"
}

func (e *Env) block(lines []string) string {
	var out, answers []string
	for _, l := range lines {
		if l == "----" {
			break
		}
		out = append(out, l)
		if !strings.HasPrefix(l, "#") {
			answers = append(answers, e.Run(l)...)
		}
	}
	if answers != nil {
		out = append(append(out, "----"), answers...)
	}
	return strings.Join(out, "\n")
}

// line is one parsed line of a script: words, and name=value options. A value may be quoted to hold spaces.
type line struct {
	words []string
	opts  map[string]string
}

func parse(s string) line {
	l := line{opts: map[string]string{}}
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimLeft(s, " ") {
		var word string
		quoted := false
		if i := strings.IndexAny(s, " \""); i >= 0 && s[i] == '"' {
			if j := strings.IndexByte(s[i+1:], '"'); j >= 0 {
				word, s, quoted = s[:i]+s[i+1:i+1+j], s[i+j+2:], true
			} else {
				word, s = s, ""
			}
		} else {
			word, s, _ = strings.Cut(s, " ")
		}
		if k, v, ok := strings.Cut(word, "="); ok {
			l.opts[k] = v
		} else if word != "" || quoted {
			l.words = append(l.words, word)
		}
	}
	return l
}

// word returns the i-th word, "" if there are fewer.
func (l line) word(i int) string {
	if i < len(l.words) {
		return l.words[i]
	}
	return ""
}

func (l line) opt(name, otherwise string) string {
	if v, ok := l.opts[name]; ok {
		return v
	}
	return otherwise
}

func (l line) number(name string, otherwise uint64) uint64 {
	var n uint64
	if _, err := fmt.Sscan(l.opt(name, ""), &n); err != nil {
		return otherwise
	}
	return n
}

func (l line) list(name string) []string {
	if v := l.opt(name, ""); v != "" {
		return strings.Split(v, ",")
	}
	return nil
}
