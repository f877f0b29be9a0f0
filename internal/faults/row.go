package faults

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// Row is what came of one fault: a line of the table in docs/guarantees.md.
type Row struct {
	Fault  string // "F21"
	What   string // what was done, and to which broker
	Faults int    // how often

	Account
	Parked int // set aside, with bytes and reason
	Bound  int // on extra runs

	Recovery time.Duration // from the fault's end until work went on, the longest; 0: not measured
	Limit    time.Duration // within which it must; 0: none
}

// reportVariable names the file that rows are appended to as lines of a Markdown table.
const reportVariable = "GELERY_FAULTS_REPORT"

func (r Row) String() string {
	return fmt.Sprintf("%s %s: sent %d, done %d, parked %d, lost %d, ghosts %d, extra %d of at most %d, faults %d, recovery %s",
		r.Fault, r.What, r.Accepted, r.Done, r.Parked, r.Lost, r.Ghosts, r.Extra, r.Bound, r.Faults, r.recovery())
}

func (r Row) recovery() string {
	switch {
	case r.Limit == 0:
		return "-"
	case r.Recovery < time.Millisecond:
		return fmt.Sprintf("at once (%v)", r.Limit)
	}
	return fmt.Sprintf("%v (%v)", r.Recovery.Round(10*time.Millisecond), r.Limit)
}

// Report writes the row to standard error and, if GELERY_FAULTS_REPORT names one, to a file.
func (r Row) Report() error {
	fmt.Fprintln(os.Stderr, r)
	name := os.Getenv(reportVariable)
	if name == "" {
		return nil
	}
	extra := fmt.Sprint(r.Extra)
	if r.Bound > 0 {
		extra = fmt.Sprintf("%d (%d)", r.Extra, r.Bound)
	}
	cells := []any{r.Fault, r.What, r.Faults, r.Accepted, r.Done, r.Parked, r.Lost, extra, r.recovery()}
	line := strings.Repeat("| %v ", len(cells)) + "|"
	return Ledger{name}.Append(fmt.Sprintf(line, cells...))
}
