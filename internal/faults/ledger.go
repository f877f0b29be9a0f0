// Package faults kills, starves and poisons real workers on real brokers and accounts for every task: what was
// accepted, what ran and how often, what was set aside. It holds tests and what they share; no product code.
package faults

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
)

// Ledger is a file outside the system under test to which workers append one line a run, in one write, so that a line
// is there or not there whatever kills the writer.
type Ledger struct{ Path string }

// Append writes a line. It is called from inside tasks.
func (l Ledger) Append(fields ...string) error {
	f, err := os.OpenFile(l.Path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strings.Join(fields, " ") + "\n")
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// Counts reads how often each first field stands in the ledger.
func (l Ledger) Counts(t testing.TB) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for _, line := range l.lines(t) {
		id, _, _ := strings.Cut(line, " ")
		counts[id]++
	}
	return counts
}

// lines reads the whole ledger.
func (l Ledger) lines(t testing.TB) (all []string) {
	t.Helper()
	f, err := os.Open(l.Path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		all = append(all, s.Text())
	}
	return all
}

// Account compares what was accepted with what ran.
type Account struct {
	Accepted, Done, Lost, Ghosts, Extra int
	Missing                             []string // up to ten ids
}

// Balance draws up the account: lost is accepted and never run, a ghost ran and was never accepted, extra are runs
// beyond the first.
func Balance(accepted map[string]bool, runs map[string]int) Account {
	a := Account{Accepted: len(accepted)}
	for id := range accepted {
		if runs[id] == 0 {
			a.Lost++
			if len(a.Missing) < 10 {
				a.Missing = append(a.Missing, id)
			}
		}
	}
	for id, n := range runs {
		if !accepted[id] {
			a.Ghosts++
			continue
		}
		a.Done++
		a.Extra += n - 1
	}
	return a
}

// Forgive takes out of accepted what never ran of some ids, which a broker was allowed to lose, and returns how many
// that were. Whatever else never ran remains to be missed.
func Forgive(accepted map[string]bool, runs map[string]int, mayBeLost map[string]bool) (forgiven int) {
	for id := range mayBeLost {
		if accepted[id] && runs[id] == 0 {
			delete(accepted, id)
			forgiven++
		}
	}
	return forgiven
}

func (a Account) String() string {
	return fmt.Sprintf("accepted %d, done %d, lost %d, ghosts %d, extra runs %d", a.Accepted, a.Done, a.Lost, a.Ghosts, a.Extra)
}
