package cli

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the transcripts with what happens now")

// TestTranscripts runs the command lines of testdata/*.txt, each file on a cluster of its
// own, and compares what they print and their exit codes. A file is a sequence of
//
//	$ arguments
//	what is printed
//	-> exit code
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			f := newFakeCluster(t)
			f.slow = 2
			endpoints := []string{f.station(t)}
			var got strings.Builder
			for line := range strings.Lines(string(text)) {
				switch line = strings.TrimSuffix(line, "\n"); {
				case strings.HasPrefix(line, "#"):
					fmt.Fprintln(&got, line)
				case strings.HasPrefix(line, "$ "):
					out, code := f.run(t, endpoints, strings.Fields(line[2:])...)
					fmt.Fprintf(&got, "%s\n%s-> %d\n\n", line, out, code)
				}
			}
			if *update {
				if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got.String() != string(text) {
				t.Errorf("%s is not what happens now; see the difference and, if it is meant, go test -update\n%s", file, got.String())
			}
		})
	}
}
