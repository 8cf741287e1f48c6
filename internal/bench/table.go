package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// table is the result: a column for each size, a row for each cost.
type table struct {
	columns []string
	rows    []string            // in order of their first cell
	cells   map[string][]string // row to cells, one per column or fewer
}

// column begins the next column.
func (t *table) column(name string) { t.columns = append(t.columns, name) }

// set fills a cell of the last column.
func (t *table) set(row, format string, args ...any) {
	if t.cells == nil {
		t.cells = map[string][]string{}
	}
	if t.cells[row] == nil {
		t.rows = append(t.rows, row)
	}
	for len(t.cells[row]) < len(t.columns)-1 {
		t.cells[row] = append(t.cells[row], "")
	}
	t.cells[row] = append(t.cells[row], fmt.Sprintf(format, args...))
}

// spread fills a cell with the median and the worst of some times.
func (t *table) spread(row string, times []time.Duration) {
	t.set(row, "%s / %s", millis(median(times)), millis(slices.Max(times)))
}

func (t *table) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight|tabwriter.TabIndent)
	width := 0
	for _, row := range t.rows {
		width = max(width, len([]rune(row)))
	}
	line := func(name string, cells []string) {
		fmt.Fprintf(tw, "%-*s\t%s\t\n", width, name, strings.Join(cells, "\t"))
	}
	line("", t.columns)
	for _, row := range t.rows {
		line(row, t.cells[row])
	}
	return tw.Flush()
}

// median returns the middle one of some durations, which it leaves as they are.
func median(times []time.Duration) time.Duration { return quantile(times, 0.5) }

// quantile returns the smallest of the durations that is not less than the fraction q of them.
func quantile(times []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond)) }

// mib returns bytes in MiB.
func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }
