package report

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// Row is one figure. Ratio is at least 1 when ours is better.
type Row struct {
	Name  string  `json:"name"`
	Ours  float64 `json:"ours"`
	Peer  float64 `json:"peer"`
	Unit  string  `json:"unit"`
	Ratio float64 `json:"ratio"`
}

// More makes a row of a figure of which more is better.
func More(name string, ours, peer float64, unit string) Row {
	return Row{Name: name, Ours: ours, Peer: peer, Unit: unit, Ratio: ours / peer}
}

// Less makes a row of a figure of which less is better.
func Less(name string, ours, peer float64, unit string) Row {
	return Row{Name: name, Ours: ours, Peer: peer, Unit: unit, Ratio: peer / ours}
}

// Seconds is d in seconds.
func Seconds(d time.Duration) float64 { return d.Seconds() }

// Quantile returns the q-quantile (0 to 1) of ds, which it sorts.
func Quantile(ds []time.Duration, q float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	slices.Sort(ds)
	return ds[min(len(ds)-1, int(q*float64(len(ds))))]
}

// Write prints rows as a table to out and, with BENCH_JSON=FILE in the environment, as JSON
// to that file.
func Write(out io.Writer, peer string, rows []Row) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "name\tours\t%s\tunit\tratio\t\n", peer)
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%.4g\t%.4g\t%s\t%.2f\t\n", r.Name, r.Ours, r.Peer, r.Unit, r.Ratio)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	file := os.Getenv("BENCH_JSON")
	if file == "" {
		return nil
	}
	b, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}
