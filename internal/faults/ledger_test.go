package faults

import "testing"

// TestForgive has a broker lose what it might, and what it might not.
func TestForgive(t *testing.T) {
	t.Parallel()
	accepted := map[string]bool{"ran": true, "early": true, "late": true}
	runs := map[string]int{"ran": 1}
	if n := Forgive(accepted, runs, map[string]bool{"ran": true, "early": true, "refused": true}); n != 1 {
		t.Errorf("%d are forgiven; expected 1, the early one", n)
	}
	if a := Balance(accepted, runs); a.Accepted != 2 || a.Done != 1 || a.Lost != 1 || a.Missing[0] != "late" {
		t.Errorf("%v, missing %v; expected the late one to be missed", a, a.Missing)
	}
}
