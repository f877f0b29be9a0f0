package main

import (
	"fmt"
	"slices"
)

// run is one measured run of one system.
type run struct {
	rate        float64 // tasks a second
	processCost float64 // µs of CPU a task costs the measured process
	redisCost   float64 // and Redis
}

// pairs are the runs of both systems, made in turn.
type pairs struct{ gelery, asynq []run }

// pairsOf runs and prints the interleaved pairs of one measurement. The CPU columns hardly depend on what else the
// machine does, and say where the time goes: what the measured process and what Redis spends on a task.
func (b *bench) pairsOf(what string, measure func(system) (run, error)) (p pairs, err error) {
	fmt.Printf("\n%s, %d tasks a run\n%4s %9s %9s %6s   %-15s %-15s %5s\n%4s %9s %9s %6s   %-15s %-15s\n", what, b.tasks,
		"pair", "gelery", "asynq", "ratio", "CPU gelery", "CPU asynq", "load", "", "tasks/s", "tasks/s", "",
		"process+redis", "µs a task")
	for i := range b.pairs {
		for _, s := range []struct {
			system
			runs *[]run
		}{{geleryKeys, &p.gelery}, {asynqKeys, &p.asynq}} {
			r, err := measure(s.system)
			if err != nil {
				return p, fmt.Errorf("%s: %w", what, err)
			}
			*s.runs = append(*s.runs, r)
		}
		fmt.Printf("%4d %s %5s\n", i+1, row(p.gelery[i], p.asynq[i], p.gelery[i].rate/p.asynq[i].rate), load())
	}
	r := p.ratios()
	fmt.Printf("%4s %s (ratio from %.2f to %.2f)\n", "med", row(medianRun(p.gelery), medianRun(p.asynq), p.median()),
		slices.Min(r), slices.Max(r))
	return p, nil
}

func row(gelery, asynq run, ratio float64) string {
	cost := func(r run) string { return fmt.Sprintf("%5.1f + %-5.1f", r.processCost, r.redisCost) }
	return fmt.Sprintf("%9.0f %9.0f %6.2f   %-15s %-15s", gelery.rate, asynq.rate, ratio, cost(gelery), cost(asynq))
}

func (p pairs) ratios() []float64 {
	r := make([]float64, len(p.gelery))
	for i := range r {
		r[i] = p.gelery[i].rate / p.asynq[i].rate
	}
	return r
}

// median is that of the ratios, not the ratio of the medians: each pair was run under its own weather.
func (p pairs) median() float64 { return median(p.ratios()) }

func medianRun(runs []run) run {
	of := func(f func(run) float64) float64 {
		numbers := make([]float64, len(runs))
		for i, r := range runs {
			numbers[i] = f(r)
		}
		return median(numbers)
	}
	return run{of(func(r run) float64 { return r.rate }), of(func(r run) float64 { return r.processCost }),
		of(func(r run) float64 { return r.redisCost })}
}

// median of at least one number.
func median(numbers []float64) float64 {
	s := slices.Sorted(slices.Values(numbers))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}
