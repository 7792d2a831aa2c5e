package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	align "github.com/jedib0t/go-pretty/v6/text"
)

// benchOutput is what bench prints with -json. Its shape is documented in the
// help of the command, and does not change within a version.
type benchOutput struct {
	Version    int              `json:"version"`
	Bench      string           `json:"bench"`
	Dir        string           `json:"dir"`
	Filesystem string           `json:"filesystem"`
	Go         string           `json:"go"`
	Platform   string           `json:"platform"`
	CPUs       int              `json:"cpus"`
	Rounds     int              `json:"rounds"`
	RowSeconds float64          `json:"row_seconds"`
	Started    time.Time        `json:"started"`
	Seconds    float64          `json:"seconds"`
	Rows       []benchRowOutput `json:"rows"`
}

type benchRowOutput struct {
	Name    string            `json:"name"`
	Figures map[string]spread `json:"figures"`
}

// spread is a figure over all rounds.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func spreadOf(values []float64) spread {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return spread{Median: (v[(n-1)/2] + v[n/2]) / 2, Min: v[0], Max: v[n-1]}
}

// spreads brings the rounds of a row together. A ratio's median is that of the
// rounds' ratios, each of which was measured side by side.
func (r *benchRow) spreads() map[string]spread {
	values := map[string][]float64{}
	for _, f := range r.rounds {
		for name, v := range f {
			values[name] = append(values[name], v)
		}
	}
	all := map[string]spread{}
	for name, v := range values {
		all[name] = spreadOf(v)
	}
	return all
}

// finish ends a run.
func (b *bench) finish(dir, filesystem string) error {
	took, o := time.Since(b.began), b.options
	if !o.json {
		_, err := fmt.Fprintf(b.app.out, "limit: see 'ballast help bench log'; medians of %s of %v; %s, %s, on %s; %s in all\n", plural(o.rounds, "round"), o.slice(),
			runtime.Version(), plural(runtime.NumCPU(), "CPU"), filesystem, timeText(took))
		return err
	}
	out := benchOutput{Version: 1, Bench: "log", Dir: dir, Filesystem: filesystem, Go: runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU(), Rounds: o.rounds, RowSeconds: o.time.Seconds(),
		Started: b.began.UTC(), Seconds: took.Seconds(), Rows: []benchRowOutput{}}
	for _, s := range b.sections {
		for _, r := range s.rows {
			out.Rows = append(out.Rows, benchRowOutput{r.name, r.spreads()})
		}
	}
	return json.NewEncoder(b.app.out).Encode(out)
}

// print shows the medians as a table.
func (s *benchSection) print(out io.Writer) {
	titles, right := []any{s.title}, []table.ColumnConfig{}
	for i, c := range s.columns {
		titles = append(titles, c.title)
		right = append(right, table.ColumnConfig{Number: i + 2, Align: align.AlignRight, AlignHeader: align.AlignRight})
	}
	t := newTable(out, titles...)
	t.w.SetColumnConfigs(right)
	for _, r := range s.rows {
		cells, all := []any{r.title}, r.spreads()
		for _, c := range s.columns {
			if f, ok := all[c.figure]; ok {
				cells = append(cells, c.format(f.Median))
			} else {
				cells = append(cells, "")
			}
		}
		t.row(cells...)
	}
	t.render()
}

// How figures are written.

func countFigure(v float64) string { return countText(int64(math.Round(v))) }
func tenths(v float64) string      { return fmt.Sprintf("%.1f", v) }
func hundredths(v float64) string  { return fmt.Sprintf("%.2f", v) }
func percent(v float64) string     { return fmt.Sprintf("%.1f %%", 100*v) }

// micro is a number of microseconds with three digits or so.
func micro(v float64) string {
	if v < 100 {
		return fmt.Sprintf("%.1f", v)
	}
	return countFigure(v)
}
