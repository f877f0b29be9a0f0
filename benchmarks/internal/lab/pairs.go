package lab

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Run is one measured run of one side.
type Run struct {
	Rate  float64   // tasks a second
	Costs []float64 // µs of CPU that a task costs each process: the measured one, then the servers
}

// Comparison is of two sides that are measured in turn.
type Comparison struct {
	What   string
	Sides  [2]string // names; the first one's rate over the second's is the ratio
	Costed string    // whose costs there are: "process+redis"
	Tasks  int       // of one run
	Pairs  int
	Out    io.Writer
}

// Pairs are the runs of both sides.
type Pairs struct{ A, B []Run }

// Run runs and prints the interleaved pairs; measure is told the place of a side in c.Sides. The CPU columns hardly
// depend on what else the machine does, and say where the time goes.
func (c Comparison) Run(measure func(side int) (Run, error)) (p Pairs, err error) {
	width := max(15, len(c.Costed))
	fmt.Fprintf(c.Out, "\n%s, %d tasks a run\n%4s %9s %9s %6s   %-*s %-*s %5s\n%4s %9s %9s %6s   %-*s %-*s\n", c.What, c.Tasks,
		"pair", c.Sides[0], c.Sides[1], "ratio", width, "CPU "+c.Sides[0], width, "CPU "+c.Sides[1], "load", "", "tasks/s", "tasks/s",
		"", width, c.Costed, width, "µs a task")
	row := func(a, b Run, ratio float64) string {
		return fmt.Sprintf("%9.0f %9.0f %6.2f   %-*s %-*s", a.Rate, b.Rate, ratio, width, a.costs(), width, b.costs())
	}
	for i := range c.Pairs {
		for side, runs := range []*[]Run{&p.A, &p.B} {
			r, err := measure(side)
			if err != nil {
				return p, fmt.Errorf("%s: %s: %w", c.What, c.Sides[side], err)
			}
			*runs = append(*runs, r)
		}
		fmt.Fprintf(c.Out, "%4d %s %5s\n", i+1, row(p.A[i], p.B[i], p.A[i].Rate/p.B[i].Rate), Load())
	}
	r := p.ratios()
	fmt.Fprintf(c.Out, "%4s %s (ratio from %.2f to %.2f)\n", "med", row(MedianRun(p.A), MedianRun(p.B), p.Median()),
		slices.Min(r), slices.Max(r))
	return p, nil
}

func (r Run) costs() string {
	parts := make([]string, len(r.Costs))
	for i, c := range r.Costs {
		parts[i] = fmt.Sprintf("%5.1f", c)
	}
	return strings.Join(parts, " + ")
}

func (p Pairs) ratios() []float64 {
	r := make([]float64, len(p.A))
	for i := range r {
		r[i] = p.A[i].Rate / p.B[i].Rate
	}
	return r
}

// Median is that of the ratios, not the ratio of the medians: each pair was run under its own weather.
func (p Pairs) Median() float64 { return Median(p.ratios()) }

// MedianRun has the median of each figure.
func MedianRun(runs []Run) Run {
	of := func(f func(Run) float64) float64 {
		numbers := make([]float64, len(runs))
		for i, r := range runs {
			numbers[i] = f(r)
		}
		return Median(numbers)
	}
	m := Run{Rate: of(func(r Run) float64 { return r.Rate }), Costs: make([]float64, len(runs[0].Costs))}
	for i := range m.Costs {
		m.Costs[i] = of(func(r Run) float64 { return r.Costs[i] })
	}
	return m
}

// Median of at least one number.
func Median(numbers []float64) float64 {
	s := slices.Sorted(slices.Values(numbers))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// Percentile of sorted values: the least one that at least p percent do not exceed.
func Percentile(sorted []time.Duration, p int) time.Duration {
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}
